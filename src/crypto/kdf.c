/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: hashes, MAC and key derivation
 *
 * SHA-256 (FIPS 180-4), HMAC (RFC 2104), HKDF (RFC 5869), scrypt (RFC 7914). Every output is complete or
 * untouched.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_Init() and its kind */
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/uio.h>

#include "crypto/algs.h"

int sha256(const void *p, size_t n, uint8_t out[SHA256_LEN])
{
	struct iovec v = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };

	return sha256_iov(&v, 1, out);
}

/* By the low-level calls: those of EVP allocate, and addresses and checksums must not depend on free memory.
 */
int sha256_iov(const struct iovec *iov, size_t n, uint8_t out[SHA256_LEN])
{
	SHA256_CTX ctx;
	bool ok = SHA256_Init(&ctx) == 1;

	for (size_t i = 0; ok && i < n; i++)
		ok = !iov[i].iov_len || SHA256_Update(&ctx, iov[i].iov_base, iov[i].iov_len) == 1;
	ok = ok && SHA256_Final(out, &ctx) == 1;
	secret_wipe(&ctx, sizeof(ctx));
	return ok ? 0 : ERR_FAILED;
}

/* The digests a caller may name, so that no string from outside ever chooses one. */
static size_t digest_len(const char *digest)
{
	static const struct {
		const char *name;
		size_t len;
	} known[] = { { "SHA256", 32 }, { "SHA384", 48 }, { "SHA512", 64 } };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(digest, known[i].name) == 0)
			return known[i].len;
	}
	return 0;
}

static OSSL_PARAM param_digest(const char *digest, const char *key)
{
	return OSSL_PARAM_construct_utf8_string(key, (char *)(uintptr_t)digest, 0);
}

static OSSL_PARAM param_octets(const char *key, const void *p, size_t n)
{
	static uint8_t none; /* a NULL pointer means "unset" to OpenSSL, an empty string is not that */

	return OSSL_PARAM_construct_octet_string(key, p ? (void *)(uintptr_t)p : &none, n);
}

int hmac(const char *digest, const void *key, size_t key_n, const void *p, size_t n, uint8_t *out,
	 size_t out_n)
{
	const struct crypto_algs *algs = crypto_algs();
	OSSL_PARAM params[] = { param_digest(digest, OSSL_MAC_PARAM_DIGEST), OSSL_PARAM_construct_end() };
	uint8_t mac[EVP_MAX_MD_SIZE];
	EVP_MAC_CTX *ctx;
	bool ok;

	if (out_n > digest_len(digest))
		return ERR_USAGE;
	ctx = algs ? EVP_MAC_CTX_new(algs->hmac) : NULL;
	ok = ctx && EVP_MAC_init(ctx, key_n ? key : (const void *)"", key_n, params) == 1 &&
	     (!n || EVP_MAC_update(ctx, p, n) == 1) && EVP_MAC_final(ctx, mac, NULL, sizeof(mac)) == 1;
	EVP_MAC_CTX_free(ctx);
	if (ok)
		memcpy(out, mac, out_n);
	secret_wipe(mac, sizeof(mac));
	return ok ? 0 : crypto_fail(NULL, ERR_FAILED, "hmac");
}

int hkdf(const char *digest, const void *ikm, size_t ikm_n, const void *salt, size_t salt_n, const void *info,
	 size_t info_n, uint8_t *out, size_t out_n)
{
	const struct crypto_algs *algs = crypto_algs();
	OSSL_PARAM params[] = {
		param_digest(digest, OSSL_KDF_PARAM_DIGEST),
		param_octets(OSSL_KDF_PARAM_KEY, ikm, ikm_n),
		param_octets(OSSL_KDF_PARAM_SALT, salt, salt_n),
		param_octets(OSSL_KDF_PARAM_INFO, info, info_n),
		OSSL_PARAM_construct_end(),
	};
	size_t hash_n = digest_len(digest);
	EVP_KDF_CTX *ctx;
	bool ok;

	/* RFC 5869: at most 255 blocks, since the block counter is one byte. */
	if (!hash_n || !out_n || out_n > 255 * hash_n)
		return ERR_USAGE;
	ctx = algs ? EVP_KDF_CTX_new(algs->hkdf) : NULL;
	ok = ctx && EVP_KDF_derive(ctx, out, out_n, params) == 1;
	EVP_KDF_CTX_free(ctx);
	if (ok)
		return 0;
	secret_wipe(out, out_n);
	return crypto_fail(NULL, ERR_FAILED, "hkdf");
}

int kdf_password(const char *password, const uint8_t salt[16], uint8_t out[32], struct err *e)
{
	const struct crypto_algs *algs = crypto_algs();
	uint64_t n = 1u << 15, r = 8, p = 1, room = 64ull << 20;
	OSSL_PARAM params[] = {
		param_octets(OSSL_KDF_PARAM_PASSWORD, password, strlen(password)),
		param_octets(OSSL_KDF_PARAM_SALT, salt, 16),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_R, &r),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_P, &p),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &room),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF_CTX *ctx = algs ? EVP_KDF_CTX_new(algs->scrypt) : NULL;
	uint8_t key[32];
	bool ok = ctx && EVP_KDF_derive(ctx, key, sizeof(key), params) == 1;

	EVP_KDF_CTX_free(ctx);
	if (ok)
		memcpy(out, key, sizeof(key));
	secret_wipe(key, sizeof(key));
	return ok ? 0
		  : crypto_fail(e, ERR_FAILED,
				"cannot derive a key from the password (it takes 32 MiB of memory)");
}
