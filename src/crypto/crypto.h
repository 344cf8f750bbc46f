/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: cryptography
 *
 * Thin, typed wrappers of OpenSSL 3.5: AEAD for frames, HKDF, HMAC, SHA-256, ML-KEM-768, ML-DSA-65, ECDSA
 * P-256. Algorithms are fetched once by crypto_init(); contexts are made lazily by their one owner. Nothing
 * here chooses an algorithm for the caller, and nothing falls back. All verify functions return 0 only when
 * the check passed.
 */
#ifndef X0_CRYPTO_CRYPTO_H
#define X0_CRYPTO_CRYPTO_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

/* Fetches the algorithms; refuses an OpenSSL older than 3.5. Idempotent, before threads. */
int crypto_init(struct err *e);

/* ---- AEAD (RFC 5116; IV = static IV xor 64-bit counter as in RFC 8446 section 5.3) ---- */
enum aead_suite { AEAD_AES_256_GCM = 1, AEAD_CHACHA20_POLY1305 = 2 };
enum { AEAD_KEY = 32, AEAD_IV = 12, AEAD_TAG = 16 };

struct aead {
	EVP_CIPHER_CTX *ctx; /* owned; one direction, one thread */
	uint8_t iv[AEAD_IV];
	enum aead_suite suite;
};

/* The suite this CPU is fast at: AES-GCM with AES instructions, else ChaCha20-Poly1305. */
enum aead_suite aead_best_suite(void);
int aead_init(struct aead *a, enum aead_suite suite, const uint8_t key[AEAD_KEY], const uint8_t iv[AEAD_IV],
	      bool seal, struct err *e);
void aead_fini(struct aead *a); /* wipes; fine on a zeroed struct */
/*
 * Seals head | body (either may be empty) to out, which gets head_n + body_n + 16 bytes; out may be equal to
 * body's memory only if head_n is 0. The caller never repeats a counter under one key. 0 or ERR_FAILED.
 */
int aead_seal(struct aead *a, uint64_t counter, const void *aad, size_t aad_n, const void *head,
	      size_t head_n, const void *body, size_t body_n, uint8_t *out);
/* Opens n bytes (ciphertext | tag) in place; the plaintext has n - 16 bytes. ERR_AUTH: nothing of it may be
 * used. */
int aead_open(struct aead *a, uint64_t counter, const void *aad, size_t aad_n, uint8_t *inout, size_t n);

/* ---- one-shot AEAD with any nonce and AAD, for keys at rest and the vectors; key 16/24/32 bytes for
 * "AES-*-GCM" ---- */
int aead_seal_once(const char *cipher, const void *key, size_t key_n, const void *nonce, size_t nonce_n,
		   const void *aad, size_t aad_n, const void *in, size_t n, uint8_t *out /* n + 16 */);
int aead_open_once(const char *cipher, const void *key, size_t key_n, const void *nonce, size_t nonce_n,
		   const void *aad, size_t aad_n, const void *in, size_t n, uint8_t *out /* n - 16 */);

/* ---- hashes, MAC, KDF ---- */
enum { SHA256_LEN = 32 };
int sha256(const void *p, size_t n, uint8_t out[SHA256_LEN]);
struct iovec;
int sha256_iov(const struct iovec *iov, size_t n, uint8_t out[SHA256_LEN]);
/* digest "SHA256", "SHA384" or "SHA512"; out_n <= digest length: truncation */
int hmac(const char *digest, const void *key, size_t key_n, const void *p, size_t n, uint8_t *out,
	 size_t out_n);
int hkdf(const char *digest, const void *ikm, size_t ikm_n, const void *salt, size_t salt_n, const void *info,
	 size_t info_n, uint8_t *out, size_t out_n);
/* Password to key for backups: scrypt N=2^15 r=8 p=1 (32 MiB). */
int kdf_password(const char *password, const uint8_t salt[16], uint8_t out[32], struct err *e);

/* ---- keys: ML-DSA-65 (FIPS 204, RFC 9881) and P-256 ---- */
enum key_type { KEY_MLDSA65 = 1, KEY_P256 = 2 };

