/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens are made here with fresh keys, so that each claim can be wrong while the signature is right. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"

enum { NOW = 1900000000 };
#define AUD    "spiffe://mesh.test/api"
#define CLAIMS "{\"sub\":\"spiffe://mesh.test/w\",\"aud\":[\"x\",\"" AUD "\"],\"exp\":1900000300}"

static EVP_PKEY *ec[3], *rsa;
static char jwks[8192];

static size_t b64url(char *to, const void *p, size_t n)
{
	size_t k = base64_encode(to, p, n);

	while (k && to[k - 1] == '=')
		to[--k] = 0;
	for (size_t i = 0; i < k; i++)
		to[i] = to[i] == '+' ? '-' : to[i] == '/' ? '_' : to[i];
	return k;
}

static const size_t coords[] = { 32, 48, 66 };

static int setup(void **state)
{
	static const char *const curves[] = { "P-256", "P-384", "P-521" };
	char *p = jwks + sprintf(jwks, "{\"keys\":["), x[100], y[100], n[400];
	uint8_t point[140], mod[256];
	size_t len;
	BIGNUM *bn = NULL;

	(void)state;
	for (int i = 0; i < 3; i++) {
		ec[i] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curves[i]);
		EVP_PKEY_get_octet_string_param(ec[i], OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point,
						sizeof(point), &len);
		b64url(x, point + 1, coords[i]);
		b64url(y, point + 1 + coords[i], coords[i]);
		p += sprintf(p, "{\"kty\":\"EC\",\"crv\":\"%s\",\"kid\":\"ec%d\",\"x\":\"%s\",\"y\":\"%s\"},",
			     curves[i], i, x, y);
	}
	rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	EVP_PKEY_get_bn_param(rsa, OSSL_PKEY_PARAM_RSA_N, &bn);
	BN_bn2binpad(bn, mod, 256);
	BN_free(bn);
	b64url(n, mod, 256);
	sprintf(p, "{\"kty\":\"RSA\",\"use\":\"jwt-svid\",\"kid\":\"rsa\",\"n\":\"%s\",\"e\":\"AQAB\"}]}", n);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		EVP_PKEY_free(ec[i]);
	EVP_PKEY_free(rsa);
	return 0;
}

/* coord 0: RSA */
static void token_make(char *to, const char *header, const char *claims, EVP_PKEY *k, const char *digest,
		       size_t coord, bool pss)
{
	size_t n = b64url(to, header, strlen(header)), sig_n = 512;
	uint8_t sig[512], raw[132];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;

	to[n++] = '.';
	n += b64url(to + n, claims, strlen(claims));
	assert_int_equal(EVP_DigestSignInit_ex(ctx, &pctx, digest, NULL, NULL, k, NULL), 1);
	if (pss) {
		EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING);
		EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST);
	}
	assert_int_equal(EVP_DigestSign(ctx, sig, &sig_n, (const uint8_t *)to, n), 1);
	EVP_MD_CTX_free(ctx);
	if (coord) {
		const uint8_t *at = sig;
		ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &at, (long)sig_n);

		BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, (int)coord);
		BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + coord, (int)coord);
		ECDSA_SIG_free(s);
		sig_n = 2 * coord;
		memcpy(sig, raw, sig_n);
	}
	to[n++] = '.';
	b64url(to + n, sig, sig_n);
}

static int verify(const char *token)
{
	struct spiffe_id id = { .td_len = 99 };
	struct err e = { 0 };
	int code = jwt_svid_verify(token, strlen(token), jwks, strlen(jwks), "mesh.test", AUD, NOW, &id, &e);

	assert_int_equal(e.code, code);
	if (code)
		assert_int_equal(id.td_len, 99);
	else
		assert_string_equal(id.uri, "spiffe://mesh.test/w");
	return code;
}

static int claims(const char *text)
{
	char t[8192];

	token_make(t, "{\"alg\":\"ES256\",\"kid\":\"ec0\"}", text, ec[0], "SHA256", 32, false);
	return verify(t);
}

static int header(const char *text)
{
	char t[8192];

	token_make(t, text, CLAIMS, ec[0], "SHA256", 32, false);
	return verify(t);
}

static void all_nine_algorithms(void **state)
{
	static const char *const digests[] = { "SHA256", "SHA384", "SHA512" }, *const bits[] = { "256", "384",
												 "512" };
	char h[100], t[8192];

	(void)state;
	for (int i = 0; i < 3; i++) {
		sprintf(h, "{\"alg\":\"ES%s\",\"kid\":\"ec%d\"}", bits[i], i);
		token_make(t, h, CLAIMS, ec[i], digests[i], coords[i], false);
		assert_int_equal(verify(t), 0);
		sprintf(h, "{\"alg\":\"RS%s\",\"kid\":\"rsa\"}", bits[i]);
		token_make(t, h, CLAIMS, rsa, digests[i], 0, false);
		assert_int_equal(verify(t), 0);
		token_make(t, h, CLAIMS, rsa, digests[i], 0, true); /* PSS under an RS name */
		assert_int_equal(verify(t), ERR_AUTH);
		sprintf(h, "{\"alg\":\"PS%s\",\"kid\":\"rsa\"}", bits[i]);
		token_make(t, h, CLAIMS, rsa, digests[i], 0, true);
		assert_int_equal(verify(t), 0);
	}
}

