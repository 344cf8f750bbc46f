/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "identity/testlib.h"

struct root {
	EVP_PKEY *key;
	X509 *crt;
	uint8_t hash[SHA256_LEN];
};

static struct root la, lb, sa; /* two link roots, one spiffe root */

static struct root root_new(enum key_type type, const char *td)
{
	struct root r = { .key = test_key(type) };

	must(cert_root(td, r.key, NOW, &r.crt, e));
	assert_int_equal(key_pub_hash(r.key, r.hash), 0);
	return r;
}

static void root_free(struct root *r)
{
	EVP_PKEY_free(r->key);
	X509_free(r->crt);
}

static int setup(void **state)
{
	(void)state;
	must(crypto_init(e));
	la = root_new(KEY_MLDSA65, TD);
	lb = root_new(KEY_MLDSA65, TD);
	sa = root_new(KEY_P256, TD);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	root_free(&la);
	root_free(&lb);
	root_free(&sa);
	return 0;
}

static struct bundle *with_roots(uint64_t number, const struct root *a, const struct root *b)
{
	struct bundle *x = bundle_new(TD);

	assert_non_null(x);
	x->number = number;
	must(bundle_add_root(x, SVID_LINK, a->crt, e));
	if (b)
		must(bundle_add_root(x, SVID_LINK, b->crt, e));
	must(bundle_add_root(x, SVID_SPIFFE, sa.crt, e));
	return x;
}

static struct bundle *signed_bundle(uint64_t number, const struct root *by)
{
	struct bundle *b = with_roots(number, by, NULL);

	must(bundle_sign(b, by->crt, by->key, e));
	return b;
}

static void test_objects(void **state)
{
	char longtd[TRUST_DOMAIN_MAX + 2];
	struct bundle *b;

	(void)state;
	memset(longtd, 'a', sizeof(longtd));
	longtd[sizeof(longtd) - 1] = 0;
	assert_null(bundle_new(longtd));
	assert_null(bundle_free(NULL));
	b = with_roots(1, &la, &lb);
	assert_int_equal(b->nlink_roots, 2);
	must(bundle_add_root(b, SVID_LINK, la.crt, e)); /* again: nothing changes */
	assert_int_equal(b->nlink_roots, 2);
	assert_int_equal(b->nspiffe_roots, 1);
	refused(ERR_UNSUPPORTED,
		bundle_add_root(b, SVID_LINK, sa.crt, e)); /* a P-256 anchor on links: never */
	assert_int_equal(b->nlink_roots, 2);
	must(bundle_add_root(b, SVID_SPIFFE, la.crt, e));
	bundle_free(b);
}

static void test_revokes(void **state)
{
	const char *id = "spiffe://" TD "/node/a", *other = "spiffe://" TD "/node/ab";
	uint8_t k1[SHA256_LEN] = { 1 }, k2[SHA256_LEN] = { 2 };
	struct bundle *b = bundle_new(TD), *c;

	(void)state;
	assert_false(bundle_revokes(b, id, k1, NOW));
	must(bundle_add_revocation(b, id, k1, NOW, NOW + 100, e));
	assert_true(bundle_revokes(b, id, k1, NOW - 5));
	assert_true(bundle_revokes(b, id, k1, NOW + 5)); /* a key stays revoked, whenever it was certified */
	assert_false(bundle_revokes(b, id, k2, NOW - 5));
	assert_false(bundle_revokes(b, other, k1, NOW - 5));
	assert_int_equal(bundle_revoked_at(b, id), INT64_MIN);

	must(bundle_add_revocation(b, id, NULL, NOW, NOW + 100, e));
	assert_true(bundle_revokes(b, id, k2, NOW - 5));
	assert_true(bundle_revokes(b, id, k2, NOW));
	assert_false(bundle_revokes(b, id, k2, NOW + 1)); /* joined again afterwards */
	assert_true(bundle_revokes(b, id, k1, NOW + 1));  /* but not with the revoked key */
	assert_false(bundle_revokes(b, other, k2, NOW - 5));
	assert_int_equal(bundle_revoked_at(b, id), NOW);
	assert_false(bundle_removed(b, id));

	must(bundle_add_revocation(b, id, NULL, NOW - 50, INT64_MAX, e));
	assert_int_equal(b->nrevoked, 2);
	assert_int_equal(bundle_revoked_at(b, id), NOW); /* the later `at` stays */
	assert_true(bundle_removed(b, id));
	assert_false(bundle_removed(b, other));
	assert_true(bundle_revokes(b, id, k2, INT64_MAX));

	c = bundle_clone(b);
	bundle_drop_expired(c, NOW + 100);
	assert_int_equal(c->nrevoked, 2);
	bundle_drop_expired(c, NOW + 101);
	assert_int_equal(c->nrevoked, 1); /* for ever is for ever */
	assert_true(bundle_removed(c, id));
	for (int i = 0; i < 20; i++) { /* room after shrinking is right */
		k2[1] = (uint8_t)i;
		must(bundle_add_revocation(c, other, k2, NOW, NOW, e));
	}
	bundle_drop_expired(c, NOW + 1);
	assert_int_equal(c->nrevoked, 1);
	bundle_free(c);
	bundle_free(b);
}

