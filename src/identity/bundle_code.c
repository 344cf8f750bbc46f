/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the signed form of a bundle
 *
 *	"x0bd" | u32 length of content | content | u8 signatures | signature...
 *	signature: SHA-256 of the signer's SubjectPublicKeyInfo (32) | ML-DSA-65 over the content, domain
 *"bundle" (3309) content: u8 version 1 | u8 n, trust domain | u64 number | u16 link roots, each u16 n, DER |
 *u16 spiffe roots, each u16 n, DER | u32 revocations, each key hash (32), u64 at, u64 until, u16 n, SPIFFE ID
 *		 | u16 policy signers, each u16 n, SPIFFE ID
 *
 * Big-endian; every list strictly ascending; DER must be DER. So a content has one encoding, and what the
 *decoder accepts it would write again byte for byte. With a trusted bundle at hand a signature is checked
 *before the content is looked at: strangers' bytes reach no certificate parser.
 */
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { BUNDLE_VERSION = 1, SIGNATURE = SHA256_LEN + SIG_MAX };
static const char bundle_magic[4] = "x0bd";
static const char bundle_domain[] = "bundle";

static int content_size(const struct bundle *b, size_t *ret)
{
	size_t n = 1 + 1 + strlen(b->trust_domain) + 8 + 2 + 2 + 4 + 2;

	for (size_t i = 0; i < b->nlink_roots + b->nspiffe_roots; i++) {
		X509 *x = i < b->nlink_roots ? b->link_roots[i] : b->spiffe_roots[i - b->nlink_roots];
		int der = i2d_X509(x, NULL);

		if (der < 0 || der > CERT_MAX)
			return ERR_LIMIT;
		n += 2 + (size_t)der;
	}
	for (size_t i = 0; i < b->nrevoked; i++)
		n += SHA256_LEN + 8 + 8 + 2 + strlen(b->revoked[i].uri);
	for (size_t i = 0; i < b->npolicy_signers; i++)
		n += 2 + strlen(b->policy_signers[i]);
	*ret = n;
	return 0;
}

static void put_text(struct wr *w, const char *s)
{
	wr_u16(w, (uint16_t)strlen(s));
	wr_bytes(w, s, strlen(s));
}

static void put_roots(struct wr *w, X509 *const *set, size_t n)
{
	wr_u16(w, (uint16_t)n);
	for (size_t i = 0; i < n; i++) {
		int der = i2d_X509(set[i], NULL);
		uint8_t *p;

		wr_u16(w, (uint16_t)der);
		p = wr_room(w, (size_t)der);
		if (p)
			i2d_X509(set[i], &p);
	}
}

static void put_content(struct wr *w, const struct bundle *b)
{
	wr_u8(w, BUNDLE_VERSION);
	wr_u8(w, (uint8_t)strlen(b->trust_domain));
	wr_bytes(w, b->trust_domain, strlen(b->trust_domain));
	wr_u64(w, b->number);
	put_roots(w, b->link_roots, b->nlink_roots);
	put_roots(w, b->spiffe_roots, b->nspiffe_roots);
	wr_u32(w, (uint32_t)b->nrevoked);
	for (size_t i = 0; i < b->nrevoked; i++) {
		wr_bytes(w, b->revoked[i].svid, SHA256_LEN);
		wr_u64(w, (uint64_t)b->revoked[i].at);
		wr_u64(w, (uint64_t)b->revoked[i].until);
		put_text(w, b->revoked[i].uri);
	}
	wr_u16(w, (uint16_t)b->npolicy_signers);
	for (size_t i = 0; i < b->npolicy_signers; i++)
		put_text(w, b->policy_signers[i]);
}

