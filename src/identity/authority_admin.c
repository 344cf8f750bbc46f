/* SPDX-License-Identifier: Apache-2.0 */
/* What operators and other issuers do to an authority: revocation, removal, issuers, signers, tokens,
 * listing. */
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

/* A copy of the bundle in force with the next number, to be changed and published. */
static int next_bundle(const struct authority *a, struct bundle **ret, struct err *e)
{
	struct bundle *b;

	if (a->bundle->number == UINT64_MAX)
		return err_set(e, ERR_LIMIT, "the bundle's number cannot be raised further");
	b = bundle_clone(a->bundle);
	if (!b)
		return err_set(e, ERR_NOMEM, "out of memory");
	b->number++;
	*ret = b;
	return 0;
}

static int own_id(const struct authority *a, const char *uri, struct spiffe_id *ret, struct err *e)
{
	int rc = spiffe_id_parse(uri, strlen(uri), ret, e);

	if (!rc && !spiffe_id_in(ret, a->trust_domain))
		rc = err_set(e, ERR_USAGE, "%.200s is not in trust domain %.100s", ret->uri, a->trust_domain);
	return rc;
}

static int revoke(struct authority *a, const char *uri, const uint8_t *key_hash, int64_t until, int64_t now,
		  struct err *e)
{
	struct bundle *b;
	int rc = next_bundle(a, &b, e);

	if (rc)
		return rc;
	bundle_drop_expired(b, now); /* makes room before the limit is checked */
	rc = bundle_add_revocation(b, uri, key_hash, now, until, e);
	if (rc) {
		bundle_free(b);
		return rc;
	}
	return authority_publish(a, b, now, e);
}

int authority_revoke(struct authority *a, const char *uri, const uint8_t *key_hash, int64_t now,
		     struct err *e)
{
	static const uint8_t whole[SHA256_LEN];
	struct spiffe_id id;
	int rc = own_id(a, uri, &id, e);

	if (rc)
		return rc;
	if (key_hash && !memcmp(key_hash, whole, SHA256_LEN))
		return err_set(e, ERR_USAGE, "a key hash of zeros names no key");
	/* Any issuer may have renewed it a moment ago, so nothing shorter than the longest life will do. */
	return revoke(a, id.uri, key_hash, now + SVID_TTL_MAX + SVID_BACKDATE, now, e);
}

int authority_remove(struct authority *a, const char *name, bool unknown_too, int64_t now, struct err *e)
{
	struct spiffe_id id;
	int rc = spiffe_id_node(a->trust_domain, name, &id, e);

	if (rc)
		return rc;
	if (bundle_removed(a->bundle, id.uri))
		return 0;
	if (!unknown_too && !issued_find(a, id.uri)) {
		err_set(e, ERR_NOT_FOUND, "this issuer never issued to a node named %.63s", name);
		return err_todo(e, "see `x0 node list`; if it joined at another issuer, remove it there");
	}
	return revoke(a, id.uri, NULL, INT64_MAX, now, e);
}

int authority_add_issuer(struct authority *a, X509 *link_root, X509 *spiffe_root, int64_t now, struct err *e)
{
	X509 *const roots[] = { link_root, spiffe_root };
	struct spiffe_id id;
	struct bundle *b;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(roots) && !rc; i++) {
		rc = cert_id(roots[i], &id, e);
		if (!rc && (!spiffe_id_in(&id, a->trust_domain) || id.uri[id.path_off]))
			rc = err_set(e, ERR_DENIED,
				     "the issuer's root is for %.200s, not for trust domain %.100s", id.uri,
				     a->trust_domain);
		if (!rc &&
		    (X509_check_ca(roots[i]) != 1 || X509_verify(roots[i], X509_get0_pubkey(roots[i])) != 1))
			rc = err_set(e, ERR_DENIED, "that certificate is not a self-signed root");
	}
	if (!rc)
		rc = next_bundle(a, &b, e);
	if (rc)
		return rc;
	rc = bundle_add_root(b, SVID_LINK, link_root, e);
	if (!rc)
		rc = bundle_add_root(b, SVID_SPIFFE, spiffe_root, e);
	if (!rc && b->nlink_roots == a->bundle->nlink_roots && b->nspiffe_roots == a->bundle->nspiffe_roots)
		rc = err_set(e, ERR_CONFLICT, "the bundle holds that issuer's roots already");
	if (rc) {
		bundle_free(b);
		return rc;
	}
	return authority_publish(a, b, now, e);
}

int authority_add_policy_signer(struct authority *a, const char *uri, int64_t now, struct err *e)
{
	struct spiffe_id id;
	struct bundle *b;
	int rc = own_id(a, uri, &id, e);

	if (!rc)
		rc = next_bundle(a, &b, e);
	if (rc)
		return rc;
	rc = bundle_add_signer(b, id.uri, e);
	if (!rc && b->npolicy_signers == a->bundle->npolicy_signers)
		rc = err_set(e, ERR_CONFLICT, "%.200s may sign policy already", id.uri);
	if (rc) {
		bundle_free(b);
		return rc;
	}
	return authority_publish(a, b, now, e);
}