static void test_round_trip(void **state)
{
	struct bundle *b = with_roots(7, &la, &lb), *d, *again;
	uint8_t k[SHA256_LEN] = { 9 };

	(void)state;
	must(bundle_add_revocation(b, "spiffe://" TD "/node/z", NULL, NOW, INT64_MAX, e));
	must(bundle_add_revocation(b, "spiffe://" TD "/node/a", k, NOW, NOW + 9, e));
	must(bundle_add_revocation(b, "spiffe://" TD "/node/a", NULL, NOW, NOW + 9, e));
	must(bundle_add_signer(b, "spiffe://" TD "/ops/b", e));
	must(bundle_add_signer(b, "spiffe://" TD "/ops/a", e));
	must(bundle_add_signer(b, "spiffe://" TD "/ops/a", e));
	assert_int_equal(b->npolicy_signers, 2);
	must(bundle_sign(b, la.crt, la.key, e));
	must(bundle_decode(b->encoded, b->encoded_n, NULL, la.hash, &d, e));
	assert_string_equal(d->trust_domain, TD);
	assert_int_equal(d->number, 7);
	assert_int_equal(d->nlink_roots, 2);
	assert_int_equal(d->nspiffe_roots, 1);
	assert_int_equal(d->nrevoked, 3);
	assert_int_equal(d->npolicy_signers, 2);
	assert_string_equal(d->policy_signers[0], "spiffe://" TD "/ops/a");
	assert_string_equal(d->revoked[2].uri, "spiffe://" TD "/node/z");
	assert_int_equal(d->revoked[2].until, INT64_MAX);
	assert_memory_equal(d->hash, b->hash, SHA256_LEN);
	assert_int_equal(d->encoded_n, b->encoded_n);
	assert_memory_equal(d->encoded, b->encoded, b->encoded_n);
	assert_true(bundle_contains(d, b, NOW) && bundle_contains(b, d, NOW));

	/* Made again from the decoded parts: the content is the same byte for byte. */
	again = bundle_clone(d);
	assert_null(again->encoded);
	must(bundle_sign(again, la.crt, la.key, e));
	assert_memory_equal(again->hash, b->hash, SHA256_LEN);
	assert_int_equal(again->encoded_n, b->encoded_n);
	assert_memory_equal(again->encoded, b->encoded, b->encoded_n - SIG_MAX);
	bundle_free(again);
	bundle_free(d);
	bundle_free(b);
}