int bundle_content_encode(const struct bundle *b, uint8_t **ret_p, size_t *ret_n)
{
	size_t n;
	struct wr w;
	uint8_t *p;

	if (content_size(b, &n) || n > BUNDLE_MAX - 64 - BUNDLE_SIGS_MAX * SIGNATURE)
		return ERR_LIMIT;
	p = malloc(n);
	if (!p)
		return ERR_NOMEM;
	w = wr_init(p, n);
	put_content(&w, b);
	if (!wr_ok(&w) || wr_len(&w) != n) {
		free(p);
		return ERR_FAILED;
	}
	*ret_p = p;
	*ret_n = n;
	return 0;
}

/* The parts of a signed form. */
struct signed_form {
	const uint8_t *content, *sigs;
	size_t content_n, nsigs;
};

static int signed_form_parse(const void *p, size_t n, struct signed_form *ret)
{
	struct rd r = rd_init(p, n);
	const uint8_t *magic = rd_bytes(&r, sizeof(bundle_magic));
	struct signed_form f = { .content_n = rd_u32(&r) };

	f.content = rd_bytes(&r, f.content_n);
	f.nsigs = rd_u8(&r);
	f.sigs = rd_bytes(&r, f.nsigs * SIGNATURE);
	if (!rd_done(&r) || memcmp(magic, bundle_magic, sizeof(bundle_magic)) || !f.nsigs ||
	    f.nsigs > BUNDLE_SIGS_MAX)
		return ERR_PARSE;
	for (size_t i = 1; i < f.nsigs; i++)
		if (memcmp(f.sigs + (i - 1) * SIGNATURE, f.sigs + i * SIGNATURE, SHA256_LEN) >= 0)
			return ERR_PARSE;
	*ret = f;
	return 0;
}

/* Writes old signatures (of the same content) and the new one in order of the signer's hash. */
static int put_signatures(struct wr *w, const struct signed_form *old, const uint8_t signature[SIGNATURE],
			  struct err *e)
{
	uint8_t *count = wr_room(w, 1);
	bool placed = false;
	unsigned n = 0;

	for (size_t i = 0; i < old->nsigs; i++) {
		const uint8_t *s = old->sigs + i * SIGNATURE;
		int c = memcmp(s, signature, SHA256_LEN);

		if (c >= 0 && !placed) {
			wr_bytes(w, signature, SIGNATURE);
			placed = true;
			n++;
		}
		if (c) {
			wr_bytes(w, s, SIGNATURE);
			n++;
		}
	}
	if (!placed) {
		wr_bytes(w, signature, SIGNATURE);
		n++;
	}
	if (!wr_ok(w) || n > BUNDLE_SIGS_MAX)
		return err_set(e, ERR_LIMIT, "a bundle carries at most %d signatures", BUNDLE_SIGS_MAX);
	*count = (uint8_t)n;
	return 0;
}

static X509 *signer_find(const struct bundle *b, const uint8_t key_hash[SHA256_LEN])
{
	uint8_t h[SHA256_LEN];

	for (size_t i = 0; b && i < b->nlink_roots; i++)
		if (!key_pub_hash(X509_get0_pubkey(b->link_roots[i]), h) && !memcmp(h, key_hash, SHA256_LEN))
			return b->link_roots[i];
	return NULL;
}

