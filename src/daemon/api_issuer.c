/* SPDX-License-Identifier: Apache-2.0 */
/* Routes that ask the local issuer. Without one they say so; the answer comes when it does. */
#include <arpa/inet.h>
#include <openssl/pem.h>
#include <stdlib.h>

#include "daemon/api_actions.h"

#define TOKEN_TTL_MAX (30 * 86400)

struct ask {
	struct control *c;
	struct api_request *r;
	const char *kind;
};

static void refuse(struct api_request *r, int code, const char *what, const char *todo)
{
	struct err e = { 0 };

	err_set(&e, code, "%s", what);
	err_todo(&e, "%s", todo);
	api_reply_err(r, &e);
}

/* Sends it, or answers why not. fn gets a struct ask, which it frees. */
static void ask(struct control *c, struct api_request *r, enum iss_type type, const struct wr *w,
		issuer_fn *fn, const char *kind)
{
	struct ask *k;
	struct err e = { 0 };

	if (!c->issuer) {
		refuse(r, ERR_UNSUPPORTED, "this node is no issuer",
		       "run it on an issuing node, or make one: x0 ca init");
		return;
	}
	if (w && !wr_ok(w)) {
		refuse(r, ERR_PARSE, "a value is too long", "");
		return;
	}
	k = calloc(1, sizeof(*k));
	if (!k) {
		refuse(r, ERR_NOMEM, "no memory", "");
		return;
	}
	*k = (struct ask){ c, r, kind };
	if (issuer_call(c->issuer, (uint16_t)type, w ? w->start : NULL, w ? wr_len(w) : 0, fn, k, &e) < 0) {
		api_reply_err(r, &e);
		free(k);
	}
}

/* The answer is the new bundle: in force here, and on its way to every live session, before the caller hears
 * of it. */
static void got_bundle(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct ask *k = arg;
	struct err why = { 0 };
	yyjson_mut_val *root;
	yyjson_mut_doc *d;

	if (!e && control_bundle_bytes(k->c, body, n, &why) < 0)
		e = &why;
	if (e) {
		api_reply_err(k->r, e);
	} else {
		d = api_doc(k->kind, &root);
		yyjson_mut_obj_add_uint(d, root, "bundle", k->c->self->bundle->number);
		api_reply_json(k->r, 200, d);
	}
	free(k);
}

static void got_token(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct ask *k = arg;
	yyjson_mut_val *root;
	yyjson_mut_doc *d;

	if (e) {
		api_reply_err(k->r, e);
	} else {
		d = api_doc(k->kind, &root);
		yyjson_mut_obj_add_strncpy(d, root, "token", (const char *)body, n);
		api_reply_json(k->r, 201, d);
	}
	free(k);
}

/* Our addresses that the new node is told: those given, or none. */
static int put_addrs(struct wr *w, yyjson_val *list, struct err *e)
{
	size_t i, n;
	yyjson_val *v;
	struct endpoint ep;

	if (!yyjson_is_arr(list) || yyjson_arr_size(list) < 1 || yyjson_arr_size(list) > TOKEN_ADDRS)
		return err_set(e, ERR_USAGE, "a token names one to %d addresses of this issuer", TOKEN_ADDRS);
	wr_u8(w, (uint8_t)yyjson_arr_size(list));
	yyjson_arr_foreach(list, i, n, v) {
		if (!yyjson_is_str(v) || endpoint_parse(yyjson_get_str(v), X0_PORT, &ep, e) < 0)
			return e->code ? e->code : err_set(e, ERR_USAGE, "an address is no text");
		wr_bytes(w, ep.addr, 16);
		wr_u16(w, ep.port);
		wr_u32(w, ep.scope_id);
	}
	return 0;
}

/* 0, or answered. */
static yyjson_doc *object(struct api_request *r)
{
	yyjson_doc *d = yyjson_read(r->body, r->body_n, 0);

	if (d && yyjson_is_obj(yyjson_doc_get_root(d)))
		return d;
	yyjson_doc_free(d);
	refuse(r, ERR_PARSE, "the request's body is no JSON object", "");
	return NULL;
}

static const char *text_of(yyjson_doc *d, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(d), key));

	return s ? s : "";
}

void action_token(struct control *c, struct api_request *r)
{
	yyjson_doc *d = object(r);
	uint8_t buf[512];
	struct wr w = wr_init(buf, sizeof(buf));
	struct err e = { 0 };
	yyjson_val *root;
	uint64_t ttl;
	int rc = 0;

	if (!d)
		return;
	root = yyjson_doc_get_root(d);
	ttl = yyjson_obj_get(root, "ttl") ? yyjson_get_uint(yyjson_obj_get(root, "ttl")) : 3600;
	if (ttl < 1 || ttl > TOKEN_TTL_MAX)
		rc = err_set(&e, ERR_USAGE, "ttl is from 1 s to 30 days");
	iss_put_text(&w, text_of(d, "name"));
	wr_u64(&w, ttl);
	wr_u8(&w, yyjson_get_bool(yyjson_obj_get(root, "ephemeral")));
	rc = rc ? rc : put_addrs(&w, yyjson_obj_get(root, "addresses"), &e);
	if (rc < 0)
		api_reply_err(r, &e);
	else
		ask(c, r, ISS_TOKEN, &w, got_token, "Token");
	yyjson_doc_free(d);
}

void action_revoke(struct control *c, struct api_request *r)
{
	yyjson_doc *d = object(r);
	uint8_t buf[SPIFFE_ID_MAX + 8];
	struct wr w = wr_init(buf, sizeof(buf));
	struct spiffe_id id;
	struct err e = { 0 };

	if (!d)
		return;
	if (control_peer_id(c, *text_of(d, "id") ? text_of(d, "id") : text_of(d, "name"), &id, &e) < 0) {
		api_reply_err(r, &e);
	} else {
		iss_put_text(&w, id.uri);
		ask(c, r, ISS_REVOKE, &w, got_bundle, "Revocation");
	}
	yyjson_doc_free(d);
}