static void test_trust(void **state)
{
	struct bundle *n1 = signed_bundle(1, &la), *n2 = signed_bundle(2, &la),
		      *foreign = signed_bundle(3, &lb), *d = NULL;
	struct bundle *same = bundle_clone(n2);
	struct root other = root_new(KEY_MLDSA65, "other.example");
	struct bundle *o = bundle_new("other.example");

	(void)state;
	must(bundle_decode(n2->encoded, n2->encoded_n, n1, NULL, &d, e));
	d = bundle_free(d);
	must(bundle_decode(n2->encoded, n2->encoded_n, n2, NULL, &d, e)); /* the same again */
	d = bundle_free(d);
	refused(ERR_REPLAY, bundle_decode(n1->encoded, n1->encoded_n, n2, NULL, &d, e));
	refused(ERR_AUTH, bundle_decode(foreign->encoded, foreign->encoded_n, n1, NULL, &d, e));
	refused(ERR_AUTH,
		bundle_decode(foreign->encoded, foreign->encoded_n, n1, lb.hash, &d, e)); /* no pin instead */
	must(bundle_add_signer(same, "spiffe://" TD "/x", e));
	must(bundle_sign(same, la.crt, la.key, e));
	refused(ERR_CONFLICT, bundle_decode(same->encoded, same->encoded_n, n2, NULL, &d, e));
	assert_null(d);
	must(bundle_decode_any_number(same->encoded, same->encoded_n, n2, &d, e));
	d = bundle_free(d);
	must(bundle_decode_any_number(n1->encoded, n1->encoded_n, n2, &d, e));
	d = bundle_free(d);
	refused(ERR_AUTH, bundle_decode_any_number(foreign->encoded, foreign->encoded_n, n2, &d, e));
	refused(ERR_USAGE, bundle_decode_any_number(n1->encoded, n1->encoded_n, NULL, &d, e));

	/* Pins, and files of our own directory. */
	must(bundle_decode(n1->encoded, n1->encoded_n, NULL, la.hash, &d, e));
	d = bundle_free(d);
	refused(ERR_AUTH, bundle_decode(n1->encoded, n1->encoded_n, NULL, lb.hash, &d, e));
	must(bundle_decode(n1->encoded, n1->encoded_n, NULL, NULL, &d, e));
	d = bundle_free(d);

	/* A root of ours that also signs for another domain does not carry it over. */
	o->number = 9;
	must(bundle_add_root(o, SVID_LINK, la.crt, e));
	must(bundle_sign(o, la.crt, la.key, e));
	refused(ERR_DENIED, bundle_decode(o->encoded, o->encoded_n, n1, NULL, &d, e));
	assert_null(d);
	bundle_free(o);
	root_free(&other);
	bundle_free(n1);
	bundle_free(n2);
	bundle_free(same);
	bundle_free(foreign);
}

