/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: journal
 *
 * An append-only file of checksummed records: "x0jl" | (u32 length | u32 its complement | first 8 bytes of
 * SHA-256 | record)*. An append is durable when it returns 0. A tail that a crash cut short or left as zeros
 * was never acknowledged and is dropped; a bad record with more behind it is damage and refuses to open: a
 * consumed token must not become fresh by a flipped bit (so a length proves itself: else a flipped one would
 * make the rest look torn). The checksum finds accidents; who may write the directory is the authority
 * anyway.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { RECORD_HEAD = 16, RECORD_MAX = 1 << 16, JOURNAL_MAX = 256 << 20 };
static const char journal_magic[4] = "x0jl";

static int record_head(uint8_t to[RECORD_HEAD], const void *p, size_t n)
{
	uint8_t h[SHA256_LEN];

	if (n > RECORD_MAX || sha256(p, n, h))
		return ERR_LIMIT;
	put_u32(to, (uint32_t)n);
	put_u32(to + 4, ~(uint32_t)n);
	memcpy(to + 8, h, 8);
	return 0;
}

static bool all_zero(const uint8_t *p, const uint8_t *end)
{
	while (p < end)
		if (*p++)
			return false;
	return true;
}

/* Calls fn for each whole record; *ret_good is where the good part ends. */
static int replay(const uint8_t *p, size_t n, journal_fn *fn, void *arg, size_t *ret_good, struct err *e)
{
	struct rd r = rd_init(p, n);

	rd_bytes(&r, sizeof(journal_magic));
	while (rd_left(&r)) {
		const uint8_t *start = r.p, *sum, *rec;
		uint32_t len = rd_u32(&r), complement = rd_u32(&r);
		uint8_t h[SHA256_LEN];
		bool torn;
		int rc;

		sum = rd_bytes(&r, 8);
		torn = !sum || all_zero(start, p + n);
		if (!torn && (len != ~complement || len > RECORD_MAX))
			return err_set(e, ERR_PARSE, "record at byte %zu is damaged", (size_t)(start - p));
		rec = torn ? NULL : rd_bytes(&r, len);
		if (!rec || sha256(rec, len, h) || memcmp(h, sum, 8)) {
			if (rec && rec + len != p + n)
				return err_set(e, ERR_PARSE, "record at byte %zu is damaged",
					       (size_t)(start - p));
			*ret_good = (size_t)(start - p);
			return 0;
		}
		rc = fn(arg, rec, len, e);
		if (rc)
			return rc;
	}
	*ret_good = n;
	return 0;
}

int journal_open(struct journal *j, const char *path, journal_fn *fn, void *arg, struct err *e)
{
	uint8_t *p = NULL;
	size_t n = 0, good = 0;
	int rc;

	*j = (struct journal){ .fd = -1 };
	rc = file_read(path, JOURNAL_MAX, &p, &n, e);
	if (rc)
		return rc;
	if (n < sizeof(journal_magic) || memcmp(p, journal_magic, sizeof(journal_magic)))
		rc = err_set(e, ERR_PARSE, "%.200s is not a journal", path);
	else
		rc = replay(p, n, fn, arg, &good, e);
	if (rc)
		err_prefix(e, "%.200s", path);
	free(p);
	if (rc)
		return rc;
	j->path = strdup(path);
	if (!j->path)
		return err_set(e, ERR_NOMEM, "out of memory");
	j->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (j->fd < 0)
		rc = err_sys(e, "cannot open %.200s", path);
	else if (good < n && (ftruncate(j->fd, (off_t)good) || fsync(j->fd)))
		rc = err_sys(e, "cannot cut the torn end off %.200s", path);
	if (rc) {
		journal_close(j);
		return rc;
	}
	j->size = good;
	return 0;
}

int journal_append(struct journal *j, const void *p, size_t n, struct err *e)
{
	uint8_t buf[RECORD_HEAD + RECORD_MAX];
	size_t total = RECORD_HEAD + n, done = 0;
	int rc;

	if (j->fd < 0 || j->broken)
		return err_set(e, ERR_FAILED, "%.200s could not be written before: restart to recover",
			       j->path ? j->path : "the journal");
	if (record_head(buf, p, n))
		return err_set(e, ERR_LIMIT, "a record of %zu bytes is too long", n);
	memcpy(buf + RECORD_HEAD, p, n);
	while (done < total) {
		ssize_t k = pwrite(j->fd, buf + done, total - done, (off_t)(j->size + done));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			break;
		done += (size_t)k;
	}
	/* After a failed fsync nobody knows what is on the disk (the kernel marks pages clean): never try to
	 * go on. */
	if (done == total && !fsync(j->fd)) {
		j->size += total;
		return 0;
	}
	rc = err_sys(e, "cannot write %.200s", j->path);
	err_todo(e, "free space on that file system, or make it writable");
	if (done == total || ftruncate(j->fd, (off_t)j->size))
		j->broken = true;
	return rc;
}

int journal_image_add(struct journal_image *im, const void *p, size_t n)
{
	size_t need = RECORD_HEAD + n + (im->n ? 0 : sizeof(journal_magic));

	if (im->n + need > im->cap) {
		size_t cap = (im->n + need) * 2;
		uint8_t *q = realloc(im->p, cap);

		if (!q)
			return ERR_NOMEM;
		im->p = q;
		im->cap = cap;
	}
	if (!im->n) {
		memcpy(im->p, journal_magic, sizeof(journal_magic));
		im->n = sizeof(journal_magic);
	}
	if (!p) /* an empty journal */
		return 0;
	if (record_head(im->p + im->n, p, n))
		return ERR_LIMIT;
	memcpy(im->p + im->n + RECORD_HEAD, p, n);
	im->n += RECORD_HEAD + n;
	return 0;
}

int journal_replace(struct journal *j, const struct journal_image *im, struct err *e)
{
	int fd, rc = file_write(j->path, im->p, im->n, 0600, e);

	if (rc)
		return rc;
	fd = open(j->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		j->broken = true; /* the open one was renamed away: writing there would be lost */
		return err_sys(e, "cannot open %.200s", j->path);
	}
	close(j->fd);
	j->fd = fd;
	j->size = im->n;
	return 0;
}

void journal_close(struct journal *j)
{
	if (j->path && j->fd >= 0)
		close(j->fd);
	free(j->path);
	*j = (struct journal){ .fd = -1 };
}
