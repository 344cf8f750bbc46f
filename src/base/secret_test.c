/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/secret.h"

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static void life(void **state)
{
	struct secret s = { 0 }, empty = { 0 };

	(void)state;
	assert_int_equal(secret_init(&s, 48), 0);
	assert_int_equal(s.n, 48);
	assert_true(all_zero(s.p, 48));
	secret_fini(&s);
	assert_null(s.p);
	assert_int_equal(s.n, 0);
	secret_fini(&s);
	assert_int_equal(secret_set(&s, "hunter2", 7), 0);
	assert_memory_equal(s.p, "hunter2", 7);
	secret_fini(&s);
	assert_int_equal(secret_init(&empty, 0), 0);
	assert_null(empty.p);
	assert_int_equal(secret_set(&empty, NULL, 0), 0);
	secret_fini(&empty);
}

static void wiped_when_freed(void **state)
{
	struct secret s;
	uint8_t *was;

	(void)state;
	secret_set(&s, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789", 74);
	was = s.p;
	s.n = 3; /* an owner that shortened it */
	secret_fini(&s);
	assert_true(all_zero(was, 128)); /* arenas stay mapped */
}

static void many_do_not_overlap(void **state)
{
	enum { N = 1000 };
	static struct secret s[N];

	(void)state;
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(secret_init(&s[i], 1 + i % 200), 0);
		memset(s[i].p, (int)(i & 0xff), s[i].n);
	}
	for (size_t i = 0; i < N; i += 2)
		secret_fini(&s[i]);
	for (size_t i = 0; i < N; i += 2) {
		assert_int_equal(secret_init(&s[i], 1 + i % 100), 0);
		assert_true(all_zero(s[i].p, s[i].n));
		memset(s[i].p, (int)(i & 0xff), s[i].n);
	}
	for (size_t i = 0; i < N; i++) {
		for (size_t j = 0; j < s[i].n; j++)
			assert_int_equal(s[i].p[j], i & 0xff);
		secret_fini(&s[i]);
	}
}

static void big_ones(void **state)
{
	struct secret s;

	(void)state;
	assert_int_equal(secret_init(&s, 1 << 20), 0);
	assert_true(all_zero(s.p, s.n));
	memset(s.p, 1, s.n);
	secret_fini(&s);
	assert_null(s.p);
	struct secret untouched = { .p = (uint8_t *)"x", .n = 1 };

	assert_int_equal(secret_init(&untouched, SIZE_MAX), ERR_NOMEM);
	assert_int_equal(secret_init(&untouched, SIZE_MAX / 2), ERR_NOMEM);
	assert_int_equal(untouched.n, 1);
}

/* The kernel's own word: "dd" among the mapping's VmFlags is "do not dump". */
static bool mapping_not_dumped(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	bool inside = false, found = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = (unsigned long)p >= from && (unsigned long)p < to;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, " dd") != NULL;
	}
	fclose(f);
	return found;
}

static void left_out_of_core_dumps(void **state)
{
	struct secret s, big;
	int ordinary = 0;

	(void)state;
	secret_set(&s, "x", 1);
	secret_init(&big, 100000);
	assert_true(mapping_not_dumped(s.p));
	assert_true(mapping_not_dumped(big.p));
	assert_false(mapping_not_dumped(&ordinary));
	secret_fini(&s);
	secret_fini(&big);
}

static void equal_and_wipe(void **state)
{
	uint8_t a[32], b[32];

	(void)state;
	memset(a, 7, sizeof(a));
	memset(b, 7, sizeof(b));
	assert_true(secret_equal(a, b, sizeof(a)));
	assert_true(secret_equal(a, b, 0));
	for (size_t i = 0; i < sizeof(a); i++) {
		b[i] ^= 0x80;
		assert_false(secret_equal(a, b, sizeof(a)));
		b[i] ^= 0x80;
	}
	secret_wipe(a, sizeof(a));
	assert_true(all_zero(a, sizeof(a)));
	secret_wipe(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life),
		cmocka_unit_test(wiped_when_freed),
		cmocka_unit_test(many_do_not_overlap),
		cmocka_unit_test(big_ones),
		cmocka_unit_test(left_out_of_core_dumps),
		cmocka_unit_test(equal_and_wipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