int bundle_sign(struct bundle *b, X509 *root, EVP_PKEY *key, struct err *e)
{
	uint8_t signature[SIGNATURE], hash[SHA256_LEN], *content = NULL, *p = NULL;
	struct signed_form old = { 0 }, kept = { 0 };
	size_t content_n = 0, sig_n = SIG_MAX, cap;
	struct wr w;
	int rc;

	if (key_pub_hash(key, signature) || !signer_find(b, signature) ||
	    X509_check_private_key(root, key) != 1)
		return err_set(e, ERR_DENIED,
			       "a bundle is signed with the key of one of its own link roots only");
	rc = bundle_content_encode(b, &content, &content_n);
	if (rc)
		return err_set(e, rc,
			       rc == ERR_LIMIT ? "the bundle is too large"
					       : "the bundle could not be encoded");
	if (b->encoded && !signed_form_parse(b->encoded, b->encoded_n, &old) && old.content_n == content_n &&
	    !memcmp(old.content, content, content_n))
		kept = old;
	cap = content_n + 9 + (kept.nsigs + 1) * SIGNATURE;
	p = malloc(cap);
	w = wr_init(p, p ? cap : 0);
	wr_bytes(&w, bundle_magic, sizeof(bundle_magic));
	wr_u32(&w, (uint32_t)content_n);
	wr_bytes(&w, content, content_n);
	rc = wr_ok(&w) ? 0 : err_set(e, ERR_NOMEM, "out of memory");
	if (!rc)
		rc = sig_make(key, bundle_domain, content, content_n, signature + SHA256_LEN, &sig_n, e);
	if (!rc && (sig_n != SIG_MAX || sha256(content, content_n, hash)))
		rc = err_set(e, ERR_FAILED, "the bundle could not be signed");
	if (!rc)
		rc = put_signatures(&w, &kept, signature, e);
	free(content);
	if (rc) {
		free(p);
		return rc;
	}
	memcpy(b->hash, hash, sizeof(hash));
	b->encoded_n = wr_len(&w);
	free(b->encoded);
	b->encoded = p;
	return 0;
}

/* ---- decoding ---- */

static int get_roots(struct rd *r, struct bundle *b, enum svid_profile profile, struct err *e)
{
	size_t n = rd_u16(r), prev_n = 0;
	const uint8_t *prev = NULL;

	if (b->nlink_roots + n > BUNDLE_ROOTS_MAX)
		return err_set(e, ERR_LIMIT, "the bundle holds more than %d roots", BUNDLE_ROOTS_MAX);
	for (size_t i = 0; i < n; i++) {
		size_t der_n = rd_u16(r);
		const uint8_t *der = rd_bytes(r, der_n);
		X509 *x;
		int rc;

		if (!der)
			return err_set(e, ERR_PARSE, "the bundle is cut short");
		if (prev) {
			int c = memcmp(prev, der, prev_n < der_n ? prev_n : der_n);

			if (c > 0 || (!c && prev_n >= der_n))
				return err_set(e, ERR_PARSE, "the bundle's roots are not in order");
		}
		prev = der;
		prev_n = der_n;
		rc = cert_from_der(der, der_n, &x, e);
		if (rc)
			return rc;
		rc = bundle_add_root(b, profile, x, e);
		X509_free(x);
		if (rc)
			return rc;
	}
	return 0;
}

/* A canonical SPIFFE ID of the bundle's domain, NUL-terminated in `to`. */
static int get_uri(struct rd *r, const struct bundle *b, struct spiffe_id *to, struct err *e)
{
	size_t n = rd_u16(r);
	const uint8_t *p = rd_bytes(r, n);
	int rc;

	if (!p)
		return err_set(e, ERR_PARSE, "the bundle is cut short");
	rc = spiffe_id_parse((const char *)p, n, to, e);
	if (rc)
		return rc;
	if (strlen(to->uri) != n || memcmp(to->uri, p, n) || !spiffe_id_in(to, b->trust_domain))
		return err_set(e, ERR_PARSE, "the bundle names an identity of another trust domain");
	return 0;
}

static int get_revocations(struct rd *r, struct bundle *b, struct err *e)
{
	size_t n = rd_u32(r);
	struct spiffe_id id;

	if (n > BUNDLE_REVOKED_MAX)
		return err_set(e, ERR_LIMIT, "the bundle holds more than %d revocations", BUNDLE_REVOKED_MAX);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *svid = rd_bytes(r, SHA256_LEN);
		uint64_t at = rd_u64(r), until = rd_u64(r);
		int rc = get_uri(r, b, &id, e);

		if (rc)
			return rc;
		if (until > INT64_MAX || at > until)
			return err_set(e, ERR_PARSE, "a revocation's times are out of range");
		if (i) {
			const struct revocation *prev = b->revoked + i - 1;
			int c = strcmp(prev->uri, id.uri);

			if (c > 0 || (!c && memcmp(prev->svid, svid, SHA256_LEN) >= 0))
				return err_set(e, ERR_PARSE, "the bundle's revocations are not in order");
		}
		rc = bundle_add_revocation(b, id.uri, svid, (int64_t)at, (int64_t)until, e);
		if (rc)
			return rc;
	}
	return 0;
}

