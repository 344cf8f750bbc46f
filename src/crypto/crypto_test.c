/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/uio.h>

#include "crypto/crypto.h"

static void assert_hex(const uint8_t *p, size_t n, const char *hex)
{
	char text[2 * 128 + 1];

	assert_true(n <= 128);
	hex_encode(text, p, n);
	assert_string_equal(text, hex);
}

static void init_is_idempotent(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(crypto_init(&e), 0);
	assert_int_equal(crypto_init(&e), 0);
	assert_int_equal(e.code, 0);
}

static void hashes(void **state)
{
	struct iovec iov[] = { { "a", 1 }, { NULL, 0 }, { "bc", 2 } };
	uint8_t h[SHA256_LEN], m[48];

	(void)state;
	assert_int_equal(sha256("abc", 3, h), 0);
	assert_hex(h, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(sha256_iov(iov, 3, m), 0);
	assert_memory_equal(h, m, 32);
	assert_int_equal(sha256(NULL, 0, h), 0);
	assert_hex(h, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	/* RFC 4231 test case 2 */
	assert_int_equal(hmac("SHA256", "Jefe", 4, "what do ya want for nothing?", 28, m, 32), 0);
	assert_hex(m, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	assert_int_equal(hmac("SHA384", "Jefe", 4, "what do ya want for nothing?", 28, m, 16), 0);
	assert_hex(m, 16, "af45d2e376484031617f78d2b58a6b1b");
	assert_int_equal(hmac("SHA256", NULL, 0, NULL, 0, m, 32), 0);
	assert_hex(m, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
	assert_int_equal(hmac("SHA256", "k", 1, "", 0, m, 33), ERR_USAGE);
	assert_int_equal(hmac("MD5", "k", 1, "", 0, m, 16), ERR_USAGE);
}

static void key_derivation(void **state)
{
	static uint8_t big[255 * 32 + 1];
	uint8_t ikm[22], okm[42];

	(void)state;
	memset(ikm, 0x0b, sizeof(ikm));
	/* RFC 5869 test cases 1 and 3 */
	assert_int_equal(hkdf("SHA256", ikm, 22, "\0\1\2\3\4\5\6\7\10\11\12\13\14", 13,
			      "\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9", 10, okm, 42),
			 0);
	assert_hex(okm, 42,
		   "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
	assert_int_equal(hkdf("SHA256", ikm, 22, NULL, 0, NULL, 0, okm, 42), 0);
	assert_hex(okm, 42,
		   "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
	assert_int_equal(hkdf("SHA256", ikm, 22, NULL, 0, NULL, 0, big, 255 * 32), 0);
	assert_int_equal(hkdf("SHA256", ikm, 22, NULL, 0, NULL, 0, big, 255 * 32 + 1), ERR_USAGE);
	assert_int_equal(hkdf("SHA256", ikm, 22, NULL, 0, NULL, 0, big, 0), ERR_USAGE);
	assert_int_equal(hkdf("none", ikm, 22, NULL, 0, NULL, 0, big, 1), ERR_USAGE);
}

static void passwords(void **state)
{
	uint8_t salt[16] = { 1 }, a[32], b[32];

	(void)state;
	assert_int_equal(kdf_password("correct horse", salt, a, NULL), 0);
	assert_int_equal(kdf_password("correct horse", salt, b, NULL), 0);
	assert_memory_equal(a, b, 32);
	assert_int_equal(kdf_password("correct horsf", salt, b, NULL), 0);
	assert_memory_not_equal(a, b, 32);
	salt[15] = 1;
	assert_int_equal(kdf_password("correct horse", salt, b, NULL), 0);
	assert_memory_not_equal(a, b, 32);
	assert_int_equal(kdf_password("", salt, b, NULL), 0);
}

static void keys_survive_der(void **state)
{
	const enum key_type types[] = { KEY_MLDSA65, KEY_P256 };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		EVP_PKEY *k = NULL, *again = NULL, *pub = NULL;
		struct secret der = { 0 };
		uint8_t h1[32], h2[32];
		struct err e = { 0 };

		assert_int_equal(key_new(types[i], &k, &e), 0);
		assert_int_equal(key_type_of(k), types[i]);
		assert_int_equal(key_to_der(k, &der, &e), 0);
		assert_int_equal(key_from_der(der.p, der.n, &again, &e), 0);
		assert_int_equal(key_pub_hash(k, h1), 0);
		assert_int_equal(key_pub_hash(again, h2), 0);
		assert_memory_equal(h1, h2, 32);
		unsigned char *spki = NULL; /* what OpenSSL makes of it */
		int spki_n = i2d_PUBKEY(k, &spki);

		assert_true(spki_n > 0);
		assert_int_equal(sha256(spki, (size_t)spki_n, h2), 0);
		assert_memory_equal(h1, h2, 32);
		OPENSSL_free(spki);
		/* Cut at any length, or with a byte more: no key, and the out-parameter stays. */
		for (size_t n = 0; n < der.n; n += 1 + der.n / 50)
			assert_int_equal(key_from_der(der.p, n, &pub, &e), ERR_PARSE);
		uint8_t *longer = test_malloc(der.n + 1);
		memcpy(longer, der.p, der.n);
		longer[der.n] = 0;
		assert_int_equal(key_from_der(longer, der.n + 1, &pub, &e), ERR_PARSE);
		test_free(longer);
		assert_null(pub);
		secret_fini(&der);
		EVP_PKEY_free(k);
		EVP_PKEY_free(again);
	}
	assert_int_equal(key_new((enum key_type)9, &(EVP_PKEY *){ NULL }, NULL), ERR_FAILED);
}

static void seed_makes_the_same_key(void **state)
{
	EVP_PKEY *a = NULL, *b = NULL, *c = NULL;
	uint8_t seed[32] = { 7 }, ha[32], hb[32];

	(void)state;
	assert_int_equal(key_from_seed(seed, &a, NULL), 0);
	assert_int_equal(key_from_seed(seed, &b, NULL), 0);
	seed[31] ^= 1;
	assert_int_equal(key_from_seed(seed, &c, NULL), 0);
	key_pub_hash(a, ha);
	key_pub_hash(b, hb);
	assert_memory_equal(ha, hb, 32);
	key_pub_hash(c, hb);
	assert_memory_not_equal(ha, hb, 32);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
	EVP_PKEY_free(c);
}

static EVP_PKEY *other_key(const char *type, const char *group)
{
	EVP_PKEY *k = group ? EVP_PKEY_Q_keygen(NULL, NULL, type, group)
			    : EVP_PKEY_Q_keygen(NULL, NULL, type);

	assert_non_null(k);
	return k;
}

static void other_keys_are_refused(void **state)
{
	EVP_PKEY *keys[] = { other_key("ED25519", NULL), other_key("EC", "P-384"),
			     other_key("ML-DSA-44", NULL), other_key("ML-DSA-87", NULL) };
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		struct secret der = { 0 };
		EVP_PKEY *k = NULL;
		uint8_t sig[5000];
		size_t n = sizeof(sig);

		assert_int_equal(key_type_of(keys[i]), ERR_UNSUPPORTED);
		assert_int_equal(key_to_der(keys[i], &der, &e), 0);
		assert_int_equal(key_from_der(der.p, der.n, &k, &e), ERR_UNSUPPORTED);
		assert_null(k);
		assert_int_equal(sig_make(keys[i], "d", "m", 1, sig, &n, &e), ERR_UNSUPPORTED);
		assert_int_equal(sig_check(keys[i], "d", "m", 1, sig, 64), ERR_UNSUPPORTED);
		secret_fini(&der);
		EVP_PKEY_free(keys[i]);
	}
	assert_int_equal(key_type_of(NULL), ERR_UNSUPPORTED);
}

/* RFC 9881 section 6: seed and expanded key must belong together. */
static void both_form_must_agree(void **state)
{
	EVP_PKEY *k = NULL, *bad = NULL;
	struct secret der = { 0 };
	uint8_t seed[32] = { 42 };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(key_from_seed(seed, &k, NULL), 0);
	assert_int_equal(key_to_der(k, &der, &e), 0);
	assert_true(der.n > 4000); /* libcrypto writes both */
	for (size_t i = 0; i + 32 < der.n; i++) {
		if (memcmp(der.p + i, seed, 32) == 0) {
			der.p[i] ^= 1;
			break;
		}
	}
	assert_int_equal(key_from_der(der.p, der.n, &bad, &e), ERR_PARSE);
	assert_null(bad);
	secret_fini(&der);
	EVP_PKEY_free(k);
}

static void signatures_are_bound(void **state)
{
	const enum key_type types[] = { KEY_MLDSA65, KEY_P256 };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		EVP_PKEY *k = NULL, *other = NULL;
		uint8_t sig[SIG_MAX];
		size_t n = sizeof(sig), small = 10;
		struct err e = { 0 };

		assert_int_equal(key_new(types[i], &k, &e), 0);
		assert_int_equal(key_new(types[i], &other, &e), 0);
		assert_int_equal(sig_make(k, "vote", "message", 7, sig, &n, &e), 0);
		assert_int_equal(sig_check(k, "vote", "message", 7, sig, n), 0);
		assert_int_equal(sig_check(k, "vot", "message", 7, sig, n), ERR_AUTH);
		assert_int_equal(sig_check(k, "audit", "message", 7, sig, n), ERR_AUTH);
		assert_int_equal(sig_check(k, "vote", "messagf", 7, sig, n), ERR_AUTH);
		assert_int_equal(sig_check(k, "vote", "message", 6, sig, n), ERR_AUTH);
		assert_int_equal(sig_check(other, "vote", "message", 7, sig, n), ERR_AUTH);
		assert_int_equal(sig_check(k, "vote", "message", 7, sig, n - 1), ERR_AUTH);
		assert_int_equal(sig_check(k, "vote", "message", 7, sig, 0), ERR_AUTH);
		sig[n / 2] ^= 1;
		assert_int_equal(sig_check(k, "vote", "message", 7, sig, n), ERR_AUTH);
		/* Domain and message do not run into each other, and an empty message signs. */
		n = sizeof(sig);
		assert_int_equal(sig_make(k, "a", "bc", 2, sig, &n, &e), 0);
		assert_int_equal(sig_check(k, "ab", "c", 1, sig, n), ERR_AUTH);
		n = sizeof(sig);
		assert_int_equal(sig_make(k, "a", NULL, 0, sig, &n, &e), 0);
		assert_int_equal(sig_check(k, "a", NULL, 0, sig, n), 0);
		assert_int_equal(sig_make(k, "a", "bc", 2, sig, &small, &e), ERR_LIMIT);
		assert_int_equal(small, 10);
		/* Failures leave nothing for the next SSL_get_error() to trip over. */
		assert_int_equal(ERR_peek_error(), 0);
		EVP_PKEY_free(k);
		EVP_PKEY_free(other);
	}
}

static void bare_mldsa(void **state)
{
	uint8_t seed[32] = { 3 }, pub[1952], a[SIG_MAX], b[SIG_MAX], ctx[256] = { 0 }, mu[64] = { 5 },
		rnd[32] = { 6 };
	size_t pub_n = sizeof(pub);
	EVP_PKEY *k = NULL, *p256 = NULL;

	(void)state;
	assert_int_equal(key_from_seed(seed, &k, NULL), 0);
	assert_int_equal(EVP_PKEY_get_raw_public_key(k, pub, &pub_n), 1);
	assert_int_equal(mldsa65_sign(k, "m", 1, "c", 1, true, a), 0);
	assert_int_equal(mldsa65_sign(k, "m", 1, "c", 1, true, b), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(mldsa65_sign(k, "m", 1, "c", 1, false, b), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_int_equal(mldsa65_verify(pub, "m", 1, "c", 1, a, sizeof(a), false, false), 0);
	assert_int_equal(mldsa65_verify(pub, "m", 1, "c", 1, b, sizeof(b), false, false), 0);
	assert_int_equal(mldsa65_verify(pub, "m", 1, "d", 1, a, sizeof(a), false, false), ERR_AUTH);
	assert_int_equal(mldsa65_verify(pub, "m", 1, NULL, 0, a, sizeof(a), false, false), ERR_AUTH);
	assert_int_equal(mldsa65_verify(pub, "m", 1, "c", 1, a, sizeof(a), true, false), ERR_AUTH);
	assert_int_equal(mldsa65_verify(pub, "m", 1, "c", 1, a, sizeof(a) - 1, false, false), ERR_AUTH);
	/* M' of the external interface is 0 | length of the context | context | message. */
	assert_int_equal(mldsa65_verify(pub, "\0\1cm", 4, NULL, 0, a, sizeof(a), true, false), 0);
	assert_int_equal(mldsa65_sign(k, "m", 1, ctx, 256, true, a), ERR_USAGE);
	assert_int_equal(mldsa65_sign(k, "m", 1, ctx, 255, true, a), 0);
	assert_int_equal(mldsa65_verify(pub, "m", 1, ctx, 255, a, sizeof(a), false, false), 0);
	assert_int_equal(mldsa65_verify(pub, "m", 1, ctx, 256, a, sizeof(a), false, false), ERR_AUTH);
	assert_int_equal(mldsa65_sign_rnd(k, mu, 64, NULL, 0, rnd, true, a), 0);
	assert_int_equal(mldsa65_verify(pub, mu, 64, NULL, 0, a, sizeof(a), false, true), 0);
	assert_int_equal(mldsa65_verify(pub, mu, 63, NULL, 0, a, sizeof(a), false, true), ERR_AUTH);
	assert_int_equal(mldsa65_sign_rnd(k, mu, 63, NULL, 0, rnd, true, a), ERR_USAGE);
	assert_int_equal(key_new(KEY_P256, &p256, NULL), 0);
	assert_int_equal(mldsa65_sign(p256, "m", 1, NULL, 0, true, a), ERR_FAILED);
	EVP_PKEY_free(k);
	EVP_PKEY_free(p256);
}

static void kem(void **state)
{
	uint8_t seed[KEM_SEED] = { 1 }, pub[KEM_PUB], ct[KEM_CT], s1[KEM_SS], s2[KEM_SS];
	struct secret dk = { 0 };

	(void)state;
	assert_int_equal(kem_keygen(seed, pub, &dk), 0);
	assert_int_equal(dk.n, KEM_DK);
	assert_int_equal(kem_encap(pub, sizeof(pub), NULL, ct, s1), 0);
	assert_int_equal(kem_decap(dk.p, dk.n, ct, sizeof(ct), s2), 0);
	assert_memory_equal(s1, s2, sizeof(s1));
	/* Implicit rejection: a changed ciphertext gives another secret, not an error. */
	ct[0] ^= 1;
	assert_int_equal(kem_decap(dk.p, dk.n, ct, sizeof(ct), s2), 0);
	assert_memory_not_equal(s1, s2, sizeof(s1));
	memcpy(s2, s1, sizeof(s1));
	assert_int_equal(kem_encap(pub, sizeof(pub) - 1, NULL, ct, s2), ERR_PARSE);
	assert_int_equal(kem_decap(dk.p, dk.n, ct, sizeof(ct) - 1, s2), ERR_PARSE);
	assert_int_equal(kem_decap(dk.p, dk.n - 1, ct, sizeof(ct), s2), ERR_PARSE);
	dk.p[KEM_DK - 64] ^= 1; /* the hash of the public key inside */
	assert_int_equal(kem_decap(dk.p, dk.n, ct, sizeof(ct), s2), ERR_PARSE);
	memset(pub, 0xff, 3); /* coefficients of 4095: above q */
	assert_int_equal(kem_encap(pub, sizeof(pub), NULL, ct, s2), ERR_PARSE);
	assert_memory_equal(s1, s2, sizeof(s1));
	secret_fini(&dk);
}

static void public_keys_and_bare_signatures(void **state)
{
	EVP_PKEY *k = NULL, *rsa = other_key("ED25519", NULL), *pub = NULL;
	uint8_t der[4000], *p = der;
	struct err e = { 0 };
	int n;

	(void)state;
	assert_int_equal(key_new(KEY_P256, &k, NULL), 0);
	n = i2d_PUBKEY(k, &p);
	assert_true(n > 0);
	assert_int_equal(key_from_spki(der, (size_t)n, &pub, &e), 0);
	EVP_PKEY_free(pub);
	pub = NULL;
	assert_int_equal(key_from_spki(der, (size_t)n + 1, &pub, &e), ERR_PARSE);
	assert_int_equal(key_from_spki(der, (size_t)n - 1, &pub, &e), ERR_PARSE);
	assert_null(pub);
	assert_int_equal(sig_check_bare(rsa, "SHA256", false, "m", 1, der, 64), ERR_UNSUPPORTED);
	assert_int_equal(sig_check_bare(rsa, NULL, false, "m", 1, der, 64), ERR_AUTH);
	assert_int_equal(sig_check_bare(k, "SHA256", true, "m", 1, der, 64), ERR_UNSUPPORTED);
	EVP_PKEY_free(k);
	EVP_PKEY_free(rsa);
}

static void x25519_refuses_small_order(void **state)
{
	uint8_t priv[32] = { 9 }, zero[32] = { 0 }, nine[32] = { 9 }, out[32] = { 1 };

	(void)state;
	assert_int_equal(x25519(priv, zero, out), ERR_AUTH);
	assert_int_equal(out[0], 1);
	assert_int_equal(x25519(priv, nine, out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(init_is_idempotent),
		cmocka_unit_test(hashes),
		cmocka_unit_test(key_derivation),
		cmocka_unit_test(passwords),
		cmocka_unit_test(keys_survive_der),
		cmocka_unit_test(seed_makes_the_same_key),
		cmocka_unit_test(other_keys_are_refused),
		cmocka_unit_test(both_form_must_agree),
		cmocka_unit_test(signatures_are_bound),
		cmocka_unit_test(bare_mldsa),
		cmocka_unit_test(kem),
		cmocka_unit_test(public_keys_and_bare_signatures),
		cmocka_unit_test(x25519_refuses_small_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
