/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: conformance vectors
 *
 * vectors PATH...: runs every file of a known format at or below each path against the program's own modules,
 * and says so line by line. Formats are recognised by what is in a file, not where it lies. Exit status 0
 * only if something ran and nothing failed. Sources of the sets: the MANIFEST beside them.
 */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "crypto/crypto.h"
#include "vectors.h"

enum { FILE_MAX = 64 << 20, REPORT_MAX = 20, DEPTH_MAX = 16 };

static vrunner *const runners[] = { wycheproof_run, acvp_run, spiffe_run, replay_run, pem_run, cctv_run };
static unsigned long total_ran, total_failed;

struct pool {
	struct pool *next;
};

void *pool_alloc(struct vfile *f, size_t n)
{
	struct pool *p = calloc(1, sizeof(*p) + n);

	if (!p) {
		fprintf(stderr, "vectors: out of memory\n");
		exit(1);
	}
	p->next = f->pool;
	f->pool = p;
	return p + 1;
}

static void pool_free(struct vfile *f)
{
	struct pool *p = f->pool, *next;

	for (; p; p = next) {
		next = p->next;
		free(p);
	}
	f->pool = NULL;
}

bool check(struct vfile *f, bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok) {
		f->passed++;
		return true;
	}
	if (++f->failed <= REPORT_MAX) {
		fprintf(stderr, "%s: FAILED ", f->path);
		va_start(ap, fmt);
		vfprintf(stderr, fmt, ap);
		va_end(ap);
		fputc('\n', stderr);
	}
	return false;
}

struct bytes hex_of(struct vfile *f, const char *s, size_t n)
{
	struct bytes b = { .p = pool_alloc(f, n / 2 + 1) };
	ssize_t k = hex_decode(b.p, n / 2 + 1, s, n);

	if (k < 0)
		b.absent = true;
	else
		b.n = (size_t)k;
	return b;
}

struct bytes hex_member(struct vfile *f, yyjson_val *obj, const char *name)
{
	yyjson_val *v = yyjson_obj_get(obj, name);

	if (!yyjson_is_str(v))
		return (struct bytes){ .p = pool_alloc(f, 1), .absent = true };
	return hex_of(f, yyjson_get_str(v), yyjson_get_len(v));
}

const char *str_member(yyjson_val *obj, const char *name)
{
	const char *s = yyjson_get_str(yyjson_obj_get(obj, name));

	return s ? s : "";
}

bool bytes_equal(struct bytes a, const void *p, size_t n)
{
	return !a.absent && a.n == n && (n == 0 || memcmp(a.p, p, n) == 0);
}

/* ---- formats of parts this build does not have ---- */

static bool has_marker(yyjson_val *obj)
{
	static const char *const markers[] = {
		"shouldParse",		    /* OpenMetrics */
		"leafIdx",	   "size1", /* Merkle proofs */
		"txbytes",	   "privateKey",     "keccak256",
		"decoded",	   "transaction",    "primaryType",
		"decryption_type", "term",	     "sig_of_emptystring",
		"bytecode",	   "verbose",	     /* Ethereum */
		"protocol_name",   "handshake_hash", /* Noise */
		"kem_id",	   "kemId",	     /* HPKE */
	};

	for (size_t i = 0; yyjson_is_obj(obj) && i < ARRAY_SIZE(markers); i++) {
		if (yyjson_obj_get(obj, markers[i]))
			return true;
	}
	/* Generic names count only in the pairs these sets use them in. */
	return yyjson_is_obj(obj) && ((yyjson_obj_get(obj, "in") && yyjson_obj_get(obj, "out")) ||
				      (yyjson_obj_get(obj, "args") && yyjson_obj_get(obj, "result")) ||
				      (yyjson_obj_get(obj, "json") && yyjson_obj_get(obj, "password")) ||
				      (yyjson_obj_get(obj, "type") && yyjson_obj_get(obj, "value")));
}

static yyjson_val *first_child(yyjson_val *v)
{
	if (yyjson_is_arr(v))
		return yyjson_arr_get_first(v);
	return yyjson_is_obj(v) ? yyjson_obj_iter_get_val(unsafe_yyjson_get_first(v)) : NULL;
}

static bool is_later(const struct vfile *f)
{
	const char *format = str_member(f->root, "format");
	yyjson_val *v = f->root;

	if (strncmp(format, "mesh-policy-cases/", 18) == 0 || strncmp(format, "raft-", 5) == 0)
		return true;
	if (strstr(str_member(f->root, "schema"), "hpke") ||
	    strstr(str_member(f->root, "algorithm"), "HPKE") ||
	    strstr(str_member(f->root, "algorithm"), "composite"))
		return true;
	for (int depth = 0; v && depth < 3; depth++) {
		if (has_marker(v))
			return true;
		if ((yyjson_is_arr(v) && !yyjson_arr_size(v)) || (yyjson_is_obj(v) && !yyjson_obj_size(v)))
			return false;
		v = first_child(v);
	}
	return false;
}

