/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the bundle of a trust domain
 *
 * What every member must agree on to judge a certificate: the roots of each profile, what was revoked, who
 * may sign policy. This file is the object; bundle_code.c signs, encodes and decodes it.
 *
 * Invariants: everything is sorted and unique (roots by DER, revocations by SPIFFE ID then key hash, signers
 * by text), so that equal content has equal bytes and a revocation is found by binary search among 100,000.
 * Two sets of anchors: the link set takes ML-DSA-65 roots only.
 *
 * Conflicts. Issuers work without asking each other, so two of them may both make number N+1. Nobody's change
 * may be lost (a lost revocation is a hole), so an issuer that sees a bundle which lacks anything of its own
 * signs the union of both, with the larger number plus one. The union is commutative, associative and
 * idempotent (of two revocations of the same thing the later `at` and `until` stay), so issuers that merge at
 * the same time again meet in equal content, and a bundle that already holds everything is adopted as it is:
 * the process ends. Only revocations whose every SVID has expired are left out of a union. Nodes that do not
 * issue choose one of the two, all the same one, and honour the revocations of both (bundle_settle()).
 *
 * Source: SPIFFE_Trust_Domain_and_Bundle (the content); the encoding is ours.
 */
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

static const uint8_t whole[SHA256_LEN]; /* a revocation of the whole identity names no key */

struct bundle *bundle_new(const char *trust_domain)
{
	struct bundle *b;

	if (strlen(trust_domain) > TRUST_DOMAIN_MAX)
		return NULL;
	b = calloc(1, sizeof(*b));
	if (b)
		memcpy(b->trust_domain, trust_domain, strlen(trust_domain) + 1);
	return b;
}

struct bundle *bundle_free(struct bundle *b)
{
	if (!b)
		return NULL;
	for (size_t i = 0; i < b->nlink_roots; i++)
		X509_free(b->link_roots[i]);
	for (size_t i = 0; i < b->nspiffe_roots; i++)
		X509_free(b->spiffe_roots[i]);
	for (size_t i = 0; i < b->nrevoked; i++)
		free(b->revoked[i].uri);
	for (size_t i = 0; i < b->npolicy_signers; i++)
		free(b->policy_signers[i]);
	free(b->link_roots);
	free(b->spiffe_roots);
	free(b->revoked);
	free(b->policy_signers);
	free(b->encoded);
	bundle_free(b->also);
	free(b);
	return NULL;
}

/* Makes room for one more element; the arrays grow by doubling at powers of two. */
int array_grow(void **array, size_t n, size_t size)
{
	void *p;

	if (n & (n - 1)) /* between powers of two there is room */
		return 0;
	p = reallocarray(*array, n ? 2 * n : 1, size);
	if (!p)
		return ERR_NOMEM;
	*array = p;
	return 0;
}

void array_shrink(void **array, size_t n, size_t size)
{
	size_t room = 1;
	void *p;

	/* array_grow() takes a count that is no power of two for room: leave exactly the power of two above.
	 */
	while (room < n)
		room *= 2;
	p = reallocarray(*array, room, size);
	if (p) /* else the larger block stays, which is also right */
		*array = p;
}

static int der_compare(X509 *a, X509 *b)
{
	uint8_t *pa = NULL, *pb = NULL;
	int na = i2d_X509(a, &pa), nb = i2d_X509(b, &pb), c;

	if (na < 0 || nb < 0)
		c = X509_cmp(a, b);
	else
		c = memcmp(pa, pb, (size_t)(na < nb ? na : nb));
	if (!c)
		c = (na > nb) - (na < nb);
	OPENSSL_free(pa);
	OPENSSL_free(pb);
	return c;
}