void action_remove(struct control *c, struct api_request *r)
{
	yyjson_doc *d = object(r);
	uint8_t buf[128];
	struct wr w = wr_init(buf, sizeof(buf));

	if (!d)
		return;
	iss_put_text(&w, text_of(d, "name"));
	wr_u8(&w, yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(d), "unknown_too")));
	ask(c, r, ISS_REMOVE, &w, got_bundle, "NodeRemoved");
	yyjson_doc_free(d);
}

/* Two certificates in PEM: the ML-DSA-65 root and the P-256 one, in either order. */
void action_add_issuer(struct control *c, struct api_request *r)
{
	yyjson_doc *d = object(r);
	X509 **x = NULL;
	uint8_t *der[2] = { NULL, NULL }, *buf;
	int len[2] = { 0, 0 };
	struct err e = { 0 };
	struct wr w;
	size_t n = 0;
	const char *pem;

	if (!d)
		return;
	pem = text_of(d, "roots");
	if (pem_certs(pem, strlen(pem), &x, &n, &e) < 0) {
		api_reply_err(r, &e);
		yyjson_doc_free(d);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		int link = key_type_of(X509_get0_pubkey(x[i])) == KEY_MLDSA65 ? 0 : 1;

		if (!der[link])
			len[link] = i2d_X509(x[i], &der[link]);
	}
	buf = malloc(API_BODY);
	if (n != 2 || len[0] <= 0 || len[1] <= 0 || !buf) {
		refuse(r, ERR_PARSE, "roots must be one ML-DSA-65 and one P-256 certificate",
		       "x0 ca roots on the other issuer prints them");
	} else {
		w = wr_init(buf, API_BODY);
		wr_u32(&w, (uint32_t)len[0]);
		wr_bytes(&w, der[0], (size_t)len[0]);
		wr_bytes(&w, der[1], (size_t)len[1]);
		ask(c, r, ISS_ADD_ISSUER, &w, got_bundle, "IssuerAdded");
	}
	free(buf);
	OPENSSL_free(der[0]);
	OPENSSL_free(der[1]);
	pem_certs_free(x, n);
	yyjson_doc_free(d);
}

static void put_pem(BIO *b, const uint8_t *p, size_t n)
{
	X509 *x = d2i_X509(NULL, &p, (long)n);

	if (x)
		PEM_write_bio_X509(b, x);
	X509_free(x);
}

static void got_roots(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct ask *k = arg;
	struct rd r = rd_init(body, n);
	yyjson_mut_val *root;
	yyjson_mut_doc *d;
	BIO *b;
	char *text;
	long len;

	if (e) {
		api_reply_err(k->r, e);
		free(k);
		return;
	}
	struct rd link = rd_sub(&r, rd_u32(&r));

	b = BIO_new(BIO_s_mem());
	d = api_doc(k->kind, &root);
	if (b && rd_ok(&r)) {
		put_pem(b, link.p, rd_left(&link));
		put_pem(b, r.p, rd_left(&r));
		len = BIO_get_mem_data(b, &text);
		yyjson_mut_obj_add_strncpy(d, root, "roots", text, (size_t)len);
	}
	BIO_free(b);
	api_reply_json(k->r, 200, d);
	free(k);
}

void action_roots(struct control *c, struct api_request *r)
{
	ask(c, r, ISS_ROOTS, NULL, got_roots, "Roots");
}

static void add_node(yyjson_mut_doc *d, yyjson_mut_val *arr, struct rd *r)
{
	static const char *const names[] = { "active", "expired", "revoked", "removed" };
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, arr);
	char uri[SPIFFE_ID_MAX + 1], text[INET6_ADDRSTRLEN];
	struct spiffe_id id;
	const char *name = NULL;
	uint8_t addr[16], state;
	bool ephemeral;
	int64_t issued, until;

	iss_get_text(r, uri, sizeof(uri));
	rd_copy(r, addr, 16);
	issued = (int64_t)rd_u64(r);
	until = (int64_t)rd_u64(r);
	ephemeral = rd_u8(r) != 0;
	state = rd_u8(r);
	if (spiffe_id_parse(uri, strlen(uri), &id, NULL) == 0)
		name = spiffe_id_node_name(&id);
	yyjson_mut_obj_add_strcpy(d, o, "name", name ? name : uri);
	yyjson_mut_obj_add_strcpy(d, o, "id", uri);
	yyjson_mut_obj_add_strcpy(d, o, "address", inet_ntop(AF_INET6, addr, text, sizeof(text)));
	yyjson_mut_obj_add_int(d, o, "issued_at", issued);
	yyjson_mut_obj_add_int(d, o, "not_after", until);
	yyjson_mut_obj_add_bool(d, o, "ephemeral", ephemeral);
	yyjson_mut_obj_add_str(d, o, "state", state < ARRAY_SIZE(names) ? names[state] : "unknown");
}

static void got_nodes(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct ask *k = arg;
	struct rd r = rd_init(body, n);
	yyjson_mut_val *root, *arr;
	yyjson_mut_doc *d;

	if (e) {
		api_reply_err(k->r, e);
	} else {
		d = api_doc(k->kind, &root);
		arr = yyjson_mut_obj_add_arr(d, root, "nodes");
		while (rd_ok(&r) && rd_left(&r))
			add_node(d, arr, &r);
		api_reply_json(k->r, 200, d);
	}
	free(k);
}

void action_nodes(struct control *c, struct api_request *r)
{
	ask(c, r, ISS_NODES, NULL, got_nodes, "Nodes");
}
