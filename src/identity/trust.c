/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bundles and SVIDs of others, as text
 *
 * Parsers for what SPIRE and its kin hand over: JWKS documents (RFC 7517, RFC 7518 section 6;
 * SPIFFE_Trust_Domain_and_Bundle.md section 4) and PEM (RFC 7468). A document is taken whole or refused
 * whole: half a bundle would be a trust decision nobody made. What its rules say to ignore (unknown use,
 * unknown key type) is left out.
 */
#include <limits.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { JWKS_MAX = 1 << 20, JWKS_KEYS_MAX = 256, JWK_BYTES = 2048, KID_MAX = 256 };

/* A member by name: NULL if absent, and `*dup` if it is there twice (two readers would see two documents). */
static yyjson_val *member(yyjson_val *obj, const char *name, bool *dup)
{
	yyjson_val *key, *found = NULL;
	yyjson_obj_iter it = yyjson_obj_iter_with(obj);

	while ((key = yyjson_obj_iter_next(&it))) {
		if (!yyjson_equals_str(key, name))
			continue;
		if (found)
			*dup = true;
		found = yyjson_obj_iter_get_val(key);
	}
	return found;
}

/* base64url text of a member; the number of bytes, or ERR_PARSE. */
static ssize_t member_b64(yyjson_val *obj, const char *name, uint8_t *to, size_t cap)
{
	bool dup = false;
	yyjson_val *v = member(obj, name, &dup);

	if (!yyjson_is_str(v) || dup)
		return ERR_PARSE;
	return base64url_decode(to, cap, yyjson_get_str(v), yyjson_get_len(v));
}

static EVP_PKEY *key_from_params(const char *type, const OSSL_PARAM *params)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *k = NULL;

	if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &k, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)params) != 1)
		k = NULL;
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return k;
}

/* 0 with *ret NULL: a curve we do not know, to be ignored. */
static int jwk_ec(yyjson_val *jwk, EVP_PKEY **ret, struct err *e)
{
	static const struct {
		const char *crv, *group;
		size_t n;
	} curves[] = { { "P-256", "P-256", 32 }, { "P-384", "P-384", 48 }, { "P-521", "P-521", 66 } };
	uint8_t point[1 + 2 * 66 + 2] = { 4 }; /* uncompressed */
	bool dup = false;
	yyjson_val *crv = member(jwk, "crv", &dup);
	EVP_PKEY *k;

	if (!yyjson_is_str(crv) || dup)
		return err_set(e, ERR_PARSE, "JWKS: an EC key has no \"crv\"");
	for (size_t i = 0; i < ARRAY_SIZE(curves); i++) {
		size_t n = curves[i].n;

		if (!yyjson_equals_str(crv, curves[i].crv))
			continue;
		if (member_b64(jwk, "x", point + 1, n) != (ssize_t)n ||
		    member_b64(jwk, "y", point + 1 + n, n) != (ssize_t)n)
			return err_set(e, ERR_PARSE, "JWKS: malformed coordinates of a %s key",
				       curves[i].crv);
		k = key_from_params(
			"EC",
			(OSSL_PARAM[]){
				OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME,
								 (char *)(uintptr_t)curves[i].group, 0),
				OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * n),
				OSSL_PARAM_construct_end() });
		if (!k)
			return err_set(e, ERR_PARSE, "JWKS: a %s key is not a point of the curve",
				       curves[i].crv);
		*ret = k;
		return 0;
	}
	*ret = NULL;
	return 0;
}