int bundle_add_root(struct bundle *b, enum svid_profile profile, X509 *root, struct err *e)
{
	X509 ***set = profile == SVID_LINK ? &b->link_roots : &b->spiffe_roots;
	size_t *n = profile == SVID_LINK ? &b->nlink_roots : &b->nspiffe_roots;
	EVP_PKEY *key = X509_get0_pubkey(root);
	size_t at = 0, hi = *n;

	if (!key)
		return err_set(e, ERR_PARSE,
			       "the root certificate has no public key that this program can read");
	if (profile == SVID_LINK && key_type_of(key) != KEY_MLDSA65)
		return err_set(e, ERR_UNSUPPORTED, "a link root must have an ML-DSA-65 key");
	while (at < hi) {
		size_t mid = at + (hi - at) / 2;
		int c = der_compare((*set)[mid], root);

		if (!c)
			return 0;
		if (c < 0)
			at = mid + 1;
		else
			hi = mid;
	}
	if (b->nlink_roots + b->nspiffe_roots >= BUNDLE_ROOTS_MAX)
		return err_set(e, ERR_LIMIT, "a bundle holds at most %d roots", BUNDLE_ROOTS_MAX);
	if (array_grow((void **)set, *n, sizeof(**set)) || !X509_up_ref(root))
		return err_set(e, ERR_NOMEM, "out of memory");
	memmove(*set + at + 1, *set + at, (*n - at) * sizeof(**set));
	(*set)[at] = root;
	(*n)++;
	return 0;
}

/* The first revocation not below (uri, svid); svid NULL: the first of the uri. */
static size_t revocation_find(const struct bundle *b, const char *uri, const uint8_t *svid)
{
	size_t lo = 0, hi = b->nrevoked;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(b->revoked[mid].uri, uri);

		if (!c && svid)
			c = memcmp(b->revoked[mid].svid, svid, SHA256_LEN);
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bundle_add_revocation(struct bundle *b, const char *uri, const uint8_t *key_hash, int64_t at,
			  int64_t until, struct err *e)
{
	const uint8_t *svid = key_hash ? key_hash : whole;
	size_t i = revocation_find(b, uri, svid);
	struct revocation *r = b->revoked ? b->revoked + i : NULL;
	char *copy;

	if (i < b->nrevoked && !strcmp(r->uri, uri) && !memcmp(r->svid, svid, SHA256_LEN)) {
		r->at = at > r->at ? at : r->at;
		r->until = until > r->until ? until : r->until;
		return 0;
	}
	if (b->nrevoked >= BUNDLE_REVOKED_MAX)
		return err_set(e, ERR_LIMIT, "a bundle holds at most %d revocations", BUNDLE_REVOKED_MAX);
	copy = strdup(uri);
	if (!copy || array_grow((void **)&b->revoked, b->nrevoked, sizeof(*b->revoked))) {
		free(copy);
		return err_set(e, ERR_NOMEM, "out of memory");
	}
	r = b->revoked + i;
	memmove(r + 1, r, (b->nrevoked - i) * sizeof(*r));
	*r = (struct revocation){ .uri = copy, .at = at, .until = until };
	memcpy(r->svid, svid, SHA256_LEN);
	b->nrevoked++;
	return 0;
}

int bundle_add_signer(struct bundle *b, const char *uri, struct err *e)
{
	size_t i = 0;
	char *copy;

	while (i < b->npolicy_signers && strcmp(b->policy_signers[i], uri) < 0)
		i++;
	if (i < b->npolicy_signers && !strcmp(b->policy_signers[i], uri))
		return 0;
	if (b->npolicy_signers >= BUNDLE_SIGNERS_MAX)
		return err_set(e, ERR_LIMIT, "a bundle names at most %d policy signers", BUNDLE_SIGNERS_MAX);
	copy = strdup(uri);
	if (!copy || array_grow((void **)&b->policy_signers, b->npolicy_signers, sizeof(char *))) {
		free(copy);
		return err_set(e, ERR_NOMEM, "out of memory");
	}
	memmove(b->policy_signers + i + 1, b->policy_signers + i, (b->npolicy_signers - i) * sizeof(char *));
	b->policy_signers[i] = copy;
	b->npolicy_signers++;
	return 0;
}

void bundle_drop_expired(struct bundle *b, int64_t now)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->nrevoked; i++) {
		if (b->revoked[i].until < now)
			free(b->revoked[i].uri);
		else
			b->revoked[kept++] = b->revoked[i];
	}
	b->nrevoked = kept;
	array_shrink((void **)&b->revoked, kept, sizeof(*b->revoked));
}

