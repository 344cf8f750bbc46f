/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sealed blobs
 *
 *	magic (4) | u8 version 1 | u8 mode | salt (16) | nonce (12) | AES-256-GCM ciphertext, tag (16)
 *
 * Mode 1: the key is scrypt of a password and the salt. Mode 2: it is HKDF-SHA-256 of a random key file and
 *the salt. Everything before the ciphertext is authenticated with it. A fresh salt with each sealing gives a
 *fresh key, so a nonce is never used twice under one key.
 */
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { SEAL_VERSION = 1, SEAL_SALT = 16, SEAL_NONCE = 12, SEAL_HEAD = 4 + 1 + 1 + SEAL_SALT + SEAL_NONCE };
static const char seal_cipher[] = "AES-256-GCM", seal_info[] = "x0 seal v1";

static int derive(int mode, const char *password, const uint8_t *key, const uint8_t salt[SEAL_SALT],
		  uint8_t ret[32], struct err *e)
{
	if (mode == SEAL_PASSWORD)
		return kdf_password(password, salt, ret, e);
	if (hkdf("SHA256", key, 32, salt, SEAL_SALT, seal_info, strlen(seal_info), ret, 32))
		return err_set(e, ERR_FAILED, "the key could not be derived");
	return 0;
}

static int seal(const char magic[4], enum seal_mode mode, const char *password, const uint8_t *key,
		const void *p, size_t n, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	size_t total = SEAL_HEAD + n + AEAD_TAG;
	uint8_t *out = malloc(total), k[32];
	int rc;

	if (!out)
		return err_set(e, ERR_NOMEM, "out of memory");
	memcpy(out, magic, 4);
	out[4] = SEAL_VERSION;
	out[5] = (uint8_t)mode;
	if (RAND_bytes(out + 6, SEAL_SALT + SEAL_NONCE) != 1) {
		free(out);
		return err_set(e, ERR_FAILED, "no random bytes");
	}
	rc = derive(mode, password, key, out + 6, k, e);
	if (!rc && aead_seal_once(seal_cipher, k, 32, out + 6 + SEAL_SALT, SEAL_NONCE, out, SEAL_HEAD, p, n,
				  out + SEAL_HEAD))
		rc = err_set(e, ERR_FAILED, "encryption failed");
	secret_wipe(k, sizeof(k));
	if (rc) {
		free(out);
		return rc;
	}
	*ret_p = out;
	*ret_n = total;
	return 0;
}

int seal_password(const char magic[4], const char *password, const void *p, size_t n, uint8_t **ret_p,
		  size_t *ret_n, struct err *e)
{
	if (!password || !password[0])
		return err_set(e, ERR_USAGE, "an empty password protects nothing");
	return seal(magic, SEAL_PASSWORD, password, NULL, p, n, ret_p, ret_n, e);
}

int seal_key(const char magic[4], const uint8_t key[32], const void *p, size_t n, uint8_t **ret_p,
	     size_t *ret_n, struct err *e)
{
	return seal(magic, SEAL_KEY, NULL, key, p, n, ret_p, ret_n, e);
}

int seal_mode_of(const char magic[4], const void *p, size_t n)
{
	const uint8_t *q = p;

	if (n < SEAL_HEAD + AEAD_TAG || memcmp(q, magic, 4) || q[4] != SEAL_VERSION ||
	    (q[5] != SEAL_PASSWORD && q[5] != SEAL_KEY))
		return ERR_PARSE;
	return q[5];
}

int seal_open(const char magic[4], const char *password, const uint8_t *key, const void *p, size_t n,
	      struct secret *ret, struct err *e)
{
	int mode = seal_mode_of(magic, p, n), rc;
	const uint8_t *q = p;
	struct secret s;
	uint8_t k[32];

	if (mode < 0)
		return err_set(e, ERR_PARSE, "the file is not what it should be, or was cut short");
	if (mode == SEAL_PASSWORD ? !password : !key)
		return err_set(e, ERR_AUTH,
			       mode == SEAL_PASSWORD ? "a password is needed" : "the key file is needed");
	rc = derive(mode, password, key, q + 6, k, e);
	if (rc)
		return rc;
	if (secret_init(&s, n - SEAL_HEAD - AEAD_TAG)) {
		secret_wipe(k, sizeof(k));
		return err_set(e, ERR_NOMEM, "out of memory");
	}
	rc = aead_open_once(seal_cipher, k, 32, q + 6 + SEAL_SALT, SEAL_NONCE, q, SEAL_HEAD, q + SEAL_HEAD,
			    n - SEAL_HEAD, s.p);
	secret_wipe(k, sizeof(k));
	if (rc) {
		secret_fini(&s);
		return err_set(e, ERR_AUTH,
			       mode == SEAL_PASSWORD ? "wrong password, or the file was altered"
						     : "wrong key file, or the file was altered");
	}
	*ret = s;
	return 0;
}
