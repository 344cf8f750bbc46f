/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: text encodings, durable files, small string helpers
 *
 * Decoders are strict: one text for one byte string (no white space, no wrong padding, no left-over bits),
 * because tokens and keys are compared and hashed as text too. Sources: RFC 4648 (base16, base32, base64),
 * RFC 7515 (base64url).
 *
 * Files are replaced durably: a reader sees the old or the new content, after any crash; what was written may
 * be secret, so buffers are wiped before they are given back.
 */
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char hex_digits[] = "0123456789abcdef";
static const char base32_digits[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t hex_encode(char *to, const void *p, size_t n)
{
	const uint8_t *in = p;

	for (size_t i = 0; i < n; i++) {
		to[2 * i] = hex_digits[in[i] >> 4];
		to[2 * i + 1] = hex_digits[in[i] & 15];
	}
	to[2 * n] = '\0';
	return 2 * n;
}

/* The value of a digit, or -1. */
static int digit(const char *digits, size_t base, char c)
{
	const char *at = c ? memchr(digits, c, base) : NULL;

	return at ? (int)(at - digits) : -1;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/*
 * Digits of `bits` bits each into bytes, most significant first. Left-over bits must be zero and fewer than a
 * digit: then exactly one text gives these bytes.
 */
static ssize_t bits_decode(uint8_t *to, size_t cap, const char *s, size_t n, const char *digits,
			   unsigned bits, bool fold)
{
	uint32_t acc = 0;
	unsigned have = 0;
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		int d = digit(digits, 1u << bits, fold ? lower(s[i]) : s[i]);

		if (d < 0)
			return ERR_PARSE;
		acc = (acc << bits | (uint32_t)d) & 0xffff;
		have += bits;
		if (have >= 8) {
			if (len == cap)
				return ERR_LIMIT;
			have -= 8;
			to[len++] = (uint8_t)(acc >> have);
		}
	}
	if (have >= bits || (acc & ((1u << have) - 1)))
		return ERR_PARSE;
	return (ssize_t)len;
}

static size_t bits_encode(char *to, const uint8_t *in, size_t n, const char *digits, unsigned bits)
{
	uint32_t acc = 0;
	unsigned have = 0;
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		acc = (acc << 8 | in[i]) & 0xffff;
		for (have += 8; have >= bits;) {
			have -= bits;
			to[len++] = digits[acc >> have & ((1u << bits) - 1)];
		}
	}
	if (have)
		to[len++] = digits[acc << (bits - have) & ((1u << bits) - 1)];
	to[len] = '\0';
	return len;
}

ssize_t hex_decode(void *to, size_t cap, const char *s, size_t n)
{
	return bits_decode(to, cap, s, n, hex_digits, 4, true);
}

size_t base32_encode(char *to, const void *p, size_t n)
{
	return bits_encode(to, p, n, base32_digits, 5);
}

ssize_t base32_decode(void *to, size_t cap, const char *s, size_t n)
{
	return bits_decode(to, cap, s, n, base32_digits, 5, true);
}

size_t base64_encode(char *to, const void *p, size_t n)
{
	size_t len = bits_encode(to, p, n, base64_digits, 6);

	while (len % 4)
		to[len++] = '=';
	to[len] = '\0';
	return len;
}

ssize_t base64_decode(void *to, size_t cap, const char *s, size_t n)
{
	size_t pad = 0;

	if (n % 4)
		return ERR_PARSE;
	while (pad < 2 && n > pad && s[n - 1 - pad] == '=')
		pad++;
	/* A '=' elsewhere is no digit; too much padding leaves more bits over than a digit has. */
	return bits_decode(to, cap, s, n - pad, base64_digits, 6, false);
}

ssize_t base64url_decode(void *to, size_t cap, const char *s, size_t n)
{
	return bits_decode(to, cap, s, n, base64url_digits, 6, false);
}

static void buffer_drop(uint8_t *p, size_t n)
{
	if (p)
		explicit_bzero(p, n);
	free(p);
}

/* Doubles up to `limit`; the old buffer may hold a key, so it is wiped, which realloc() would not. */
static int buffer_grow(uint8_t **p, size_t *cap, size_t limit)
{
	size_t more = *cap > limit / 2 ? limit : *cap * 2;
	uint8_t *to = malloc(more);

	if (!to)
		return ERR_NOMEM;
	memcpy(to, *p, *cap);
	buffer_drop(*p, *cap);
	*p = to;
	*cap = more;
	return 0;
}

/* Reads fd to its end; room for the NUL is always left. */
static int fd_read_all(int fd, const char *path, size_t max, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	struct stat st;
	size_t cap = 4096, n = 0;
	uint8_t *p;

	if (max > SIZE_MAX - 2)
		max = SIZE_MAX - 2;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (uintmax_t)st.st_size <= max)
		cap = (size_t)st.st_size +
		      2; /* one byte more than the file: its end is seen without growing */
	if (cap > max + 2)
		cap = max + 2;
	p = malloc(cap);
	while (p) {
		ssize_t got = read(fd, p + n, cap - 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			err_sys(e, "cannot read %s", path);
			buffer_drop(p, cap);
			return ERR_SYS;
		}
		n += (size_t)got;
		if (n > max) {
			buffer_drop(p, cap);
			return err_set(e, ERR_LIMIT, "%s is larger than %zu bytes", path, max);
		}
		if (got == 0) {
			p[n] = '\0';
			*ret_p = p;
			*ret_n = n;
			return 0;
		}
		if (n == cap - 1 && buffer_grow(&p, &cap, max + 2) < 0)
			break;
	}
	buffer_drop(p, cap);
	return err_set(e, ERR_NOMEM, "out of memory reading %s", path);
}