int authority_adopt(struct authority *a, const struct bundle *other, int64_t now, struct err *e)
{
	struct bundle *b;
	int rc;

	if (!other->encoded)
		return err_set(e, ERR_AUTH, "the other issuer's bundle is not signed");
	/* Decoded again: whoever made the object, only what is signed by a root we trust gets in. */
	rc = bundle_decode_any_number(other->encoded, other->encoded_n, a->bundle, &b, e);
	if (rc)
		return rc;
	if (b->number <= a->bundle->number && bundle_contains(a->bundle, b, now)) {
		bundle_free(b);
		return 0;
	}
	if (b->number <= a->bundle->number || !bundle_contains(b, a->bundle, now)) {
		struct bundle *both;

		rc = bundle_merge(a->bundle, b, now, &both, e);
		bundle_free(b);
		return rc ? rc : authority_publish(a, both, now, e);
	}
	return authority_take(a, b, e);
}

int authority_token(struct authority *a, const char *name, int64_t ttl, bool ephemeral,
		    const struct endpoint *addr, size_t naddrs, int64_t now, struct rng *rng,
		    struct token *ret, struct err *e)
{
	struct token_record rec = { .ephemeral = ephemeral };
	struct token t = { .ephemeral = ephemeral };
	char text[TOKEN_TEXT];
	struct spiffe_id id;
	int rc = authority_need_listed(a, e);

	if (!rc)
		rc = spiffe_id_node(a->trust_domain, name, &id, e);
	if (rc)
		return rc;
	if (ttl < 1 || ttl > SVID_TTL_MAX)
		return err_set(e, ERR_USAGE, "the life of a token must be 1 to %d seconds", SVID_TTL_MAX);
	if (!naddrs || naddrs > TOKEN_ADDRS)
		return err_set(e, ERR_USAGE, "a token names 1 to %d issuer addresses", TOKEN_ADDRS);
	if (bundle_removed(a->bundle, id.uri))
		return err_set(e, ERR_REVOKED, "node %.63s was removed for ever: choose another name", name);
	if (authority_in_use(a, id.uri, now)) {
		err_set(e, ERR_CONFLICT, "there is a node named %.63s", name);
		return err_todo(e, "choose another name, or `x0 ca revoke` the old host first");
	}
	tokens_forget_expired(a, now);
	t.naddrs = (uint8_t)naddrs;
	memcpy(t.addr, addr, naddrs * sizeof(*addr));
	memcpy(t.trust_domain, a->trust_domain, sizeof(t.trust_domain));
	memcpy(t.name, name, strlen(name) + 1);
	memcpy(rec.name, name, strlen(name) + 1);
	t.not_after = rec.not_after = now + ttl;
	rng_fill(rng, t.secret, sizeof(t.secret));
	if (key_pub_hash(a->link_key, t.issuer) || token_key(t.secret, rec.key) || token_id(rec.key, rec.id))
		rc = err_set(e, ERR_FAILED, "SHA-256 failed");
	if (!rc)
		rc = token_encode(&t, text, e); /* what cannot be written down must not be stored */
	if (!rc)
		rc = token_find(a, rec.id) ? err_set(e, ERR_FAILED, "the random generator repeats itself")
					   : token_add(a, &rec, e);
	if (!rc)
		*ret = t;
	secret_wipe(text, sizeof(text));
	secret_wipe(&t, sizeof(t));
	secret_wipe(&rec, sizeof(rec));
	return rc;
}

void authority_nodes(const struct authority *a, int64_t now,
		     void (*fn)(void *arg, const struct authority_node *n), void *arg)
{
	struct authority_node n;
	struct spiffe_id id;

	for (size_t i = 0; i < a->nissued; i++) {
		const struct issued *s = a->issued + i;

		n = (struct authority_node){ .uri = s->uri,
					     .issued_at = s->at,
					     .not_after = s->not_after,
					     .ephemeral = s->ephemeral };
		if (!spiffe_id_parse(s->uri, strlen(s->uri), &id, NULL))
			n.name = spiffe_id_node_name(&id);
		memcpy(n.addr, s->addr, sizeof(n.addr));
		memcpy(n.serial, s->serial, sizeof(n.serial));
		memcpy(n.key_hash, s->link_key, sizeof(n.key_hash));
		if (bundle_removed(a->bundle, s->uri))
			n.state = NODE_REMOVED;
		else if (bundle_revoked_at(a->bundle, s->uri) >= s->at ||
			 bundle_revokes(a->bundle, s->uri, s->link_key, INT64_MAX))
			n.state = NODE_REVOKED;
		else
			n.state = s->not_after < now ? NODE_EXPIRED : NODE_ACTIVE;
		if (!n.ephemeral || s->not_after >= now || n.state == NODE_REMOVED)
			fn(arg, &n);
	}
}