static int jwk_rsa(yyjson_val *jwk, EVP_PKEY **ret, struct err *e)
{
	uint8_t n[JWK_BYTES], exp[16];
	ssize_t n_n = member_b64(jwk, "n", n, sizeof(n)), exp_n = member_b64(jwk, "e", exp, sizeof(exp));
	OSSL_PARAM_BLD *bld = NULL;
	OSSL_PARAM *params = NULL;
	BIGNUM *bn = NULL, *be = NULL;
	EVP_PKEY *k = NULL;
	int code = 0;

	if (n_n <= 0 || exp_n <= 0)
		return err_set(e, ERR_PARSE, "JWKS: malformed numbers of an RSA key");
	bn = BN_bin2bn(n, (int)n_n, NULL);
	be = BN_bin2bn(exp, (int)exp_n, NULL);
	bld = OSSL_PARAM_BLD_new();
	if (!bn || !be || !bld) {
		code = err_set(e, ERR_NOMEM, "out of memory for a bundle");
		goto out;
	}
	/* RFC 7518 section 3.3: 2048 bits or more. An exponent of 1 would make every message its own
	 * signature. */
	if (BN_num_bits(bn) < 2048 || !BN_is_odd(bn) || !BN_is_odd(be) || BN_is_one(be)) {
		code = err_set(e, ERR_PARSE,
			       "JWKS: an RSA key is too weak (below 2048 bits, or a bad exponent)");
		goto out;
	}
	if (OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
	    OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, be) == 1 &&
	    (params = OSSL_PARAM_BLD_to_param(bld)))
		k = key_from_params("RSA", params);
	if (k)
		*ret = k;
	else
		code = err_set(e, ERR_PARSE, "JWKS: malformed RSA key");
out:
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	BN_free(bn);
	BN_free(be);
	return code;
}

static int add_jwt_key(yyjson_val *jwk, struct trust_bundle *b, struct err *e)
{
	bool dup = false;
	yyjson_val *kid = member(jwk, "kid", &dup), *kty = member(jwk, "kty", &dup);
	EVP_PKEY *k = NULL;
	char *name;
	int code = 0;

	if (!yyjson_is_str(kty) || dup)
		return err_set(e, ERR_PARSE, "JWKS: a key has no \"kty\"");
	/* Without an ID a token cannot say which key it means. */
	if (!yyjson_is_str(kid) || !yyjson_get_len(kid) || yyjson_get_len(kid) > KID_MAX ||
	    strlen(yyjson_get_str(kid)) != yyjson_get_len(kid))
		return err_set(e, ERR_PARSE, "JWKS: a JWT key has no usable \"kid\"");
	for (size_t i = 0; i < b->njwt; i++) {
		if (yyjson_equals_str(kid, b->jwt[i].kid))
			return err_set(e, ERR_PARSE, "JWKS: two keys have the same \"kid\"");
	}
	if (yyjson_equals_str(kty, "EC"))
		code = jwk_ec(jwk, &k, e);
	else if (yyjson_equals_str(kty, "RSA"))
		code = jwk_rsa(jwk, &k, e);
	if (code || !k)
		return code;
	name = strdup(yyjson_get_str(kid));
	if (!name || array_grow((void **)&b->jwt, b->njwt, sizeof(*b->jwt))) {
		free(name);
		EVP_PKEY_free(k);
		return err_set(e, ERR_NOMEM, "out of memory for a bundle");
	}
	b->jwt[b->njwt++] = (struct jwt_key){ .kid = name, .key = k };
	return 0;
}

static int add_root(yyjson_val *jwk, struct trust_bundle *b, struct err *e)
{
	bool dup = false;
	yyjson_val *x5c = member(jwk, "x5c", &dup), *text = yyjson_arr_get_first(x5c);
	uint8_t der[CERT_MAX];
	ssize_t n;
	X509 *x;
	int code;

	if (!yyjson_is_arr(x5c) || dup || yyjson_arr_size(x5c) != 1 || !yyjson_is_str(text))
		return err_set(e, ERR_PARSE,
			       "JWKS: an x509-svid key does not hold exactly one certificate in \"x5c\"");
	n = base64_decode(der, sizeof(der), yyjson_get_str(text), yyjson_get_len(text));
	if (n < 0)
		return err_set(e, ERR_PARSE, "JWKS: \"x5c\" is not base64");
	code = cert_from_der(der, (size_t)n, &x, e);
	if (code)
		return code;
	if (array_grow((void **)&b->roots, b->nroots, sizeof(*b->roots))) {
		X509_free(x);
		return err_set(e, ERR_NOMEM, "out of memory for a bundle");
	}
	b->roots[b->nroots++] = x;
	return 0;
}

