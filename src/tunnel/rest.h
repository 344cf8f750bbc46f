/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: how a worker waits
 *
 * Waking a thread on a sleeping core costs 10-30 us, several times a packet's work, and a round trip has four
 * of them. So a worker to which something came soon after the last time it sent (or received) looks for a
 * while before it sleeps, as long as that pays: one window for each of the two cases, doubled and halved as
 * in Linux' haltpoll governor (drivers/cpuidle/governors/haltpoll.c). It yields its core to whoever else
 * wants it and spends at most a tenth of the time so: in a steady flow sleeping is cheaper. An idle node
 * never spins.
 *
 * Pure: times are given.
 */
#ifndef X0_TUNNEL_REST_H
#define X0_TUNNEL_REST_H

#include <stdbool.h>
#include <stdint.h>

enum {
	REST_SPIN_MIN_NS = 10000,
	REST_SPIN_MAX_NS = 100000,
	REST_SPIN_SHARE = 10,	      /* at most this fraction of the time... */
	REST_SPIN_SAVED_NS = 2000000, /* ...or what was saved of that before */
};

struct rest {
	bool sent;		    /* the last turn with work sent something */
	uint32_t spin_ns[2];	    /* by `sent` */
	uint64_t budget, earned_at; /* ns it may still spin; when that was counted */
};

/* How long to look before sleeping, ns. */
uint32_t rest_spin(struct rest *r, uint64_t now);
/* Something came after `waited` ns, of which it span for `span`. */
void rest_woke(struct rest *r, uint64_t waited, uint64_t span);

#endif
