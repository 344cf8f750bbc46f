/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/rng.h"

/* From the authors' xoshiro256starstar.c and splitmix64.c. */
static void reference_values(void **state)
{
	static const uint64_t want[] = { 11520, 0, 1509978240, 1215971899390074240 };
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 0);
	assert_true(r.s[0] == 0xe220a8397b1dcdaf);
	assert_true(r.s[1] == 0x6e789e6aa1b965f4);
	for (unsigned i = 0; i < 4; i++)
		r.s[i] = i + 1;
	for (unsigned i = 0; i < 4; i++)
		assert_true(rng_u64(&r) == want[i]);
}

static void same_seed_same_bytes(void **state)
{
	uint8_t a[37], b[37], c[37];
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 7);
	rng_fill(&r, a, sizeof(a));
	rng_init_seeded(&r, 7);
	rng_fill(&r, b, sizeof(b));
	rng_init_seeded(&r, 8);
	rng_fill(&r, c, sizeof(c));
	assert_memory_equal(a, b, sizeof(a));
	assert_memory_not_equal(a, c, sizeof(a));
}

static void below_is_uniform(void **state)
{
	enum { N = 7, DRAWS = 70000 };
	unsigned count[N] = { 0 };
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 1);
	for (int i = 0; i < DRAWS; i++) {
		uint64_t v = rng_below(&r, N);

		assert_true(v < N);
		count[v]++;
	}
	for (int i = 0; i < N; i++)
		assert_in_range(count[i], DRAWS / N - 500, DRAWS / N + 500); /* 5 sigma */
	assert_true(rng_below(&r, 1) == 0);
	/* Values that reduction alone would make likelier: with n = 3 * 2^62 the first third would come up
	 * twice. */
	unsigned low = 0;

	for (int i = 0; i < 3000; i++)
		low += rng_below(&r, 3ull << 62) < 1ull << 62;
	assert_in_range(low, 850, 1150);
}

static void system_bytes_differ(void **state)
{
	static uint8_t a[100000], b[100000];
	unsigned ones = 0;
	struct rng r;

	(void)state;
	rng_init_system(&r);
	rng_fill(&r, a, sizeof(a));
	rng_fill(&r, b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	for (size_t i = 0; i < sizeof(a); i++)
		ones += (unsigned)__builtin_popcount(a[i]);
	assert_in_range(ones, 400000 - 4000, 400000 + 4000); /* filled to the end */
	assert_memory_not_equal(a + sizeof(a) - 16, b + sizeof(a) - 16, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reference_values),
		cmocka_unit_test(same_seed_same_bytes),
		cmocka_unit_test(below_is_uniform),
		cmocka_unit_test(system_bytes_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