static int add_key(yyjson_val *jwk, bool jwt_only, struct trust_bundle *b, struct err *e)
{
	bool dup = false;
	yyjson_val *use;

	if (!yyjson_is_obj(jwk))
		return err_set(e, ERR_PARSE, "JWKS: a key is not an object");
	use = member(jwk, "use", &dup);
	if (dup || (use && !yyjson_is_str(use)))
		return err_set(e, ERR_PARSE, "JWKS: malformed \"use\"");
	if (!use || yyjson_equals_str(use, "jwt-svid"))
		return add_jwt_key(jwk, b, e);
	if (yyjson_equals_str(use, "x509-svid") && !jwt_only)
		return add_root(jwk, b, e);
	return 0;
}

static int bundle_fill(yyjson_val *root, bool jwt_only, struct trust_bundle *b, struct err *e)
{
	bool dup = false;
	yyjson_val *keys = member(root, "keys", &dup), *seq = member(root, "spiffe_sequence", &dup);
	yyjson_val *hint = member(root, "spiffe_refresh_hint", &dup), *jwk;
	yyjson_arr_iter it;
	int code = 0;

	if (!yyjson_is_obj(root) || dup)
		return err_set(e, ERR_PARSE, "JWKS: not an object, or with a member given twice");
	if (!yyjson_is_arr(keys))
		return err_set(e, ERR_PARSE, "JWKS: no \"keys\"");
	if (yyjson_arr_size(keys) > JWKS_KEYS_MAX)
		return err_set(e, ERR_LIMIT, "JWKS: more than %d keys", JWKS_KEYS_MAX);
	if ((seq && !yyjson_is_uint(seq)) ||
	    (hint && (!yyjson_is_uint(hint) || yyjson_get_uint(hint) > INT_MAX)))
		return err_set(e, ERR_PARSE, "JWKS: malformed sequence or refresh hint");
	b->sequence = seq ? yyjson_get_uint(seq) : 0;
	b->refresh_hint = hint ? (int64_t)yyjson_get_uint(hint) : 0;
	yyjson_arr_iter_init(keys, &it);
	while (!code && (jwk = yyjson_arr_iter_next(&it)))
		code = add_key(jwk, jwt_only, b, e);
	return code;
}

static int parse(const char *json, size_t n, bool jwt_only, struct trust_bundle *ret, struct err *e)
{
	struct trust_bundle b = { 0 };
	yyjson_doc *doc;
	int code;

	if (n > JWKS_MAX)
		return err_set(e, ERR_LIMIT, "JWKS: %zu bytes, at most %d are accepted", n, JWKS_MAX);
	doc = yyjson_read(json, n, YYJSON_READ_NOFLAG);
	if (!doc)
		return err_set(e, ERR_PARSE, "JWKS: not JSON");
	code = bundle_fill(yyjson_doc_get_root(doc), jwt_only, &b, e);
	yyjson_doc_free(doc);
	if (code)
		trust_bundle_fini(&b);
	else
		*ret = b;
	return code;
}

int trust_bundle_parse(const char *json, size_t n, struct trust_bundle *ret, struct err *e)
{
	return parse(json, n, false, ret, e);
}

int trust_bundle_parse_jwt(const char *json, size_t n, struct trust_bundle *ret, struct err *e)
{
	return parse(json, n, true, ret, e);
}

void trust_bundle_fini(struct trust_bundle *b)
{
	for (size_t i = 0; i < b->nroots; i++)
		X509_free(b->roots[i]);
	for (size_t i = 0; i < b->njwt; i++) {
		free(b->jwt[i].kid);
		EVP_PKEY_free(b->jwt[i].key);
	}
	free(b->roots);
	free(b->jwt);
	*b = (struct trust_bundle){ 0 };
}

/* ---- PEM ---- */

/* The next block of a PEM text: 1, 0 at the end, or ERR_PARSE for a block that was begun and is malformed. */
static int pem_next(BIO *bio, char **ret_name, uint8_t **ret_der, long *ret_n)
{
	char *header = NULL;
	int ok = PEM_read_bio(bio, ret_name, &header, ret_der, ret_n);
	unsigned long why = ok == 1 ? 0 : ERR_peek_last_error();
	bool plain = header && !*header;

	OPENSSL_free(header);
	ERR_clear_error();
	if (ok == 1) {
		if (plain)
			return 1;
		OPENSSL_free(*ret_name); /* encrypted in the old way, by its headers */
		OPENSSL_clear_free(*ret_der, (size_t)*ret_n);
		return ERR_PARSE;
	}
	return ERR_GET_REASON(why) == PEM_R_NO_START_LINE ? 0 : ERR_PARSE;
}

