/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/uio.h>

#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/testcert.h"

enum { NOW = 1900000000, HOUR = 3600 };

static EVP_PKEY *pq_ca, *pq_key, *ec_ca, *ec_key;
static X509 *pq_root, *ec_root;
static struct bundle *bundle, *foreign;

static const struct testcert good = {
	.subject = "leaf",
	.bc = "critical,CA:FALSE",
	.ku = "critical,digitalSignature",
	.eku = "serverAuth,clientAuth",
	.san = "URI:spiffe://mesh.test/node/n1",
	.not_before = NOW - HOUR,
	.not_after = NOW + HOUR,
};

static struct testcert pq(void)
{
	struct testcert t = good;

	t.issuer = "pq root";
	t.key = pq_key;
	t.signer = pq_ca;
	return t;
}

static struct testcert ec(void)
{
	struct testcert t = good;

	t.issuer = "ec root";
	t.key = ec_key;
	t.signer = ec_ca;
	return t;
}

static X509 *root_make(const char *name, EVP_PKEY *key)
{
	struct testcert t = { .subject = name,
			      .issuer = name,
			      .bc = "critical,CA:TRUE",
			      .ku = "critical,keyCertSign,cRLSign",
			      .san = "URI:spiffe://mesh.test",
			      .not_before = NOW - 100 * HOUR,
			      .not_after = NOW + 100 * HOUR,
			      .key = key,
			      .signer = key };

	return testcert_make(&t);
}

static int setup(void **state)
{
	(void)state;
	if (key_new(KEY_MLDSA65, &pq_ca, NULL) || key_new(KEY_MLDSA65, &pq_key, NULL) ||
	    key_new(KEY_P256, &ec_ca, NULL) || key_new(KEY_P256, &ec_key, NULL))
		return -1;
	pq_root = root_make("pq root", pq_ca);
	ec_root = root_make("ec root", ec_ca);
	bundle = bundle_new("mesh.test");
	foreign = bundle_new("other.test");
	return bundle_add_root(bundle, SVID_LINK, pq_root, NULL) ||
	       bundle_add_root(bundle, SVID_SPIFFE, ec_root, NULL) ||
	       bundle_add_root(foreign, SVID_SPIFFE, root_make("foreign", ec_ca), NULL);
}

static int teardown(void **state)
{
	(void)state;
	X509_free(foreign->spiffe_roots[0]); /* the reference root_make() returned */
	bundle_free(bundle);
	bundle_free(foreign);
	X509_free(pq_root);
	X509_free(ec_root);
	EVP_PKEY_free(pq_ca);
	EVP_PKEY_free(pq_key);
	EVP_PKEY_free(ec_ca);
	EVP_PKEY_free(ec_key);
	return 0;
}

static int verify_at(const struct testcert *t, enum svid_profile profile, int64_t now, struct svid_info *info)
{
	const struct bundle *all[] = { foreign, bundle };
	X509 *x = testcert_make(t);
	struct err e = { 0 };
	int code = svid_verify(all, 2, profile, &x, 1, now, info, &e);

	X509_free(x);
	assert_int_equal(e.code, code);
	assert_true(code == 0 || e.what[0]);
	return code;
}

static int verify(const struct testcert *t, enum svid_profile profile)
{
	struct svid_info info;

	memset(&info, 0xaa, sizeof(info));
	int code = verify_at(t, profile, NOW, &info);

	if (code) { /* untouched on failure */
		for (size_t i = 0; i < sizeof(info); i++)
			assert_int_equal(((uint8_t *)&info)[i], 0xaa);
	}
	return code;
}

static void accepts_good_ones(void **state)
{
	struct testcert p = pq(), c = ec();
	struct svid_info info;
	uint8_t addr[16], hash[32];

	(void)state;
	assert_int_equal(verify_at(&p, SVID_LINK, NOW, &info), 0);
	assert_string_equal(info.id.uri, "spiffe://mesh.test/node/n1");
	assert_int_equal(info.not_before, p.not_before);
	assert_int_equal(info.not_after, p.not_after);
	overlay_addr(&info.id, addr);
	assert_memory_equal(addr, info.addr, 16);
	key_pub_hash(pq_key, hash);
	assert_memory_equal(hash, info.key_hash, 32);
	assert_int_equal(verify_at(&c, SVID_SPIFFE, NOW, &info), 0);
	c.eku = NULL;
	assert_int_equal(verify(&c, SVID_SPIFFE), 0);
	c.san = "URI:spiffe://mesh.test/node/n1,DNS:n1.example";
	assert_int_equal(verify(&c, SVID_SPIFFE), 0);
}

