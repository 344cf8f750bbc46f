/* SPDX-License-Identifier: Apache-2.0 */
/* What the issuer answers: decodes requests of the daemon, asks the authority, encodes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/issuer.h"

struct answer {
	struct authority *a;
	struct rng *rng;
	int64_t now;
	const char *backup_path;
	struct rd r;
	uint8_t *body; /* owned */
	size_t n;
	bool text; /* body is secret text: wipe */
};

void iss_put_text(struct wr *w, const char *s)
{
	size_t n = strlen(s);

	if (n > UINT16_MAX)
		w->bad = true;
	wr_u16(w, (uint16_t)n);
	wr_bytes(w, s, n);
}

void iss_get_text(struct rd *r, char *to, size_t cap)
{
	size_t n = rd_u16(r);
	const uint8_t *p = n < cap ? rd_bytes(r, n) : NULL;

	to[0] = 0;
	if (!p || memchr(p, 0, n)) {
		r->bad = true;
		return;
	}
	memcpy(to, p, n);
	to[n] = 0;
}

static int malformed(struct err *e)
{
	return err_set(e, ERR_PARSE, "the issuer got a malformed request");
}

static int give(struct answer *q, const void *p, size_t n, struct err *e)
{
	q->body = malloc(n + 1);
	if (!q->body)
		return err_set(e, ERR_NOMEM, "no memory for the answer");
	memcpy(q->body, p, n);
	q->n = n;
	return 0;
}

static int give_bundle(struct answer *q, struct err *e)
{
	const struct bundle *b = authority_bundle(q->a);

	return give(q, b->encoded, b->encoded_n, e);
}

/* The client's reply travels also when it is a refusal; without one (no memory) the error does. */
static int give_reply(struct answer *q, int rc, uint8_t *reply, size_t n, struct err *e)
{
	if (!reply)
		return rc < 0 ? rc : err_set(e, ERR_FAILED, "no reply was made");
	q->body = malloc(n + 4);
	if (q->body) {
		put_u32(q->body, (uint32_t)-rc);
		memcpy(q->body + 4, reply, n);
		q->n = n + 4;
	}
	free(reply);
	return q->body ? 0 : err_set(e, ERR_NOMEM, "no memory for the answer");
}

static int do_join(struct answer *q, struct err *e)
{
	const uint8_t *exporter = rd_bytes(&q->r, 32);
	struct svid_info who;
	uint8_t *reply = NULL;
	size_t n = 0;
	int rc;

	if (!exporter)
		return malformed(e);
	rc = authority_join(q->a, exporter, q->r.p, rd_left(&q->r), q->now, &reply, &n, &who, e);
	if (rc == 0)
		log_info("issuer", "node joined", LS("id", who.id.uri));
	else
		log_warn("issuer", "join refused", LS("why", e->what));
	return give_reply(q, rc, reply, n, e);
}

static int do_renew(struct answer *q, struct err *e)
{
	struct svid_info who = { 0 };
	char uri[SPIFFE_ID_MAX + 1];
	uint8_t *reply = NULL;
	size_t n = 0;
	int rc;

	iss_get_text(&q->r, uri, sizeof(uri));
	rd_copy(&q->r, who.key_hash, SHA256_LEN);
	rd_copy(&q->r, who.leaf_hash, SHA256_LEN);
	who.not_before = (int64_t)rd_u64(&q->r);
	who.not_after = (int64_t)rd_u64(&q->r);
	if (!rd_ok(&q->r) || spiffe_id_parse(uri, strlen(uri), &who.id, NULL) < 0)
		return malformed(e);
	overlay_addr(&who.id, who.addr);
	rc = authority_renew(q->a, &who, q->r.p, rd_left(&q->r), q->now, &reply, &n, e);
	if (rc < 0)
		log_warn("issuer", "renewal refused", LS("id", uri), LS("why", e->what));
	return give_reply(q, rc, reply, n, e);
}

