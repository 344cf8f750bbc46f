/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/siphash.h"

/* Computed with another implementation: openssl mac -macopt size:8 ... SIPHASH; n = 15 is the paper's
 * example. */
static void reference_values(void **state)
{
	static const struct {
		size_t n;
		uint64_t hash;
	} want[] = {
		{ 0, 0x726fdb47dd0e0e31 },  { 1, 0x74f839c593dc67fd },	{ 7, 0xab0200f58b01d137 },
		{ 8, 0x93f5f5799a932462 },  { 15, 0xa129ca6149be45e5 }, { 16, 0x3f2acc7f57c29bdb },
		{ 63, 0x958a324ceb064572 },
	};
	uint8_t key[16], in[64 + 1];
	struct sipkey k;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		key[i] = (uint8_t)i;
	k = sipkey_from(key);
	for (unsigned i = 0; i < 64; i++)
		in[i + 1] = (uint8_t)i; /* unaligned on purpose */
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		assert_true(siphash24(&k, in + 1, want[i].n) == want[i].hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(reference_values) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
