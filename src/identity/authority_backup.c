/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: backup of an authority
 *
 * One sealed blob (seal.c, by the backup's own password), magic "x0bk", of: (u8 which | u32 length | bytes)*,
 * in order of `which`: the files of the directory as they are. So a restored authority opens with the
 * password it had. Tokens are left out on purpose: one that was used after the backup would be fresh again.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { PART_MAX = 256 << 20 };
static const char backup_magic[4] = "x0bk";

/* authority.key is written last when restoring: it makes the directory an authority. */
static const struct part {
	const char *name;
	bool optional;
} parts[] = {
	{ "authority.key", false }, { "seal.key", true }, { "bundle", false }, { "issued.log", false }
};

struct contents {
	uint8_t *p[ARRAY_SIZE(parts)]; /* owned; NULL: absent */
	size_t n[ARRAY_SIZE(parts)];
};

static void contents_fini(struct contents *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (c->p[i])
			secret_wipe(c->p[i], c->n[i]);
		free(c->p[i]);
	}
}

static int contents_read(const char *dir, struct contents *c, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		char *path;
		int rc = authority_path(dir, parts[i].name, &path, e);

		if (rc)
			return rc;
		rc = file_read(path, PART_MAX, &c->p[i], &c->n[i], e);
		free(path);
		if (rc && !(rc == ERR_NOT_FOUND && parts[i].optional))
			return rc;
	}
	return 0;
}

int authority_backup(const struct authority *a, const char *path, const char *password, struct err *e)
{
	struct contents c = { 0 };
	struct secret s = { 0 };
	uint8_t *blob = NULL;
	size_t blob_n = 0, total = 0;
	int rc = contents_read(a->dir, &c, e);

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		total += c.p[i] ? 5 + c.n[i] : 0;
	if (!rc && secret_init(&s, total))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	if (!rc) {
		struct wr w = wr_init(s.p, s.n);

		for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
			if (!c.p[i])
				continue;
			wr_u8(&w, (uint8_t)i);
			wr_u32(&w, (uint32_t)c.n[i]);
			wr_bytes(&w, c.p[i], c.n[i]);
		}
		rc = seal_password(backup_magic, password, s.p, s.n, &blob, &blob_n, e);
	}
	contents_fini(&c);
	secret_fini(&s);
	if (!rc)
		rc = file_write(path, blob, blob_n, 0600, e);
	free(blob);
	return rc;
}

static int contents_decode(const struct secret *s, struct contents *c, struct err *e)
{
	struct rd r = rd_init(s->p, s->n);
	int last = -1;

	while (rd_left(&r)) {
		uint8_t which = rd_u8(&r);
		size_t n = rd_u32(&r);
		const uint8_t *p = rd_bytes(&r, n);

		if (!p || which <= last || which >= ARRAY_SIZE(parts))
			return err_set(e, ERR_PARSE, "the backup is malformed");
		c->p[which] = malloc(n ? n : 1);
		if (!c->p[which])
			return err_set(e, ERR_NOMEM, "out of memory");
		memcpy(c->p[which], p, n);
		c->n[which] = n;
		last = which;
	}
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!c->p[i] && !parts[i].optional)
			return err_set(e, ERR_PARSE, "the backup lacks %s", parts[i].name);
	return 0;
}

static int write_part(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
	char *path;
	int rc = authority_path(dir, name, &path, e);

	if (rc)
		return rc;
	rc = p ? file_write(path, p, n, 0600, e) : 0;
	if (!p) /* a left-over of something else */
		unlink(path);
	free(path);
	return rc;
}

static int contents_write(const char *dir, const struct contents *c, struct err *e)
{
	int fd = -1, rc = dir_make(dir, 0700, e);

	if (!rc)
		rc = authority_lock(dir, &fd, e);
	if (!rc)
		rc = authority_absent(dir, e);
	if (!rc)
		rc = write_part(dir, "tokens.log", "x0jl", 4, e);
	for (size_t i = ARRAY_SIZE(parts); i-- > 0 && !rc;)
		rc = write_part(dir, parts[i].name, c->p[i], c->n[i], e);
	if (fd >= 0)
		close(fd);
	return rc;
}

int authority_restore(const char *path, const char *password, const char *dir, struct err *e)
{
	struct contents c = { 0 };
	struct secret s = { 0 };
	uint8_t *blob = NULL;
	size_t blob_n = 0;
	int rc = authority_absent(dir, e);

	if (!rc)
		rc = file_read(path, (size_t)PART_MAX * 4, &blob, &blob_n, e);
	if (!rc && seal_mode_of(backup_magic, blob, blob_n) != SEAL_PASSWORD)
		rc = err_set(e, ERR_PARSE, "%.200s is not a backup of an authority, or was cut short", path);
	if (!rc)
		rc = seal_open(backup_magic, password, NULL, blob, blob_n, &s, e);
	if (!rc)
		rc = contents_decode(&s, &c, e);
	if (!rc)
		rc = contents_write(dir, &c, e);
	contents_fini(&c);
	secret_fini(&s);
	free(blob);
	return rc;
}
