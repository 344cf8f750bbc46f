/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: joining and renewal: the messages, and the client's side
 *
 *	REQUEST	"x0jq" | u8 version 1 | token id (8) | u16 n, link CSR | u16 n, spiffe CSR | MAC (32)
 *	RENEW	"x0rq" | u8 version 1 | u16 n, link CSR | u16 n, spiffe CSR
 *	REPLY	"x0jr" | u8 version 1 | u8 1 | u16 n, link SVID | u16 n, spiffe SVID | u32 n, signed bundle
 *	ERROR	"x0jr" | u8 version 1 | u8 2 | u16 code (of err.def, without its sign) | u16 n, sentence
 *
 * key = SHA-256("x0 token" | secret): all the issuer stores. id = first 8 bytes of SHA-256("x0 token id" |
 *key). MAC = HMAC-SHA-256(key, exporter | everything before the MAC). The exporter binds it to one TLS
 *connection whose server proved the pinned root: replayed on another one it is worth nothing. Big-endian;
 *nothing may follow.
 *
 * The client believes nothing it did not check: the bundle must be signed by the pinned root, both SVIDs must
 *verify against it, hold our keys, and carry exactly the name of the token.
 */
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { JOIN_VERSION = 1, REPLY_OK = 1, REPLY_ERROR = 2, REPLY_HEAD = 6, SENTENCE_MAX = 319 };
static const char request_magic[4] = "x0jq", renew_magic[4] = "x0rq", reply_magic[4] = "x0jr";

int token_key(const uint8_t secret[16], uint8_t ret[SHA256_LEN])
{
	const struct iovec iov[] = { { (void *)"x0 token", 8 }, { (void *)secret, 16 } };

	return sha256_iov(iov, ARRAY_SIZE(iov), ret);
}

int token_id(const uint8_t key[SHA256_LEN], uint8_t ret[TOKEN_ID])
{
	const struct iovec iov[] = { { (void *)"x0 token id", 11 }, { (void *)key, SHA256_LEN } };
	uint8_t h[SHA256_LEN];

	if (sha256_iov(iov, ARRAY_SIZE(iov), h))
		return ERR_FAILED;
	memcpy(ret, h, TOKEN_ID);
	return 0;
}

int join_mac(const uint8_t key[SHA256_LEN], const uint8_t exporter[32], const void *body, size_t n,
	     uint8_t mac[SHA256_LEN])
{
	uint8_t buf[32 + JOIN_REQUEST_MAX];

	if (n > JOIN_REQUEST_MAX)
		return ERR_LIMIT;
	memcpy(buf, exporter, 32);
	memcpy(buf + 32, body, n);
	return hmac("SHA256", key, SHA256_LEN, buf, 32 + n, mac, SHA256_LEN);
}

/* ---- requests ---- */

static void get_csrs(struct rd *r, struct join_message *m)
{
	m->link_n = rd_u16(r);
	m->link = rd_bytes(r, m->link_n);
	m->spiffe_n = rd_u16(r);
	m->spiffe = rd_bytes(r, m->spiffe_n);
	if (m->link_n > CSR_MAX || m->spiffe_n > CSR_MAX)
		r->bad = true;
}

int join_parse(const void *p, size_t n, struct join_message *ret, struct err *e)
{
	struct rd r = rd_init(p, n);
	const uint8_t *magic = rd_bytes(&r, 4);
	uint8_t version = rd_u8(&r);
	struct join_message m = { .id = rd_bytes(&r, TOKEN_ID) };

	get_csrs(&r, &m);
	m.body_n = (size_t)(r.p - (const uint8_t *)p);
	m.mac = rd_bytes(&r, SHA256_LEN);
	if (!rd_done(&r) || memcmp(magic, request_magic, 4) || version != JOIN_VERSION)
		return err_set(e, ERR_PARSE, "the join request is malformed");
	*ret = m;
	return 0;
}

int renew_parse(const void *p, size_t n, struct join_message *ret, struct err *e)
{
	struct rd r = rd_init(p, n);
	const uint8_t *magic = rd_bytes(&r, 4);
	uint8_t version = rd_u8(&r);
	struct join_message m = { 0 };

	get_csrs(&r, &m);
	m.body_n = n;
	if (!rd_done(&r) || memcmp(magic, renew_magic, 4) || version != JOIN_VERSION)
		return err_set(e, ERR_PARSE, "the renewal request is malformed");
	*ret = m;
	return 0;
}

