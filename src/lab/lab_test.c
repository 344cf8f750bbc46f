/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lab/lab.h"

static void links_are_parsed(void **state)
{
	struct lab lab = { .x0 = "/bin/x0" };
	struct err e = { 0 };
	char to[24];

	(void)state;
	assert_int_equal(lab_parse("a-b b-c, a-c", &lab, &e), 0);
	assert_int_equal(lab.nhosts, 3);
	assert_int_equal(lab.nlinks, 3);
	assert_string_equal(lab.x0, "/bin/x0");
	assert_int_equal(lab_underlay(&lab, "a", "b", to), 0);
	assert_string_equal(to, "10.77.0.2");
	assert_int_equal(lab_underlay(&lab, "c", "b", to), 0);
	assert_string_equal(to, "10.77.1.1");
	assert_int_equal(lab_underlay(&lab, "a", "d", to), ERR_NOT_FOUND);
}

static void bad_links_are_refused(void **state)
{
	static const char *const bad[] = { "",	    "a",     "a-", "-a", "a-a", "A-b", "a-toolongname",
					   "a b-c", "../x-b" };
	struct lab lab = { .nhosts = 7 };
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = (struct err){ 0 };
		assert_int_equal(lab_parse(bad[i], &lab, &e), ERR_USAGE);
		assert_true(e.what[0] != 0);
		assert_int_equal(lab.nhosts, 7); /* untouched */
	}
}

static void commands_are_run(void **state)
{
	char out[16];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(
		lab_run(NULL, (const char *const[]){ "echo", "hello", NULL }, 2000, out, sizeof(out), &e), 0);
	assert_string_equal(out, "hello\n");
	assert_int_equal(lab_run(NULL, (const char *const[]){ "sh", "-c", "echo why >&2; exit 3", NULL },
				 2000, out, sizeof(out), &e),
			 ERR_FAILED);
	assert_non_null(strstr(e.what, "why"));
	assert_int_equal(
		lab_run(NULL, (const char *const[]){ "sleep", "10", NULL }, 100, out, sizeof(out), &e),
		ERR_TIMEOUT);
	assert_int_equal(
		lab_run(NULL, (const char *const[]){ "/nonexistent/x", NULL }, 2000, out, sizeof(out), &e),
		ERR_FAILED);
	assert_int_equal(
		lab_run(NULL, (const char *const[]){ "seq", "100000", NULL }, 5000, out, sizeof(out), &e), 0);
	assert_int_equal(strlen(out), sizeof(out) - 1); /* cut, not overrun */
	assert_int_equal(lab_run("nosuch", (const char *const[]){ "true", NULL }, 2000, out, sizeof(out), &e),
			 ERR_FAILED);
}

static void shares_and_rates_are_read(void **state)
{
	static const struct {
		const char *s;
		uint32_t ppm;
	} share[] = {
		{ "0.5%", 5000 }, { "100%", 1000000 }, { "200ppm", 200 }, { "0", 0 }, { "0.0001%", 1 }
	};
	static const struct {
		const char *s;
		uint64_t bps;
	} rate[] = { { "10mbit", 10000000 }, { "1.5Gbit", 1500000000 }, { "100kbit", 100000 }, { "0", 0 } };
	static const char *const no_share[] = { "",	"5",	 "101%", "-1%",	       "%", "nan%",
						"inf%", "0.5%%", "1 %",	 "1000001ppm", "x" };
	static const char *const no_rate[] = {
		"", "10", "10mbits", "-1mbit", "1kbit", "1000gbit", "nanmbit"
	};
	uint32_t ppm;
	uint64_t bps;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(share); i++) {
		assert_int_equal(lab_ppm_parse(share[i].s, &ppm, NULL), 0);
		assert_int_equal(ppm, share[i].ppm);
	}
	for (size_t i = 0; i < ARRAY_SIZE(rate); i++) {
		assert_int_equal(lab_rate_parse(rate[i].s, &bps, NULL), 0);
		assert_int_equal(bps, rate[i].bps);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no_share); i++)
		assert_int_equal(lab_ppm_parse(no_share[i], &ppm, NULL), ERR_USAGE);
	for (size_t i = 0; i < ARRAY_SIZE(no_rate); i++)
		assert_int_equal(lab_rate_parse(no_rate[i], &bps, NULL), ERR_USAGE);
}