/* Adds all of `from` to `to`. */
static int bundle_union(struct bundle *to, const struct bundle *from, int64_t now, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < from->nlink_roots && !rc; i++)
		rc = bundle_add_root(to, SVID_LINK, from->link_roots[i], e);
	for (size_t i = 0; i < from->nspiffe_roots && !rc; i++)
		rc = bundle_add_root(to, SVID_SPIFFE, from->spiffe_roots[i], e);
	for (size_t i = 0; i < from->nrevoked && !rc; i++) {
		const struct revocation *r = from->revoked + i;
		const uint8_t *svid = memcmp(r->svid, whole, SHA256_LEN) ? r->svid : NULL;

		if (r->until >= now)
			rc = bundle_add_revocation(to, r->uri, svid, r->at, r->until, e);
	}
	for (size_t i = 0; i < from->npolicy_signers && !rc; i++)
		rc = bundle_add_signer(to, from->policy_signers[i], e);
	return rc;
}

struct bundle *bundle_clone(const struct bundle *b)
{
	struct bundle *c = bundle_new(b->trust_domain);

	if (!c)
		return NULL;
	c->number = b->number;
	if (bundle_union(c, b, INT64_MIN, NULL))
		return bundle_free(c);
	return c;
}

struct bundle *bundle_copy(const struct bundle *b)
{
	struct bundle *c = bundle_clone(b);

	if (!c)
		return NULL;
	memcpy(c->hash, b->hash, sizeof(c->hash));
	c->encoded = b->encoded ? malloc(b->encoded_n) : NULL;
	c->also = b->also ? bundle_clone(b->also) : NULL;
	if ((b->encoded && !c->encoded) || (b->also && !c->also))
		return bundle_free(c);
	if (b->encoded)
		memcpy(c->encoded, b->encoded, b->encoded_n);
	c->encoded_n = b->encoded_n;
	return c;
}

int bundle_merge(const struct bundle *a, const struct bundle *b, int64_t now, struct bundle **ret,
		 struct err *e)
{
	struct bundle *m;
	int rc;

	if (strcmp(a->trust_domain, b->trust_domain))
		return err_set(e, ERR_DENIED, "bundles of %s and %s cannot be merged", a->trust_domain,
			       b->trust_domain);
	if (a->number == UINT64_MAX || b->number == UINT64_MAX)
		return err_set(e, ERR_LIMIT, "the bundle's number cannot be raised further");
	m = bundle_new(a->trust_domain);
	if (!m)
		return err_set(e, ERR_NOMEM, "out of memory");
	m->number = (a->number > b->number ? a->number : b->number) + 1;
	rc = bundle_union(m, a, now, e);
	if (!rc)
		rc = bundle_union(m, b, now, e);
	if (rc) {
		bundle_free(m);
		return rc;
	}
	*ret = m;
	return 0;
}

static bool has_root(X509 *const *set, size_t n, X509 *root)
{
	for (size_t i = 0; i < n; i++)
		if (!der_compare(set[i], root))
			return true;
	return false;
}

/* Whether b revokes the same thing at least as late and as long. */
static bool covers(const struct bundle *b, const struct revocation *r)
{
	size_t at = revocation_find(b, r->uri, r->svid);
	const struct revocation *own = b->revoked + at;

	return at < b->nrevoked && !strcmp(own->uri, r->uri) && !memcmp(own->svid, r->svid, SHA256_LEN) &&
	       own->at >= r->at && own->until >= r->until;
}

