/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/replay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

#define LIM REPLAY_LIMIT

static void in_order_and_duplicates(void **state)
{
	struct replay r;

	(void)state;
	assert_int_equal(replay_init(&r, 64), 0);
	for (uint64_t i = 0; i < 1000; i++) {
		assert_true(replay_ok(&r, i));
		assert_true(replay_take(&r, i));
		assert_false(replay_ok(&r, i));
		assert_false(replay_take(&r, i));
	}
}

static void zero_is_a_counter(void **state)
{
	struct replay r;

	(void)state;
	replay_init(&r, 64);
	assert_true(replay_take(&r, 0));
	assert_true(replay_take(&r, 1));
	assert_false(replay_take(&r, 0));
}

static void edge_is_exact(void **state)
{
	struct replay r;

	(void)state;
	replay_init(&r, 64);
	assert_true(replay_take(&r, 100));
	assert_true(replay_take(&r, 37));
	assert_false(replay_take(&r, 36));
	replay_init(&r, 8128);
	assert_true(replay_take(&r, 0));
	assert_true(replay_take(&r, 8127));
	assert_true(replay_take(&r, 1));
	assert_true(replay_take(&r, 8128));
	assert_false(replay_take(&r, 0));
	assert_false(replay_take(&r, 1));
	assert_true(replay_take(&r, 2));
}

static void limit_holds(void **state)
{
	struct replay r;

	(void)state;
	replay_init(&r, 64);
	assert_true(replay_take(&r, LIM - 1));
	assert_false(replay_ok(&r, LIM));
	assert_false(replay_take(&r, LIM));
	assert_false(replay_take(&r, UINT64_MAX));
	assert_true(replay_take(&r, LIM - 2));
	assert_int_equal(replay_init(&r, 0), ERR_LIMIT);
	assert_int_equal(replay_init(&r, REPLAY_WINDOW_MAX + 1), ERR_LIMIT);
}

/* Against the plainest model: a set of all counters ever taken. */
static void model(uint32_t window, uint64_t seed, uint64_t spread)
{
	enum { N = 200000, STEPS = 20000 };
	bool *seen = calloc(N + 1, 1);
	struct replay r;
	struct rng g;
	uint64_t max = 0, centre = 0;

	assert_non_null(seen);
	replay_init(&r, window);
	rng_init_seeded(&g, seed);
	for (int i = 0; i < STEPS; i++) {
		uint64_t n = centre + rng_below(&g, spread), back = rng_below(&g, 3 * window);
		bool want;

		if (rng_below(&g, 3) == 0)
			n = max > back ? max - back : 0;
		if (n > N)
			break;
		want = !seen[n] && (n > max || max - n < window);
		if (replay_ok(&r, n) != want || replay_take(&r, n) != want)
			fail_msg("window %u seed %llu step %d counter %llu", window, (unsigned long long)seed,
				 i, (unsigned long long)n);
		if (want) {
			seen[n] = true;
			max = n > max ? n : max;
		}
		centre = max > spread / 2 ? max - spread / 2 : 0;
	}
	free(seen);
}

static void agrees_with_a_set(void **state)
{
	static const uint32_t windows[] = { 1, 63, 64, 65, 100, 128, 1000, 8128, 8192 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
		for (uint64_t seed = 0; seed < 8; seed++)
			model(windows[i], seed, 2 + (seed % 4) * windows[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_and_duplicates), cmocka_unit_test(zero_is_a_counter),
		cmocka_unit_test(edge_is_exact),	   cmocka_unit_test(limit_holds),
		cmocka_unit_test(agrees_with_a_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
