/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance driver's own parts: one runner per family of formats, each told a whole file. */
#ifndef X0_TESTS_VECTORS_H
#define X0_TESTS_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct vfile {
	const char *path, *name; /* name: the last component */
	const uint8_t *p;	 /* the bytes, unpacked if the file was .gz; NUL-terminated */
	size_t n;
	yyjson_val *root; /* NULL: not JSON */
	unsigned passed, failed, unsupported;
	void *pool; /* freed with the file */
};

/* RAN: it was this runner's format, the counts say how it went. LATER: known, but this build has no such
 * part. */
enum vrun { V_NOT_MINE, V_RAN, V_LATER };
typedef enum vrun vrunner(struct vfile *f);

vrunner wycheproof_run, acvp_run, cctv_run, pem_run, spiffe_run, replay_run;
enum vrun wycheproof_pq_group(struct vfile *f, const char *type, yyjson_val *group);

/* One case: counts it, and prints a failure with its label. Returns ok. */
bool check(struct vfile *f, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

struct bytes {
	uint8_t *p; /* never NULL */
	size_t n;
	bool absent; /* no such member, or not hexadecimal */
};

void *pool_alloc(struct vfile *f, size_t n); /* zeroed, lives as long as the file */
struct bytes hex_of(struct vfile *f, const char *s, size_t n);
struct bytes hex_member(struct vfile *f, yyjson_val *obj, const char *name);
const char *str_member(yyjson_val *obj, const char *name); /* "" if absent */
bool bytes_equal(struct bytes a, const void *p, size_t n);

#endif