static void test_signing_rules(void **state)
{
	struct bundle *b = with_roots(1, &la, NULL), *d = NULL, *by_a = signed_bundle(1, &la), *only_b;

	(void)state;
	refused(ERR_DENIED, bundle_sign(b, lb.crt, lb.key, e)); /* not in it */
	refused(ERR_DENIED, bundle_sign(b, sa.crt, sa.key, e)); /* not a link root */
	refused(ERR_DENIED, bundle_sign(b, la.crt, lb.key, e));
	assert_null(b->encoded);
	bundle_free(b);

	/* Two issuers: B's bundle with B's root reaches those who trust only A once A signed it too. */
	b = with_roots(2, &la, &lb);
	must(bundle_sign(b, lb.crt, lb.key, e));
	refused(ERR_AUTH, bundle_decode(b->encoded, b->encoded_n, by_a, NULL, &d, e));
	only_b = bundle_free(NULL);
	must(bundle_decode(b->encoded, b->encoded_n, NULL, lb.hash, &only_b, e));
	must(bundle_sign(only_b, la.crt, la.key, e));
	assert_int_equal(only_b->encoded_n, b->encoded_n + SHA256_LEN + SIG_MAX);
	assert_memory_equal(only_b->hash, b->hash, SHA256_LEN); /* the same bundle */
	must(bundle_decode(only_b->encoded, only_b->encoded_n, by_a, NULL, &d, e));
	d = bundle_free(d);
	must(bundle_decode(only_b->encoded, only_b->encoded_n, NULL, la.hash, &d, e));
	d = bundle_free(d);
	must(bundle_decode(only_b->encoded, only_b->encoded_n, NULL, lb.hash, &d, e));
	d = bundle_free(d);
	must(bundle_sign(only_b, lb.crt, lb.key, e)); /* again: replaced, not added */
	assert_int_equal(only_b->encoded_n, b->encoded_n + SHA256_LEN + SIG_MAX);
	must(bundle_decode(only_b->encoded, only_b->encoded_n, by_a, NULL, &d, e));
	d = bundle_free(d);

	/* One of the two forged: refused although the other is good. */
	for (size_t i = 1; i <= 2; i++) {
		only_b->encoded[only_b->encoded_n - i * SIG_MAX - (i - 1) * SHA256_LEN + 100] ^= 1;
		refused(ERR_AUTH, bundle_decode(only_b->encoded, only_b->encoded_n, by_a, NULL, &d, e));
		only_b->encoded[only_b->encoded_n - i * SIG_MAX - (i - 1) * SHA256_LEN + 100] ^= 1;
	}
	/* A change drops the others' signatures. */
	must(bundle_add_signer(only_b, "spiffe://" TD "/x", e));
	must(bundle_sign(only_b, la.crt, la.key, e));
	refused(ERR_AUTH, bundle_decode(only_b->encoded, only_b->encoded_n, NULL, lb.hash, &d, e));
	must(bundle_decode(only_b->encoded, only_b->encoded_n, by_a, NULL, &d, e));
	bundle_free(d);
	bundle_free(only_b);
	bundle_free(b);
	bundle_free(by_a);
}

static void test_damage(void **state)
{
	struct bundle *b = signed_bundle(1, &la), *d = NULL;
	uint8_t *p;

	(void)state;
	for (size_t n = 0; n < b->encoded_n; n++) {
		p = malloc(n ? n : 1); /* exact, so that the sanitizer sees a read beyond */
		memcpy(p, b->encoded, n);
		refused(ERR_PARSE, bundle_decode(p, n, b, NULL, &d, e));
		refused(ERR_PARSE, bundle_decode(p, n, NULL, NULL, &d, e));
		free(p);
	}
	p = malloc(b->encoded_n + 1);
	memcpy(p, b->encoded, b->encoded_n);
	p[b->encoded_n] = 0;
	refused(ERR_PARSE, bundle_decode(p, b->encoded_n + 1, b, NULL, &d, e));
	for (size_t i = 0; i < b->encoded_n; i += i < 64 ? 1 : 41) {
		struct err e = { 0 };

		p[i] ^= 0x10;
		assert_true(bundle_decode(p, b->encoded_n, b, NULL, &d, &e) < 0);
		assert_true(bundle_decode(p, b->encoded_n, NULL, la.hash, &d, &e) < 0);
		p[i] ^= 0x10;
	}
	assert_null(d);
	free(p);
	bundle_free(b);
}

/* Content as a hostile or broken root would sign it: correctly signed, wrong inside. */
struct forge {
	uint8_t *p;
	size_t n;
};

static struct forge forge(const uint8_t *content, size_t n, const struct root *by)
{
	struct forge f = { .p = malloc(n + 9 + SHA256_LEN + SIG_MAX), .n = n + 9 + SHA256_LEN + SIG_MAX };
	size_t sig_n = SIG_MAX;

	memcpy(f.p, "x0bd", 4);
	put_u32(f.p + 4, (uint32_t)n);
	memcpy(f.p + 8, content, n);
	f.p[8 + n] = 1;
	memcpy(f.p + 9 + n, by->hash, SHA256_LEN);
	must(sig_make(by->key, "bundle", content, n, f.p + 9 + n + SHA256_LEN, &sig_n, e));
	return f;
}

static void put_root(struct wr *w, X509 *x)
{
	uint8_t *p;
	size_t n;

	assert_int_equal(cert_der(x, &p, &n), 0);
	wr_u16(w, (uint16_t)n);
	wr_bytes(w, p, n);
	free(p);
}

