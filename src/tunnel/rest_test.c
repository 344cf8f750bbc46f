/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/base.h"
#include "tunnel/rest.h"

static void spins_while_answers_come_soon(void **state)
{
	struct rest r = { 0 };
	uint64_t now = NS_PER_S;

	(void)state;
	assert_int_equal(rest_spin(&r, now), 0);
	/* Pings: sent, answered after 60 us; received, the next one 5 ms later. */
	for (unsigned i = 0; i < 8; i++) {
		now += 5 * NS_PER_MS;
		r.sent = true;
		rest_woke(&r, 60000, rest_spin(&r, now));
		now += 60000;
		r.sent = false;
		rest_woke(&r, 5 * NS_PER_MS, 0);
	}
	r.sent = true;
	assert_in_range(rest_spin(&r, now), 60000, REST_SPIN_MAX_NS);
	r.sent = false;
	assert_int_equal(rest_spin(&r, now), 0);
	/* The other end is gone: after a few tries nothing is spent any more. */
	for (unsigned i = 0; i < 8; i++) {
		now += NS_PER_S;
		r.sent = true;
		rest_woke(&r, NS_PER_S, 0);
	}
	assert_int_equal(rest_spin(&r, now), 0);
}

/* Answers that always come just within the longest window: a steady flow. */
static void spins_a_bounded_share_of_the_time(void **state)
{
	struct rest r = { .sent = true };
	uint64_t now = NS_PER_S, span = 0;

	(void)state;
	rest_spin(&r, now);
	for (unsigned i = 0; i < 10000; i++) {
		uint32_t s = rest_spin(&r, now);

		assert_in_range(s, 0, REST_SPIN_MAX_NS);
		span += s;
		now += REST_SPIN_MAX_NS;
		rest_woke(&r, REST_SPIN_MAX_NS, s);
	}
	assert_in_range(span, 1, (now - NS_PER_S) / REST_SPIN_SHARE + REST_SPIN_SAVED_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spins_while_answers_come_soon),
		cmocka_unit_test(spins_a_bounded_share_of_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
