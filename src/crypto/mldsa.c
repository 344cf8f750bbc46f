/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bare ML-DSA-65
 *
 * FIPS 204 as the standard has it, with context strings, the internal interface and external mu: what the
 * conformance vectors exercise. The rest of the program signs through sig_make().
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <string.h>

#include "crypto/algs.h"

enum { MLDSA65_PUB = 1952, MLDSA_MU = 64, MLDSA_CTX_MAX = 255, MLDSA_RND = 32 };

struct mldsa_params {
	int raw, mu, deterministic;
	OSSL_PARAM p[6];
};

static void params_fill(struct mldsa_params *mp, const void *ctx, size_t ctx_n, bool internal, bool mu,
			const uint8_t *rnd, bool deterministic)
{
	OSSL_PARAM *p = mp->p;

	mp->raw = 0; /* no message encoding: FIPS 204's internal functions */
	mp->mu = 1;
	mp->deterministic = deterministic;
	if (ctx_n)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_SIGNATURE_PARAM_CONTEXT_STRING,
							 (void *)(uintptr_t)ctx, ctx_n);
	if (internal)
		*p++ = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_MESSAGE_ENCODING, &mp->raw);
	if (mu)
		*p++ = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_MU, &mp->mu);
	if (rnd)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_SIGNATURE_PARAM_TEST_ENTROPY,
							 (void *)(uintptr_t)rnd, MLDSA_RND);
	if (deterministic)
		*p++ = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_DETERMINISTIC, &mp->deterministic);
	*p = OSSL_PARAM_construct_end();
}

int mldsa65_verify(const uint8_t pub[1952], const void *msg, size_t n, const void *ctx, size_t ctx_n,
		   const void *sig, size_t sig_n, bool internal, bool mu)
{
	const struct crypto_algs *algs = crypto_algs();
	OSSL_PARAM import[] = {
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)pub,
						  MLDSA65_PUB),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *kctx = NULL, *vctx = NULL;
	EVP_PKEY *k = NULL;
	struct mldsa_params mp;
	int code = ERR_FAILED;

	if (ctx_n > MLDSA_CTX_MAX || (mu && n != MLDSA_MU) || sig_n != SIG_MAX)
		return ERR_AUTH;
	params_fill(&mp, ctx, ctx_n, internal, mu, NULL, false);
	kctx = EVP_PKEY_CTX_new_from_name(NULL, "ML-DSA-65", NULL);
	if (!algs || !kctx || EVP_PKEY_fromdata_init(kctx) != 1 ||
	    EVP_PKEY_fromdata(kctx, &k, EVP_PKEY_PUBLIC_KEY, import) != 1)
		goto out;
	vctx = EVP_PKEY_CTX_new_from_pkey(NULL, k, NULL);
	if (!vctx || EVP_PKEY_verify_message_init(vctx, algs->ml_dsa_65, mp.p) != 1)
		goto out;
	code = EVP_PKEY_verify(vctx, sig, sig_n, msg, n) == 1 ? 0 : ERR_AUTH;
out:
	if (code)
		ERR_clear_error();
	EVP_PKEY_CTX_free(vctx);
	EVP_PKEY_CTX_free(kctx);
	EVP_PKEY_free(k);
	return code;
}

static int sign_with(EVP_PKEY *k, const void *msg, size_t n, const struct mldsa_params *mp,
		     uint8_t sig[SIG_MAX])
{
	const struct crypto_algs *algs = crypto_algs();
	EVP_PKEY_CTX *sctx = algs && key_type_of(k) == KEY_MLDSA65 ? EVP_PKEY_CTX_new_from_pkey(NULL, k, NULL)
								   : NULL;
	uint8_t made[SIG_MAX];
	size_t made_n = sizeof(made);
	bool ok = sctx && EVP_PKEY_sign_message_init(sctx, algs->ml_dsa_65, mp->p) == 1 &&
		  EVP_PKEY_sign(sctx, made, &made_n, msg, n) == 1 && made_n == SIG_MAX;

	EVP_PKEY_CTX_free(sctx);
	if (!ok)
		return crypto_fail(NULL, ERR_FAILED, "ML-DSA-65");
	memcpy(sig, made, SIG_MAX);
	return 0;
}

int mldsa65_sign(EVP_PKEY *k, const void *msg, size_t n, const void *ctx, size_t ctx_n, bool deterministic,
		 uint8_t sig[SIG_MAX])
{
	struct mldsa_params mp;

	if (ctx_n > MLDSA_CTX_MAX)
		return ERR_USAGE;
	params_fill(&mp, ctx, ctx_n, false, false, NULL, deterministic);
	return sign_with(k, msg, n, &mp, sig);
}

int mldsa65_sign_rnd(EVP_PKEY *k, const void *msg, size_t n, const void *ctx, size_t ctx_n,
		     const uint8_t *rnd, bool mu, uint8_t sig[SIG_MAX])
{
	struct mldsa_params mp;

	if (ctx_n > MLDSA_CTX_MAX || (mu && n != MLDSA_MU))
		return ERR_USAGE;
	params_fill(&mp, ctx, ctx_n, false, mu, rnd, !rnd);
	return sign_with(k, msg, n, &mp, sig);
}