enum flaw {
	FLAW_NONE,
	FLAW_VERSION,
	FLAW_NUMBER,
	FLAW_DOMAIN,
	FLAW_ROOT_ORDER,
	FLAW_ROOT_TWICE,
	FLAW_ROOT_TYPE,
	FLAW_ROOT_DER,
	FLAW_ROOT_COUNT,
	FLAW_REV_COUNT,
	FLAW_REV_ORDER,
	FLAW_REV_TIME,
	FLAW_REV_RANGE,
	FLAW_REV_DOMAIN,
	FLAW_REV_URI,
	FLAW_SIGNER_ORDER,
	FLAW_SIGNER_DOMAIN,
	FLAW_TAIL,
	FLAW_CUT,
	FLAW_END
};

static void put_revocation(struct wr *w, uint8_t key, uint64_t at, uint64_t until, const char *uri)
{
	uint8_t k[SHA256_LEN] = { key };

	wr_bytes(w, k, sizeof(k));
	wr_u64(w, at);
	wr_u64(w, until);
	wr_u16(w, (uint16_t)strlen(uri));
	wr_bytes(w, uri, strlen(uri));
}

static void put_signer(struct wr *w, const char *uri)
{
	wr_u16(w, (uint16_t)strlen(uri));
	wr_bytes(w, uri, strlen(uri));
}

static size_t flawed(uint8_t *to, size_t cap, enum flaw f)
{
	struct bundle *b = with_roots(1, &la, &lb);
	X509 *first = b->link_roots[0], *second = b->link_roots[1];
	struct wr w = wr_init(to, cap);

	wr_u8(&w, f == FLAW_VERSION ? 2 : 1);
	wr_u8(&w, (uint8_t)strlen(TD));
	wr_bytes(&w, f == FLAW_DOMAIN ? "Mesh/example" : TD, strlen(TD));
	wr_u64(&w, f == FLAW_NUMBER ? 0 : 5);
	wr_u16(&w, f == FLAW_ROOT_COUNT ? 257 : 2);
	put_root(&w, f == FLAW_ROOT_ORDER ? second : first);
	if (f == FLAW_ROOT_DER) { /* BER: a length in more bytes than it needs is not DER */
		uint8_t *p;
		size_t n;

		assert_int_equal(cert_der(second, &p, &n), 0);
		wr_u16(&w, (uint16_t)(n + 1));
		wr_u8(&w, p[0]);
		wr_u8(&w, 0x83);
		wr_u8(&w, 0);
		wr_bytes(&w, p + 2, n - 2);
		free(p);
	} else {
		put_root(&w, f == FLAW_ROOT_ORDER || f == FLAW_ROOT_TWICE ? first
			     : f == FLAW_ROOT_TYPE			  ? sa.crt
									  : second);
	}
	wr_u16(&w, 0);
	wr_u32(&w, f == FLAW_REV_COUNT ? BUNDLE_REVOKED_MAX + 1 : 2);
	put_revocation(&w, 2, f == FLAW_REV_TIME ? 9 : 1, f == FLAW_REV_RANGE ? UINT64_MAX : 8,
		       f == FLAW_REV_DOMAIN ? "spiffe://a.example/a"
		       : f == FLAW_REV_URI  ? "spiffe://" TD "/a/"
					    : "spiffe://" TD "/a");
	put_revocation(&w, f == FLAW_REV_ORDER ? 1 : 3, 1, 2, "spiffe://" TD "/a");
	wr_u16(&w, 2);
	put_signer(&w, f == FLAW_SIGNER_DOMAIN	? "spiffe://a.example/a"
		       : f == FLAW_SIGNER_ORDER ? "spiffe://" TD "/c"
						: "spiffe://" TD "/a");
	put_signer(&w, "spiffe://" TD "/b");
	if (f == FLAW_TAIL)
		wr_u8(&w, 0);
	assert_true(wr_ok(&w));
	bundle_free(b);
	return wr_len(&w) - (f == FLAW_CUT ? 1 : 0);
}

