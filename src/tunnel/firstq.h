/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets waiting for a session, and destinations known to be unreachable. The slow path: one mutex for all
 * workers. Bounds: 64 packets or 100 kB per destination, 1,000 destinations, 10 s.
 */
#ifndef X0_TUNNEL_FIRSTQ_H
#define X0_TUNNEL_FIRSTQ_H

#include <pthread.h>

#include "base/base.h"
#include "tunnel/segment.h"

enum { FIRSTQ_PACKETS = 64, FIRSTQ_BYTES = 100000, FIRSTQ_DSTS = 1000, FIRSTQ_BUCKETS = 256 };
#define FIRSTQ_AGE (10 * NS_PER_S)

struct firstq_pkt {
	struct firstq_pkt *next;
	unsigned worker; /* who read it, and who sends it later */
	bool refuse;	 /* answer with ICMP instead of sending */
	size_t n;
	uint8_t data[]; /* as read from the device: vnet header and packet */
};

struct firstq_dst;

struct firstq {
	pthread_mutex_t lock;
	uint64_t seed;
	unsigned ndsts;
	struct firstq_dst *bucket[FIRSTQ_BUCKETS];
};

enum firstq_verdict { FIRSTQ_QUEUED, FIRSTQ_ASK, FIRSTQ_FULL, FIRSTQ_REFUSED };

void firstq_init(struct firstq *q, uint64_t seed);
void firstq_fini(struct firstq *q);

/*
 * Caller holds q->lock. Copies the packet. ASK: queued, and need_session is due (once per second). FULL: not
 * queued. REFUSED: the destination was declared unreachable.
 */
enum firstq_verdict firstq_add(struct firstq *q, const uint8_t dst[16], const struct virtio_net_hdr *v,
			       const void *p, size_t n, unsigned worker, uint64_t now);
/* Caller holds q->lock. The question could not be asked: ask again with the next packet. */
void firstq_ask_again(struct firstq *q, const uint8_t dst[16]);
/* Takes what waits for addresses inside `prefix`, oldest first for each; the caller owns the list. Locks. */
struct firstq_pkt *firstq_take(struct firstq *q, const struct ip_prefix *prefix);
/* Refuses dst until `until`, and takes what waits. Locks. */
struct firstq_pkt *firstq_refuse(struct firstq *q, const uint8_t dst[16], uint64_t until);
/* Drops what waited too long, forgets old refusals; returns the number of packets dropped. Locks. */
unsigned firstq_age(struct firstq *q, uint64_t now, bool *ret_empty);
void firstq_list_free(struct firstq_pkt *list);

#endif
