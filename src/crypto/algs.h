/* SPDX-License-Identifier: Apache-2.0 */
/* Private to crypto/: the algorithms fetched once, and the one way OpenSSL's error queue leaves this module.
 */
#ifndef X0_CRYPTO_ALGS_H
#define X0_CRYPTO_ALGS_H

#include "crypto/crypto.h"

struct crypto_algs {
	EVP_CIPHER *aes_256_gcm, *chacha20_poly1305;
	EVP_MD *sha256;
	EVP_MAC *hmac;
	EVP_KDF *hkdf, *scrypt;
	EVP_SIGNATURE *ml_dsa_65;
};

/* NULL if this libcrypto lacks something: every caller fails closed. Fetched on first use, safe from any
 * thread. */
const struct crypto_algs *crypto_algs(void);

/*
 * Sets the error ("what: OpenSSL's reason"), empties the thread's OpenSSL error queue and returns `code`. A
 * queue left full would make a later SSL_get_error() of the same thread report our failure as the
 * connection's.
 */
int crypto_fail(struct err *e, int code, const char *what);

#endif