/* ---- files ---- */

/* gzread() passes plain files through, so one reader serves both. */
static uint8_t *slurp(const char *path, size_t *ret_n)
{
	gzFile g = gzopen(path, "rb");
	size_t cap = 1 << 16, n = 0;
	uint8_t *p = g ? malloc(cap + 1) : NULL, *q;
	int k = -1;

	while (p && (k = gzread(g, p + n, (unsigned)(cap - n))) > 0) {
		n += (size_t)k;
		if (n < cap)
			continue;
		cap *= 2;
		q = cap <= FILE_MAX ? realloc(p, cap + 1) : NULL;
		if (!q)
			break;
		p = q;
	}
	if (g && gzclose_r(g) != Z_OK)
		k = -1;
	if (!p || k != 0) {
		free(p);
		return NULL;
	}
	p[n] = 0;
	*ret_n = n;
	return p;
}

static void file_run(const char *path)
{
	const char *slash = strrchr(path, '/');
	struct vfile f = { .path = path, .name = slash ? slash + 1 : path };
	uint8_t *p = slurp(path, &f.n);
	yyjson_doc *doc;
	enum vrun r = V_NOT_MINE;

	if (!p) {
		printf("%s: cannot be read\n", path);
		total_failed++;
		return;
	}
	f.p = p;
	doc = yyjson_read((const char *)p, f.n, YYJSON_READ_NOFLAG);
	f.root = yyjson_doc_get_root(doc);
	for (size_t i = 0; r == V_NOT_MINE && i < ARRAY_SIZE(runners); i++)
		r = runners[i](&f);
	if (r == V_NOT_MINE && f.root && is_later(&f))
		r = V_LATER;
	if (r == V_RAN && f.passed + f.failed == 0)
		r = V_LATER;
	if (r == V_RAN && f.unsupported)
		printf("%s: %u passed, %u failed, %u not supported\n", path, f.passed, f.failed,
		       f.unsupported);
	else if (r == V_RAN)
		printf("%s: %u passed, %u failed\n", path, f.passed, f.failed);
	else
		printf("%s: skipped (%s)\n", path, r == V_LATER ? "not built yet" : "unknown format");
	total_ran += f.passed + f.failed;
	total_failed += f.failed;
	pool_free(&f);
	yyjson_doc_free(doc);
	free(p);
}

struct frame {
	char *path;
	struct dirent **names;
	int n, at;
};

static int not_dots(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* Depth first in the order of names, with a stack of our own. */
static void path_run(const char *path)
{
	struct frame stack[DEPTH_MAX];
	int depth = 0;
	char *at = strdup(path);
	struct stat st;

	while (at || depth > 0) {
		struct frame *f = depth ? &stack[depth - 1] : NULL;

		if (!at) {
			if (f->at < f->n) {
				if (asprintf(&at, "%s/%s", f->path, f->names[f->at]->d_name) < 0)
					exit(1);
				free(f->names[f->at++]);
				continue;
			}
			free(f->names);
			free(f->path);
			depth--;
			continue;
		}
		if (stat(at, &st)) {
			fprintf(stderr, "%s: %s\n", at, strerror(errno));
			total_failed++;
		} else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
			f = &stack[depth];
			*f = (struct frame){ .path = at };
			f->n = scandir(at, &f->names, not_dots, alphasort);
			if (f->n < 0) {
				fprintf(stderr, "%s: %s\n", at, strerror(errno));
				total_failed++;
				f->n = 0;
				f->names = NULL;
			}
			depth++;
			at = NULL;
			continue;
		} else if (S_ISREG(st.st_mode)) {
			file_run(at);
		}
		free(at);
		at = NULL;
	}
}

int main(int argc, char **argv)
{
	struct err e;

	if (argc < 2) {
		fprintf(stderr, "usage: vectors PATH...\n");
		return 2;
	}
	if (crypto_init(&e)) {
		fprintf(stderr, "vectors: %s\n", e.what);
		return 1;
	}
	for (int i = 1; i < argc; i++)
		path_run(argv[i]);
	printf("total: %lu passed, %lu failed\n",
	       total_ran - (total_failed < total_ran ? total_failed : total_ran), total_failed);
	if (!total_ran)
		fprintf(stderr, "vectors: nothing ran\n");
	return total_ran && !total_failed ? 0 : 1;
}
