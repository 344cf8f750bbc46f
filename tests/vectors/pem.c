/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PEM files: ML-DSA-65 certificates and keys of RFC 9881 (lamps-wg), signed data with its key (BoringSSL),
 * bundles and SVIDs of go-spiffe. The blocks say which it is; the name says whether it is meant to be good.
 */
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "vectors.h"

struct block {
	uint8_t *p;
	long n;
};

/* The first block of that name; false if there is none. */
static bool block_get(const struct vfile *f, const char *want, struct block *ret)
{
	BIO *bio = BIO_new_mem_buf(f->p, (int)f->n);
	char *name, *header;
	bool found = false;

	while (!found && bio && PEM_read_bio(bio, &name, &header, &ret->p, &ret->n) == 1) {
		found = strcmp(name, want) == 0;
		if (!found)
			OPENSSL_free(ret->p);
		OPENSSL_free(name);
		OPENSSL_free(header);
	}
	BIO_free(bio);
	return found;
}

static bool says(const char *name, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strstr(name, words[i]))
			return true;
	}
	return false;
}

static bool is_bad(const char *name)
{
	static const char *const bad[] = { "params-null", "bad",     "wrong",	 "corrupt",
					   "invalid",	  "not-pem", "malformed" };

	return says(name, bad, ARRAY_SIZE(bad));
}

/* Key, data and signature in one file. */
static bool signed_data(const struct vfile *f)
{
	struct block key = { 0 }, data = { 0 }, sig = { 0 };
	EVP_PKEY *k = NULL;
	/* The signature is a BIT STRING: tag, length of two bytes, count of unused bits. */
	bool form = block_get(f, "PUBLIC KEY", &key) && block_get(f, "DATA", &data) &&
		    block_get(f, "SIGNATURE", &sig) && sig.n > 5;
	bool good = form && !key_from_spki(key.p, (size_t)key.n, &k, NULL) &&
		    !sig_check_bare(k, NULL, false, data.p, (size_t)data.n, sig.p + 5, (size_t)sig.n - 5);

	EVP_PKEY_free(k);
	OPENSSL_free(key.p);
	OPENSSL_free(data.p);
	OPENSSL_free(sig.p);
	return form && good == !is_bad(f->name);
}

/* A private key: read, used, checked against its own public half, and written so that it reads back. */
static bool private_key(const uint8_t *der, size_t n)
{
	EVP_PKEY *k = NULL, *again = NULL;
	uint8_t sig[SIG_MAX], a[SHA256_LEN], b[SHA256_LEN];
	size_t sig_n = sizeof(sig);
	struct secret out = { 0 };
	bool ok = !key_from_der(der, n, &k, NULL) && !sig_make(k, "test", "m", 1, sig, &sig_n, NULL) &&
		  !sig_check(k, "test", "m", 1, sig, sig_n) &&
		  sig_check(k, "test", "n", 1, sig, sig_n) == ERR_AUTH && !key_to_der(k, &out, NULL) &&
		  !key_from_der(out.p, out.n, &again, NULL) && !key_pub_hash(k, a) &&
		  !key_pub_hash(again, b) && memcmp(a, b, sizeof(a)) == 0;

	secret_fini(&out);
	EVP_PKEY_free(k);
	EVP_PKEY_free(again);
	return ok;
}

/* A bare certificate: the key is readable, and if it is self-issued, its own signature holds. */
static bool certificate(const struct vfile *f)
{
	X509 **x = NULL;
	size_t n = 0;
	bool ok = !pem_certs((const char *)f->p, f->n, &x, &n, NULL);

	for (size_t i = 0; i < n; i++) {
		EVP_PKEY *k = X509_get0_pubkey(x[i]);

		ok = ok && k;
		if (ok && X509_NAME_cmp(X509_get_subject_name(x[i]), X509_get_issuer_name(x[i])) == 0)
			ok = X509_verify(x[i], k) == 1;
	}
	pem_certs_free(x, n);
	return ok;
}

/* A leaf without its key in the same file: exactly one of the keys beside it belongs to it, if there are any.
 */
