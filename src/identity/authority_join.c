/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the issuer's side of joining and renewal
 *
 * Order matters. Nothing is computed on a stranger's certificate request before the MAC showed the token;
 * nothing is signed before the token's consumption is on disk; nothing is sent before what was issued is on
 * disk. A crash between any two leaves a token that only the same two keys can use again. Unknown tokens and
 * wrong MACs get one sentence, so that guessing ids teaches nothing, and a failing disk is told to the log,
 * not to the stranger.
 */
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

static int leaf_info(const struct authority *a, X509 *link, int64_t now, struct svid_info *ret, struct err *e)
{
	const struct bundle *const bundles[] = { a->bundle };
	X509 *const chain[] = { link };
	int rc = svid_verify(bundles, 1, SVID_LINK, chain, 1, now, ret, e);

	return rc ? err_prefix(e, "what this issuer issued does not verify") : 0;
}

/* The leaves of an earlier answer, if they are still of use. */
static int stored_leaf(const struct token_record *t, int64_t now, X509 **ret_link)
{
	struct rd r = rd_init(t->leaves, t->leaves_n);
	size_t n = rd_u16(&r);
	const uint8_t *der = rd_bytes(&r, n);
	int64_t from, to;
	X509 *link;

	if (!der || cert_from_der(der, n, &link, NULL))
		return ERR_NOT_FOUND;
	if (cert_times(link, &from, &to) || to <= now) {
		X509_free(link);
		return ERR_NOT_FOUND;
	}
	*ret_link = link;
	return 0;
}

static int issue_for_token(struct authority *a, struct token_record *t, const struct spiffe_id *id,
			   const struct csr_pair *csr, int64_t now, struct svid_info *ret, struct err *e)
{
	X509 *link = NULL, *spiffe = NULL;
	uint8_t *leaves = NULL;
	size_t n = 0;
	int rc = authority_make(a, id, csr, a->ttl, now, t->ephemeral, &link, &spiffe, e);

	if (rc)
		return rc;
	rc = leaf_info(a, link, now, ret, e);
	if (!rc && leaves_pack(link, spiffe, &leaves, &n))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	if (!rc)
		rc = token_store_leaves(a, t, leaves, n, e);
	free(leaves);
	X509_free(link);
	X509_free(spiffe);
	return rc;
}

/* The token that the request proves to hold, or an error that tells a stranger nothing. */
static int token_of(struct authority *a, const struct join_message *m, const uint8_t exporter[32],
		    const void *request, int64_t now, struct token_record **ret, struct err *e)
{
	static const uint8_t nobody[SHA256_LEN];
	struct token_record *t = token_find(a, m->id);
	uint8_t mac[SHA256_LEN];

	if (join_mac(t ? t->key : nobody, exporter, request, m->body_n, mac))
		return err_set(e, ERR_FAILED, "HMAC failed");
	if (!secret_equal(mac, m->mac, SHA256_LEN) || !t) {
		err_set(e, ERR_AUTH, "this token is not valid here");
		return err_todo(e, "make a new one with `x0 ca token <name>` on this issuer");
	}
	if (now > t->not_after)
		return err_set(e, ERR_EXPIRED, "the token for %.63s has expired", t->name);
	*ret = t;
	return 0;
}

static int join(struct authority *a, const uint8_t exporter[32], const void *request, size_t n, int64_t now,
		struct token_record **ret_t, struct svid_info *ret_who, struct err *e)
{
	struct token_record *t = NULL;
	struct csr_pair csr = { 0 };
	struct join_message m;
	struct spiffe_id id;
	X509 *link = NULL;
	int rc = join_parse(request, n, &m, e);

