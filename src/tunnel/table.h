/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers look things up in. A table is an immutable snapshot; the objects it points to live until a
 * grace period after the last table that had them (base/qsbr.h).
 */
#ifndef X0_TUNNEL_TABLE_H
#define X0_TUNNEL_TABLE_H

#include <stdatomic.h>

#include "base/base.h"
#include "crypto/crypto.h"
#include "tunnel/replay.h"
#include "tunnel/split.h"
#include "tunnel/tunnel.h"

/* Where a link's frames go: replaced whole when the address or size changes. */
struct path {
	struct qsbr_retired retired;
	struct endpoint to;
	struct sockaddr_storage ss;
	socklen_t ss_len;
	unsigned frame_max;
};

struct link {
	struct qsbr_retired retired;
	struct link *next;  /* the control thread's list */
	struct dp_link cfg; /* `to` and frame_max here are the first ones: use path */
	_Atomic(struct path *) path;
	_Atomic uint64_t seen_reported; /* ns of the last path_seen */
	atomic_bool dead;		/* removed: an old table may still list it */
};

struct sess;

/* A lane we receive on. All of it belongs to the worker that its index names, except key and iv. */
struct lane_rx {
	struct sess *sess;
	struct dp_lane cfg;
	struct aead aead; /* made on the first frame */
	uint64_t auth_failures;
	struct split *split; /* owned; made on the first split packet */
	struct replay replay;
};

struct lane_tx {
	_Alignas(64) _Atomic uint64_t counter; /* next; shared by the workers */
	struct dp_lane cfg;
};

/* One worker's share of a session's statistics: relaxed, one writer. */
struct sess_stat {
	_Alignas(64) uint64_t tx_packets;
	uint64_t tx_bytes, rx_packets, rx_bytes, last_rx, last_tx, auth_failures, replays;
};

struct sess {
	struct qsbr_retired retired;
	struct sess *next; /* the control thread's list */
	uint32_t id, link_id;
	uint64_t order;		     /* of dp_session_use(), 0: only receives */
	_Atomic(struct link *) link; /* NULL after the link went away */
	uint8_t peer[16];
	struct ip_prefix provides[8];
	unsigned nprovides, nrx, ntx, nworkers;
	enum aead_suite rx_suite, tx_suite;
	atomic_bool spent;	/* reported as unusable */
	atomic_bool dead;	/* removed: an old table may still list it */
	struct lane_rx *rx;	/* owned [nrx] */
	struct lane_tx *tx;	/* owned [ntx] */
	struct aead *tx_aead;	/* owned [nworkers][ntx]; each made and used by its worker */
	struct sess_stat *stat; /* owned [nworkers] */
};

struct sess *table_sess_new(const struct dp_session *cfg, struct link *link, unsigned nworkers);
struct sess *table_sess_free(struct sess *s); /* wipes keys and contexts */

struct table {
	struct qsbr_retired retired;
	uint64_t seed;
	uint32_t dst_mask, lane_mask, link_mask;
	unsigned nprefixes;
	struct dst_slot {
		uint8_t addr[16];
		struct sess *sess; /* NULL: free slot */
	} *dst;
	struct lane_slot {
		uint32_t index;
		struct lane_rx *lane;
	} *lane;
	struct link_slot {
		uint32_t index;
		struct link *link;
	} *link;
	struct prefix_slot {
		struct ip_prefix prefix;
		struct sess *sess;
	} *prefix; /* longest first */
};

/* A snapshot of the two lists, dead entries left out. NULL: out of memory. */
struct table *table_new(struct sess *sessions, struct link *links, uint64_t seed);
struct table *table_free(struct table *t);

static inline uint32_t table_hash(uint64_t a, uint64_t seed)
{
	a = (a ^ seed) * 0x9e3779b97f4a7c15ull;
	a = (a ^ a >> 32) * 0xd6e8feb86659fd93ull;
	return (uint32_t)(a ^ a >> 32);
}

static inline uint32_t table_hash_addr(const uint8_t addr[16], uint64_t seed)
{
	uint64_t w[2];

	memcpy(w, addr, 16);
	return table_hash(w[0] ^ (uint64_t)table_hash(w[1], seed) << 16, seed);
}

struct sess *table_dst(const struct table *t, const uint8_t addr[16]); /* NULL: nobody */

static inline struct lane_rx *table_lane(const struct table *t, uint32_t index)
{
	for (uint32_t i = table_hash(index, t->seed);; i++) {
		const struct lane_slot *s = &t->lane[i & t->lane_mask];

		if (!s->lane || s->index == index)
			return s->lane;
	}
}

static inline struct link *table_link(const struct table *t, uint32_t index)
{
	for (uint32_t i = table_hash(index, t->seed);; i++) {
		const struct link_slot *s = &t->link[i & t->link_mask];

		if (!s->link || s->index == index)
			return s->link;
	}
}

#endif
