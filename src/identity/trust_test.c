/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/testcert.h"

#define X	"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
#define Y	"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
#define EC(kid) "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"" kid "\",\"x\":\"" X "\",\"y\":\"" Y "\"}"

static int parse(const char *s)
{
	struct trust_bundle b = { .sequence = 77 };
	int code = trust_bundle_parse(s, strlen(s), &b, NULL);

	if (code)
		assert_int_equal(b.sequence, 77);
	else
		trust_bundle_fini(&b);
	return code;
}

static void takes_good_bundles(void **state)
{
	const char *s = "{\"spiffe_sequence\":9,\"spiffe_refresh_hint\":60,\"keys\":[" EC("a") "," EC(
		"b") ","
		     "{\"use\":\"enc\",\"kty\":1},{\"use\":\"jwt-svid\",\"kty\":\"AKP\",\"kid\":\"pq\"},"
		     "{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"kid\":\"k\",\"x\":\"\",\"y\":\"\"}]}";
	struct trust_bundle b;

	(void)state;
	assert_int_equal(trust_bundle_parse(s, strlen(s), &b, NULL), 0);
	assert_int_equal(b.njwt, 2);
	assert_int_equal(b.nroots, 0);
	assert_string_equal(b.jwt[1].kid, "b");
	assert_int_equal(key_type_of(b.jwt[0].key), KEY_P256);
	assert_int_equal(b.sequence, 9);
	assert_int_equal(b.refresh_hint, 60);
	trust_bundle_fini(&b);
	assert_int_equal(parse("{\"keys\":[]}"), 0);
}

static void refuses_bad_bundles(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"null",
		"{",
		"{}",
		"{\"keys\":{}}",
		"{\"keys\":[1]}",
		"{\"keys\":[{}]}",
		"{\"keys\":[],\"keys\":[]}",
		"{\"keys\":[]} x",
		"{\"keys\":[],\"spiffe_sequence\":-1}",
		"{\"keys\":[],\"spiffe_refresh_hint\":\"5\"}",
		"{\"keys\":[" EC("") "]}",
		"{\"keys\":[" EC("a") "," EC("a") "]}",
		"{\"keys\":[" EC("a\\u0000b") "]}",
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "\",\"y\":\"" Y "\"}]}",
		/* not a point, short, padded, swapped coordinate, no curve */
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\",\"x\":\"" X "\",\"y\":\"" X
		"\"}]}",
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\",\"x\":\"AAAA\",\"y\":\"" Y
		"\"}]}",
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\",\"x\":\"" X "=\",\"y\":\"" Y
		"\"}]}",
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\",\"kid\":\"a\",\"x\":\"" X "\",\"y\":\"" Y
		"\"}]}",
		"{\"keys\":[{\"kty\":\"EC\",\"kid\":\"a\",\"x\":\"" X "\",\"y\":\"" Y "\"}]}",
		"{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
		"{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"e\":\"AQAB\"}]}",
		"{\"keys\":[{\"use\":\"x509-svid\",\"kty\":\"EC\"}]}",
		"{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[]}]}",
		"{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"*\"]}]}",
		"{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"AAAA\"]}]}",
		"{\"keys\":[{\"use\":5}]}",
	};
	char *big = test_calloc(1, 2 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse(bad[i]) != ERR_PARSE)
			fail_msg("accepted: %s", bad[i]);
	}
	memset(big, ' ', (2 << 20) - 1);
	assert_int_equal(parse(big), ERR_LIMIT);
	/* 257 keys of a use we ignore */
	char *p = big + sprintf(big, "{\"keys\":[{\"use\":\"x\"}");
	for (int i = 0; i < 256; i++)
		p += sprintf(p, ",{\"use\":\"x\"}");
	sprintf(p, "]}");
	assert_int_equal(parse(big), ERR_LIMIT);
	test_free(big);
}

static void jwt_only_passes_certificates_over(void **state)
{
	const char *s = "{\"keys\":[" EC("a") ",{\"use\":\"x509-svid\",\"kty\":\"EC\"}]}";
	struct trust_bundle b;

	(void)state;
	assert_int_equal(parse(s), ERR_PARSE);
	assert_int_equal(trust_bundle_parse_jwt(s, strlen(s), &b, NULL), 0);
	assert_int_equal(b.njwt, 1);
	trust_bundle_fini(&b);
}

/* ---- PEM ---- */

static char *pem_of(X509 *x, EVP_PKEY *k, size_t *n)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *p, *copy;

	if (x)
		assert_int_equal(PEM_write_bio_X509(bio, x), 1);
	if (k)
		assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, k, NULL, NULL, 0, NULL, NULL), 1);
	*n = (size_t)BIO_get_mem_data(bio, &p);
	copy = test_malloc(*n + 1);
	memcpy(copy, p, *n);
	copy[*n] = 0;
	BIO_free(bio);
	return copy;
}

