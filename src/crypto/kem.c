/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: ML-KEM-768
 *
 * FIPS 203. Keys from outside are checked as the standard demands before use: lengths, the modulus of an
 * encapsulation key (section 7.2), the hash inside a decapsulation key (section 7.3). A ciphertext that was
 * tampered with decapsulates to a secret nobody knows (implicit rejection), so success here says nothing
 * about who sent it.
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <string.h>

#include "crypto/algs.h"

static EVP_PKEY *kem_import(const char *param, const void *p, size_t n, int selection)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(param, (void *)(uintptr_t)p, n),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "ML-KEM-768", NULL);
	EVP_PKEY *k = NULL;

	if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &k, selection, params) != 1)
		k = NULL;
	EVP_PKEY_CTX_free(ctx);
	return k;
}

int kem_keygen(const uint8_t seed[KEM_SEED], uint8_t pub[KEM_PUB], struct secret *ret_dk)
{
	EVP_PKEY *k = kem_import(OSSL_PKEY_PARAM_ML_KEM_SEED, seed, KEM_SEED, EVP_PKEY_KEYPAIR);
	uint8_t ek[KEM_PUB], dk[KEM_DK];
	size_t ek_n = 0, dk_n = 0;
	int code;
	bool ok = k &&
		  EVP_PKEY_get_octet_string_param(k, OSSL_PKEY_PARAM_PUB_KEY, ek, sizeof(ek), &ek_n) == 1 &&
		  EVP_PKEY_get_octet_string_param(k, OSSL_PKEY_PARAM_PRIV_KEY, dk, sizeof(dk), &dk_n) == 1 &&
		  ek_n == sizeof(ek) && dk_n == sizeof(dk);

	EVP_PKEY_free(k);
	code = ok ? secret_set(ret_dk, dk, sizeof(dk)) : crypto_fail(NULL, ERR_FAILED, "ML-KEM-768");
	secret_wipe(dk, sizeof(dk));
	if (!code)
		memcpy(pub, ek, sizeof(ek));
	return code;
}

int kem_encap(const uint8_t *pub, size_t pub_n, const uint8_t *m, uint8_t ct[KEM_CT], uint8_t ss[KEM_SS])
{
	OSSL_PARAM params[] = {
		m ? OSSL_PARAM_construct_octet_string(OSSL_KEM_PARAM_IKME, (void *)(uintptr_t)m, 32)
		  : OSSL_PARAM_construct_end(),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY *k = pub_n == KEM_PUB ? kem_import(OSSL_PKEY_PARAM_PUB_KEY, pub, pub_n, EVP_PKEY_PUBLIC_KEY)
				       : NULL;
	EVP_PKEY_CTX *ctx = NULL;
	uint8_t c[KEM_CT], s[KEM_SS];
	size_t c_n = sizeof(c), s_n = sizeof(s);
	bool ok;

	if (!k)
		return crypto_fail(NULL, ERR_PARSE, "ML-KEM-768 public key");
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, k, NULL);
	ok = ctx && EVP_PKEY_encapsulate_init(ctx, params) == 1 &&
	     EVP_PKEY_encapsulate(ctx, c, &c_n, s, &s_n) == 1 && c_n == sizeof(c) && s_n == sizeof(s);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(k);
	if (ok) {
		memcpy(ct, c, sizeof(c));
		memcpy(ss, s, sizeof(s));
	}
	secret_wipe(s, sizeof(s));
	return ok ? 0 : crypto_fail(NULL, ERR_FAILED, "ML-KEM-768");
}

int kem_decap(const uint8_t *dk, size_t dk_n, const uint8_t *ct, size_t ct_n, uint8_t ss[KEM_SS])
{
	EVP_PKEY *k = dk_n == KEM_DK && ct_n == KEM_CT
			      ? kem_import(OSSL_PKEY_PARAM_PRIV_KEY, dk, dk_n, EVP_PKEY_KEYPAIR)
			      : NULL;
	EVP_PKEY_CTX *ctx = NULL;
	uint8_t s[KEM_SS];
	size_t s_n = sizeof(s);
	bool ok;

	if (!k)
		return crypto_fail(NULL, ERR_PARSE, "ML-KEM-768 private key or ciphertext");
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, k, NULL);
	ok = ctx && EVP_PKEY_decapsulate_init(ctx, NULL) == 1 &&
	     EVP_PKEY_decapsulate(ctx, s, &s_n, ct, ct_n) == 1 && s_n == sizeof(s);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(k);
	if (ok)
		memcpy(ss, s, sizeof(s));
	secret_wipe(s, sizeof(s));
	return ok ? 0 : crypto_fail(NULL, ERR_FAILED, "ML-KEM-768");
}
