/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: snapshot reclamation by quiescent states
 *
 * Source: Hart, McKenney, Demke Brown, Walpole: "Performance of memory reclamation for lockless
 * synchronization" (2007); the same shape as liburcu's QSBR flavour.
 *
 * The writer publishes a new pointer, then advances the epoch: the retired snapshot carries the new epoch E.
 * A reader that announces seen >= E read the epoch after the publication, so what it loads from then on is
 * the new pointer; a reader that announces 0 holds nothing. When every reader is in one of these states the
 * snapshot is free.
 *
 * Going online is the delicate step: the announcement must be visible before the reader's first pointer load,
 * and the writer must look at announcements after its publication. A full barrier on both sides gives that
 * (Dekker).
 */
#include "base/qsbr.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>

/* ThreadSanitizer does not model fences; there a read-modify-write of one shared word orders both sides
 * instead. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
static _Atomic unsigned tsan_fence;
#define FULL_BARRIER() ((void)atomic_fetch_add(&tsan_fence, 1))
#else
#define FULL_BARRIER() atomic_thread_fence(memory_order_seq_cst)
#endif

void qsbr_init(struct qsbr *q, unsigned nreaders)
{
	assert(nreaders <= QSBR_READERS);
	atomic_init(&q->epoch, 1);
	for (unsigned i = 0; i < QSBR_READERS; i++)
		atomic_init(&q->reader[i].seen, 0);
	q->nreaders = nreaders;
	q->head = NULL;
	q->tail = &q->head;
}

void qsbr_online(struct qsbr *q, unsigned reader)
{
	assert(reader < q->nreaders);
	/* Release: who sees this announcement must also see that what was held before going offline is let
	 * go. */
	atomic_store_explicit(&q->reader[reader].seen, atomic_load_explicit(&q->epoch, memory_order_acquire),
			      memory_order_release);
	FULL_BARRIER();
}

void qsbr_quiescent(struct qsbr *q, unsigned reader)
{
	assert(reader < q->nreaders);
	/* Release: the loads of the last batch are over. Acquire: the loads of the next one see what E
	 * published. */
	atomic_store_explicit(&q->reader[reader].seen, atomic_load_explicit(&q->epoch, memory_order_acquire),
			      memory_order_release);
}

void qsbr_offline(struct qsbr *q, unsigned reader)
{
	assert(reader < q->nreaders);
	atomic_store_explicit(&q->reader[reader].seen, 0, memory_order_release);
}

void qsbr_retire(struct qsbr *q, struct qsbr_retired *r, void (*free)(struct qsbr_retired *))
{
	r->next = NULL;
	r->free = free;
	r->epoch = atomic_fetch_add(&q->epoch, 1) + 1;
	*q->tail = r;
	q->tail = &r->next;
}

static unsigned free_until(struct qsbr *q, uint64_t epoch)
{
	unsigned n = 0;

	while (q->head && q->head->epoch <= epoch) {
		struct qsbr_retired *r = q->head;

		q->head = r->next;
		if (!q->head)
			q->tail = &q->head;
		r->free(r);
		n++;
	}
	return n;
}

unsigned qsbr_poll(struct qsbr *q)
{
	uint64_t oldest = UINT64_MAX;

	if (!q->head)
		return 0;
	FULL_BARRIER();
	for (unsigned i = 0; i < q->nreaders; i++) {
		uint64_t seen = atomic_load_explicit(&q->reader[i].seen, memory_order_acquire);

		if (seen && seen < oldest)
			oldest = seen;
	}
	return free_until(q, oldest);
}

void qsbr_fini(struct qsbr *q)
{
	free_until(q, UINT64_MAX);
}