static void profiles_have_separate_anchors(void **state)
{
	struct testcert p = pq(), c = ec(), mixed = ec();

	(void)state;
	assert_int_equal(verify(&p, SVID_SPIFFE), ERR_AUTH);
	assert_int_equal(verify(&c, SVID_LINK), ERR_AUTH);
	mixed.key = pq_key; /* a post-quantum leaf under a classical root */
	assert_int_equal(verify(&mixed, SVID_SPIFFE), 0);
	assert_int_equal(verify(&mixed, SVID_LINK), ERR_AUTH);
	p.key = ec_key; /* a classical leaf under a post-quantum root */
	assert_int_equal(verify(&p, SVID_LINK), ERR_AUTH);
	assert_int_equal(verify(&p, (enum svid_profile)3), ERR_USAGE);
}

/* Even if a classical root got into the link set, it vouches for nobody there. */
static void link_anchor_itself_must_be_post_quantum(void **state)
{
	struct testcert cross = { .subject = "pq root",
				  .issuer = "ec root",
				  .bc = "critical,CA:TRUE",
				  .ku = "critical,keyCertSign",
				  .not_before = NOW - HOUR,
				  .not_after = NOW + HOUR,
				  .key = pq_ca,
				  .signer = ec_ca };
	X509 *anchor = testcert_make(&cross), *roots[] = { anchor }, *classical[] = { ec_root };
	struct bundle b = *bundle;
	const struct bundle *all[] = { &b };
	struct testcert p = pq(), m = ec();
	X509 *leaf = testcert_make(&p), *leaf2;
	struct svid_info info;

	(void)state;
	m.key = pq_key;
	leaf2 = testcert_make(&m);
	/* An ML-DSA key certified by ECDSA: breaking the ECDSA key would be enough. */
	b.link_roots = roots;
	b.nlink_roots = 1;
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &leaf, 1, NOW, &info, NULL), ERR_AUTH);
	b.link_roots = classical;
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &leaf2, 1, NOW, &info, NULL), ERR_AUTH);
	X509_free(anchor);
	X509_free(leaf);
	X509_free(leaf2);
}

static void refuses_bad_forms(void **state)
{
	static const struct {
		const char *what, *bc, *ku, *eku, *san;
	} bad[] = {
		{ "cA true", "critical,CA:TRUE", NULL, NULL, NULL },
		{ "keyCertSign", NULL, "critical,digitalSignature,keyCertSign", NULL, NULL },
		{ "cRLSign", NULL, "critical,digitalSignature,cRLSign", NULL, NULL },
		{ "no digitalSignature", NULL, "critical,keyAgreement", NULL, NULL },
		{ "key usage not critical", NULL, "digitalSignature", NULL, NULL },
		{ "server only", NULL, NULL, "serverAuth", NULL },
		{ "client only", NULL, NULL, "clientAuth", NULL },
		{ "another purpose", NULL, NULL, "codeSigning", NULL },
		{ "two URIs", NULL, NULL, NULL,
		  "URI:spiffe://mesh.test/node/n1,URI:spiffe://mesh.test/node/n2" },
		{ "two URIs, one foreign", NULL, NULL, NULL,
		  "URI:spiffe://mesh.test/node/n1,URI:https://mesh.test" },
		{ "no URI", NULL, NULL, NULL, "DNS:n1.mesh.test" },
		{ "no path", NULL, NULL, NULL, "URI:spiffe://mesh.test" },
		{ "scheme", NULL, NULL, NULL, "URI:https://mesh.test/node/n1" },
		{ "relative segment", NULL, NULL, NULL, "URI:spiffe://mesh.test/node/../n1" },
		{ "trust domain we do not know", NULL, NULL, NULL, "URI:spiffe://mesh.tes/node/n1" },
		{ "trust domain with ours as prefix", NULL, NULL, NULL,
		  "URI:spiffe://mesh.test.evil/node/n1" },
		{ "foreign trust domain under our root", NULL, NULL, NULL,
		  "URI:spiffe://other.test/node/n1" },
	};
	struct testcert t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		for (int profile = SVID_SPIFFE; profile <= SVID_LINK; profile++) {
			t = profile == SVID_LINK ? pq() : ec();
			t.bc = bad[i].bc ? bad[i].bc : t.bc;
			t.ku = bad[i].ku ? bad[i].ku : t.ku;
			t.eku = bad[i].eku ? bad[i].eku : t.eku;
			t.san = bad[i].san ? bad[i].san : t.san;
			if (verify(&t, (enum svid_profile)profile) != ERR_AUTH)
				fail_msg("accepted, or another error: %s", bad[i].what);
		}
	}
	t = pq();
	t.ku = NULL;
	assert_int_equal(verify(&t, SVID_LINK), ERR_AUTH);
	t = pq();
	t.san = NULL;
	assert_int_equal(verify(&t, SVID_LINK), ERR_AUTH);
	t = pq();
	t.v1 = true; /* version 1 has no extensions */
	t.bc = t.ku = t.eku = t.san = NULL;
	assert_int_equal(verify(&t, SVID_LINK), ERR_AUTH);
	t = pq();
	t.extra = "critical,permitted;URI:mesh.test"; /* name constraints do not belong into a leaf, but are
							 understood */
	assert_int_equal(verify(&t, SVID_LINK), 0);
}

