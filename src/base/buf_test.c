/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

static void reads_big_endian(void **state)
{
	static const uint8_t in[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 };
	struct rd r = rd_init(in, sizeof(in));

	(void)state;
	assert_int_equal(rd_u8(&r), 1);
	assert_int_equal(rd_u16(&r), 0x0203);
	assert_int_equal(rd_u32(&r), 0x04050607);
	assert_true(rd_u64(&r) == 0x08090a0b0c0d0e0full);
	assert_int_equal(rd_left(&r), 2);
	assert_true(rd_ok(&r));
	assert_false(rd_done(&r));
	assert_ptr_equal(rd_bytes(&r, 2), in + 15);
	assert_true(rd_done(&r));
	assert_non_null(rd_bytes(&r, 0));
	assert_true(rd_done(&r));
	r = rd_init(NULL, 0);
	assert_non_null(rd_bytes(&r, 0));
	assert_true(rd_done(&r));
}

static void reading_beyond_the_end_sticks(void **state)
{
	static const uint8_t in[] = { 1, 2, 3 };
	struct rd r = rd_init(in, sizeof(in)), sub;
	uint8_t to[4] = { 9, 9, 9, 9 };

	(void)state;
	assert_int_equal(rd_u32(&r), 0);
	assert_false(rd_ok(&r));
	assert_int_equal(rd_left(&r), 3); /* nothing moved */
	assert_int_equal(rd_u8(&r), 0);	  /* and nothing is read any more */
	rd_copy(&r, to, sizeof(to));
	assert_memory_equal(to, "\0\0\0\0", 4);
	assert_false(rd_done(&r));

	r = rd_init(in, sizeof(in));
	sub = rd_sub(&r, 2);
	assert_int_equal(rd_u16(&sub), 0x0102);
	assert_true(rd_done(&sub));
	rd_u8(&sub);
	assert_false(rd_ok(&sub)); /* the rest of the outer one is out of reach */
	assert_int_equal(rd_u8(&r), 3);
	sub = rd_sub(&r, SIZE_MAX);
	assert_false(rd_ok(&sub));
	assert_false(rd_ok(&r));
}

static void writes_and_stops(void **state)
{
	uint8_t b[16] = { 0 };
	struct wr w = wr_init(b, 15);

	(void)state;
	wr_u8(&w, 1);
	wr_u16(&w, 0x0203);
	wr_u32(&w, 0x04050607);
	wr_u64(&w, 0x08090a0b0c0d0e0full);
	assert_true(wr_ok(&w));
	assert_int_equal(wr_len(&w), 15);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(b[i], i + 1);
	wr_u8(&w, 0xff);
	assert_false(wr_ok(&w));
	assert_int_equal(b[15], 0);
	assert_null(wr_room(&w, 0));
	w = wr_init(b, 1);
	wr_u16(&w, 0xffff);
	assert_false(wr_ok(&w));
	assert_int_equal(b[0], 1); /* no half values */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_big_endian),
		cmocka_unit_test(reading_beyond_the_end_sticks),
		cmocka_unit_test(writes_and_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
