/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: AEAD for frames
 *
 * One context per direction and thread, keyed once; a packet costs one re-initialisation with the IV alone
 * (the AES key schedule and the GHASH tables stay), the updates, and the tag. No allocation, no lock, no
 * fetch per packet.
 *
 * IV = exported IV xor the 64-bit counter in its last eight bytes (RFC 8446 section 5.3): unique as long as
 * the counter is, which the caller guarantees (hard stop far below 2^64). Interface as in RFC 5116; AES-GCM
 * of SP 800-38D, ChaCha20-Poly1305 of RFC 8439.
 */
#include <limits.h>
#include <openssl/err.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "crypto/algs.h"

enum aead_suite aead_best_suite(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul"))
		return AEAD_AES_256_GCM;
#elif defined(__aarch64__)
	if ((getauxval(AT_HWCAP) & (HWCAP_AES | HWCAP_PMULL)) == (HWCAP_AES | HWCAP_PMULL))
		return AEAD_AES_256_GCM;
#endif
	return AEAD_CHACHA20_POLY1305;
}

static const EVP_CIPHER *suite_cipher(const struct crypto_algs *algs, enum aead_suite suite)
{
	switch (suite) {
	case AEAD_AES_256_GCM:
		return algs->aes_256_gcm;
	case AEAD_CHACHA20_POLY1305:
		return algs->chacha20_poly1305;
	}
	return NULL;
}

int aead_init(struct aead *a, enum aead_suite suite, const uint8_t key[AEAD_KEY], const uint8_t iv[AEAD_IV],
	      bool seal, struct err *e)
{
	const struct crypto_algs *algs = crypto_algs();
	const EVP_CIPHER *cipher = algs ? suite_cipher(algs, suite) : NULL;
	EVP_CIPHER_CTX *ctx;

	if (!cipher)
		return err_set(e, ERR_UNSUPPORTED, "no such AEAD suite: %d", (int)suite);
	ctx = EVP_CIPHER_CTX_new();
	if (!ctx)
		return err_set(e, ERR_NOMEM, "out of memory for a cipher context");
	if (EVP_CipherInit_ex2(ctx, cipher, key, NULL, seal, NULL) != 1) {
		EVP_CIPHER_CTX_free(ctx);
		return crypto_fail(e, ERR_FAILED, "cannot set an AEAD key");
	}
	a->ctx = ctx;
	a->suite = suite;
	memcpy(a->iv, iv, AEAD_IV);
	return 0;
}

void aead_fini(struct aead *a)
{
	EVP_CIPHER_CTX_free(a->ctx); /* wipes the key schedule */
	secret_wipe(a, sizeof(*a));
}

static inline void aead_nonce(const struct aead *a, uint64_t counter, uint8_t nonce[AEAD_IV])
{
	memcpy(nonce, a->iv, AEAD_IV);
	put_u64(nonce + 4, get_u64(nonce + 4) ^ counter);
}

int aead_seal(struct aead *a, uint64_t counter, const void *aad, size_t aad_n, const void *head,
	      size_t head_n, const void *body, size_t body_n, uint8_t *out)
{
	uint8_t nonce[AEAD_IV];
	int n;

	if (!a->ctx || aad_n > INT_MAX || head_n > INT_MAX || body_n > INT_MAX)
		return ERR_FAILED;
	aead_nonce(a, counter, nonce);
	if (EVP_EncryptInit_ex2(a->ctx, NULL, NULL, nonce, NULL) != 1 ||
	    (aad_n && EVP_EncryptUpdate(a->ctx, NULL, &n, aad, (int)aad_n) != 1) ||
	    (head_n && EVP_EncryptUpdate(a->ctx, out, &n, head, (int)head_n) != 1) ||
	    (body_n && EVP_EncryptUpdate(a->ctx, out + head_n, &n, body, (int)body_n) != 1) ||
	    EVP_EncryptFinal_ex(a->ctx, out + head_n + body_n, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, out + head_n + body_n) != 1) {
		/* Half-written output might be plaintext-dependent garbage: nobody may send it by mistake. */
		memset(out, 0, head_n + body_n + AEAD_TAG);
		return crypto_fail(NULL, ERR_FAILED, "seal");
	}
	return 0;
}