static void time_is_the_argument(void **state)
{
	struct testcert t = pq();
	struct svid_info info;

	(void)state;
	assert_int_equal(verify_at(&t, SVID_LINK, t.not_before - 1, &info), ERR_CLOCK);
	assert_int_equal(verify_at(&t, SVID_LINK, t.not_before, &info), 0);
	assert_int_equal(verify_at(&t, SVID_LINK, t.not_after - 1, &info), 0);
	assert_int_equal(verify_at(&t, SVID_LINK, t.not_after + 1, &info), ERR_EXPIRED);
	/* The anchor's own time counts too. */
	t.not_before = NOW - 1000 * HOUR;
	t.not_after = NOW + 1000 * HOUR;
	assert_int_equal(verify_at(&t, SVID_LINK, NOW + 101 * HOUR, &info), ERR_EXPIRED);
}

static void refuses_strangers(void **state)
{
	struct testcert t = pq();
	EVP_PKEY *rogue = NULL;
	const struct bundle *only_foreign[] = { foreign };
	struct svid_info info;
	X509 *x;

	(void)state;
	assert_int_equal(key_new(KEY_MLDSA65, &rogue, NULL), 0);
	t.signer = rogue; /* same issuer name, another key */
	assert_int_equal(verify(&t, SVID_LINK), ERR_AUTH);
	t.issuer = "leaf"; /* self-signed with the right URI */
	t.signer = pq_key;
	assert_int_equal(verify(&t, SVID_LINK), ERR_AUTH);
	/* The anchor itself, and nobody at all. */
	assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_LINK, &pq_root, 1, NOW,
				     &info, NULL),
			 ERR_AUTH);
	assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_LINK, &pq_root, 0, NOW,
				     &info, NULL),
			 ERR_AUTH);
	t = pq();
	x = testcert_make(&t);
	assert_int_equal(svid_verify(only_foreign, 1, SVID_LINK, &x, 1, NOW, &info, NULL), ERR_AUTH);
	assert_int_equal(svid_verify(NULL, 0, SVID_LINK, &x, 1, NOW, &info, NULL), ERR_AUTH);
	X509_free(x);
	/* A root that is a valid end entity in form stays a root, not a member. */
	x = testcert_make(&t);
	struct bundle b = *bundle;
	const struct bundle *all[] = { &b };
	b.link_roots = &x;
	b.nlink_roots = 1;
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &x, 1, NOW, &info, NULL), ERR_AUTH);
	X509_free(x);
	EVP_PKEY_free(rogue);
}

static X509 *intermediate(EVP_PKEY *key, EVP_PKEY *signer, const char *issuer, const char *bc, const char *ku)
{
	struct testcert t = { .subject = "middle",
			      .issuer = issuer,
			      .bc = bc,
			      .ku = ku,
			      .not_before = NOW - HOUR,
			      .not_after = NOW + HOUR,
			      .key = key,
			      .signer = signer };

	return testcert_make(&t);
}

