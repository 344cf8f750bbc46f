/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: keys and signatures
 *
 * Two kinds of key sign for a node: ML-DSA-65 (FIPS 204; PKCS#8 and SubjectPublicKeyInfo of RFC 9881) and
 * ECDSA on P-256 with SHA-256. Both sign "x0 " | domain | 0x00 | message, so a signature made for one purpose
 * is never valid for another, nor for TLS or X.509, whose inputs do not start so.
 */
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/algs.h"

int key_new(enum key_type type, EVP_PKEY **ret, struct err *e)
{
	EVP_PKEY *k = NULL;

	ERR_clear_error();
	if (type == KEY_MLDSA65)
		k = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65");
	else if (type == KEY_P256)
		k = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	if (!k)
		return crypto_fail(e, ERR_FAILED, "cannot make a key");
	*ret = k;
	return 0;
}

int key_from_seed(const uint8_t seed[32], EVP_PKEY **ret, struct err *e)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_ML_DSA_SEED, (void *)(uintptr_t)seed, 32),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "ML-DSA-65", NULL);
	EVP_PKEY *k = NULL;
	bool ok = ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
		  EVP_PKEY_fromdata(ctx, &k, EVP_PKEY_KEYPAIR, params) == 1;

	EVP_PKEY_CTX_free(ctx);
	if (!ok)
		return crypto_fail(e, ERR_FAILED, "cannot make an ML-DSA-65 key from its seed");
	*ret = k;
	return 0;
}

int key_type_of(const EVP_PKEY *k)
{
	char group[32] = "";
	int explicit_params = 0;

	if (!k)
		return ERR_UNSUPPORTED;
	if (EVP_PKEY_is_a(k, "ML-DSA-65"))
		return KEY_MLDSA65;
	if (EVP_PKEY_is_a(k, "EC") && EVP_PKEY_get_group_name(k, group, sizeof(group), NULL) == 1 &&
	    strcmp(group, "prime256v1") == 0) {
		/* A curve spelled out in the key is how CVE-2020-0601 worked; only the named one is P-256. */
		EVP_PKEY_get_int_param(k, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &explicit_params);
		return explicit_params ? ERR_UNSUPPORTED : KEY_P256;
	}
	return ERR_UNSUPPORTED;
}

int key_to_der(const EVP_PKEY *k, struct secret *ret, struct err *e)
{
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(k);
	unsigned char *der = NULL;
	int n = info ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : -1, code = 0;

	PKCS8_PRIV_KEY_INFO_free(info);
	if (n <= 0)
		return crypto_fail(e, ERR_FAILED, "cannot encode the private key");
	if (secret_set(ret, der, (size_t)n))
		code = err_set(e, ERR_NOMEM, "out of memory for a private key");
	OPENSSL_clear_free(der, (size_t)n);
	return code;
}

int key_from_der(const void *p, size_t n, EVP_PKEY **ret, struct err *e)
{
	const unsigned char *at = p;
	PKCS8_PRIV_KEY_INFO *info = n <= LONG_MAX ? d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)n) : NULL;
	EVP_PKEY *k = info && at == (const unsigned char *)p + n ? EVP_PKCS82PKEY(info) : NULL;

	PKCS8_PRIV_KEY_INFO_free(info);
	if (!k)
		return crypto_fail(e, ERR_PARSE, "not a private key in PKCS#8 form");
	if (key_type_of(k) < 0) {
		EVP_PKEY_free(k);
		ERR_clear_error();
		return err_set(e, ERR_UNSUPPORTED, "the private key is neither ML-DSA-65 nor ECDSA P-256");
	}
	*ret = k;
	return 0;
}

int key_from_spki(const void *p, size_t n, EVP_PKEY **ret, struct err *e)
{
	const unsigned char *at = p;
	EVP_PKEY *k = n <= LONG_MAX ? d2i_PUBKEY(NULL, &at, (long)n) : NULL;

	if (!k)
		return crypto_fail(e, ERR_PARSE, "not a public key in SubjectPublicKeyInfo form");
	if (at != (const unsigned char *)p + n) {
		EVP_PKEY_free(k);
		return err_set(e, ERR_PARSE, "%zu bytes follow the public key",
			       (size_t)((const unsigned char *)p + n - at));
	}
	*ret = k;
	return 0;
}

/* RFC 9881: always these bytes before the 1,952 of the key. OpenSSL's encoder takes 30 us to find them out.
 */
static const uint8_t mldsa65_spki[] = { 0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48,
					0x01, 0x65, 0x03, 0x04, 0x03, 0x12, 0x03, 0x82, 0x07, 0xa1, 0x00 };
enum { MLDSA65_PUB = 1952 };