int file_read(const char *path, size_t max, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc;

	if (fd < 0) {
		rc = errno == ENOENT ? ERR_NOT_FOUND : ERR_SYS;
		err_sys(e, "cannot open %s", path);
		if (e)
			e->code = rc;
		return rc;
	}
	rc = fd_read_all(fd, path, max, ret_p, ret_n, e);
	close(fd);
	return rc;
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t put = write(fd, p, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

/* The mode is set by fchmod, so that the umask has no say; the file is 0600 until then. */
static int temp_fill(int fd, const void *p, size_t n, unsigned mode)
{
	if (fchmod(fd, mode) < 0 || write_all(fd, p, n) < 0 || fsync(fd) < 0)
		return -1;
	return 0;
}

static int dir_sync(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc, saved;

	if (fd < 0)
		return -1;
	rc = fsync(fd);
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

int file_write(const char *path, const void *p, size_t n, unsigned mode, struct err *e)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char *temp = NULL, *dir = NULL;
	int fd = -1, rc = ERR_NOMEM;

	if (!*name)
		return err_set(e, ERR_USAGE, "\"%s\" is not the name of a file", path);
	dir = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	if (!dir || asprintf(&temp, "%s/.%s.XXXXXX", dir, name) < 0) {
		temp = NULL;
		err_set(e, ERR_NOMEM, "out of memory writing %s", path);
		goto out;
	}
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0) {
		rc = err_sys(e, "cannot create a file in %s", dir);
		goto out;
	}
	if (temp_fill(fd, p, n, mode) < 0 || rename(temp, path) < 0) {
		rc = err_sys(e, "cannot write %s", path);
		unlink(temp);
		goto out;
	}
	rc = dir_sync(dir) < 0 ? err_sys(e, "cannot make %s durable", path) : 0;
out:
	if (fd >= 0)
		close(fd);
	free(temp);
	free(dir);
	return rc;
}

/* The next directory down, made if missing: its fd or -1. */
static int dir_step(int at, const char *name, unsigned mode)
{
	bool made = mkdirat(at, name, 0700) == 0;
	int fd;

	if (!made && errno != EEXIST)
		return -1;
	fd = openat(at, name, O_DIRECTORY | O_CLOEXEC | (made ? O_RDONLY | O_NOFOLLOW : O_PATH));
	if (fd >= 0 && made && fchmod(fd, mode) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int dir_make(const char *path, unsigned mode, struct err *e)
{
	int at = open(*path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;
	char *copy = strdup(path), *save = NULL;

	if (!copy) {
		rc = err_set(e, ERR_NOMEM, "out of memory making %s", path);
		goto out;
	}
	for (char *name = strtok_r(copy, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		int next = at < 0 ? -1 : dir_step(at, name, mode);

		if (next < 0) {
			rc = err_sys(e, "cannot make directory %s", path);
			goto out;
		}
		close(at);
		at = next;
	}
out:
	if (at >= 0)
		close(at);
	free(copy);
	return rc;
}

int str_fmt(char *to, size_t cap, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(to, cap, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < cap)
		return 0;
	if (cap)
		to[0] = '\0';
	return ERR_LIMIT;
}

size_t utf8_char(const void *p, size_t n, uint32_t *cp)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *s = p;
	unsigned len;
	uint32_t v;

	if (n == 0)
		return 0;
	len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (len == 0 || len > n)
		return 0;
	v = len == 1 ? s[0] : s[0] & (0x7fu >> len);
	for (unsigned i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (s[i] & 0x3fu);
	}
	if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return 0;
	*cp = v;
	return len;
}

enum { NEAR_MAX = 3, NEAR_LEN = 64 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Optimal string alignment (Damerau-Levenshtein without overlapping edits); lengths below NEAR_LEN. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
	uint8_t row[3][NEAR_LEN]; /* i-2, i-1, i, modulo 3 */

	for (size_t j = 0; j <= nb; j++)
		row[0][j] = (uint8_t)j;
	for (size_t i = 1; i <= na; i++) {
		uint8_t *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];

		now[0] = (uint8_t)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned cost = a[i - 1] != b[j - 1];
			unsigned d = min3(up[j] + 1u, now[j - 1] + 1u, up[j - 1] + cost);

			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    up2[j - 2] + 1u < d)
				d = up2[j - 2] + 1u;
			now[j] = (uint8_t)d;
		}
	}
	return row[na % 3][nb];
}

const char *str_nearest(const char *s, const char *const *candidates, size_t n)
{
	const char *best = NULL;
	unsigned best_d = NEAR_MAX + 1;
	size_t ns = strlen(s);

	if (ns >= NEAR_LEN)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t nc = strlen(candidates[i]);
		unsigned d;

		if (nc >= NEAR_LEN || nc > ns + NEAR_MAX || ns > nc + NEAR_MAX)
			continue;
		d = distance(s, ns, candidates[i], nc);
		/* Replacing a whole short word is no typing error. */
		if (d < best_d && d < (ns > nc ? ns : nc)) {
			best = candidates[i];
			best_d = d;
		}
	}
	return best;
}
