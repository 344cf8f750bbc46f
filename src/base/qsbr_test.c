/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/qsbr.h"

static unsigned freed;

static void count_free(struct qsbr_retired *r)
{
	(void)r;
	freed++;
}

static void waits_for_every_reader(void **state)
{
	struct qsbr_retired r[3];
	static struct qsbr q;

	(void)state;
	freed = 0;
	qsbr_init(&q, 2);
	assert_int_equal(qsbr_poll(&q), 0);
	/* Nobody online: free at once. */
	qsbr_retire(&q, &r[0], count_free);
	assert_int_equal(qsbr_poll(&q), 1);
	assert_int_equal(freed, 1);

	qsbr_online(&q, 0);
	qsbr_online(&q, 1);
	qsbr_retire(&q, &r[0], count_free);
	assert_int_equal(qsbr_poll(&q), 0);
	qsbr_quiescent(&q, 0);
	assert_int_equal(qsbr_poll(&q), 0); /* one is not all */
	qsbr_retire(&q, &r[1], count_free);
	qsbr_quiescent(&q, 1);
	assert_int_equal(qsbr_poll(&q), 1); /* the second was retired after reader 0 passed */
	qsbr_offline(&q, 0);
	assert_int_equal(qsbr_poll(&q), 1);
	/* Back online: only what is retired from now on waits for it. */
	qsbr_quiescent(&q, 1);
	qsbr_online(&q, 0);
	qsbr_retire(&q, &r[0], count_free);
	qsbr_offline(&q, 1);
	assert_int_equal(qsbr_poll(&q), 0);
	qsbr_quiescent(&q, 0);
	assert_int_equal(qsbr_poll(&q), 1);
	qsbr_retire(&q, &r[0], count_free);
	qsbr_retire(&q, &r[1], count_free);
	qsbr_retire(&q, &r[2], count_free);
	assert_int_equal(qsbr_poll(&q), 0);
	qsbr_fini(&q);
	assert_int_equal(freed, 7);
}

/* Readers check what they hold while the writer replaces it; freed memory is poisoned first. */
struct snap {
	struct qsbr_retired retired;
	uint64_t a, b;
};

enum { READERS = 3, SWAPS = 20000 };
static struct qsbr shared;
static struct snap *_Atomic current;
static atomic_bool done;
static atomic_uint torn, reads_done, started;

static void snap_free(struct qsbr_retired *r)
{
	struct snap *s = (struct snap *)(void *)r;

	s->a = 1;
	s->b = 2;
	free(s);
}

static void *reader(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg, n = 0;

	qsbr_online(&shared, id);
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&done)) {
		for (int i = 0; i < 8; i++) {
			struct snap *s = atomic_load_explicit(&current, memory_order_acquire);

			if (s->a != ~s->b)
				atomic_fetch_add(&torn, 1);
			n++;
		}
		if (n % 64 == 0) {
			qsbr_offline(&shared, id);
			qsbr_online(&shared, id);
		} else {
			qsbr_quiescent(&shared, id);
		}
	}
	qsbr_offline(&shared, id);
	atomic_fetch_add(&reads_done, n);
	return NULL;
}

static void readers_never_see_freed_memory(void **state)
{
	pthread_t t[READERS];
	unsigned reclaimed = 0;

	(void)state;
	qsbr_init(&shared, READERS);
	struct snap *first = calloc(1, sizeof(*first));

	first->b = ~first->a;
	current = first;
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)i), 0);
	while (atomic_load(&started) < READERS) /* else a busy machine swaps them all before anyone reads */
		sched_yield();
	for (uint64_t i = 1; i <= SWAPS; i++) {
		struct snap *s = malloc(sizeof(*s)), *old;

		s->a = i;
		s->b = ~i;
		old = atomic_exchange(&current, s);
		qsbr_retire(&shared, &old->retired, snap_free);
		reclaimed += qsbr_poll(&shared);
	}
	atomic_store(&done, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	reclaimed += qsbr_poll(&shared);
	assert_int_equal(torn, 0);
	assert_int_equal(reclaimed, SWAPS);
	assert_true(reads_done > 0);
	qsbr_fini(&shared);
	free(current);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_for_every_reader),
		cmocka_unit_test(readers_never_see_freed_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
