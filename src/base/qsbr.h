/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot reclamation by quiescent states: writers publish immutable snapshots through an atomic pointer and
 * retire the old one; it is freed once every registered reader has passed a quiescent point (between two
 * batches of packets) or was offline (blocked in poll) since. Readers pay one store per batch, no locks, no
 * shared writes.
 */
#ifndef X0_BASE_QSBR_H
#define X0_BASE_QSBR_H

#include <stdint.h>

enum { QSBR_READERS = 64 };

struct qsbr_retired {
	struct qsbr_retired *next;
	void (*free)(struct qsbr_retired *r);
	uint64_t epoch;
};

/* Aligned to cache lines: who embeds it in a heap struct allocates that with aligned_alloc(64, ...). */
struct qsbr {
	_Atomic uint64_t epoch;
	struct {
		_Alignas(64) _Atomic uint64_t seen; /* 0: offline */
	} reader[QSBR_READERS];
	unsigned nreaders;
	struct qsbr_retired *head, **tail; /* the writer's; in epoch order */
};

void qsbr_init(struct qsbr *q, unsigned nreaders);    /* readers start offline */
void qsbr_online(struct qsbr *q, unsigned reader);    /* before touching snapshots; full barrier */
void qsbr_quiescent(struct qsbr *q, unsigned reader); /* holds no snapshot pointer right now */
void qsbr_offline(struct qsbr *q, unsigned reader);   /* before blocking */
/* One writer thread: retire after the new pointer was published; poll frees what no reader can hold. */
void qsbr_retire(struct qsbr *q, struct qsbr_retired *r, void (*free)(struct qsbr_retired *));
unsigned qsbr_poll(struct qsbr *q); /* number freed */
void qsbr_fini(struct qsbr *q);	    /* readers are gone: frees the rest */

#endif
