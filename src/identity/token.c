/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the join token as text
 *
 * "x0t1." + base32 of: u8 version 1 | u8 flags (1: ephemeral) | u8 addresses (1-4), each u8 4 or 6, address,
 * u16 port | SHA-256 of the issuer's link root SubjectPublicKeyInfo (32) | u8 n, trust domain | u8 n, node
 * name | u64 not after | secret (16) | first 4 bytes of SHA-256 of all before. Big-endian, one encoding per
 * token (either case is read).
 *
 * The checksum only finds typing errors. Whoever holds the text may join under that name until it is used or
 * expires; whoever alters it gains nothing: the name the issuer gives is the one it stored.
 */
#include <string.h>
#include <strings.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { TOKEN_VERSION = 1, TOKEN_F_EPHEMERAL = 1, TOKEN_SUM = 4, TOKEN_RAW = TOKEN_TEXT };
static const char token_prefix[] = "x0t1.";

static int fields_check(const struct token *t, struct err *e)
{
	struct spiffe_id id;
	int rc;

	if (!t->naddrs || t->naddrs > TOKEN_ADDRS)
		return err_set(e, ERR_USAGE, "a token names 1 to %d issuer addresses", TOKEN_ADDRS);
	for (size_t i = 0; i < t->naddrs; i++) {
		if (!t->addr[i].port)
			return err_set(e, ERR_USAGE, "an issuer address has no port");
		if (t->addr[i].scope_id)
			return err_set(e, ERR_USAGE, "a link-local address means nothing on another host");
	}
	if (t->not_after <= 0)
		return err_set(e, ERR_USAGE, "a token needs an end of its validity");
	rc = spiffe_id_node(t->trust_domain, t->name, &id, e);
	if (!rc && (!spiffe_id_in(&id, t->trust_domain) || !spiffe_id_node_name(&id) ||
		    strcmp(spiffe_id_node_name(&id), t->name)))
		rc = err_set(e, ERR_PARSE, "the trust domain or the node name is not in its canonical form");
	return rc;
}

static int put_sum(const uint8_t *p, size_t n, uint8_t sum[TOKEN_SUM])
{
	uint8_t h[SHA256_LEN];

	if (sha256(p, n, h))
		return ERR_FAILED;
	memcpy(sum, h, TOKEN_SUM);
	secret_wipe(h, sizeof(h));
	return 0;
}

int token_encode(const struct token *t, char to[TOKEN_TEXT], struct err *e)
{
	uint8_t raw[TOKEN_RAW], sum[TOKEN_SUM] = { 0 };
	struct wr w = wr_init(raw, sizeof(raw));
	int rc = fields_check(t, e);

	if (rc)
		return rc;
	wr_u8(&w, TOKEN_VERSION);
	wr_u8(&w, t->ephemeral ? TOKEN_F_EPHEMERAL : 0);
	wr_u8(&w, t->naddrs);
	for (size_t i = 0; i < t->naddrs; i++) {
		bool v4 = endpoint_is_v4(&t->addr[i]);

		wr_u8(&w, v4 ? 4 : 6);
		wr_bytes(&w, t->addr[i].addr + (v4 ? 12 : 0), v4 ? 4 : 16);
		wr_u16(&w, t->addr[i].port);
	}
	wr_bytes(&w, t->issuer, SHA256_LEN);
	wr_u8(&w, (uint8_t)strlen(t->trust_domain));
	wr_bytes(&w, t->trust_domain, strlen(t->trust_domain));
	wr_u8(&w, (uint8_t)strlen(t->name));
	wr_bytes(&w, t->name, strlen(t->name));
	wr_u64(&w, (uint64_t)t->not_after);
	wr_bytes(&w, t->secret, sizeof(t->secret));
	if (wr_ok(&w) && put_sum(raw, wr_len(&w), sum))
		rc = err_set(e, ERR_FAILED, "SHA-256 failed");
	wr_bytes(&w, sum, TOKEN_SUM);
	if (!rc && (!wr_ok(&w) || strlen(token_prefix) + (8 * wr_len(&w) + 4) / 5 + 1 > TOKEN_TEXT))
		rc = err_set(e, ERR_LIMIT,
			     "the token would be longer than %d characters: give fewer addresses",
			     TOKEN_TEXT - 1);
	if (!rc) {
		memcpy(to, token_prefix, strlen(token_prefix));
		base32_encode(to + strlen(token_prefix), raw, wr_len(&w));
	}
	secret_wipe(raw, sizeof(raw));
	return rc;
}

