/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>

#include "base/net.h"

static const char *reformat(const char *s, uint16_t default_port)
{
	static char text[ENDPOINT_TEXT];
	struct endpoint ep;
	struct err e = { 0 };

	if (endpoint_parse(s, default_port, &ep, &e) < 0) {
		assert_int_equal(e.code, ERR_PARSE);
		assert_true(e.what[0]);
		return "error";
	}
	return endpoint_text(&ep, text);
}

static void endpoints_that_parse(void **state)
{
	(void)state;
	assert_string_equal(reformat("1.2.3.4:7430", 0), "1.2.3.4:7430");
	assert_string_equal(reformat("1.2.3.4", 7430), "1.2.3.4:7430");
	assert_string_equal(reformat("1.2.3.4:1", 7430), "1.2.3.4:1");
	assert_string_equal(reformat("0.0.0.0:0", 0), "0.0.0.0:0");
	assert_string_equal(reformat("255.255.255.255:65535", 0), "255.255.255.255:65535");
	assert_string_equal(reformat("[2001:DB8:0:0::1]:7430", 0), "[2001:db8::1]:7430");
	assert_string_equal(reformat("[2001:db8::1]", 99), "[2001:db8::1]:99");
	assert_string_equal(reformat("2001:db8::1", 99), "[2001:db8::1]:99");
	assert_string_equal(reformat("::", 99), "[::]:99");
	assert_string_equal(reformat("[::ffff:1.2.3.4]:5", 0), "1.2.3.4:5"); /* one value, one text */
	assert_string_equal(reformat("[fe80::1%3]:7430", 0), "[fe80::1%3]:7430");
	assert_string_equal(reformat("fe80::1%3", 7430), "[fe80::1%3]:7430");
	assert_string_equal(reformat("[ff02::1%2147483647]:1", 0), "[ff02::1%2147483647]:1");
}

static void endpoints_that_do_not(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"1.2.3.4",
		"[2001:db8::1]",
		"1.2.3.4:",
		"1.2.3.4:65536",
		"1.2.3.4:-1",
		"1.2.3.4: 1",
		"1.2.3.4:1x",
		"1.2.3.4:00000000001",
		"1.2.3:1",
		"1.2.3.256:1",
		"01.2.3.4:1",
		"1.2.3.4.5:1",
		"host:1",
		"[1.2.3.4]:1",
		"[::1:1",
		"[::1]x:1",
		"[::1]1",
		"::1]:1",
		"[]:1",
		"[::1]:",
		" ::1",
		"2001:db8::1",
		"[fe80::1%]:1",
		"[fe80::1%0]:1",
		"[2001:db8::1%3]:1",
		"1.2.3.4%3:1",
		"[fe80::1%nosuchif0]:1",
		"[fe80::1%4294967299]:1",
	};
	struct endpoint ep = { .port = 4242 };
	char big[400];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (strcmp(reformat(bad[i], 0), "error") != 0)
			fail_msg("\"%s\" was accepted", bad[i]);
	memset(big, '1', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_string_equal(reformat(big, 1), "error");
	endpoint_parse("x", 1, &ep, NULL);
	assert_int_equal(ep.port, 4242);
}

static void interface_by_name(void **state)
{
	struct endpoint ep;
	struct err e = { 0 };
	unsigned lo = if_nametoindex("lo");

	(void)state;
	if (!lo)
		skip();
	assert_int_equal(endpoint_parse("[fe80::1%lo]:1", 0, &ep, &e), 0);
	assert_int_equal(ep.scope_id, lo);
}