static bool svid_leaf_only(const struct vfile *f)
{
	static const char *const keys[] = { "key-pkcs8-rsa.pem", "key-pkcs8-ecdsa.pem" };
	const char *good = strstr(f->path, "good-");
	struct spiffe_id id;
	X509 **x = NULL;
	size_t n = 0;
	bool ok = !pem_certs((const char *)f->p, f->n, &x, &n, NULL) && !svid_check_form(x, n, &id, NULL);
	unsigned fits = 0, there = 0;

	pem_certs_free(x, n);
	for (size_t i = 0; ok && good && i < ARRAY_SIZE(keys); i++) {
		struct svid_pem s = { 0 };
		char path[4096];
		uint8_t *p = NULL;
		size_t k = 0;

		if (str_fmt(path, sizeof(path), "%.*s%s", (int)(good - f->path), f->path, keys[i]) ||
		    file_read(path, 1 << 20, &p, &k, NULL))
			continue;
		there++;
		if (!svid_pem_parse((const char *)f->p, f->n, (const char *)p, k, &s, NULL))
			fits++;
		svid_pem_fini(&s);
		free(p);
	}
	return ok && (there < ARRAY_SIZE(keys) || fits == 1);
}

static bool go_svid(const struct vfile *f, bool has_cert, bool has_key)
{
	struct svid_pem s = { 0 };
	struct spiffe_id id;
	EVP_PKEY *k = NULL;
	X509 **x = NULL;
	size_t n = 0;
	bool ok;

	if (!is_bad(f->name)) {
		if (has_cert && has_key) {
			ok = !svid_pem_parse((const char *)f->p, f->n, (const char *)f->p, f->n, &s, NULL);
			svid_pem_fini(&s);
			return ok;
		}
		if (has_cert)
			return svid_leaf_only(f);
		ok = !pem_key((const char *)f->p, f->n, &k, NULL);
		EVP_PKEY_free(k);
		return ok;
	}
	/* Bad: neither a usable key, nor a chain of the right form. */
	ok = pem_key((const char *)f->p, f->n, &k, NULL) != 0;
	EVP_PKEY_free(k);
	if (!pem_certs((const char *)f->p, f->n, &x, &n, NULL))
		ok = ok && svid_check_form(x, n, &id, NULL) != 0;
	pem_certs_free(x, n);
	return ok;
}

/* cert*.pem hold certificates; everything else there (a key, no PEM, nothing at all) is no bundle of roots.
 */
static bool go_bundle(const struct vfile *f)
{
	const char *base = strrchr(f->name, '_');
	X509 **x = NULL;
	size_t n = 0;
	bool want = strncmp(base ? base + 1 : f->name, "cert", 4) == 0;
	bool ok = !pem_certs((const char *)f->p, f->n, &x, &n, NULL) && n > 0;

	pem_certs_free(x, n);
	return ok == want;
}

enum vrun pem_run(struct vfile *f)
{
	bool pem = strstr((const char *)f->p, "-----BEGIN ") != NULL;
	bool has_cert = strstr((const char *)f->p, "-----BEGIN CERTIFICATE-----") != NULL;
	bool has_key = strstr((const char *)f->p, "-----BEGIN PRIVATE KEY-----") != NULL;
	bool has_pub = strstr((const char *)f->p, "-----BEGIN PUBLIC KEY-----") != NULL;
	struct block b = { 0 };
	EVP_PKEY *k = NULL;

	if (f->root)
		return V_NOT_MINE;
	if (strstr(f->path, "x509bundle")) {
		check(f, go_bundle(f), "bundle");
	} else if (strstr(f->path, "x509svid")) {
		check(f, go_svid(f, has_cert, has_key), "SVID");
	} else if (!pem) {
		return V_NOT_MINE;
	} else if (has_pub && strstr((const char *)f->p, "-----BEGIN SIGNATURE-----")) {
		check(f, signed_data(f), "signed data");
	} else if (has_key) {
		check(f,
		      (block_get(f, "PRIVATE KEY", &b) && private_key(b.p, (size_t)b.n)) == !is_bad(f->name),
		      "private key");
	} else if (has_cert) {
		check(f, certificate(f) == !is_bad(f->name), "certificate");
	} else if (has_pub) {
		check(f,
		      (block_get(f, "PUBLIC KEY", &b) && !key_from_spki(b.p, (size_t)b.n, &k, NULL)) ==
			      !is_bad(f->name),
		      "public key");
	} else {
		return V_NOT_MINE;
	}
	OPENSSL_free(b.p);
	EVP_PKEY_free(k);
	return V_RAN;
}
