/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/firstq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tunnel/split.h"

static const struct virtio_net_hdr none;
static uint8_t pkt[60000];

static enum firstq_verdict add(struct firstq *q, uint32_t dst, size_t n, uint64_t now)
{
	uint8_t addr[16] = { 0xfd };
	enum firstq_verdict v;

	put_u32(addr + 12, dst);
	pthread_mutex_lock(&q->lock);
	v = firstq_add(q, addr, &none, pkt, n, 0, now);
	pthread_mutex_unlock(&q->lock);
	return v;
}

static struct ip_prefix host(uint32_t dst)
{
	struct ip_prefix p = { .addr = { 0xfd }, .len = 128 };

	put_u32(p.addr + 12, dst);
	return p;
}

static unsigned length(struct firstq_pkt *list)
{
	unsigned n = 0;

	for (struct firstq_pkt *p = list; p; p = p->next)
		n++;
	firstq_list_free(list);
	return n;
}

static void bounds(void **state)
{
	struct firstq q;
	struct ip_prefix p;
	bool empty;

	(void)state;
	firstq_init(&q, 1);
	assert_int_equal(add(&q, 1, 100, NS_PER_S), FIRSTQ_ASK);
	for (int i = 1; i < FIRSTQ_PACKETS; i++)
		assert_int_equal(add(&q, 1, 100, NS_PER_S + 5), FIRSTQ_QUEUED);
	assert_int_equal(add(&q, 1, 100, NS_PER_S + 6), FIRSTQ_FULL);
	assert_int_equal(add(&q, 2, 60000, NS_PER_S), FIRSTQ_ASK);
	assert_int_equal(add(&q, 2, 50000, NS_PER_S), FIRSTQ_FULL);  /* 100 kB */
	assert_int_equal(add(&q, 2, 100, 2 * NS_PER_S), FIRSTQ_ASK); /* once a second */
	for (uint32_t i = 3; i <= FIRSTQ_DSTS; i++)
		assert_int_equal(add(&q, i, 10, NS_PER_S), FIRSTQ_ASK);
	assert_int_equal(add(&q, FIRSTQ_DSTS + 1, 10, NS_PER_S), FIRSTQ_FULL);
	p = host(1);
	assert_int_equal(length(firstq_take(&q, &p)), FIRSTQ_PACKETS);
	assert_int_equal(length(firstq_take(&q, &p)), 0);
	assert_int_equal(add(&q, FIRSTQ_DSTS + 1, 10, NS_PER_S), FIRSTQ_ASK);
	assert_int_equal(firstq_age(&q, 2 * NS_PER_S, &empty), 0);
	assert_false(empty);
	assert_int_equal(firstq_age(&q, NS_PER_S + FIRSTQ_AGE, &empty),
			 FIRSTQ_DSTS + 1); /* 1,000 of them, one with two */
	assert_true(empty);
	firstq_fini(&q);
}

static void refusal_ends(void **state)
{
	struct firstq q;
	struct ip_prefix all = { .addr = { 0xfd }, .len = 8 };
	struct firstq_pkt *list;
	bool empty;

	(void)state;
	firstq_init(&q, 1);
	add(&q, 1, 10, NS_PER_S);
	list = firstq_refuse(&q, host(1).addr, 5 * NS_PER_S);
	assert_non_null(list);
	assert_true(list->refuse);
	assert_int_equal(length(list), 1);
	assert_int_equal(add(&q, 1, 10, 2 * NS_PER_S), FIRSTQ_REFUSED);
	assert_int_equal(add(&q, 1, 10, 5 * NS_PER_S), FIRSTQ_ASK);
	pthread_mutex_lock(&q.lock);
	firstq_ask_again(&q, host(1).addr);
	firstq_ask_again(&q, host(2).addr);
	pthread_mutex_unlock(&q.lock);
	assert_int_equal(add(&q, 1, 10, 5 * NS_PER_S), FIRSTQ_ASK);
	add(&q, 2, 10, 5 * NS_PER_S);
	assert_int_equal(length(firstq_take(&q, &all)), 3);
	firstq_refuse(&q, host(3).addr, 6 * NS_PER_S);
	firstq_age(&q, 5 * NS_PER_S, &empty);
	assert_false(empty);
	firstq_age(&q, 6 * NS_PER_S, &empty);
	assert_true(empty);
	firstq_fini(&q);
}

static void split_parts(void **state)
{
	struct split *s = calloc(1, sizeof(*s));
	unsigned dropped = 0;
	uint8_t a[SPLIT_PART_MAX + 1], b[SPLIT_PART_MAX], *whole;
	size_t n = 0;

	(void)state;
	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	for (uint64_t c = 0; c < 100; c += 3) {
		bool second = c & 1;

		assert_null(
			split_add(s, c + second, second, second ? b : a, second ? 700 : 900, &n, &dropped));
		whole = split_add(s, c + !second, !second, second ? a : b, second ? 900 : 700, &n, &dropped);
		assert_non_null(whole);
		assert_int_equal(n, 1600);
		assert_memory_equal(whole, a, 900);
		assert_memory_equal(whole + 900, b, 700);
		memset(whole - SPLIT_HEADROOM, 0, SPLIT_HEADROOM); /* room for a vnet header */
	}
	assert_int_equal(dropped, 0);
	/* too long, empty, second of nothing */
	assert_null(split_add(s, 1000, false, a, SPLIT_PART_MAX + 1, &n, &dropped));
	assert_null(split_add(s, 1000, false, a, 0, &n, &dropped));
	assert_null(split_add(s, 0, true, a, 5, &n, &dropped));
	assert_int_equal(dropped, 3);
	/* the same part twice; neighbours that do not belong together; newer wins over older */
	assert_null(split_add(s, 1000, false, a, 5, &n, &dropped));
	assert_null(split_add(s, 1002, true, b, 5, &n, &dropped));
	assert_null(split_add(s, 1000 + 2 * SPLIT_SLOTS, false, a, 5, &n, &dropped));
	assert_int_equal(dropped, 5); /* 1000 and 1001|1002 shared that slot one after the other */
	assert_null(split_add(s, 1001, true, b, 5, &n, &dropped));
	assert_int_equal(dropped, 6);
	whole = split_add(s, 1001 + 2 * SPLIT_SLOTS, true, b, SPLIT_PART_MAX, &n, &dropped);
	assert_non_null(whole);
	assert_int_equal(n, 5 + SPLIT_PART_MAX);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bounds), cmocka_unit_test(refusal_ends),
					    cmocka_unit_test(split_parts) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