static void headers(void **state)
{
	(void)state;
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec0\"}"), 0);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec0\",\"typ\":\"JWT\"}"), 0);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec0\",\"typ\":\"JOSE\"}"), 0);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec0\",\"typ\":\"at+jwt\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec0\",\"crit\":[\"b64\"]}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"none\",\"kid\":\"ec0\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"HS256\",\"kid\":\"ec0\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"EdDSA\",\"kid\":\"ec0\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"RS256\",\"kid\":\"ec0\"}"), ERR_AUTH); /* the key decides */
	assert_int_equal(header("{\"alg\":\"ES384\",\"kid\":\"ec0\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"rsa\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"ec1\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\",\"kid\":\"zzz\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\"}"), ERR_AUTH);
	assert_int_equal(header("{\"kid\":\"ec0\"}"), ERR_AUTH);
	assert_int_equal(header("{\"alg\":\"ES256\",\"alg\":\"ES256\",\"kid\":\"ec0\"}"), ERR_PARSE);
	assert_int_equal(header("[]"), ERR_PARSE);
	assert_int_equal(header(""), ERR_PARSE);
}

static void claim_rules(void **state)
{
	char t[512];

	(void)state;
	assert_int_equal(claims(CLAIMS), 0);
	assert_int_equal(
		claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\",\"exp\":1900000000.5,\"x\":1}"),
		0);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"y\",\"exp\":1900000300}"),
			 ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":[],\"exp\":1900000300}"),
			 ERR_AUTH);
	assert_int_equal(
		claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":[1,\"" AUD "\"],\"exp\":1900000300}"),
		ERR_AUTH);
	assert_int_equal(
		claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "/x\",\"exp\":1900000300}"),
		ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"exp\":1900000300}"), ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"w\",\"aud\":\"" AUD "\",\"exp\":1900000300}"), ERR_AUTH);
	assert_int_equal(claims("{\"sub\":1,\"aud\":\"" AUD "\",\"exp\":1900000300}"), ERR_AUTH);
	assert_int_equal(claims("{\"aud\":\"" AUD "\",\"exp\":1900000300}"), ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://other.test/w\",\"aud\":\"" AUD "\",\"exp\":1900000300}"),
			 ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\"}"), ERR_AUTH);
	assert_int_equal(
		claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\",\"exp\":\"1900000300\"}"),
		ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\",\"exp\":1e300}"),
			 ERR_AUTH);
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\",\"exp\":-1}"),
			 ERR_AUTH);
	assert_int_equal(
		claims("{\"sub\":\"spiffe://mesh.test/w\",\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD
		       "\",\"exp\":1900000300}"),
		ERR_PARSE);
	assert_int_equal(claims("[1]"), ERR_PARSE);
	static const struct {
		const char *name;
		int delta, code;
	} times[] = { { "exp", -60, 0 }, { "exp", -61, ERR_EXPIRED },
		      { "nbf", 60, 0 },	 { "nbf", 61, ERR_CLOCK },
		      { "iat", 60, 0 },	 { "iat", 61, ERR_CLOCK } };
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		sprintf(t, "{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD "\",\"%s\":%d%s}",
			times[i].name, NOW + times[i].delta, i < 2 ? "" : ",\"exp\":1900000300");
		assert_int_equal(claims(t), times[i].code);
	}
	assert_int_equal(claims("{\"sub\":\"spiffe://mesh.test/w\",\"aud\":\"" AUD
				"\",\"exp\":1900000300,\"nbf\":\"0\"}"),
			 ERR_CLOCK);
}

static void compact_form_only(void **state)
{
	char t[8192], u[8200];
	char *dot;

	(void)state;
	token_make(t, "{\"alg\":\"ES256\",\"kid\":\"ec0\"}", CLAIMS, ec[0], "SHA256", 32, false);
	assert_int_equal(verify(t), 0);
	/* One character changed anywhere: refused. (The last of each part may carry unused bits; those are
	 * refused too.) */
	for (size_t i = 0; t[i]; i++) {
		memcpy(u, t, sizeof(t));
		u[i] = u[i] == 'A' ? 'B' : 'A';
		assert_int_not_equal(verify(u), 0);
	}
	snprintf(u, sizeof(u), "%s.", t);
	assert_int_not_equal(verify(u), 0);
	snprintf(u, sizeof(u), "%s=", t);
	assert_int_not_equal(verify(u), 0);
	dot = strrchr(t, '.');
	*dot = 0;
	assert_int_equal(verify(t), ERR_PARSE);
	*dot = '.';
	dot[1] = 0;
	assert_int_equal(verify(t), ERR_AUTH);
	assert_int_equal(verify(""), ERR_PARSE);
	assert_int_equal(verify(".."), ERR_PARSE);
	assert_int_equal(verify("{\"payload\":\"x\"}"), ERR_PARSE);
	char *big = calloc(1, 20001);
	memset(big, '.', 20000);
	assert_int_equal(verify(big), ERR_PARSE);
	free(big);
}

static void broken_bundle_is_no_bundle(void **state)
{
	char t[8192];
	struct spiffe_id id;

	(void)state;
	token_make(t, "{\"alg\":\"ES256\",\"kid\":\"ec0\"}", CLAIMS, ec[0], "SHA256", 32, false);
	assert_int_equal(jwt_svid_verify(t, strlen(t), "{}", 2, "mesh.test", AUD, NOW, &id, NULL), ERR_PARSE);
	assert_int_equal(jwt_svid_verify(t, strlen(t), "{\"keys\":[]}", 11, "mesh.test", AUD, NOW, &id, NULL),
			 ERR_AUTH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_nine_algorithms),
		cmocka_unit_test(headers),
		cmocka_unit_test(claim_rules),
		cmocka_unit_test(compact_form_only),
		cmocka_unit_test(broken_bundle_is_no_bundle),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