static void sockaddrs_both_ways(void **state)
{
	struct sockaddr_storage ss;
	struct sockaddr_in *in = (void *)&ss;
	struct sockaddr_in6 *in6 = (void *)&ss;
	struct endpoint ep, back;

	(void)state;
	endpoint_parse("192.0.2.7:513", 0, &ep, NULL);
	assert_true(endpoint_is_v4(&ep));
	assert_int_equal(endpoint_to_sockaddr(&ep, AF_INET, &ss), sizeof(*in));
	assert_int_equal(in->sin_family, AF_INET);
	assert_int_equal(ntohs(in->sin_port), 513);
	assert_int_equal(ntohl(in->sin_addr.s_addr), 0xc0000207);
	endpoint_from_sockaddr(&back, (struct sockaddr *)&ss);
	assert_true(endpoint_equal(&ep, &back));
	assert_int_equal(endpoint_to_sockaddr(&ep, AF_INET6, &ss), sizeof(*in6));
	assert_true(IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr));
	endpoint_from_sockaddr(&back, (struct sockaddr *)&ss);
	assert_true(endpoint_equal(&ep, &back));

	endpoint_parse("[fe80::9%4]:513", 0, &ep, NULL);
	assert_false(endpoint_is_v4(&ep));
	assert_int_equal(endpoint_to_sockaddr(&ep, AF_INET, &ss), 0); /* no such thing */
	assert_int_equal(endpoint_to_sockaddr(&ep, AF_INET6, &ss), sizeof(*in6));
	assert_int_equal(in6->sin6_scope_id, 4);
	endpoint_from_sockaddr(&back, (struct sockaddr *)&ss);
	assert_true(endpoint_equal(&ep, &back));
	back.scope_id = 5;
	assert_false(endpoint_equal(&ep, &back));
	back = ep;
	back.port++;
	assert_false(endpoint_equal(&ep, &back));
	back = ep;
	back.addr[15]++;
	assert_false(endpoint_equal(&ep, &back));

	/* The kernel may report a scope for a global address; it is no part of who the peer is. */
	endpoint_parse("[2001:db8::9]:513", 0, &ep, NULL);
	endpoint_to_sockaddr(&ep, AF_INET6, &ss);
	in6->sin6_scope_id = 7;
	endpoint_from_sockaddr(&back, (struct sockaddr *)&ss);
	assert_true(endpoint_equal(&ep, &back));

	ss.ss_family = AF_UNIX;
	endpoint_from_sockaddr(&back, (struct sockaddr *)&ss);
	assert_true(endpoint_equal(&back, &(struct endpoint){ .port = 0 }));
}

static bool has(const char *prefix, const char *addr)
{
	struct ip_prefix p;
	struct endpoint ep;

	assert_int_equal(ip_prefix_parse(prefix, &p, NULL), 0);
	assert_int_equal(endpoint_parse(addr, 1, &ep, NULL), 0);
	return ip_prefix_has(&p, ep.addr);
}

static void prefixes_contain(void **state)
{
	(void)state;
	assert_true(has("10.0.0.0/8", "10.255.255.255"));
	assert_false(has("10.0.0.0/8", "11.0.0.0"));
	assert_true(has("10.128.0.0/9", "10.128.0.1"));
	assert_false(has("10.128.0.0/9", "10.127.255.255"));
	assert_true(has("0.0.0.0/0", "1.2.3.4"));
	assert_false(has("0.0.0.0/0", "2001:db8::1"));
	assert_true(has("1.2.3.4/32", "1.2.3.4"));
	assert_false(has("1.2.3.4/32", "1.2.3.5"));
	assert_true(has("fd00::/8", "fdff::1"));
	assert_false(has("fd00::/8", "fe00::1"));
	assert_true(has("2001:db8::/33", "2001:db8:7fff::"));
	assert_false(has("2001:db8::/33", "2001:db8:8000::"));
	assert_true(has("::1/128", "::1"));
	assert_true(has("::/0", "2001:db8::1"));
	assert_false(has("::/0", "1.2.3.4")); /* all of IPv6 is not all of IPv4 */
	assert_false(has("::/64", "1.2.3.4"));
}

static void prefix_text(void **state)
{
	static const char *const same[] = { "10.0.0.0/8", "0.0.0.0/0", "1.2.3.4/32",
					    "fd00::/8",	  "::/0",      "::1/128" };
	static const char *const bad[] = {
		"",
		"10.0.0.0",
		"10.0.0.1/8",
		"10.0.0.0/33",
		"10.0.0.0/",
		"10.0.0.0/-1",
		"10.0.0/8",
		"fd00::1/64",
		"fd00::/129",
		"/8",
		"x/8",
		"10.0.0.0/8 ",
		"10.0.0.0/8/8",
		"255.255.255.255/31",
		"2001:db8::8000:0:0:0/63",
		"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111/8"
	};
	char text[IP_PREFIX_TEXT];
	struct ip_prefix p = { .len = 99 };
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_int_equal(ip_prefix_parse(same[i], &p, NULL), 0);
		assert_string_equal(ip_prefix_text(&p, text), same[i]);
	}
	p.len = 99;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e = (struct err){ 0 };
		if (ip_prefix_parse(bad[i], &p, &e) != ERR_PARSE)
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_true(e.what[0]);
		assert_int_equal(p.len, 99);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(endpoints_that_parse), cmocka_unit_test(endpoints_that_do_not),
		cmocka_unit_test(interface_by_name),	cmocka_unit_test(sockaddrs_both_ways),
		cmocka_unit_test(prefixes_contain),	cmocka_unit_test(prefix_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