static int get_signers(struct rd *r, struct bundle *b, struct err *e)
{
	size_t n = rd_u16(r);
	struct spiffe_id id;

	for (size_t i = 0; i < n; i++) {
		int rc = get_uri(r, b, &id, e);

		if (rc)
			return rc;
		if (i && strcmp(b->policy_signers[i - 1], id.uri) >= 0)
			return err_set(e, ERR_PARSE, "the bundle's policy signers are not in order");
		rc = bundle_add_signer(b, id.uri, e);
		if (rc)
			return rc;
	}
	return 0;
}

int bundle_content_decode(const void *p, size_t n, struct bundle **ret, struct err *e)
{
	char text[sizeof("spiffe://") + TRUST_DOMAIN_MAX], *domain = text + strlen("spiffe://");
	struct rd r = rd_init(p, n);
	uint8_t version = rd_u8(&r), td_n = rd_u8(&r);
	const uint8_t *td = rd_bytes(&r, td_n);
	uint64_t number = rd_u64(&r);
	struct spiffe_id id;
	struct bundle *b;
	int rc;

	if (!rd_ok(&r) || !number)
		return err_set(e, ERR_PARSE, "the bundle is cut short or has no number");
	if (version != BUNDLE_VERSION) {
		err_set(e, ERR_UNSUPPORTED, "the bundle has format version %u; this program reads %d",
			version, BUNDLE_VERSION);
		return err_todo(e, "update x0 on this host");
	}
	memcpy(text, "spiffe://", strlen("spiffe://"));
	memcpy(domain, td, td_n);
	domain[td_n] = 0;
	rc = spiffe_id_parse(text, strlen("spiffe://") + td_n, &id, e);
	if (rc)
		return rc;
	if (!spiffe_id_in(&id, domain) || id.uri[id.path_off])
		return err_set(e, ERR_PARSE, "the bundle's trust domain is malformed");
	b = bundle_new(domain);
	if (!b)
		return err_set(e, ERR_NOMEM, "out of memory");
	b->number = number;
	rc = get_roots(&r, b, SVID_LINK, e);
	if (!rc)
		rc = get_roots(&r, b, SVID_SPIFFE, e);
	if (!rc)
		rc = get_revocations(&r, b, e);
	if (!rc)
		rc = get_signers(&r, b, e);
	if (!rc && !rd_done(&r))
		rc = err_set(e, ERR_PARSE, "the bundle is cut short or has bytes left over");
	if (rc) {
		bundle_free(b);
		return rc;
	}
	*ret = b;
	return 0;
}

static int signature_check(const struct signed_form *f, size_t i, X509 *root, struct err *e)
{
	const uint8_t *s = f->sigs + i * SIGNATURE;

	if (sig_check(X509_get0_pubkey(root), bundle_domain, f->content, f->content_n, s + SHA256_LEN,
		      SIG_MAX))
		return err_set(e, ERR_AUTH, "a signature of the bundle is wrong: it was altered, or forged");
	return 0;
}

/* At least one signature by a root of the bundle in force: the first look at a stranger's bytes. */
static int trusted_check(const struct signed_form *f, const struct bundle *trusted, struct err *e)
{
	bool any = false;

	for (size_t i = 0; i < f->nsigs; i++) {
		X509 *root = signer_find(trusted, f->sigs + i * SIGNATURE);
		int rc = root ? signature_check(f, i, root, e) : 0;

		if (rc)
			return rc;
		any |= root != NULL;
	}
	if (any)
		return 0;
	err_set(e, ERR_AUTH, "the bundle is not signed by any root that this host trusts");
	return err_todo(
		e, "let an issuer that this host trusts adopt that bundle; if it is another mesh, join it");
}