static void get_addr(struct rd *r, struct endpoint *ep)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	uint8_t kind = rd_u8(r);

	memset(ep, 0, sizeof(*ep));
	if (kind == 4) {
		memcpy(ep->addr, mapped, sizeof(mapped));
		rd_copy(r, ep->addr + 12, 4);
	} else {
		rd_copy(r, ep->addr, 16);
		if (kind != 6 || !memcmp(ep->addr, mapped, sizeof(mapped)))
			r->bad = true;
	}
	ep->port = rd_u16(r);
}

static void get_text(struct rd *r, char *to, size_t max)
{
	size_t n = rd_u8(r);
	const uint8_t *p = rd_bytes(r, n);

	if (!p || n > max || memchr(p, 0, n)) {
		r->bad = true;
		return;
	}
	memcpy(to, p, n);
	to[n] = 0;
}

static int fields_get(struct rd *r, struct token *t, struct err *e)
{
	uint8_t flags;
	uint64_t not_after;

	flags = rd_u8(r);
	t->ephemeral = flags & TOKEN_F_EPHEMERAL;
	t->naddrs = rd_u8(r);
	if (flags & ~TOKEN_F_EPHEMERAL || t->naddrs > TOKEN_ADDRS)
		r->bad = true;
	for (size_t i = 0; i < t->naddrs && rd_ok(r); i++)
		get_addr(r, &t->addr[i]);
	rd_copy(r, t->issuer, SHA256_LEN);
	get_text(r, t->trust_domain, TRUST_DOMAIN_MAX);
	get_text(r, t->name, NODE_NAME_MAX);
	not_after = rd_u64(r);
	rd_copy(r, t->secret, sizeof(t->secret));
	if (!rd_done(r) || not_after > INT64_MAX)
		return err_set(e, ERR_PARSE, "the token is malformed");
	t->not_after = (int64_t)not_after;
	return fields_check(t, e)
		       ? err_set(e, ERR_PARSE, "the token is malformed: its addresses or names are invalid")
		       : 0;
}

int token_decode(const char *s, struct token *ret, struct err *e)
{
	uint8_t raw[TOKEN_RAW], sum[TOKEN_SUM];
	size_t n = strnlen(s, TOKEN_TEXT), skip = strlen(token_prefix);
	struct token t = { 0 };
	ssize_t len = ERR_PARSE;
	struct rd r;
	int rc = 0;

	if (n < skip || strncasecmp(s, token_prefix, skip)) {
		err_set(e, ERR_PARSE, "this is not a join token: it does not begin with %s", token_prefix);
		return err_todo(e, "make one with `x0 ca token <name>` on an issuer");
	}
	if (n < TOKEN_TEXT)
		len = base32_decode(raw, sizeof(raw), s + skip, n - skip);
	if (len <= TOKEN_SUM || put_sum(raw, (size_t)len - TOKEN_SUM, sum) ||
	    memcmp(sum, raw + len - TOKEN_SUM, TOKEN_SUM)) {
		rc = err_set(e, ERR_PARSE, "the token was damaged on its way: its checksum does not match");
		err_todo(e, "copy the whole token again");
	} else {
		r = rd_init(raw, (size_t)len - TOKEN_SUM);
		if (rd_u8(&r) != TOKEN_VERSION)
			rc = err_set(e, ERR_UNSUPPORTED,
				     "the token's format version is unknown: update x0 on this host");
		else
			rc = fields_get(&r, &t, e);
	}
	if (!rc)
		*ret = t;
	secret_wipe(raw, sizeof(raw));
	secret_wipe(&t, sizeof(t));
	return rc;
}

void token_wipe(struct token *t)
{
	secret_wipe(t, sizeof(*t));
}