static void svid_with_its_key(void **state)
{
	EVP_PKEY *k = NULL, *other = NULL;
	struct svid_pem s = { 0 };
	struct testcert t = { .subject = "l",
			      .issuer = "r",
			      .bc = "critical,CA:FALSE",
			      .ku = "critical,digitalSignature",
			      .san = "URI:spiffe://mesh.test/w",
			      .not_before = 0,
			      .not_after = 3600 };
	size_t n, kn, on;

	(void)state;
	assert_int_equal(key_new(KEY_P256, &k, NULL), 0);
	assert_int_equal(key_new(KEY_P256, &other, NULL), 0);
	t.key = t.signer = k;
	X509 *x = testcert_make(&t);
	char *cert = pem_of(x, NULL, &n), *key = pem_of(NULL, k, &kn), *wrong = pem_of(NULL, other, &on);

	assert_int_equal(svid_pem_parse(cert, n, key, kn, &s, NULL), 0);
	assert_string_equal(s.id.uri, "spiffe://mesh.test/w");
	assert_int_equal(s.nchain, 1);
	svid_pem_fini(&s);
	assert_int_equal(svid_pem_parse(cert, n, wrong, on, &s, NULL), ERR_CONFLICT);
	assert_int_equal(svid_pem_parse(cert, n, cert, n, &s, NULL), ERR_PARSE);
	assert_int_equal(svid_pem_parse(key, kn, key, kn, &s, NULL), ERR_PARSE);
	assert_int_equal(svid_pem_parse("", 0, "", 0, &s, NULL), ERR_PARSE);
	assert_null(s.chain);
	/* Cut anywhere inside the certificate: refused; the truncated key too. */
	for (size_t i = 1; i < n; i += 1 + n / 60)
		if (i < n - 2)
			assert_int_equal(svid_pem_parse(cert, i, key, kn, &s, NULL), ERR_PARSE);
	for (size_t i = 1; i + 2 < kn; i += 1 + kn / 40)
		assert_int_equal(svid_pem_parse(cert, n, key, i, &s, NULL), ERR_PARSE);
	t.ku = "critical,keyCertSign";
	X509 *bad = testcert_make(&t);
	size_t bn;
	char *bad_pem = pem_of(bad, NULL, &bn);
	assert_int_equal(svid_pem_parse(bad_pem, bn, key, kn, &s, NULL), ERR_AUTH);
	test_free(bad_pem);
	X509_free(bad);
	test_free(cert);
	test_free(key);
	test_free(wrong);
	X509_free(x);
	EVP_PKEY_free(k);
	EVP_PKEY_free(other);
}

static void pem_limits(void **state)
{
	EVP_PKEY *k = NULL, *got = NULL;
	struct testcert t = { .subject = "l", .issuer = "r", .not_after = 3600 };
	size_t n, kn, total, out_n = 0;
	X509 **out = NULL;

	(void)state;
	assert_int_equal(key_new(KEY_P256, &k, NULL), 0);
	t.key = t.signer = k;
	X509 *x = testcert_make(&t);
	char *one = pem_of(x, NULL, &n), *key = pem_of(NULL, k, &kn);
	char *many = test_malloc(n * 65 + 2 * kn + 1);

	for (total = 0; total < 65 * n; total += n)
		memcpy(many + total, one, n);
	assert_int_equal(pem_certs(many, 65 * n, &out, &out_n, NULL), ERR_LIMIT);
	assert_null(out);
	assert_int_equal(pem_certs(many, 64 * n, &out, &out_n, NULL), 0);
	assert_int_equal(out_n, 64);
	pem_certs_free(out, out_n);
	memcpy(many, key, kn);
	memcpy(many + kn, key, kn);
	assert_int_equal(pem_key(many, 2 * kn, &got, NULL), ERR_PARSE);
	assert_null(got);
	assert_int_equal(pem_key(many, kn, &got, NULL), 0);
	EVP_PKEY_free(got);
	static const char encrypted[] =
		"-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
		"AAAA\n-----END PRIVATE KEY-----\n";
	assert_int_equal(pem_key(encrypted, sizeof(encrypted) - 1, &got, NULL), ERR_PARSE);
	assert_int_equal(pem_certs(many, (1 << 20) + 1, &out, &out_n, NULL), ERR_LIMIT);
	assert_int_equal(pem_key(many, (1 << 20) + 1, &got, NULL), ERR_LIMIT);
	test_free(many);
	test_free(one);
	test_free(key);
	X509_free(x);
	EVP_PKEY_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_good_bundles),
		cmocka_unit_test(refuses_bad_bundles),
		cmocka_unit_test(jwt_only_passes_certificates_over),
		cmocka_unit_test(svid_with_its_key),
		cmocka_unit_test(pem_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
