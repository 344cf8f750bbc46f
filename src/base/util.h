/* SPDX-License-Identifier: Apache-2.0 */
/* Small things everyone needs: text encodings, durable files, array sizes. */
#ifndef X0_BASE_UTIL_H
#define X0_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* Encoders write a terminating NUL and return the length without it; `to` must hold the stated size. */
size_t hex_encode(char *to, const void *p, size_t n); /* 2n + 1 */
ssize_t hex_decode(
	void *to, size_t cap, const char *s,
	size_t n); /* bytes, or ERR_PARSE; both cases of digits; ERR_LIMIT beyond cap, as in all decoders */
size_t base32_encode(char *to, const void *p,
		     size_t n); /* (8n+4)/5 + 1; lower case, no padding (RFC 4648 alphabet) */
ssize_t base32_decode(void *to, size_t cap, const char *s,
		      size_t n);			 /* either case; refuses non-zero left-over bits */
size_t base64_encode(char *to, const void *p, size_t n); /* 4*((n+2)/3) + 1; standard alphabet, padded */
ssize_t base64_decode(void *to, size_t cap, const char *s, size_t n); /* standard, padded, no white space */
ssize_t base64url_decode(void *to, size_t cap, const char *s,
			 size_t n); /* URL alphabet, unpadded, strict (RFC 7515) */

/* Whole file into a NUL-terminated malloc'ed buffer (owned by the caller); more than `max` bytes is
 * ERR_LIMIT, a missing file ERR_NOT_FOUND, other failures ERR_SYS (errno kept). It may hold a key: callers
 * wipe what needs it. */
int file_read(const char *path, size_t max, uint8_t **ret_p, size_t *ret_n, struct err *e);
/* Durable replacement: temporary file in the same directory, fsync, rename, fsync of the directory. Mode as
 * given. */
int file_write(const char *path, const void *p, size_t n, unsigned mode, struct err *e);
/* mkdir -p with the mode for what it makes. */
int dir_make(const char *path, unsigned mode, struct err *e);

/* snprintf that never truncates silently: 0, or ERR_LIMIT and "" if it would not fit. */
int str_fmt(char *to, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Length of the UTF-8 character at p (RFC 3629, n bytes left) and its code point; 0 if the bytes are none. */
size_t utf8_char(const void *p, size_t n, uint32_t *cp);
/* The candidate nearest to `s` by Damerau-Levenshtein distance (at most 3), or NULL: for "did you mean". */
const char *str_nearest(const char *s, const char *const *candidates, size_t n);

#endif