static void files_are_read(void **state)
{
	static const char text[] =
		"hosts: [b, a, c]\n"
		"underlay: ipv6\n"
		"links:\n"
		"  - {link: a-b, mtu: 1280, loss: 0.5%, reorder: 1%, delay: 10ms, rate: 20mbit}\n"
		"  - link: b-c\n";
	struct lab lab = { .x0 = "/bin/x0" };
	struct err e = { 0 };
	char to[24];

	(void)state;
	assert_int_equal(lab_read(text, sizeof(text) - 1, "lab.yaml", &lab, &e), 0);
	assert_string_equal(lab.x0, "/bin/x0");
	assert_int_equal(lab.nhosts, 3);
	assert_string_equal(lab.host[0], "b"); /* the authority */
	assert_int_equal(lab.nlinks, 2);
	assert_int_equal(lab.link[0].mtu, 1280);
	assert_int_equal(lab.link[0].bad.loss_ppm, 5000);
	assert_int_equal(lab.link[0].bad.reorder_ppm, 10000);
	assert_int_equal(lab.link[0].bad.delay_ns, 10 * NS_PER_MS);
	assert_int_equal(lab.link[0].bad.rate_bps, 20000000);
	assert_int_equal(lab.link[1].mtu, 1500);
	assert_int_equal(lab.link[1].bad.loss_ppm, 0);
	assert_int_equal(lab_underlay(&lab, "b", "c", to), 0);
	assert_string_equal(to, "2001:db8:77:1::2");
}

static void what_is_wrong_with_a_file_is_told_with_its_place(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{ "links: [{link: a-b, los: 1%}]\n", "lab.yaml:1:21" },
		{ "links: [{link: a-b, los: 1%}]\n", "loss" },
		{ "links:\n  - {link: a-b, loss: 7}\n", "lab.yaml:2:23: loss: '7' is no share" },
		{ "links:\n  - {link: a-b, rate: 7}\n", "no rate" },
		{ "links:\n  - {link: a-b, delay: 11s}\n", "lab.yaml:2:24" },
		{ "links:\n  - {link: a-b, mtu: 1279}\n", "lab.yaml:2:22" },
		{ "links:\n  - link: ab-\n", "lab.yaml:2:11" },
		{ "links: [{link: a-b}, {link: b-a}]\n", "have a link already" },
		{ "links: [{link: a-b}]\nhosts: [a]\n", "host b has a link" },
		{ "links: [{link: a-b}]\nhosts: [a, a, b]\n", "twice" },
		{ "links: [{link: a-b}]\nunderlay: ipv5\n", "lab.yaml:2:11" },
		{ "links: []\n", "links" },
		{ "", "links" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct lab lab = { .nhosts = 7 };
		struct err e = { 0 };

		assert_int_equal(lab_read(bad[i].text, strlen(bad[i].text), "lab.yaml", &lab, &e),
				 ERR_CONFIG);
		if (!strstr(e.what, bad[i].says))
			fail_msg("%s: %s %s", bad[i].text, e.what, e.todo);
		assert_int_equal(lab.nhosts, 7); /* untouched */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_are_parsed),
		cmocka_unit_test(bad_links_are_refused),
		cmocka_unit_test(commands_are_run),
		cmocka_unit_test(shares_and_rates_are_read),
		cmocka_unit_test(files_are_read),
		cmocka_unit_test(what_is_wrong_with_a_file_is_told_with_its_place)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