void pem_certs_free(X509 **x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		X509_free(x[i]);
	free(x);
}

int pem_certs(const char *pem, size_t n, X509 ***ret, size_t *ret_n, struct err *e)
{
	BIO *bio = n <= JWKS_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;
	X509 **x = calloc(PEM_CERTS_MAX, sizeof(*x));
	size_t k = 0;
	uint8_t *der;
	char *name;
	long der_n;
	int more = 0, code = 0;

	if (!bio || !x)
		code = err_set(e, ERR_LIMIT, "PEM: %zu bytes are too many", n);
	while (!code && (more = pem_next(bio, &name, &der, &der_n)) > 0) {
		if (strcmp(name, PEM_STRING_X509) == 0 && k == PEM_CERTS_MAX)
			code = err_set(e, ERR_LIMIT, "PEM: more than %d certificates", PEM_CERTS_MAX);
		else if (strcmp(name, PEM_STRING_X509) == 0 &&
			 !(code = cert_from_der(der, (size_t)der_n, &x[k], e)))
			k++;
		OPENSSL_free(name);
		OPENSSL_clear_free(der, (size_t)der_n);
	}
	if (!code && more < 0)
		code = err_set(e, ERR_PARSE, "PEM: malformed block");
	if (!code && k == 0)
		code = err_set(e, ERR_PARSE, "PEM: no certificate");
	BIO_free(bio);
	if (code) {
		pem_certs_free(x, x ? k : 0);
		return code;
	}
	*ret = x;
	*ret_n = k;
	return 0;
}

static int key_any(const uint8_t *der, size_t n, EVP_PKEY **ret)
{
	const unsigned char *at = der;
	PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)n);
	EVP_PKEY *k = info && at == der + n ? EVP_PKCS82PKEY(info) : NULL;

	PKCS8_PRIV_KEY_INFO_free(info);
	ERR_clear_error();
	if (!k)
		return ERR_PARSE;
	*ret = k;
	return 0;
}

int pem_key(const char *pem, size_t n, EVP_PKEY **ret, struct err *e)
{
	BIO *bio = n <= JWKS_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;
	EVP_PKEY *k = NULL;
	uint8_t *der;
	char *name;
	long der_n;
	int more = 0, code = 0;

	if (!bio)
		code = err_set(e, ERR_LIMIT, "PEM: %zu bytes are too many", n);
	while (!code && (more = pem_next(bio, &name, &der, &der_n)) > 0) {
		if (strcmp(name, PEM_STRING_PKCS8INF) == 0) {
			if (k)
				code = err_set(e, ERR_PARSE, "PEM: more than one private key");
			else if (key_any(der, (size_t)der_n, &k))
				code = err_set(e, ERR_PARSE, "PEM: malformed private key");
		}
		OPENSSL_free(name);
		OPENSSL_clear_free(der, (size_t)der_n);
	}
	if (!code && more < 0)
		code = err_set(e, ERR_PARSE, "PEM: malformed block");
	if (!code && !k)
		code = err_set(e, ERR_PARSE, "PEM: no private key");
	BIO_free(bio);
	if (code)
		EVP_PKEY_free(k);
	else
		*ret = k;
	return code;
}

int svid_pem_parse(const char *certs, size_t certs_n, const char *key, size_t key_n, struct svid_pem *ret,
		   struct err *e)
{
	struct svid_pem s = { 0 };
	int code = pem_certs(certs, certs_n, &s.chain, &s.nchain, e);

	if (!code)
		code = pem_key(key, key_n, &s.key, e);
	if (!code)
		code = svid_check_form(s.chain, s.nchain, &s.id, e);
	if (!code && X509_check_private_key(s.chain[0], s.key) != 1) {
		ERR_clear_error();
		code = err_set(e, ERR_CONFLICT,
			       "the private key does not belong to the certificate of %.200s", s.id.uri);
	}
	if (code)
		svid_pem_fini(&s);
	else
		*ret = s;
	return code;
}

void svid_pem_fini(struct svid_pem *s)
{
	pem_certs_free(s->chain, s->nchain);
	EVP_PKEY_free(s->key);
	*s = (struct svid_pem){ 0 };
}
