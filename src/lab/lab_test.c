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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(links_are_parsed),
					    cmocka_unit_test(bad_links_are_refused),
					    cmocka_unit_test(commands_are_run) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