int key_pub_hash(const EVP_PKEY *k, uint8_t out[SHA256_LEN])
{
	uint8_t spki[sizeof(mldsa65_spki) + MLDSA65_PUB];
	size_t raw = MLDSA65_PUB;
	unsigned char *der = NULL;
	int n, code;

	if (key_type_of(k) == KEY_MLDSA65 &&
	    EVP_PKEY_get_raw_public_key(k, spki + sizeof(mldsa65_spki), &raw) == 1 && raw == MLDSA65_PUB) {
		memcpy(spki, mldsa65_spki, sizeof(mldsa65_spki));
		return sha256(spki, sizeof(spki), out);
	}
	n = i2d_PUBKEY(k, &der);
	if (n <= 0)
		return crypto_fail(NULL, ERR_FAILED, "public key");
	code = sha256(der, (size_t)n, out);
	OPENSSL_free(der);
	return code;
}

/* ---- signatures with a domain ---- */

static uint8_t *domain_message(const char *domain, const void *p, size_t n, size_t *ret_n)
{
	size_t domain_n = strlen(domain);
	size_t total = 3 + domain_n + 1 + n;
	uint8_t *m = malloc(total);

	if (!m)
		return NULL;
	memcpy(m, "x0 ", 3);
	memcpy(m + 3, domain, domain_n + 1);
	if (n)
		memcpy(m + 3 + domain_n + 1, p, n);
	*ret_n = total;
	return m;
}

/* The one digest each kind of key signs with: ML-DSA hashes by itself. */
static int sig_digest(const EVP_PKEY *k, const char **ret)
{
	switch (key_type_of(k)) {
	case KEY_MLDSA65:
		*ret = NULL;
		return 0;
	case KEY_P256:
		*ret = "SHA256";
		return 0;
	}
	return ERR_UNSUPPORTED;
}

int sig_make(EVP_PKEY *k, const char *domain, const void *p, size_t n, uint8_t *ret_sig, size_t *ret_n,
	     struct err *e)
{
	const char *digest;
	uint8_t *m, sig[SIG_MAX];
	size_t m_n, sig_n = sizeof(sig);
	EVP_MD_CTX *ctx;
	bool ok;

	if (sig_digest(k, &digest))
		return err_set(e, ERR_UNSUPPORTED, "this kind of key does not sign here");
	m = domain_message(domain, p, n, &m_n);
	ctx = m ? EVP_MD_CTX_new() : NULL;
	ok = ctx && EVP_DigestSignInit_ex(ctx, NULL, digest, NULL, NULL, k, NULL) == 1 &&
	     EVP_DigestSign(ctx, sig, &sig_n, m, m_n) == 1;
	EVP_MD_CTX_free(ctx);
	free(m);
	if (!ok)
		return crypto_fail(e, ERR_FAILED, "cannot sign");
	if (sig_n > *ret_n)
		return err_set(e, ERR_LIMIT, "a signature of %zu bytes does not fit in %zu", sig_n, *ret_n);
	memcpy(ret_sig, sig, sig_n);
	*ret_n = sig_n;
	return 0;
}

int sig_check(EVP_PKEY *k, const char *domain, const void *p, size_t n, const void *sig, size_t sig_n)
{
	const char *digest;
	uint8_t *m;
	size_t m_n;
	int code;

	if (sig_digest(k, &digest))
		return ERR_UNSUPPORTED;
	m = domain_message(domain, p, n, &m_n);
	if (!m)
		return ERR_NOMEM;
	code = sig_check_bare(k, digest, false, m, m_n, sig, sig_n);
	free(m);
	return code;
}

int sig_check_bare(EVP_PKEY *k, const char *digest, bool pss, const void *p, size_t n, const void *sig,
		   size_t sig_n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx = NULL;
	int code = ERR_UNSUPPORTED;

	if (!ctx || EVP_DigestVerifyInit_ex(ctx, &pctx, digest, NULL, NULL, k, NULL) != 1)
		goto out;
	if (pss && (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) != 1 ||
		    EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) != 1))
		goto out;
	code = EVP_DigestVerify(ctx, sig, sig_n, p, n) == 1 ? 0 : ERR_AUTH;
out:
	if (code)
		ERR_clear_error();
	EVP_MD_CTX_free(ctx);
	return code;
}

int x25519(const uint8_t priv[32], const uint8_t pub[32], uint8_t ret_shared[32])
{
	EVP_PKEY *mine = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, priv, 32);
	EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, pub, 32);
	EVP_PKEY_CTX *ctx = mine ? EVP_PKEY_CTX_new_from_pkey(NULL, mine, NULL) : NULL;
	uint8_t shared[32];
	size_t n = sizeof(shared);
	/* OpenSSL refuses an all-zero result itself. */
	bool ok = ctx && theirs && EVP_PKEY_derive_init(ctx) == 1 &&
		  EVP_PKEY_derive_set_peer(ctx, theirs) == 1 && EVP_PKEY_derive(ctx, shared, &n) == 1 &&
		  n == sizeof(shared);

	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(theirs);
	if (ok)
		memcpy(ret_shared, shared, sizeof(shared));
	secret_wipe(shared, sizeof(shared));
	return ok ? 0 : crypto_fail(NULL, ERR_AUTH, "x25519");
}