static void intermediates(void **state)
{
	static const struct {
		const char *bc, *ku;
		int code;
	} cases[] = {
		{ "critical,CA:TRUE", "critical,keyCertSign", 0 },
		{ "critical,CA:FALSE", "critical,keyCertSign", ERR_AUTH },
		{ "critical,CA:TRUE", "critical,digitalSignature", ERR_AUTH },
		{ "critical,CA:TRUE", "keyCertSign", ERR_AUTH },
		{ "critical,CA:TRUE", NULL, ERR_AUTH },
		{ NULL, "critical,keyCertSign", ERR_AUTH },
	};
	struct testcert t = ec();
	struct spiffe_id id;
	struct svid_info info;
	EVP_PKEY *mid = NULL, *pq_mid = NULL;

	(void)state;
	assert_int_equal(key_new(KEY_P256, &mid, NULL), 0);
	assert_int_equal(key_new(KEY_MLDSA65, &pq_mid, NULL), 0);
	t.issuer = "middle";
	t.signer = mid;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		X509 *chain[] = { testcert_make(&t),
				  intermediate(mid, ec_ca, "ec root", cases[i].bc, cases[i].ku) };

		assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_SPIFFE, chain, 2,
					     NOW, &info, NULL),
				 cases[i].code);
		assert_int_equal(svid_check_form(chain, 2, &id, NULL), cases[i].code);
		assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_SPIFFE, chain, 1,
					     NOW, &info, NULL),
				 ERR_AUTH);
		X509_free(chain[0]);
		X509_free(chain[1]);
	}
	/* Links: no intermediates, all ML-DSA or not; but the root may come along. */
	t = pq();
	t.issuer = "middle";
	t.signer = pq_mid;
	X509 *chain[] = { testcert_make(&t), intermediate(pq_mid, pq_ca, "pq root", "critical,CA:TRUE",
							  "critical,keyCertSign") };
	assert_int_equal(
		svid_verify((const struct bundle *const *)&bundle, 1, SVID_LINK, chain, 2, NOW, &info, NULL),
		ERR_AUTH);
	X509_free(chain[0]);
	X509_free(chain[1]);
	t = pq();
	X509 *with_root[] = { testcert_make(&t), pq_root };
	assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_LINK, with_root, 2, NOW,
				     &info, NULL),
			 0);
	with_root[1] = ec_root;
	assert_int_equal(svid_verify((const struct bundle *const *)&bundle, 1, SVID_LINK, with_root, 2, NOW,
				     &info, NULL),
			 ERR_AUTH);
	X509 *many[9];
	for (size_t i = 0; i < 9; i++)
		many[i] = with_root[0];
	assert_int_equal(
		svid_verify((const struct bundle *const *)&bundle, 1, SVID_SPIFFE, many, 9, NOW, &info, NULL),
		ERR_AUTH);
	assert_int_equal(svid_check_form(many, 9, &id, NULL), ERR_AUTH);
	assert_int_equal(svid_check_form(many, 0, &id, NULL), ERR_AUTH);
	X509_free(with_root[0]);
	EVP_PKEY_free(mid);
	EVP_PKEY_free(pq_mid);
}

/* A root without keyCertSign, or that is no CA at all, vouches for nobody. */
static void anchors_must_be_able_to_sign(void **state)
{
	struct testcert r = { .subject = "weak",
			      .issuer = "weak",
			      .bc = "critical,CA:FALSE",
			      .ku = "critical,keyCertSign",
			      .not_before = NOW - HOUR,
			      .not_after = NOW + HOUR,
			      .key = ec_ca,
			      .signer = ec_ca };
	struct bundle b = *bundle;
	const struct bundle *all[] = { &b };
	struct testcert t = ec();
	struct svid_info info;

	(void)state;
	t.issuer = "weak";
	for (int i = 0; i < 3; i++) {
		r.v1 = i == 1;
		r.bc = i == 0 ? "critical,CA:FALSE" : i == 1 ? NULL : "critical,CA:TRUE";
		r.ku = i == 0 ? "critical,keyCertSign" : i == 1 ? NULL : "critical,cRLSign";
		X509 *root = testcert_make(&r), *leaf = testcert_make(&t);

		b.spiffe_roots = &root;
		b.nspiffe_roots = 1;
		assert_int_equal(svid_verify(all, 1, SVID_SPIFFE, &leaf, 1, NOW, &info, NULL), ERR_AUTH);
		X509_free(root);
		X509_free(leaf);
	}
}