/* Proof of possession and type of both keys; fills the hashes. */
int csr_pair_check(struct csr_pair *c, struct err *e)
{
	uint8_t two[2 * SHA256_LEN];
	int rc = csr_check(c->link, KEY_MLDSA65, e);

	if (!rc)
		rc = csr_check(c->spiffe, KEY_P256, e);
	if (rc)
		return rc;
	if (key_pub_hash(X509_REQ_get0_pubkey(c->link), c->link_key) ||
	    key_pub_hash(X509_REQ_get0_pubkey(c->spiffe), c->spiffe_key))
		return err_set(e, ERR_FAILED, "SHA-256 failed");
	memcpy(two, c->link_key, SHA256_LEN);
	memcpy(two + SHA256_LEN, c->spiffe_key, SHA256_LEN);
	if (sha256(two, sizeof(two), c->both))
		return err_set(e, ERR_FAILED, "SHA-256 failed");
	return 0;
}

int csr_pair_open(const struct join_message *m, struct csr_pair *ret, struct err *e)
{
	struct csr_pair c = { 0 };
	int rc = csr_from_der(m->link, m->link_n, &c.link, e);

	if (!rc)
		rc = csr_from_der(m->spiffe, m->spiffe_n, &c.spiffe, e);
	if (!rc)
		rc = csr_pair_check(&c, e);
	if (rc) {
		csr_pair_fini(&c);
		return rc;
	}
	*ret = c;
	return 0;
}

void csr_pair_fini(struct csr_pair *c)
{
	X509_REQ_free(c->link);
	X509_REQ_free(c->spiffe);
	c->link = c->spiffe = NULL;
}

/* Writes head | both CSRs and leaves `extra` bytes of room behind. */
static int request_new(const char magic[4], const uint8_t *id, EVP_PKEY *link_key, EVP_PKEY *spiffe_key,
		       size_t extra, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	uint8_t *link = NULL, *spiffe = NULL, *p = NULL;
	size_t link_n = 0, spiffe_n = 0, cap;
	struct wr w;
	int rc = 0;

	if (key_type_of(link_key) != KEY_MLDSA65 || key_type_of(spiffe_key) != KEY_P256)
		return err_set(e, ERR_USAGE, "a link key is ML-DSA-65 and a SPIFFE key P-256");
	rc = csr_new(link_key, &link, &link_n, e);
	if (!rc)
		rc = csr_new(spiffe_key, &spiffe, &spiffe_n, e);
	if (!rc && (link_n > CSR_MAX || spiffe_n > CSR_MAX))
		rc = err_set(e, ERR_LIMIT, "a certificate request is too long");
	cap = 4 + 1 + TOKEN_ID + 2 + link_n + 2 + spiffe_n + extra;
	p = rc ? NULL : malloc(cap);
	if (!rc && !p)
		rc = err_set(e, ERR_NOMEM, "out of memory");
	if (!rc) {
		w = wr_init(p, cap);
		wr_bytes(&w, magic, 4);
		wr_u8(&w, JOIN_VERSION);
		if (id)
			wr_bytes(&w, id, TOKEN_ID);
		wr_u16(&w, (uint16_t)link_n);
		wr_bytes(&w, link, link_n);
		wr_u16(&w, (uint16_t)spiffe_n);
		wr_bytes(&w, spiffe, spiffe_n);
		*ret_p = p;
		*ret_n = wr_len(&w);
	}
	free(link);
	free(spiffe);
	return rc;
}

int join_request(const struct token *t, const uint8_t exporter[32], EVP_PKEY *link_key, EVP_PKEY *spiffe_key,
		 uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	uint8_t key[SHA256_LEN], id[TOKEN_ID], *p;
	size_t n;
	int rc;

	if (token_key(t->secret, key) || token_id(key, id))
		return err_set(e, ERR_FAILED, "SHA-256 failed");
	rc = request_new(request_magic, id, link_key, spiffe_key, SHA256_LEN, &p, &n, e);
	if (!rc && join_mac(key, exporter, p, n, p + n)) {
		free(p);
		rc = err_set(e, ERR_FAILED, "HMAC failed");
	}
	secret_wipe(key, sizeof(key));
	if (rc)
		return rc;
	*ret_p = p;
	*ret_n = n + SHA256_LEN;
	return 0;
}

