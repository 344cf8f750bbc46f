/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <string.h>

#include "identity/testlib.h"

static struct token sample(void)
{
	struct token t = {
		.naddrs = 2, .trust_domain = TD, .name = "edge-7", .not_after = NOW + 3600, .ephemeral = true
	};

	must(endpoint_parse("192.0.2.1:7430", 0, &t.addr[0], e));
	must(endpoint_parse("[2001:db8::1]:7431", 0, &t.addr[1], e));
	memset(t.issuer, 0xab, sizeof(t.issuer));
	for (size_t i = 0; i < sizeof(t.secret); i++)
		t.secret[i] = (uint8_t)(i * 17);
	return t;
}

static void test_round_trip(void **state)
{
	struct token t = sample(), d;
	char text[TOKEN_TEXT], again[TOKEN_TEXT], upper[TOKEN_TEXT];

	(void)state;
	must(token_encode(&t, text, e));
	assert_memory_equal(text, "x0t1.", 5);
	must(token_decode(text, &d, e));
	assert_int_equal(d.naddrs, 2);
	assert_true(endpoint_equal(&d.addr[0], &t.addr[0]) && endpoint_equal(&d.addr[1], &t.addr[1]));
	assert_memory_equal(d.issuer, t.issuer, sizeof(t.issuer));
	assert_string_equal(d.trust_domain, TD);
	assert_string_equal(d.name, "edge-7");
	assert_int_equal(d.not_after, t.not_after);
	assert_true(d.ephemeral);
	assert_memory_equal(d.secret, t.secret, sizeof(t.secret));
	must(token_encode(&d, again, e));
	assert_string_equal(text, again);
	for (size_t i = 0; i <= strlen(text); i++) /* typed from a screen, or from a QR code's alphabet */
		upper[i] = (char)toupper((unsigned char)text[i]);
	must(token_decode(upper, &d, e));
	must(token_encode(&d, again, e));
	assert_string_equal(text, again);
	token_wipe(&d);
	for (size_t i = 0; i < sizeof(d); i++)
		assert_int_equal(((const uint8_t *)&d)[i], 0);
}

static void test_damage(void **state)
{
	struct token t = sample(), d = { .naddrs = 77 };
	char text[TOKEN_TEXT], bad[TOKEN_TEXT + 8];
	size_t n;

	(void)state;
	must(token_encode(&t, text, e));
	n = strlen(text);
	for (size_t i = 0; i < n; i++) {
		memcpy(bad, text, i);
		bad[i] = 0;
		refused(ERR_PARSE, token_decode(bad, &d, e));
		for (const char *c = "a2z7.!1 "; *c; c++) {
			struct err e = { 0 };

			strcpy(bad, text);
			if (bad[i] == *c)
				continue;
			bad[i] = *c;
			assert_true(token_decode(bad, &d, &e) < 0);
		}
	}
	strcpy(bad, text);
	strcat(bad, "a");
	refused(ERR_PARSE, token_decode(bad, &d, e));
	memset(bad, 'a', sizeof(bad) - 1);
	memcpy(bad, "x0t1.", 5);
	bad[sizeof(bad) - 1] = 0;
	refused(ERR_PARSE, token_decode(bad, &d, e)); /* longer than any token */
	refused(ERR_PARSE, token_decode("", &d, e));
	refused(ERR_PARSE, token_decode("x0t2.aaaa", &d, e));
	refused(ERR_PARSE, token_decode("x0t1.", &d, e));
	assert_int_equal(d.naddrs, 77); /* untouched */
}

/* Right checksum, wrong content: what somebody with an editor makes. */
static int decode_raw(const uint8_t *p, size_t n, struct token *ret, struct err *e)
{
	uint8_t raw[400], h[SHA256_LEN];
	char text[1024] = "x0t1.";

	memcpy(raw, p, n);
	assert_int_equal(sha256(p, n, h), 0);
	memcpy(raw + n, h, 4);
	base32_encode(text + 5, raw, n + 4);
	return token_decode(text, ret, e);
}

static void test_hostile(void **state)
{
	struct token t = sample(), d = { 0 };
	char text[TOKEN_TEXT];
	uint8_t raw[400], m[400];
	size_t n;

	(void)state;
	must(token_encode(&t, text, e));
	n = (size_t)base32_decode(raw, sizeof(raw), text + 5, strlen(text) - 5) - 4;
	must(decode_raw(raw, n, &d, e));
	for (size_t i = 0; i < n; i++) /* every truncation, with a right checksum */
		assert_true(decode_raw(raw, i, &d, NULL) < 0);
#define CASE(code, edit)                                                                                     \
	do {                                                                                                 \
		memcpy(m, raw, n);                                                                           \
		edit;                                                                                        \
		refused(code, decode_raw(m, n, &d, e));                                                      \
	} while (0)
	CASE(ERR_UNSUPPORTED, m[0] = 2);		    /* version */
	CASE(ERR_PARSE, m[1] = 2);			    /* unknown flag */
	CASE(ERR_PARSE, m[2] = 0);			    /* no address */
	CASE(ERR_PARSE, m[2] = 5);			    /* too many */
	CASE(ERR_PARSE, m[3] = 5);			    /* unknown family */
	CASE(ERR_PARSE, (m[8] = 0, m[9] = 0));		    /* port 0 */
	CASE(ERR_PARSE, m[29 + 32] = 255);		    /* trust domain beyond the end */
	CASE(ERR_PARSE, m[29 + 33] = 'M');		    /* not canonical */
	CASE(ERR_PARSE, m[29 + 34] = 0);		    /* NUL inside */
	CASE(ERR_PARSE, m[29 + 33 + strlen(TD) + 1] = '-'); /* the name */
	CASE(ERR_PARSE, m[n - 24] = 0x80);		    /* beyond int64 */
	CASE(ERR_PARSE, memset(m + n - 24, 0, 8));
	memcpy(m, raw, n);
	m[n] = 0;
	refused(ERR_PARSE, decode_raw(m, n + 1, &d, e)); /* one byte too many */
	/* IPv4 written as IPv6 would be a second encoding of the same token */
	memmove(m + 10 + 19 + 1, m + 29, n - 29);
	memcpy(m + 10, "\x06\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\x1d\x06", 19);
	refused(ERR_PARSE, decode_raw(m, n, &d, e));
}

static void test_encode_refuses(void **state)
{
	struct token t;
	char text[TOKEN_TEXT];

	(void)state;
	t = sample(), t.naddrs = 0;
	refused(ERR_USAGE, token_encode(&t, text, e));
	t = sample(), t.naddrs = 5;
	refused(ERR_USAGE, token_encode(&t, text, e));
	t = sample(), t.addr[1].port = 0;
	refused(ERR_USAGE, token_encode(&t, text, e));
	t = sample(), t.addr[1].scope_id = 2;
	refused(ERR_USAGE, token_encode(&t, text, e));
	t = sample(), t.not_after = 0;
	refused(ERR_USAGE, token_encode(&t, text, e));
	t = sample(), t.name[0] = 'X';
	assert_true(token_encode(&t, text, NULL) < 0);
	t = sample(), t.trust_domain[0] = 'M';
	assert_true(token_encode(&t, text, NULL) < 0);
	t = sample();
	t.naddrs = 4;
	t.addr[2] = t.addr[3] = t.addr[1];
	memset(t.trust_domain, 'a', TRUST_DOMAIN_MAX);
	memset(t.name, 'b', NODE_NAME_MAX);
	refused(ERR_LIMIT, token_encode(&t, text, e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_encode_refuses),
	};

	return cmocka_run_group_tests_name("identity/token", tests, NULL, NULL);
}