static void test_flaws_well_signed(void **state)
{
	static uint8_t content[65536];
	struct bundle *trusted = signed_bundle(1, &la), *d = NULL;

	(void)state;
	for (enum flaw f = FLAW_NONE; f < FLAW_END; f++) {
		size_t n = flawed(content, sizeof(content), f);
		struct forge g = forge(content, n, &la);
		struct err err = { 0 };
		int rc = bundle_decode(g.p, g.n, trusted, NULL, &d, &err);

		if (f == FLAW_NONE) {
			assert_int_equal(rc, 0);
			must(bundle_sign(d, la.crt, la.key, e)); /* canonical: the same content again */
			assert_int_equal(d->encoded_n, g.n);
			assert_memory_equal(d->encoded, g.p, n + 9 + SHA256_LEN);
			d = bundle_free(d);
		} else if (rc >= 0 || !err.what[0]) {
			fail_msg("flaw %d accepted", f);
		}
		free(g.p);
	}
	/* Signatures: none, too many, twice the same, by a root that is not in it. */
	{
		size_t n = flawed(content, sizeof(content), FLAW_NONE);
		struct forge g = forge(content, n, &la);
		struct root stranger = root_new(KEY_MLDSA65, TD);
		uint8_t *two = malloc(g.n + SHA256_LEN + SIG_MAX);

		g.p[8 + n] = 0;
		refused(ERR_PARSE, bundle_decode(g.p, 9 + n, trusted, NULL, &d, e));
		g.p[8 + n] = 1;
		memcpy(two, g.p, g.n);
		memcpy(two + g.n, g.p + 9 + n, SHA256_LEN + SIG_MAX);
		two[8 + n] = 2;
		refused(ERR_PARSE, bundle_decode(two, g.n + SHA256_LEN + SIG_MAX, trusted, NULL, &d, e));
		free(g.p);
		g = forge(content, n, &stranger);
		refused(ERR_AUTH, bundle_decode(g.p, g.n, trusted, NULL, &d, e));
		refused(ERR_AUTH, bundle_decode(g.p, g.n, NULL, stranger.hash, &d, e));
		refused(ERR_AUTH, bundle_decode(g.p, g.n, NULL, NULL, &d, e));
		free(g.p);
		free(two);
		root_free(&stranger);
	}
	assert_null(d);
	bundle_free(trusted);
}

