/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: crypto start-up
 *
 * Fetching an algorithm from an OpenSSL 3 provider takes locks and string compares, about a microsecond: done
 * once here, never per packet. The set is all or nothing, so that no part of the program runs without a
 * primitive it will need later.
 */
#include "crypto/crypto.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/opensslv.h>
#include <threads.h>

#include "crypto/algs.h"

/* Post-quantum algorithms came with 3.5.0. */
#define OPENSSL_MIN 0x30500000ul

static struct crypto_algs algs;
static bool algs_ok;
static once_flag algs_once = ONCE_FLAG_INIT;

static void fetch_all(void)
{
	algs.aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	algs.chacha20_poly1305 = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	algs.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	algs.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	algs.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	algs.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
	algs.ml_dsa_65 = EVP_SIGNATURE_fetch(NULL, "ML-DSA-65", NULL);
	algs_ok = OpenSSL_version_num() >= OPENSSL_MIN && algs.aes_256_gcm && algs.chacha20_poly1305 &&
		  algs.sha256 && algs.hmac && algs.hkdf && algs.scrypt && algs.ml_dsa_65;
	if (!algs_ok)
		ERR_clear_error();
}

const struct crypto_algs *crypto_algs(void)
{
	call_once(&algs_once, fetch_all);
	return algs_ok ? &algs : NULL;
}

int crypto_init(struct err *e)
{
	if (crypto_algs())
		return 0;
	err_set(e, ERR_UNSUPPORTED,
		"the libcrypto in use (%s) lacks algorithms x0 needs (ML-DSA-65, AES-256-GCM, "
		"ChaCha20-Poly1305, HKDF, scrypt)",
		OpenSSL_version(OPENSSL_VERSION));
	return err_todo(e, "run with OpenSSL 3.5 or newer and its default provider enabled in openssl.cnf");
}

int crypto_fail(struct err *e, int code, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	if (reason)
		return err_set(e, code, "%s: %s", what, reason);
	return err_set(e, code, "%s", what);
}