int renew_request(const struct spiffe_id *id, EVP_PKEY *link_key, EVP_PKEY *spiffe_key, uint8_t **ret_p,
		  size_t *ret_n, struct err *e)
{
	(void)id; /* the issuer takes it from the session, never from here */
	return request_new(renew_magic, NULL, link_key, spiffe_key, 0, ret_p, ret_n, e);
}

/* ---- replies ---- */

int leaves_pack(X509 *link, X509 *spiffe, uint8_t **ret_p, size_t *ret_n)
{
	uint8_t *l = NULL, *s = NULL, *p = NULL;
	size_t ln = 0, sn = 0;
	int rc = cert_der(link, &l, &ln);

	if (!rc)
		rc = cert_der(spiffe, &s, &sn);
	if (!rc && (ln > CERT_MAX || sn > CERT_MAX))
		rc = ERR_LIMIT;
	p = rc ? NULL : malloc(4 + ln + sn);
	if (p) {
		put_u16(p, (uint16_t)ln);
		memcpy(p + 2, l, ln);
		put_u16(p + 2 + ln, (uint16_t)sn);
		memcpy(p + 4 + ln, s, sn);
		*ret_p = p;
		*ret_n = 4 + ln + sn;
	} else if (!rc) {
		rc = ERR_NOMEM;
	}
	free(l);
	free(s);
	return rc;
}

int reply_ok(const uint8_t *leaves, size_t leaves_n, const struct bundle *b, uint8_t **ret_p, size_t *ret_n)
{
	size_t cap = REPLY_HEAD + leaves_n + 4 + b->encoded_n;
	uint8_t *p = malloc(cap);
	struct wr w;

	if (!p)
		return ERR_NOMEM;
	w = wr_init(p, cap);
	wr_bytes(&w, reply_magic, 4);
	wr_u8(&w, JOIN_VERSION);
	wr_u8(&w, REPLY_OK);
	wr_bytes(&w, leaves, leaves_n);
	wr_u32(&w, (uint32_t)b->encoded_n);
	wr_bytes(&w, b->encoded, b->encoded_n);
	*ret_p = p;
	*ret_n = wr_len(&w);
	return 0;
}

int reply_error(int code, const char *sentence, uint8_t **ret_p, size_t *ret_n)
{
	size_t n = strnlen(sentence, SENTENCE_MAX), cap = REPLY_HEAD + 4 + n;
	uint8_t *p = malloc(cap);
	struct wr w;

	if (!p)
		return ERR_NOMEM;
	w = wr_init(p, cap);
	wr_bytes(&w, reply_magic, 4);
	wr_u8(&w, JOIN_VERSION);
	wr_u8(&w, REPLY_ERROR);
	wr_u16(&w, (uint16_t)-code);
	wr_u16(&w, (uint16_t)n);
	wr_bytes(&w, sentence, n);
	*ret_p = p;
	*ret_n = wr_len(&w);
	return 0;
}