static int do_token(struct answer *q, struct err *e)
{
	struct endpoint ep[TOKEN_ADDRS] = { 0 };
	char name[NODE_NAME_MAX + 1], text[TOKEN_TEXT];
	struct token t;
	int64_t ttl;
	bool ephemeral;
	unsigned n;
	int rc;

	iss_get_text(&q->r, name, sizeof(name));
	ttl = (int64_t)rd_u64(&q->r);
	ephemeral = rd_u8(&q->r) != 0;
	n = rd_u8(&q->r);
	if (n > TOKEN_ADDRS)
		return malformed(e);
	for (unsigned i = 0; i < n; i++) {
		rd_copy(&q->r, ep[i].addr, 16);
		ep[i].port = rd_u16(&q->r);
		ep[i].scope_id = rd_u32(&q->r);
	}
	if (!rd_done(&q->r))
		return malformed(e);
	rc = authority_token(q->a, name, ttl, ephemeral, ep, n, q->now, q->rng, &t, e);
	if (rc < 0)
		return rc;
	rc = token_encode(&t, text, e);
	token_wipe(&t);
	rc = rc < 0 ? rc : give(q, text, strlen(text), e);
	q->text = true;
	secret_wipe(text, sizeof(text));
	return rc;
}

static int do_revoke(struct answer *q, struct err *e)
{
	char uri[SPIFFE_ID_MAX + 1];
	int rc;

	iss_get_text(&q->r, uri, sizeof(uri));
	if (!rd_done(&q->r))
		return malformed(e);
	rc = authority_revoke(q->a, uri, NULL, q->now, e);
	return rc < 0 ? rc : give_bundle(q, e);
}

static int do_remove(struct answer *q, struct err *e)
{
	char name[NODE_NAME_MAX + 1];
	bool unknown_too;
	int rc;

	iss_get_text(&q->r, name, sizeof(name));
	unknown_too = rd_u8(&q->r) != 0;
	if (!rd_done(&q->r))
		return malformed(e);
	rc = authority_remove(q->a, name, unknown_too, q->now, e);
	return rc < 0 ? rc : give_bundle(q, e);
}

static X509 *cert_of(const uint8_t *p, size_t n)
{
	const uint8_t *end = p;
	X509 *x = p && n <= 1 << 16 ? d2i_X509(NULL, &end, (long)n) : NULL;

	if (x && end != p + n) {
		X509_free(x);
		x = NULL;
	}
	return x;
}

static int do_add_issuer(struct answer *q, struct err *e)
{
	size_t n = rd_u32(&q->r);
	const uint8_t *p = rd_bytes(&q->r, n);
	X509 *link = cert_of(p, n), *spiffe = cert_of(q->r.p, rd_left(&q->r));
	int rc = link && spiffe && rd_ok(&q->r) ? authority_add_issuer(q->a, link, spiffe, q->now, e)
						: malformed(e);

	X509_free(link);
	X509_free(spiffe);
	return rc < 0 ? rc : give_bundle(q, e);
}

static int do_adopt(struct answer *q, struct err *e)
{
	struct bundle *b = NULL;
	int rc = bundle_decode_any_number(q->r.p, rd_left(&q->r), authority_bundle(q->a), &b, e);

	rc = rc < 0 ? rc : authority_adopt(q->a, b, q->now, e);
	bundle_free(b);
	return rc < 0 ? rc : give_bundle(q, e);
}

struct nodes {
	struct wr w;
};

static void put_node(void *arg, const struct authority_node *n)
{
	struct nodes *l = arg;
	struct wr before = l->w;

	iss_put_text(&l->w, n->uri);
	wr_bytes(&l->w, n->addr, 16);
	wr_u64(&l->w, (uint64_t)n->issued_at);
	wr_u64(&l->w, (uint64_t)n->not_after);
	wr_u8(&l->w, n->ephemeral);
	wr_u8(&l->w, (uint8_t)n->state);
	if (!wr_ok(&l->w))
		l->w = before; /* whole records only, as many as one message takes */
}

static int do_nodes(struct answer *q, struct err *e)
{
	size_t cap = ISS_MAX - 64;
	uint8_t *p = malloc(cap);
	struct nodes l;
	int rc;

	if (!p)
		return err_set(e, ERR_NOMEM, "no memory for the list of nodes");
	l.w = wr_init(p, cap);
	authority_nodes(q->a, q->now, put_node, &l);
	rc = give(q, p, wr_len(&l.w), e);
	free(p);
	return rc;
}