static void test_merge(void **state)
{
	struct bundle *a = signed_bundle(4, &la), *b = with_roots(4, &la, &lb), *ab, *ba, *x = NULL;
	uint8_t k[SHA256_LEN] = { 5 };
	struct bundle *other = bundle_new("other.example");

	(void)state;
	must(bundle_add_revocation(a, "spiffe://" TD "/node/p", k, NOW, NOW + 10, e));
	must(bundle_add_revocation(a, "spiffe://" TD "/node/q", NULL, NOW + 3, NOW + 20, e));
	must(bundle_add_revocation(a, "spiffe://" TD "/node/old", NULL, NOW - 99, NOW - 1, e));
	must(bundle_add_revocation(b, "spiffe://" TD "/node/q", NULL, NOW, INT64_MAX, e));
	must(bundle_add_signer(b, "spiffe://" TD "/ops", e));
	must(bundle_merge(a, b, NOW, &ab, e));
	must(bundle_merge(b, a, NOW, &ba, e));
	assert_int_equal(ab->number, 5);
	assert_int_equal(ab->nlink_roots, 2);
	assert_int_equal(ab->nrevoked, 2);
	assert_true(bundle_removed(ab, "spiffe://" TD "/node/q"));
	assert_int_equal(bundle_revoked_at(ab, "spiffe://" TD "/node/q"), NOW + 3);
	assert_int_equal(ab->npolicy_signers, 1);
	assert_true(bundle_contains(ab, a, NOW) && bundle_contains(ab, b, NOW));
	assert_false(bundle_contains(ab, a, NOW - 1)); /* the expired one counted then */
	assert_false(bundle_contains(a, ab, NOW));
	assert_false(bundle_contains(b, ab, NOW));

	/* The order does not matter: both issuers make the same content. */
	must(bundle_sign(ab, la.crt, la.key, e));
	must(bundle_sign(ba, lb.crt, lb.key, e));
	assert_memory_equal(ab->hash, ba->hash, SHA256_LEN);

	/* Each kind of difference is seen. */
	x = bundle_clone(ab);
	assert_true(bundle_contains(ab, x, NOW));
	must(bundle_add_signer(x, "spiffe://" TD "/aaa", e));
	assert_false(bundle_contains(ab, x, NOW));
	bundle_free(x);
	x = bundle_clone(ab);
	must(bundle_add_root(x, SVID_SPIFFE, la.crt, e));
	assert_false(bundle_contains(ab, x, NOW));
	bundle_free(x);
	x = bundle_clone(ab);
	must(bundle_add_revocation(x, "spiffe://" TD "/node/p", k, NOW + 1, NOW + 10, e));
	assert_false(bundle_contains(ab, x, NOW));
	bundle_free(x);

	refused(ERR_DENIED, bundle_merge(a, other, NOW, &x, e));
	b->number = UINT64_MAX;
	refused(ERR_LIMIT, bundle_merge(a, b, NOW, &x, e));
	bundle_free(other);
	bundle_free(ab);
	bundle_free(ba);
	bundle_free(a);
	bundle_free(b);
}

/* Two issuers' bundles of one number, on a node that cannot merge them. */
static void test_settle(void **state)
{
	const char *const p = "spiffe://" TD "/node/p", *const q = "spiffe://" TD "/node/q";
	struct bundle *a = with_roots(4, &la, &lb), *b = with_roots(4, &la, &lb), *ab, *ba, *x = NULL,
		      *y = NULL, *m = NULL;
	uint8_t k[SHA256_LEN] = { 5 };

	(void)state;
	must(bundle_add_revocation(a, p, NULL, NOW, NOW + 10, e));
	must(bundle_add_revocation(a, "spiffe://" TD "/node/old", NULL, NOW - 99, NOW - 1, e));
	must(bundle_add_revocation(b, q, k, NOW, NOW + 20, e));
	must(bundle_sign(a, la.crt, la.key, e));
	must(bundle_sign(b, lb.crt, lb.key, e));
	assert_int_equal(bundle_settle(a, b, NOW, &ab, NULL), 1);
	assert_int_equal(bundle_settle(b, a, NOW, &ba, NULL), 1);
	/* The same choice on every node, in its signed form, and the revocations of both. */
	assert_memory_equal(ab->hash, ba->hash, SHA256_LEN);
	assert_memory_equal(ab->encoded, ba->encoded, ab->encoded_n);
	assert_true(bundle_revokes(ab, p, lb.hash, NOW) && bundle_revokes(ba, p, lb.hash, NOW));
	assert_true(bundle_revokes(ab, q, k, NOW) && bundle_revokes(ba, q, k, NOW));
	assert_int_equal(ab->also->nrevoked, 1); /* the expired one is left out */
	/* Again: nothing new. */
	assert_int_equal(bundle_settle(ab, a, NOW, &x, NULL), 0);
	assert_int_equal(bundle_settle(ab, b, NOW, &x, NULL), 0);
	assert_int_equal(bundle_settle(ab, ba, NOW, &x, NULL), 0);
	assert_null(x);
	/* The union ends it. */
	must(bundle_merge(a, b, NOW, &m, e));
	must(bundle_sign(m, la.crt, la.key, e));
	assert_int_equal(bundle_settle(ab, m, NOW, &x, NULL), 1);
	assert_int_equal(x->number, 5);
	assert_null(x->also);
	assert_int_equal(bundle_settle(x, a, NOW, &y, NULL), 0); /* and no way back */
	x = bundle_free(x);
	/* A higher number that lacks one of them does not bring it back to life; nor does a lower one count.
	 */
	b->number = 6;
	must(bundle_sign(b, lb.crt, lb.key, e));
	assert_int_equal(bundle_settle(m, b, NOW, &x, NULL), 1);
	assert_int_equal(x->number, 6);
	assert_true(bundle_revokes(x, p, lb.hash, NOW));
	a->number = 3;
	must(bundle_add_revocation(a, "spiffe://" TD "/node/r", NULL, NOW, INT64_MAX, e));
	must(bundle_sign(a, la.crt, la.key, e));
	assert_int_equal(bundle_settle(x, a, NOW, &y, NULL), 1);
	assert_int_equal(y->number, 6);
	assert_true(bundle_revokes(y, "spiffe://" TD "/node/r", lb.hash, NOW + 99));
	/* Until every SVID it hits has expired. */
	bundle_free(x);
	b->number = 7;
	must(bundle_sign(b, lb.crt, lb.key, e));
	assert_int_equal(bundle_settle(y, b, NOW + 11, &x, NULL), 1);
	assert_false(bundle_revokes(x, p, lb.hash, NOW));
	struct bundle *copy = bundle_copy(x), *clone = bundle_clone(x);

	assert_int_equal(copy->also->nrevoked, 1);
	assert_null(clone->also);
	bundle_free(copy);
	bundle_free(clone);
	copy = bundle_new("other.example");
	refused(ERR_DENIED, bundle_settle(x, copy, NOW, &y, e));
	bundle_free(copy);
	bundle_free(y);
	bundle_free(x);
	bundle_free(m);
	bundle_free(ab);
	bundle_free(ba);
	bundle_free(a);
	bundle_free(b);
}

