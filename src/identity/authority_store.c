/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the authority remembers
 *
 * Two journals. `issued.log`: the SVIDs given to each identity; in memory the last of each, sorted by SPIFFE
 * ID. `tokens.log`: a token's life: made, consumed by these two keys, answered with these leaves. Each record
 * is on disk before its effect leaves the process, so after a crash a token is never fresh again and no SVID
 * is unknown. Both are rewritten with what still matters when they have grown to a multiple of it.
 */
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum {
	ISSUED_VERSION = 1,
	ISSUED_F_EPHEMERAL = 1,
	ISSUED_MAX = 8 + SPIFFE_ID_MAX + 32 + 2 * SHA256_LEN + 16
};
enum { TOKEN_REC_MADE = 1, TOKEN_REC_CONSUMED = 2, TOKEN_REC_LEAVES = 3, TOKEN_F_EPHEMERAL = 1 };
enum { LEAVES_MAX = 2 * (2 + CERT_MAX), TOKENS_MAX = 100000, COMPACT_MIN = 1 << 20 };

int authority_path(const char *dir, const char *name, char **ret, struct err *e)
{
	size_t cap = strlen(dir) + strlen(name) + 2;
	char *p = malloc(cap);

	if (!p)
		return err_set(e, ERR_NOMEM, "out of memory");
	str_fmt(p, cap, "%s/%s", dir, name);
	*ret = p;
	return 0;
}

/* ---- issued ---- */

