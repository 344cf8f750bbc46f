/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static void sets_and_returns(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(err_set(&e, ERR_PARSE, "line %d is odd", 3), ERR_PARSE);
	assert_int_equal(e.code, ERR_PARSE);
	assert_string_equal(e.what, "line 3 is odd");
	assert_string_equal(e.todo, "");
	assert_int_equal(err_todo(&e, "remove line %d", 3), ERR_PARSE);
	assert_string_equal(e.todo, "remove line 3");
	assert_int_equal(err_prefix(&e, "x0.%s", "yaml"), ERR_PARSE);
	assert_string_equal(e.what, "x0.yaml: line 3 is odd");
	assert_string_equal(e.todo, "remove line 3");
	/* A new error has no old remedy. */
	err_set(&e, ERR_LIMIT, "full");
	assert_string_equal(e.todo, "");
}

static void sys_reads_errno_and_keeps_it(void **state)
{
	struct err e = { 0 };

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_sys(&e, "cannot open %s", "/x"), ERR_SYS);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(e.what, "cannot open /x: No such file or directory");
	assert_string_equal(e.todo, "");
	errno = ENOSPC;
	err_sys(&e, "cannot write x");
	assert_non_null(strstr(e.todo, "free space"));
}

static void null_struct_keeps_the_code(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, ERR_DENIED, "no"), ERR_DENIED);
	assert_int_equal(err_prefix(NULL, "here"), ERR_DENIED);
	assert_int_equal(err_todo(NULL, "ask"), ERR_DENIED);
	assert_int_equal(err_sys(NULL, "no"), ERR_SYS);
	assert_int_equal(err_todo(NULL, "ask"), ERR_SYS);
}

static void never_success_by_mistake(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(err_todo(&e, "nothing was set"), ERR_FAILED);
	assert_int_equal(err_prefix(&e, "nothing was set"), ERR_FAILED);
}

static void long_and_hostile_text(void **state)
{
	struct err e = { 0 };
	char big[2000];

	(void)state;
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, ERR_PARSE, "%s", big);
	assert_int_equal(strlen(e.what), sizeof(e.what) - 1);
	assert_string_equal(e.what + strlen(e.what) - 3, "...");
	err_todo(&e, "%s", big);
	assert_int_equal(strlen(e.todo), sizeof(e.todo) - 1);
	err_prefix(&e, "%s", big);
	assert_int_equal(strlen(e.what), sizeof(e.what) - 1);
	errno = EIO;
	err_sys(&e, "%s", big);
	assert_non_null(strstr(e.what, "Input/output error"));

	/* A cut falls between characters, whatever the offset. */
	for (size_t shift = 0; shift < 3; shift++) {
		for (size_t i = shift; i + 3 < sizeof(big); i += 3)
			memcpy(big + i, "\xe2\x82\xac", 3);
		err_set(&e, ERR_PARSE, "%s", big);
		size_t n = strlen(e.what);

		assert_string_equal(e.what + n - 3, "...");
		assert_int_equal((n - 3 - shift) % 3, 0);
	}
	err_set(&e, ERR_PARSE, "a\nb\033[31m\x7f\xc2\x9b");
	assert_string_equal(e.what, "a b [31m   ");
	err_set(&e, ERR_PARSE, "%.4s|\xff|", "\xe2\x82\xac\xe2\x82\xac"); /* JSON needs UTF-8 */
	assert_string_equal(e.what, "\xe2\x82\xac?|?|");
}

static void may_quote_itself(void **state)
{
	struct err e = { 0 };

	(void)state;
	err_set(&e, ERR_PARSE, "inner");
	err_set(&e, ERR_CONFIG, "outer (%s)", e.what);
	assert_string_equal(e.what, "outer (inner)");
	err_prefix(&e, "%s", e.what);
	assert_string_equal(e.what, "outer (inner): outer (inner)");
}

static void table(void **state)
{
	(void)state;
	assert_string_equal(err_name(ERR_NOT_FOUND), "not-found");
	assert_string_equal(err_name(0), "ok");
	assert_string_equal(err_name(-9999), "unknown");
	assert_string_equal(err_title(ERR_TIMEOUT), "timed out");
	assert_string_equal(err_title(-9999), "unknown error");
	assert_int_equal(err_exit_status(0), 0);
	assert_int_equal(err_exit_status(17), 0);
	assert_int_equal(err_exit_status(-9999), 1);
	assert_int_equal(err_exit_status(ERR_USAGE), 2);
	assert_int_equal(err_exit_status(ERR_CONFIG), 9);
	/* Every code is its own and has a slug that is safe in JSON and URLs. */
	static const int codes[] = {
#define X(name, code, exit_status, title) ERR_##name,
#include "base/err.def"
#undef X
	};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		const char *s = err_name(codes[i]);

		assert_true(codes[i] < 0);
		assert_true(err_exit_status(codes[i]) > 0);
		assert_int_equal(strspn(s, "abcdefghijklmnopqrstuvwxyz-"), strlen(s));
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(codes[i], codes[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_and_returns),
		cmocka_unit_test(sys_reads_errno_and_keeps_it),
		cmocka_unit_test(null_struct_keeps_the_code),
		cmocka_unit_test(never_success_by_mistake),
		cmocka_unit_test(long_and_hostile_text),
		cmocka_unit_test(may_quote_itself),
		cmocka_unit_test(table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