int aead_open(struct aead *a, uint64_t counter, const void *aad, size_t aad_n, uint8_t *inout, size_t n)
{
	uint8_t nonce[AEAD_IV], *tag;
	int k;

	if (n < AEAD_TAG)
		return ERR_AUTH;
	if (!a->ctx || aad_n > INT_MAX || n > INT_MAX)
		return ERR_FAILED;
	n -= AEAD_TAG;
	tag = inout + n;
	aead_nonce(a, counter, nonce);
	if (EVP_DecryptInit_ex2(a->ctx, NULL, NULL, nonce, NULL) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) != 1 ||
	    (aad_n && EVP_DecryptUpdate(a->ctx, NULL, &k, aad, (int)aad_n) != 1) ||
	    (n && EVP_DecryptUpdate(a->ctx, inout, &k, inout, (int)n) != 1) ||
	    EVP_DecryptFinal_ex(a->ctx, tag, &k) != 1) {
		/* What was decrypted before the tag failed is the attacker's choice: gone. */
		memset(inout, 0, n + AEAD_TAG);
		ERR_clear_error();
		return ERR_AUTH;
	}
	return 0;
}

/* ---- one-shot ---- */

/* The four ciphers allowed here, and the key and nonce sizes they take; anything else is the caller's bug. */
static EVP_CIPHER_CTX *once_init(const char *cipher, const void *key, size_t key_n, const void *nonce,
				 size_t nonce_n, bool seal, int *ret_code)
{
	static const struct {
		const char *name;
		size_t key_n, nonce_min, nonce_max;
	} known[] = {
		{ "AES-128-GCM", 16, 1, 128 },
		{ "AES-192-GCM", 24, 1, 128 },
		{ "AES-256-GCM", 32, 1, 128 },
		{ "ChaCha20-Poly1305", 32, 12, 12 },
	};
	EVP_CIPHER_CTX *ctx = NULL;
	EVP_CIPHER *c = NULL;

	*ret_code = ERR_UNSUPPORTED;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(cipher, known[i].name) == 0 && key_n == known[i].key_n &&
		    nonce_n >= known[i].nonce_min && nonce_n <= known[i].nonce_max)
			c = EVP_CIPHER_fetch(NULL, cipher, NULL);
	}
	if (!c)
		return NULL;
	*ret_code = ERR_FAILED;
	ctx = EVP_CIPHER_CTX_new();
	if (!ctx || EVP_CipherInit_ex2(ctx, c, NULL, NULL, seal, NULL) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, (int)nonce_n, NULL) != 1 ||
	    EVP_CipherInit_ex2(ctx, NULL, key, nonce, seal, NULL) != 1) {
		EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	EVP_CIPHER_free(c);
	return ctx;
}

int aead_seal_once(const char *cipher, const void *key, size_t key_n, const void *nonce, size_t nonce_n,
		   const void *aad, size_t aad_n, const void *in, size_t n, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx;
	int ret, k;

	if (aad_n > INT_MAX || n > INT_MAX - AEAD_TAG)
		return ERR_FAILED;
	ctx = once_init(cipher, key, key_n, nonce, nonce_n, true, &ret);
	if (ctx && (!aad_n || EVP_EncryptUpdate(ctx, NULL, &k, aad, (int)aad_n) == 1) &&
	    (!n || EVP_EncryptUpdate(ctx, out, &k, in, (int)n) == 1) &&
	    EVP_EncryptFinal_ex(ctx, out + n, &k) == 1 &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, out + n) == 1)
		ret = 0;
	else
		crypto_fail(NULL, ret, "seal");
	EVP_CIPHER_CTX_free(ctx);
	return ret;
}

int aead_open_once(const char *cipher, const void *key, size_t key_n, const void *nonce, size_t nonce_n,
		   const void *aad, size_t aad_n, const void *in, size_t n, uint8_t *out)
{
	uint8_t tag[AEAD_TAG], rest[AEAD_TAG];
	EVP_CIPHER_CTX *ctx;
	int ret, k;

	if (n < AEAD_TAG)
		return ERR_AUTH;
	if (aad_n > INT_MAX || n > INT_MAX)
		return ERR_FAILED;
	n -= AEAD_TAG;
	memcpy(tag, (const uint8_t *)in + n, AEAD_TAG);
	ctx = once_init(cipher, key, key_n, nonce, nonce_n, false, &ret);
	if (ctx) {
		ret = ERR_AUTH;
		if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) == 1 &&
		    (!aad_n || EVP_DecryptUpdate(ctx, NULL, &k, aad, (int)aad_n) == 1) &&
		    (!n || EVP_DecryptUpdate(ctx, out, &k, in, (int)n) == 1) &&
		    EVP_DecryptFinal_ex(ctx, rest, &k) == 1)
			ret = 0;
		else if (n)
			secret_wipe(out, n);
	}
	if (ret)
		ERR_clear_error();
	EVP_CIPHER_CTX_free(ctx);
	return ret;
}
