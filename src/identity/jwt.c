/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: JWT-SVIDs
 *
 * JWT-SVID.md over RFC 7515 and RFC 7519. Compact serialization only. The algorithm is one of the nine of the
 * specification, and the key decides which of them is possible: a token cannot talk an RSA key into ECDSA,
 * nor anything into "none". Claims are read only after the signature was checked.
 */
#include <limits.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "identity/identity.h"

/* Clocks differ a little: as go-spiffe, one minute. */
enum { TOKEN_MAX = 16384, JWT_LEEWAY = 60, SIG_DER_MAX = 160 };

struct jwt_alg {
	const char *name, *digest, *group; /* group: the EC curve, NULL: RSA */
	size_t coord;			   /* bytes of r and s */
	bool pss;
};

static const struct jwt_alg algs[] = {
	{ "ES256", "SHA256", "prime256v1", 32, false }, { "ES384", "SHA384", "secp384r1", 48, false },
	{ "ES512", "SHA512", "secp521r1", 66, false },	{ "RS256", "SHA256", NULL, 0, false },
	{ "RS384", "SHA384", NULL, 0, false },		{ "RS512", "SHA512", NULL, 0, false },
	{ "PS256", "SHA256", NULL, 0, true },		{ "PS384", "SHA384", NULL, 0, true },
	{ "PS512", "SHA512", NULL, 0, true },
};

static bool has_duplicates(yyjson_val *obj)
{
	yyjson_val *a, *b;
	yyjson_obj_iter i = yyjson_obj_iter_with(obj), j;

	while ((a = yyjson_obj_iter_next(&i))) {
		for (j = i; (b = yyjson_obj_iter_next(&j));) {
			if (yyjson_equals_strn(b, yyjson_get_str(a), yyjson_get_len(a)))
				return true;
		}
	}
	return false;
}

/* One base64url part as a JSON object without duplicate names; free with yyjson_doc_free(). */
static yyjson_doc *part_json(const char *s, size_t n)
{
	uint8_t text[TOKEN_MAX];
	ssize_t k = base64url_decode(text, sizeof(text), s, n);
	yyjson_doc *doc = k > 0 ? yyjson_read((const char *)text, (size_t)k, YYJSON_READ_NOFLAG) : NULL;
	yyjson_val *root = yyjson_doc_get_root(doc);

	/* The square of 64 names is nothing; more than that no token needs. */
	if (!yyjson_is_obj(root) || yyjson_obj_size(root) > 64 || has_duplicates(root)) {
		yyjson_doc_free(doc);
		return NULL;
	}
	return doc;
}

static const struct jwt_alg *header_alg(yyjson_val *header, struct err *e)
{
	yyjson_val *alg = yyjson_obj_get(header, "alg"), *typ = yyjson_obj_get(header, "typ");

	if (typ && !yyjson_equals_str(typ, "JWT") && !yyjson_equals_str(typ, "JOSE")) {
		err_set(e, ERR_AUTH, "JWT-SVID: the header's \"typ\" is neither JWT nor JOSE");
		return NULL;
	}
	/* RFC 7515 section 4.1.11: extensions marked critical must be understood, and none is here. */
	if (yyjson_obj_get(header, "crit")) {
		err_set(e, ERR_AUTH, "JWT-SVID: the header demands extensions");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(algs); i++) {
		if (yyjson_is_str(alg) && yyjson_equals_str(alg, algs[i].name))
			return &algs[i];
	}
	err_set(e, ERR_AUTH, "JWT-SVID: the signature algorithm is not one of the specification");
	return NULL;
}

static bool key_fits(const EVP_PKEY *k, const struct jwt_alg *alg)
{
	char group[32] = "";

	if (!alg->group)
		return EVP_PKEY_is_a(k, "RSA");
	return EVP_PKEY_is_a(k, "EC") && EVP_PKEY_get_group_name(k, group, sizeof(group), NULL) == 1 &&
	       strcmp(group, alg->group) == 0;
}

/* r | s of RFC 7518 section 3.4 as the DER that libcrypto takes; the length, or 0. */
static size_t ecdsa_der(const uint8_t *rs, size_t coord, uint8_t der[SIG_DER_MAX])
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(rs, (int)coord, NULL), *s = BN_bin2bn(rs + coord, (int)coord, NULL);
	uint8_t *p = der;
	int n = 0;

	if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
		r = s = NULL; /* the signature's now */
		n = i2d_ECDSA_SIG(sig, NULL);
		n = n > 0 && n <= SIG_DER_MAX ? i2d_ECDSA_SIG(sig, &p) : 0;
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(sig);
	return n > 0 ? (size_t)n : 0;
}

static int signature_check(EVP_PKEY *k, const struct jwt_alg *alg, const char *signed_text, size_t signed_n,
			   const char *sig_text, size_t sig_text_n)
{
	uint8_t sig[2048], der[SIG_DER_MAX];
	ssize_t n = base64url_decode(sig, sizeof(sig), sig_text, sig_text_n);
	size_t der_n;

	if (n <= 0 || !key_fits(k, alg))
		return ERR_AUTH;
	if (!alg->group)
		return sig_check_bare(k, alg->digest, alg->pss, signed_text, signed_n, sig, (size_t)n);
	if ((size_t)n != 2 * alg->coord)
		return ERR_AUTH;
	der_n = ecdsa_der(sig, alg->coord, der);
	return der_n ? sig_check_bare(k, alg->digest, false, signed_text, signed_n, der, der_n) : ERR_AUTH;
}