static int do_roots(struct answer *q, struct err *e)
{
	uint8_t *link = NULL, *spiffe = NULL;
	int n = i2d_X509(authority_root(q->a, SVID_LINK), &link);
	int m = i2d_X509(authority_root(q->a, SVID_SPIFFE), &spiffe);
	int rc = 0;

	if (n <= 0 || m <= 0 || !(q->body = malloc((size_t)n + (size_t)m + 4))) {
		rc = err_set(e, ERR_NOMEM, "no memory for the roots");
	} else {
		put_u32(q->body, (uint32_t)n);
		memcpy(q->body + 4, link, (size_t)n);
		memcpy(q->body + 4 + n, spiffe, (size_t)m);
		q->n = (size_t)n + (size_t)m + 4;
	}
	OPENSSL_free(link);
	OPENSSL_free(spiffe);
	return rc;
}

static int do_backup(struct answer *q, struct err *e)
{
	char password[1024];
	uint8_t *p = NULL;
	size_t n = 0;
	int rc;

	iss_get_text(&q->r, password, sizeof(password));
	if (!rd_done(&q->r) || !*password)
		rc = malformed(e);
	else if (!q->backup_path)
		rc = err_set(e, ERR_DENIED, "only root gets a backup of the authority");
	else
		rc = authority_backup(q->a, q->backup_path, password, e);
	secret_wipe(password, sizeof(password));
	if (rc < 0)
		return rc;
	rc = file_read(q->backup_path, ISS_MAX - 64, &p, &n, e);
	unlink(q->backup_path);
	rc = rc < 0 ? rc : give(q, p, n, e);
	free(p);
	return rc;
}

static int dispatch(struct answer *q, uint16_t type, struct err *e)
{
	switch (type) {
	case ISS_JOIN:
		return do_join(q, e);
	case ISS_RENEW:
		return do_renew(q, e);
	case ISS_TOKEN:
		return do_token(q, e);
	case ISS_REVOKE:
		return do_revoke(q, e);
	case ISS_REMOVE:
		return do_remove(q, e);
	case ISS_ADD_ISSUER:
		return do_add_issuer(q, e);
	case ISS_BUNDLE:
		return give_bundle(q, e);
	case ISS_ADOPT:
		return do_adopt(q, e);
	case ISS_NODES:
		return do_nodes(q, e);
	case ISS_ROOTS:
		return do_roots(q, e);
	case ISS_BACKUP:
		return do_backup(q, e);
	default:
		return err_set(e, ERR_UNSUPPORTED, "the issuer does not know request %u", type);
	}
}

int issuer_answer(const struct issuer_context *ctx, uint16_t type, const uint8_t *p, size_t n,
		  uint8_t **ret_p, size_t *ret_n)
{
	struct answer q = { .a = ctx->a,
			    .rng = ctx->rng,
			    .now = ctx->now,
			    .backup_path = ctx->backup_path,
			    .r = rd_init(p, n) };
	struct err e = { 0 };
	uint32_t number = rd_u32(&q.r);
	int rc = rd_ok(&q.r) ? dispatch(&q, type, &e) : malformed(&e);
	size_t what = strlen(e.what) + 1, todo = strlen(e.todo) + 1, total = 8 + (rc < 0 ? what + todo : q.n);
	uint8_t *out = malloc(total);

	if (out) {
		put_u32(out, number);
		put_u32(out + 4, rc < 0 ? (uint32_t)-rc : 0);
		if (rc < 0) {
			memcpy(out + 8, e.what, what);
			memcpy(out + 8 + what, e.todo, todo);
		} else if (q.n) {
			memcpy(out + 8, q.body, q.n);
		}
		*ret_p = out;
		*ret_n = total;
	}
	if (q.text && q.body)
		secret_wipe(q.body, q.n);
	free(q.body);
	return out ? 0 : ERR_NOMEM;
}