	if (!rc)
		rc = token_of(a, &m, exporter, request, now, &t, e);
	if (!rc)
		rc = csr_pair_open(&m, &csr, e);
	if (rc)
		return rc;
	if (t->state == TOKEN_CONSUMED && memcmp(t->keys, csr.both, SHA256_LEN)) {
		rc = err_set(e, ERR_REPLAY, "the token for %.63s was used by another host", t->name);
		err_todo(e, "if that was not you, revoke that node; make a new token");
	}
	if (!rc)
		rc = authority_need_listed(a, e);
	if (!rc)
		rc = spiffe_id_node(a->trust_domain, t->name, &id, e);
	if (!rc)
		rc = authority_may_issue(a, &id, csr.link_key, csr.spiffe_key, now, e);
	if (!rc && t->state != TOKEN_CONSUMED)
		rc = token_consume(a, t, csr.both, e);
	if (!rc && t->leaves && !stored_leaf(t, now, &link))
		rc = leaf_info(a, link, now, ret_who, e);
	else if (!rc)
		rc = issue_for_token(a, t, &id, &csr, now, ret_who, e);
	X509_free(link);
	csr_pair_fini(&csr);
	if (!rc)
		*ret_t = t;
	return rc;
}

/* What the other end may know of an error: the disk, the memory and the paths of this host are not its
 * business. */
static int refuse(int rc, const struct err *why, uint8_t **ret_reply, size_t *ret_n)
{
	bool ours = rc == ERR_SYS || rc == ERR_NOMEM || rc == ERR_FAILED;

	reply_error(ours ? ERR_FAILED : rc,
		    ours ? "the issuer cannot answer now; its log says why" : why->what, ret_reply, ret_n);
	return rc;
}

int authority_join(struct authority *a, const uint8_t exporter[32], const void *request, size_t n,
		   int64_t now, uint8_t **ret_reply, size_t *ret_n, struct svid_info *ret_who, struct err *e)
{
	struct token_record *t = NULL;
	struct svid_info who;
	struct err own = { 0 };
	int rc;

	if (!e)
		e = &own;
	rc = join(a, exporter, request, n, now, &t, &who, e);
	if (!rc && reply_ok(t->leaves, t->leaves_n, a->bundle, ret_reply, ret_n))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	if (rc)
		return refuse(rc, e, ret_reply, ret_n);
	*ret_who = who;
	return 0;
}

static int renew(struct authority *a, const struct svid_info *caller, const void *request, size_t n,
		 int64_t now, uint8_t **ret_leaves, size_t *ret_n, struct err *e)
{
	const struct issued *rec = issued_find(a, caller->id.uri);
	X509 *link = NULL, *spiffe = NULL;
	struct csr_pair csr = { 0 };
	struct join_message m;
	int rc;

	if (bundle_revokes(a->bundle, caller->id.uri, caller->key_hash, caller->not_before))
		return err_set(e, ERR_REVOKED, "the SVID of %.200s was revoked", caller->id.uri);
	if (now > caller->not_after) /* a session may outlive the certificate it began with */
		return err_set(e, ERR_EXPIRED, "the SVID of %.200s has expired", caller->id.uri);
	rc = renew_parse(request, n, &m, e);
	if (!rc)
		rc = csr_pair_open(&m, &csr, e);
	if (rc)
		return rc;
	rc = authority_may_have(a, &caller->id, csr.link_key, csr.spiffe_key, e);
	if (!rc)
		rc = authority_make(a, &caller->id, &csr, a->ttl, now, rec && rec->ephemeral, &link, &spiffe,
				    e);
	if (!rc && leaves_pack(link, spiffe, ret_leaves, ret_n))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	X509_free(link);
	X509_free(spiffe);
	csr_pair_fini(&csr);
	return rc;
}

int authority_renew(struct authority *a, const struct svid_info *caller, const void *request, size_t n,
		    int64_t now, uint8_t **ret_reply, size_t *ret_n, struct err *e)
{
	uint8_t *leaves = NULL;
	size_t leaves_n = 0;
	struct err own = { 0 };
	int rc;

	if (!e)
		e = &own;
	rc = renew(a, caller, request, n, now, &leaves, &leaves_n, e);
	if (!rc && reply_ok(leaves, leaves_n, a->bundle, ret_reply, ret_n))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	free(leaves);
	return rc ? refuse(rc, e, ret_reply, ret_n) : 0;
}