static bool names_audience(yyjson_val *aud, const char *audience)
{
	yyjson_val *v;
	yyjson_arr_iter it;
	bool found = false;

	if (yyjson_is_str(aud))
		return yyjson_equals_str(aud, audience);
	if (!yyjson_is_arr(aud))
		return false;
	yyjson_arr_iter_init(aud, &it);
	while ((v = yyjson_arr_iter_next(&it))) {
		if (!yyjson_is_str(v))
			return false;
		found = found || yyjson_equals_str(v, audience);
	}
	return found;
}

/* A NumericDate (RFC 7519 section 2) as Unix seconds, rounded towards the past; false if it is not one. */
static bool numeric_date(yyjson_val *v, int64_t *ret)
{
	double d;

	if (!yyjson_is_num(v))
		return false;
	d = yyjson_get_num(v);
	if (!(d >= 0 && d <= 253402300799.0)) /* up to the year 9999 */
		return false;
	*ret = (int64_t)d;
	return true;
}

static int times_check(yyjson_val *claims, int64_t now, struct err *e)
{
	yyjson_val *nbf = yyjson_obj_get(claims, "nbf"), *iat = yyjson_obj_get(claims, "iat");
	int64_t t;

	if (!numeric_date(yyjson_obj_get(claims, "exp"), &t))
		return err_set(e, ERR_AUTH, "JWT-SVID: no expiry");
	if (now > t + JWT_LEEWAY)
		return err_set(e, ERR_EXPIRED, "JWT-SVID: expired %lld seconds ago", (long long)(now - t));
	if (nbf && (!numeric_date(nbf, &t) || now < t - JWT_LEEWAY))
		return err_set(e, ERR_CLOCK, "JWT-SVID: not valid yet");
	if (iat && (!numeric_date(iat, &t) || now < t - JWT_LEEWAY))
		return err_set(e, ERR_CLOCK, "JWT-SVID: issued in the future");
	return 0;
}

static int claims_check(yyjson_val *claims, const char *trust_domain, const char *audience, int64_t now,
			struct spiffe_id *ret, struct err *e)
{
	yyjson_val *sub = yyjson_obj_get(claims, "sub");
	struct spiffe_id id;
	int code;

	if (!yyjson_is_str(sub) || spiffe_id_parse(yyjson_get_str(sub), yyjson_get_len(sub), &id, NULL))
		return err_set(e, ERR_AUTH, "JWT-SVID: the subject is not a SPIFFE ID");
	if (!spiffe_id_in(&id, trust_domain))
		return err_set(e, ERR_AUTH,
			       "JWT-SVID: the subject is not of the trust domain whose key signed");
	if (!names_audience(yyjson_obj_get(claims, "aud"), audience))
		return err_set(e, ERR_AUTH, "JWT-SVID: the token is for another audience");
	code = times_check(claims, now, e);
	if (!code)
		*ret = id;
	return code;
}

static EVP_PKEY *key_by_id(const struct trust_bundle *b, yyjson_val *kid)
{
	for (size_t i = 0; yyjson_is_str(kid) && i < b->njwt; i++) {
		if (yyjson_equals_str(kid, b->jwt[i].kid))
			return b->jwt[i].key;
	}
	return NULL;
}

int jwt_svid_verify(const char *token, size_t n, const char *jwks, size_t jwks_n, const char *trust_domain,
		    const char *audience, int64_t now, struct spiffe_id *ret, struct err *e)
{
	const char *dot1 = n <= TOKEN_MAX ? memchr(token, '.', n) : NULL;
	const char *dot2 = dot1 ? memchr(dot1 + 1, '.', n - (size_t)(dot1 + 1 - token)) : NULL;
	struct trust_bundle b = { 0 };
	yyjson_doc *header = NULL, *claims = NULL;
	const struct jwt_alg *alg;
	EVP_PKEY *k;
	size_t signed_n;
	int code;

	if (!dot2)
		return err_set(e, ERR_PARSE, "JWT-SVID: not a token in compact form");
	signed_n = (size_t)(dot2 - token);
	header = part_json(token, (size_t)(dot1 - token));
	if (!header)
		return err_set(e, ERR_PARSE, "JWT-SVID: malformed header");
	alg = header_alg(yyjson_doc_get_root(header), e);
	code = alg ? trust_bundle_parse_jwt(jwks, jwks_n, &b, e) : ERR_AUTH;
	if (code)
		goto out;
	k = key_by_id(&b, yyjson_obj_get(yyjson_doc_get_root(header), "kid"));
	if (!k || signature_check(k, alg, token, signed_n, dot2 + 1, n - signed_n - 1)) {
		code = err_set(e, ERR_AUTH, "JWT-SVID: not signed by a key of the bundle");
		goto out;
	}
	claims = part_json(dot1 + 1, (size_t)(dot2 - dot1 - 1));
	if (!claims)
		code = err_set(e, ERR_PARSE, "JWT-SVID: malformed claims");
	else
		code = claims_check(yyjson_doc_get_root(claims), trust_domain, audience, now, ret, e);
out:
	trust_bundle_fini(&b);
	yyjson_doc_free(header);
	yyjson_doc_free(claims);
	return code;
}