static void test_limits(void **state)
{
	struct bundle *b = with_roots(1, &la, NULL), *d;
	char uri[64];

	(void)state;
	for (int i = 0; i < BUNDLE_ROOTS_MAX - 2; i++) {
		X509 *x;

		must(cert_root(TD, sa.key, NOW, &x, e));
		must(bundle_add_root(b, SVID_SPIFFE, x, e));
		X509_free(x);
	}
	refused(ERR_LIMIT, bundle_add_root(b, SVID_LINK, lb.crt, e));
	for (int i = 0; i < BUNDLE_REVOKED_MAX; i++) { /* in an order that is not the final one */
		str_fmt(uri, sizeof(uri), "spiffe://" TD "/node/n%06d", (i * 7919) % BUNDLE_REVOKED_MAX);
		assert_int_equal(bundle_add_revocation(b, uri, NULL, NOW, NOW + 1, NULL), 0);
	}
	refused(ERR_LIMIT, bundle_add_revocation(b, "spiffe://" TD "/node/x", NULL, NOW, NOW, e));
	for (int i = 0; i < BUNDLE_SIGNERS_MAX; i++) {
		str_fmt(uri, sizeof(uri), "spiffe://" TD "/ops/%d", i);
		must(bundle_add_signer(b, uri, e));
	}
	refused(ERR_LIMIT, bundle_add_signer(b, "spiffe://" TD "/ops/x", e));
	must(bundle_sign(b, la.crt, la.key, e));
	must(bundle_decode(b->encoded, b->encoded_n, NULL, la.hash, &d, e));
	assert_int_equal(d->nrevoked, BUNDLE_REVOKED_MAX);
	assert_int_equal(d->nspiffe_roots, BUNDLE_ROOTS_MAX - 1);
	assert_true(bundle_revokes(d, "spiffe://" TD "/node/n099999", la.hash, NOW));
	assert_false(bundle_revokes(d, "spiffe://" TD "/node/n100000", la.hash, NOW));
	bundle_free(d);
	bundle_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_revokes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_trust),
		cmocka_unit_test(test_signing_rules),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_flaws_well_signed),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_settle),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests_name("identity/bundle", tests, setup, teardown);
}