static size_t issued_place(const struct authority *a, const char *uri)
{
	size_t lo = 0, hi = a->nissued;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(a->issued[mid].uri, uri) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct issued *issued_find(const struct authority *a, const char *uri)
{
	size_t i = issued_place(a, uri);

	return i < a->nissued && !strcmp(a->issued[i].uri, uri) ? a->issued + i : NULL;
}

/* Into memory; a later record of the same identity replaces the earlier, but the latest expiry stays. */
static int issued_remember(struct authority *a, const struct issued *rec)
{
	size_t i = issued_place(a, rec->uri);
	struct issued *s;
	char *uri;

	if (i < a->nissued && !strcmp(a->issued[i].uri, rec->uri)) {
		int64_t not_after = a->issued[i].not_after;

		uri = a->issued[i].uri;
		a->issued[i] = *rec;
		a->issued[i].uri = uri;
		if (not_after > rec->not_after)
			a->issued[i].not_after = not_after;
		return 0;
	}
	uri = strdup(rec->uri);
	if (!uri || array_grow((void **)&a->issued, a->nissued, sizeof(*a->issued))) {
		free(uri);
		return ERR_NOMEM;
	}
	s = a->issued + i;
	memmove(s + 1, s, (a->nissued - i) * sizeof(*s));
	*s = *rec;
	s->uri = uri;
	a->nissued++;
	return 0;
}

static size_t issued_encode(const struct issued *rec, uint8_t to[ISSUED_MAX])
{
	struct wr w = wr_init(to, ISSUED_MAX);

	wr_u8(&w, ISSUED_VERSION);
	wr_u8(&w, rec->ephemeral ? ISSUED_F_EPHEMERAL : 0);
	wr_u16(&w, (uint16_t)strlen(rec->uri));
	wr_bytes(&w, rec->uri, strlen(rec->uri));
	wr_bytes(&w, rec->addr, sizeof(rec->addr));
	wr_bytes(&w, rec->serial, sizeof(rec->serial));
	wr_bytes(&w, rec->link_key, SHA256_LEN);
	wr_bytes(&w, rec->spiffe_key, SHA256_LEN);
	wr_u64(&w, (uint64_t)rec->at);
	wr_u64(&w, (uint64_t)rec->not_after);
	return wr_len(&w);
}

static int issued_replay(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct authority *a = arg;
	struct rd r = rd_init(p, n);
	struct issued rec = { 0 };
	char uri[SPIFFE_ID_MAX + 1];
	uint8_t version = rd_u8(&r), flags = rd_u8(&r);
	size_t uri_n = rd_u16(&r);
	const uint8_t *text = rd_bytes(&r, uri_n);

	rd_copy(&r, rec.addr, sizeof(rec.addr));
	rd_copy(&r, rec.serial, sizeof(rec.serial));
	rd_copy(&r, rec.link_key, SHA256_LEN);
	rd_copy(&r, rec.spiffe_key, SHA256_LEN);
	rec.at = (int64_t)rd_u64(&r);
	rec.not_after = (int64_t)rd_u64(&r);
	if (!rd_done(&r) || version != ISSUED_VERSION || uri_n > SPIFFE_ID_MAX || memchr(text, 0, uri_n))
		return err_set(e, ERR_PARSE, "a record of an issued SVID is malformed");
	memcpy(uri, text, uri_n);
	uri[uri_n] = 0;
	rec.uri = uri;
	rec.ephemeral = flags & ISSUED_F_EPHEMERAL;
	if (issued_remember(a, &rec))
		return err_set(e, ERR_NOMEM, "out of memory");
	return 0;
}

static void issued_compact(struct authority *a)
{
	struct journal_image im = { 0 };
	uint8_t buf[ISSUED_MAX];
	uint64_t live = 0;
	int rc;

	for (size_t i = 0; i < a->nissued; i++)
		live += sizeof(*a->issued) + strlen(a->issued[i].uri);
	if (a->issued_log.size < COMPACT_MIN || a->issued_log.size < 4 * live)
		return;
	rc = journal_image_add(&im, NULL, 0);
	for (size_t i = 0; i < a->nissued && !rc; i++)
		rc = journal_image_add(&im, buf, issued_encode(a->issued + i, buf));
	if (!rc)
		journal_replace(&a->issued_log, &im, NULL); /* on failure the long one stays in use */
	free(im.p);
}

int issued_add(struct authority *a, const struct issued *rec, struct err *e)
{
	uint8_t buf[ISSUED_MAX];
	int rc = journal_append(&a->issued_log, buf, issued_encode(rec, buf), e);

	if (rc)
		return rc;
	if (issued_remember(a, rec))
		return err_set(e, ERR_NOMEM, "out of memory");
	issued_compact(a);
	return 0;
}

/* ---- tokens ---- */

struct token_record *token_find(const struct authority *a, const uint8_t id[TOKEN_ID])
{
	for (size_t i = 0; i < a->ntokens; i++)
		if (!memcmp(a->tokens[i].id, id, TOKEN_ID))
			return a->tokens + i;
	return NULL;
}

static int token_remember(struct authority *a, const struct token_record *t)
{
	if (array_grow((void **)&a->tokens, a->ntokens, sizeof(*t)))
		return ERR_NOMEM;
	a->tokens[a->ntokens++] = *t;
	return 0;
}

static size_t token_made(const struct token_record *t, uint8_t *to, size_t cap)
{
	struct wr w = wr_init(to, cap);

	wr_u8(&w, TOKEN_REC_MADE);
	wr_bytes(&w, t->id, TOKEN_ID);
	wr_bytes(&w, t->key, SHA256_LEN);
	wr_u64(&w, (uint64_t)t->not_after);
	wr_u8(&w, t->ephemeral ? TOKEN_F_EPHEMERAL : 0);
	wr_u8(&w, (uint8_t)strlen(t->name));
	wr_bytes(&w, t->name, strlen(t->name));
	return wr_len(&w);
}

static size_t token_used(const struct token_record *t, const uint8_t keys[SHA256_LEN], uint8_t *to,
			 size_t cap)
{
	struct wr w = wr_init(to, cap);

	wr_u8(&w, TOKEN_REC_CONSUMED);
	wr_bytes(&w, t->id, TOKEN_ID);
	wr_bytes(&w, keys, SHA256_LEN);
	return wr_len(&w);
}

static size_t token_answered(const struct token_record *t, const uint8_t *p, size_t n, uint8_t *to,
			     size_t cap)
{
	struct wr w = wr_init(to, cap);

	wr_u8(&w, TOKEN_REC_LEAVES);
	wr_bytes(&w, t->id, TOKEN_ID);
	wr_bytes(&w, p, n);
	return wr_ok(&w) ? wr_len(&w) : 0;
}

static int token_set_leaves(struct token_record *t, const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	if (!copy)
		return ERR_NOMEM;
	memcpy(copy, p, n);
	free(t->leaves);
	t->leaves = copy;
	t->leaves_n = n;
	return 0;
}

static int token_replay(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct authority *a = arg;
	struct rd r = rd_init(p, n);
	uint8_t type = rd_u8(&r);
	const uint8_t *id = rd_bytes(&r, TOKEN_ID);
	struct token_record made = { 0 }, *t = id ? token_find(a, id) : NULL;
	size_t len;
	const uint8_t *q;

	if (type == TOKEN_REC_MADE && id && !t) {
		memcpy(made.id, id, TOKEN_ID);
		rd_copy(&r, made.key, SHA256_LEN);
		made.not_after = (int64_t)rd_u64(&r);
		made.ephemeral = rd_u8(&r) & TOKEN_F_EPHEMERAL;
		len = rd_u8(&r);
		q = rd_bytes(&r, len);
		if (rd_done(&r) && len <= NODE_NAME_MAX) {
			memcpy(made.name, q, len);
			return token_remember(a, &made) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
		}
	} else if (type == TOKEN_REC_CONSUMED && t) {
		rd_copy(&r, t->keys, SHA256_LEN);
		t->state = TOKEN_CONSUMED;
		if (rd_done(&r))
			return 0;
	} else if (type == TOKEN_REC_LEAVES && t) {
		len = rd_left(&r);
		q = rd_bytes(&r, len);
		return token_set_leaves(t, q, len) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
	}
	return err_set(e, ERR_PARSE, "a token's record is malformed");
}

static void tokens_compact(struct authority *a)
{
	struct journal_image im = { 0 };
	uint8_t buf[1 + TOKEN_ID + LEAVES_MAX];
	uint64_t live = 0;
	int rc;

	for (size_t i = 0; i < a->ntokens; i++)
		live += sizeof(*a->tokens) + a->tokens[i].leaves_n;
	if (a->token_log.size < COMPACT_MIN || a->token_log.size < 4 * live)
		return;
	rc = journal_image_add(&im, NULL, 0);
	for (size_t i = 0; i < a->ntokens && !rc; i++) {
		const struct token_record *t = a->tokens + i;

		rc = journal_image_add(&im, buf, token_made(t, buf, sizeof(buf)));
		if (!rc && t->state == TOKEN_CONSUMED)
			rc = journal_image_add(&im, buf, token_used(t, t->keys, buf, sizeof(buf)));
		if (!rc && t->leaves)
			rc = journal_image_add(&im, buf,
					       token_answered(t, t->leaves, t->leaves_n, buf, sizeof(buf)));
	}
	if (!rc)
		journal_replace(&a->token_log, &im, NULL);
	free(im.p);
}

void tokens_forget_expired(struct authority *a, int64_t now)
{
	size_t kept = 0;

	for (size_t i = 0; i < a->ntokens; i++) {
		if (a->tokens[i].not_after >= now) {
			a->tokens[kept++] = a->tokens[i];
			continue;
		}
		free(a->tokens[i].leaves);
		secret_wipe(a->tokens[i].key, SHA256_LEN);
	}
	if (kept < a->ntokens)
		array_shrink((void **)&a->tokens, kept, sizeof(*a->tokens));
	a->ntokens = kept;
	tokens_compact(a);
}

int token_add(struct authority *a, const struct token_record *t, struct err *e)
{
	uint8_t buf[256];
	int rc;

	if (a->ntokens >= TOKENS_MAX)
		return err_set(e, ERR_LIMIT, "there are %d tokens that have not expired", TOKENS_MAX);
	rc = journal_append(&a->token_log, buf, token_made(t, buf, sizeof(buf)), e);
	secret_wipe(buf, sizeof(buf));
	if (!rc && token_remember(a, t))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	return rc;
}

int token_consume(struct authority *a, struct token_record *t, const uint8_t keys[SHA256_LEN], struct err *e)
{
	uint8_t buf[1 + TOKEN_ID + SHA256_LEN];
	int rc = journal_append(&a->token_log, buf, token_used(t, keys, buf, sizeof(buf)), e);

	if (rc)
		return rc;
	t->state = TOKEN_CONSUMED;
	memcpy(t->keys, keys, SHA256_LEN);
	return 0;
}

int token_store_leaves(struct authority *a, struct token_record *t, const uint8_t *p, size_t n, struct err *e)
{
	uint8_t buf[1 + TOKEN_ID + LEAVES_MAX];
	size_t len = token_answered(t, p, n, buf, sizeof(buf));
	int rc;

	if (!len)
		return err_set(e, ERR_LIMIT, "the certificates are too long to be kept");
	rc = journal_append(&a->token_log, buf, len, e);
	if (!rc && token_set_leaves(t, p, n))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	return rc;
}

int authority_load_logs(struct authority *a, struct err *e)
{
	char *path;
	int rc = authority_path(a->dir, "issued.log", &path, e);

	if (rc)
		return rc;
	rc = journal_open(&a->issued_log, path, issued_replay, a, e);
	free(path);
	if (rc)
		return rc;
	rc = authority_path(a->dir, "tokens.log", &path, e);
	if (rc)
		return rc;
	rc = journal_open(&a->token_log, path, token_replay, a, e);
	free(path);
	return rc;
}

void authority_free_logs(struct authority *a)
{
	for (size_t i = 0; i < a->nissued; i++)
		free(a->issued[i].uri);
	free(a->issued);
	for (size_t i = 0; i < a->ntokens; i++) {
		secret_wipe(a->tokens[i].key, SHA256_LEN);
		free(a->tokens[i].leaves);
	}
	free(a->tokens);
	a->issued = NULL;
	a->tokens = NULL;
	a->nissued = a->ntokens = 0;
	journal_close(&a->issued_log);
	journal_close(&a->token_log);
}