/* The signatures that the trusted bundle could not judge, by the bundle's own roots; and the pin. */
static int own_check(const struct signed_form *f, const struct bundle *b, const struct bundle *trusted,
		     const uint8_t *pin, struct err *e)
{
	bool pinned = !pin;

	for (size_t i = 0; i < f->nsigs; i++) {
		const uint8_t *hash = f->sigs + i * SIGNATURE;
		X509 *root = signer_find(trusted, hash);
		int rc;

		if (root)
			continue;
		root = signer_find(b, hash);
		if (!root)
			return err_set(e, ERR_AUTH, "the bundle is signed by a root that is not in it");
		rc = signature_check(f, i, root, e);
		if (rc)
			return rc;
		pinned |= pin && !memcmp(hash, pin, SHA256_LEN);
	}
	if (!pinned && !trusted)
		return err_set(e, ERR_AUTH, "the bundle is not signed by the issuer that the token names");
	return 0;
}

static int decode(const void *p, size_t n, const struct bundle *trusted, const uint8_t *pin,
		  struct bundle **ret, struct err *e)
{
	struct signed_form f;
	struct bundle *b;
	int rc;

	if (n > BUNDLE_MAX)
		return err_set(e, ERR_LIMIT, "the bundle is larger than %d MiB", BUNDLE_MAX >> 20);
	if (signed_form_parse(p, n, &f))
		return err_set(e, ERR_PARSE, "these %zu bytes are not a signed bundle", n);
	rc = trusted ? trusted_check(&f, trusted, e) : 0;
	if (rc)
		return rc;
	rc = bundle_content_decode(f.content, f.content_n, &b, e);
	if (rc)
		return rc;
	if (trusted && strcmp(b->trust_domain, trusted->trust_domain))
		rc = err_set(e, ERR_DENIED, "the bundle is of trust domain %.100s, this host's is %.100s",
			     b->trust_domain, trusted->trust_domain);
	if (!rc)
		rc = own_check(&f, b, trusted, pin, e);
	if (!rc && sha256(f.content, f.content_n, b->hash))
		rc = err_set(e, ERR_FAILED, "SHA-256 failed");
	b->encoded = rc ? NULL : malloc(n);
	if (!rc && !b->encoded)
		rc = err_set(e, ERR_NOMEM, "out of memory");
	if (rc) {
		bundle_free(b);
		return rc;
	}
	memcpy(b->encoded, p, n);
	b->encoded_n = n;
	*ret = b;
	return 0;
}

bool bundle_names_signer(const void *p, size_t n, const struct bundle *trusted)
{
	struct signed_form f;

	if (signed_form_parse(p, n, &f))
		return false;
	for (size_t i = 0; i < f.nsigs; i++)
		if (signer_find(trusted, f.sigs + i * SIGNATURE))
			return true;
	return false;
}

int bundle_decode_any_number(const void *p, size_t n, const struct bundle *trusted, struct bundle **ret,
			     struct err *e)
{
	if (!trusted)
		return err_set(e, ERR_USAGE, "a bundle in force is needed to judge another");
	return decode(p, n, trusted, NULL, ret, e);
}

int bundle_decode(const void *p, size_t n, const struct bundle *trusted, const uint8_t *pin,
		  struct bundle **ret, struct err *e)
{
	struct bundle *b;
	int rc = decode(p, n, trusted, pin, &b, e);

	if (rc)
		return rc;
	if (trusted && b->number < trusted->number)
		rc = err_set(e, ERR_REPLAY, "the bundle has number %llu, older than %llu, which is in force",
			     (unsigned long long)b->number, (unsigned long long)trusted->number);
	else if (trusted && b->number == trusted->number && memcmp(b->hash, trusted->hash, SHA256_LEN))
		rc = err_set(e, ERR_CONFLICT,
			     "two issuers made different bundles with number %llu; the next one unites them",
			     (unsigned long long)b->number);
	if (rc) {
		bundle_free(b);
		return rc;
	}
	*ret = b;
	return 0;
}