/* Puts what b->also must hold of `from`; whether that was new is added to *changed. */
static int honour(struct bundle *b, const struct bundle *from, int64_t now, const struct bundle *known,
		  bool *changed, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; from && i < from->nrevoked && !rc; i++) {
		const struct revocation *r = from->revoked + i;
		const uint8_t *svid = memcmp(r->svid, whole, SHA256_LEN) ? r->svid : NULL;

		if (r->until < now)
			continue;
		*changed |= !covers(known, r) && !(known->also && covers(known->also, r));
		if (!covers(b, r))
			rc = bundle_add_revocation(b->also, r->uri, svid, r->at, r->until, e);
	}
	return rc;
}

int bundle_settle(const struct bundle *own, const struct bundle *theirs, int64_t now, struct bundle **ret,
		  struct err *e)
{
	const struct bundle *const parts[] = { own, own->also, theirs, theirs->also };
	bool changed = theirs->number > own->number ||
		       (theirs->number == own->number && memcmp(theirs->hash, own->hash, SHA256_LEN) > 0);
	struct bundle *b;
	int rc = 0;

	if (strcmp(own->trust_domain, theirs->trust_domain))
		return err_set(e, ERR_DENIED, "a bundle of %s has no say in %s", theirs->trust_domain,
			       own->trust_domain);
	b = bundle_copy(changed ? theirs : own);
	if (b) {
		bundle_free(b->also);
		b->also = bundle_new(b->trust_domain);
	}
	if (!b || !b->also) {
		bundle_free(b);
		return err_set(e, ERR_NOMEM, "out of memory");
	}
	for (size_t i = 0; i < ARRAY_SIZE(parts) && !rc; i++)
		rc = honour(b, parts[i], now, own, &changed, e);
	if (rc || !changed) {
		bundle_free(b);
		return rc;
	}
	if (!b->also->nrevoked)
		b->also = bundle_free(b->also);
	*ret = b;
	return 1;
}

bool bundle_contains(const struct bundle *b, const struct bundle *part, int64_t now)
{
	for (size_t i = 0; i < part->nlink_roots; i++)
		if (!has_root(b->link_roots, b->nlink_roots, part->link_roots[i]))
			return false;
	for (size_t i = 0; i < part->nspiffe_roots; i++)
		if (!has_root(b->spiffe_roots, b->nspiffe_roots, part->spiffe_roots[i]))
			return false;
	for (size_t i = 0; i < part->nrevoked; i++)
		if (part->revoked[i].until >= now && !covers(b, part->revoked + i))
			return false;
	for (size_t i = 0, j = 0; i < part->npolicy_signers; i++) {
		while (j < b->npolicy_signers && strcmp(b->policy_signers[j], part->policy_signers[i]) < 0)
			j++;
		if (j == b->npolicy_signers || strcmp(b->policy_signers[j], part->policy_signers[i]))
			return false;
	}
	return true;
}

bool bundle_revokes(const struct bundle *b, const char *uri, const uint8_t key_hash[SHA256_LEN],
		    int64_t issued_at)
{
	for (size_t i = revocation_find(b, uri, NULL); i < b->nrevoked && !strcmp(b->revoked[i].uri, uri);
	     i++) {
		const struct revocation *r = b->revoked + i;

		if (!memcmp(r->svid, whole, SHA256_LEN)) {
			if (r->until == INT64_MAX || issued_at <= r->at)
				return true;
		} else if (!memcmp(r->svid, key_hash, SHA256_LEN)) {
			return true;
		}
	}
	return b->also && bundle_revokes(b->also, uri, key_hash, issued_at);
}

bool bundle_removed(const struct bundle *b, const char *uri)
{
	size_t i = revocation_find(b, uri, whole);

	return i < b->nrevoked && !strcmp(b->revoked[i].uri, uri) &&
	       !memcmp(b->revoked[i].svid, whole, SHA256_LEN) && b->revoked[i].until == INT64_MAX;
}

int64_t bundle_revoked_at(const struct bundle *b, const char *uri)
{
	size_t i = revocation_find(b, uri, whole);

	if (i < b->nrevoked && !strcmp(b->revoked[i].uri, uri) &&
	    !memcmp(b->revoked[i].svid, whole, SHA256_LEN))
		return b->revoked[i].at;
	return INT64_MIN;
}