static void revoked_key_and_revoked_identity(void **state)
{
	struct bundle b = *bundle;
	const struct bundle *all[] = { &b };
	struct revocation r = { .uri = "spiffe://mesh.test/node/n1", .at = NOW, .until = INT64_MAX };
	struct testcert t = pq();
	X509 *x = testcert_make(&t);
	struct svid_info info;

	(void)state;
	b.revoked = &r;
	b.nrevoked = 1;
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &x, 1, NOW, &info, NULL), ERR_REVOKED);
	key_pub_hash(pq_key, r.svid);
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &x, 1, NOW, &info, NULL), ERR_REVOKED);
	r.svid[0] ^= 1; /* another key */
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &x, 1, NOW, &info, NULL), 0);
	r.svid[0] ^= 1;
	r.uri = "spiffe://mesh.test/node/n10";
	assert_int_equal(svid_verify(all, 1, SVID_LINK, &x, 1, NOW, &info, NULL), 0);
	X509_free(x);
}

static void flipped_bits(void **state)
{
	struct testcert t = pq();
	X509 *x = testcert_make(&t);
	uint8_t *der = NULL, *copy;
	size_t n = 0;
	struct svid_info info;
	struct iovec v[9];

	(void)state;
	assert_int_equal(cert_der(x, &der, &n), 0);
	copy = test_malloc(n);
	for (size_t i = 0; i < 9; i++)
		v[i] = (struct iovec){ copy, n };
	memcpy(copy, der, n);
	assert_int_equal(
		svid_verify_der((const struct bundle *const *)&bundle, 1, SVID_LINK, v, 1, NOW, &info, NULL),
		0);
	assert_int_equal(
		svid_verify_der((const struct bundle *const *)&bundle, 1, SVID_LINK, v, 9, NOW, &info, NULL),
		ERR_AUTH);
	assert_int_equal(
		svid_verify_der((const struct bundle *const *)&bundle, 1, SVID_LINK, v, 0, NOW, &info, NULL),
		ERR_AUTH);
	v[0].iov_len = n - 1;
	assert_int_equal(
		svid_verify_der((const struct bundle *const *)&bundle, 1, SVID_LINK, v, 1, NOW, &info, NULL),
		ERR_PARSE);
	v[0].iov_len = n;
	for (size_t i = 0; i < n; i += 1 + n / 400) {
		memcpy(copy, der, n);
		copy[i] ^= (uint8_t)(1 << i % 8);
		assert_int_not_equal(svid_verify_der((const struct bundle *const *)&bundle, 1, SVID_LINK, v,
						     1, NOW, &info, NULL),
				     0);
	}
	test_free(copy);
	free(der);
	X509_free(x);
}

/* What the authority issues is what validation accepts. */
static void issued_by_our_own_code(void **state)
{
	X509 *root = NULL, *leaf = NULL;
	struct bundle *b = bundle_new("mesh.test");
	struct spiffe_id id;
	struct svid_info info;

	(void)state;
	assert_int_equal(cert_root("mesh.test", pq_ca, NOW, &root, NULL), 0);
	assert_int_equal(spiffe_id_node("mesh.test", "n7", &id, NULL), 0);
	assert_int_equal(cert_leaf(&id, pq_key, root, pq_ca, NOW - 600, NOW + HOUR, &leaf, NULL), 0);
	assert_int_equal(bundle_add_root(b, SVID_LINK, root, NULL), 0);
	assert_int_equal(
		svid_verify((const struct bundle *const *)&b, 1, SVID_LINK, &leaf, 1, NOW, &info, NULL), 0);
	assert_string_equal(info.id.uri, "spiffe://mesh.test/node/n7");
	bundle_free(b);
	X509_free(root);
	X509_free(leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_good_ones),
		cmocka_unit_test(profiles_have_separate_anchors),
		cmocka_unit_test(link_anchor_itself_must_be_post_quantum),
		cmocka_unit_test(refuses_bad_forms),
		cmocka_unit_test(time_is_the_argument),
		cmocka_unit_test(refuses_strangers),
		cmocka_unit_test(intermediates),
		cmocka_unit_test(anchors_must_be_able_to_sign),
		cmocka_unit_test(revoked_key_and_revoked_identity),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(issued_by_our_own_code),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