int key_new(enum key_type type, EVP_PKEY **ret, struct err *e); /* caller frees with EVP_PKEY_free */
int key_from_seed(const uint8_t seed[32], EVP_PKEY **ret,
		  struct err *e);   /* ML-DSA-65 keyGen, FIPS 204 algorithm 6 */
int key_type_of(const EVP_PKEY *k); /* enum key_type, or ERR_UNSUPPORTED */
int key_to_der(const EVP_PKEY *k, struct secret *ret, struct err *e); /* PKCS#8 */
int key_from_der(const void *p, size_t n, EVP_PKEY **ret,
		 struct err *e); /* PKCS#8, ML-DSA-65 (seed, expanded, both) or P-256 */
int key_pub_hash(const EVP_PKEY *k, uint8_t out[SHA256_LEN]); /* SHA-256 of the SubjectPublicKeyInfo */

/* Signature with a domain separator: the signed message is "x0 " | domain | 0x00 | message. Deterministic
 * contexts of FIPS 204 are not used, so that P-256 signs the same bytes. */
enum { SIG_MAX = 3309 };
int sig_make(EVP_PKEY *k, const char *domain, const void *p, size_t n, uint8_t *ret_sig,
	     size_t *ret_n /* in: room */, struct err *e);
int sig_check(EVP_PKEY *k, const char *domain, const void *p, size_t n, const void *sig, size_t sig_n);
/* Bare ML-DSA-65 for the vectors: context string as in FIPS 204; `internal`: the internal interface on a raw
 * message */
int mldsa65_verify(const uint8_t pub[1952], const void *msg, size_t n, const void *ctx, size_t ctx_n,
		   const void *sig, size_t sig_n, bool internal, bool mu);
int mldsa65_sign(EVP_PKEY *k, const void *msg, size_t n, const void *ctx, size_t ctx_n, bool deterministic,
		 uint8_t sig[SIG_MAX]);
/* The same with given randomness (32 bytes; NULL: deterministic) and, with `mu`, over the 64-byte message
 * hash. */
int mldsa65_sign_rnd(EVP_PKEY *k, const void *msg, size_t n, const void *ctx, size_t ctx_n,
		     const uint8_t *rnd, bool mu, uint8_t sig[SIG_MAX]);

/*
 * Bare signatures of others, for JWTs and the vectors. `digest` is "SHA256", "SHA384", "SHA512" or NULL
 * (Ed25519); RSA is PKCS#1 v1.5, or with `pss` PSS with a salt as long as the digest. 0, ERR_AUTH, or
 * ERR_UNSUPPORTED.
 */
int sig_check_bare(EVP_PKEY *k, const char *digest, bool pss, const void *p, size_t n, const void *sig,
		   size_t sig_n);
/* A public key as SubjectPublicKeyInfo DER, nothing behind it; any algorithm. */
int key_from_spki(const void *p, size_t n, EVP_PKEY **ret, struct err *e);
/* X25519 (RFC 7748) for the vectors; ERR_AUTH if the result is all zero (low-order point). */
int x25519(const uint8_t priv[32], const uint8_t pub[32], uint8_t ret_shared[32]);

/* ---- ML-KEM-768 (FIPS 203) ---- */
enum { KEM_PUB = 1184, KEM_CT = 1088, KEM_SS = 32, KEM_SEED = 64, KEM_DK = 2400 };
int kem_keygen(const uint8_t seed[KEM_SEED], uint8_t pub[KEM_PUB], struct secret *ret_dk);
int kem_encap(const uint8_t *pub, size_t pub_n,
	      const uint8_t *m /* 32 bytes for the vectors, or NULL: random */, uint8_t ct[KEM_CT],
	      uint8_t ss[KEM_SS]); /* checks the modulus; ERR_PARSE */
int kem_decap(const uint8_t *dk, size_t dk_n, const uint8_t *ct, size_t ct_n,
	      uint8_t ss[KEM_SS]); /* checks the hash */

#endif