/* The issuer's refusal: a code we know, and its sentence with anything a terminal might obey taken out. */
static int refusal(struct rd *r, struct err *e)
{
	int code = -(int)rd_u16(r);
	size_t n = rd_u16(r);
	const uint8_t *p = rd_bytes(r, n);
	char text[SENTENCE_MAX + 1];

	if (!rd_done(r) || n > SENTENCE_MAX || !code)
		return err_set(e, ERR_PARSE, "the issuer's reply is malformed");
	for (size_t i = 0; i < n; i++)
		text[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
	text[n] = 0;
	switch (code) {
#define X(name, value, exit_status, title) case (value):
#include "base/err.def"
#undef X
		break;
	default:
		code = ERR_FAILED;
	}
	return err_set(e, code, "the issuer refused: %s", text);
}

static int leaf_check(X509 *leaf, EVP_PKEY *key, enum svid_profile profile, const struct bundle *b,
		      int64_t now, struct svid_info *ret, struct err *e)
{
	const struct bundle *const bundles[] = { b };
	X509 *const chain[] = { leaf };

	if (X509_check_private_key(leaf, key) != 1)
		return err_set(e, ERR_AUTH, "the issuer's certificate does not hold this host's key");
	return svid_verify(bundles, 1, profile, chain, 1, now, ret, e);
}

static int reply_check(struct joined *j, const struct bundle *b, const char *trust_domain,
		       const struct spiffe_id *id, EVP_PKEY *link_key, EVP_PKEY *spiffe_key, int64_t now,
		       struct err *e)
{
	struct svid_info link, spiffe;
	int rc;

	if (strcmp(b->trust_domain, trust_domain))
		return err_set(e, ERR_DENIED, "the issuer's bundle is of trust domain %.100s, not %.100s",
			       b->trust_domain, trust_domain);
	rc = leaf_check(j->link, link_key, SVID_LINK, b, now, &link, e);
	if (rc)
		return err_prefix(e, "the link certificate");
	rc = leaf_check(j->spiffe, spiffe_key, SVID_SPIFFE, b, now, &spiffe, e);
	if (rc)
		return err_prefix(e, "the SPIFFE certificate");
	if (strcmp(link.id.uri, id->uri) || strcmp(spiffe.id.uri, id->uri))
		return err_set(e, ERR_DENIED, "the issuer made certificates for %.100s, not for %.100s",
			       strcmp(link.id.uri, id->uri) ? link.id.uri : spiffe.id.uri, id->uri);
	return 0;
}

/* Exactly one of `pin` and `trusted`, see bundle_decode(). */
static int reply_open(const void *reply, size_t n, const struct bundle *trusted, const uint8_t *pin,
		      const char *trust_domain, const struct spiffe_id *id, EVP_PKEY *link_key,
		      EVP_PKEY *spiffe_key, int64_t now, struct joined *ret, struct err *e)
{
	struct rd r = rd_init(reply, n);
	const uint8_t *magic = rd_bytes(&r, 4), *link, *spiffe, *bundle;
	uint8_t version = rd_u8(&r), kind = rd_u8(&r);
	size_t link_n, spiffe_n, bundle_n;
	struct joined j = { 0 };
	int rc;

	if (!rd_ok(&r) || memcmp(magic, reply_magic, 4) || version != JOIN_VERSION)
		return err_set(e, ERR_PARSE, "the issuer's reply is malformed");
	if (kind == REPLY_ERROR)
		return refusal(&r, e);
	link_n = rd_u16(&r);
	link = rd_bytes(&r, link_n);
	spiffe_n = rd_u16(&r);
	spiffe = rd_bytes(&r, spiffe_n);
	bundle_n = rd_u32(&r);
	bundle = rd_bytes(&r, bundle_n);
	if (!rd_done(&r) || kind != REPLY_OK)
		return err_set(e, ERR_PARSE, "the issuer's reply is malformed");
	rc = bundle_decode(bundle, bundle_n, trusted, pin, &j.bundle, e);
	if (trusted && (rc == ERR_REPLAY || rc == ERR_CONFLICT))
		rc = 0; /* an issuer that lags behind: well signed, of no use; the bundle in force judges the
			   SVIDs */
	if (!rc)
		rc = cert_from_der(link, link_n, &j.link, e);
	if (!rc)
		rc = cert_from_der(spiffe, spiffe_n, &j.spiffe, e);
	if (!rc)
		rc = reply_check(&j, j.bundle ? j.bundle : trusted, trust_domain, id, link_key, spiffe_key,
				 now, e);
	if (rc) {
		joined_fini(&j);
		return rc;
	}
	*ret = j;
	return 0;
}

int join_reply(const struct token *t, const void *reply, size_t n, EVP_PKEY *link_key, EVP_PKEY *spiffe_key,
	       int64_t now, struct joined *ret, struct err *e)
{
	struct spiffe_id id;
	int rc = spiffe_id_node(t->trust_domain, t->name, &id, e);

	if (rc)
		return rc;
	return reply_open(reply, n, NULL, t->issuer, t->trust_domain, &id, link_key, spiffe_key, now, ret, e);
}

int renew_reply(const struct spiffe_id *id, const struct bundle *trusted, const void *reply, size_t n,
		EVP_PKEY *link_key, EVP_PKEY *spiffe_key, int64_t now, struct joined *ret, struct err *e)
{
	return reply_open(reply, n, trusted, NULL, trusted->trust_domain, id, link_key, spiffe_key, now, ret,
			  e);
}

void joined_fini(struct joined *j)
{
	X509_free(j->link);
	X509_free(j->spiffe);
	bundle_free(j->bundle);
	*j = (struct joined){ 0 };
}
