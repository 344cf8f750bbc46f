/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: tunnel
 *
 * The data path. One worker thread per core, each with its own TUN queue and its own UDP socket:
 *
 *	TUN queue -> inner header -> session of the destination -> cut super-packet -> seal -> UDP GSO batch
 *-> peer UDP GRO batch -> hop tag -> lane by session index -> replay window -> open -> source check ->
 *coalesce -> TUN queue
 *
 * Invariants: no lock and no allocation per packet; a session index names its worker (low 8 bits), so each
 *replay window has one writer; state changes only after the tag and the AEAD were checked; a frame carries
 *one whole inner packet (or one of two parts); nothing leaves for a destination without a session. What
 *workers read (sessions, links, tables) are immutable snapshots, swapped by the control thread and reclaimed
 *by base/qsbr.h.
 *
 * All dp_*() calls belong to the control thread; the ops are called there too, through its loop.
 */
#ifndef X0_TUNNEL_TUNNEL_H
#define X0_TUNNEL_TUNNEL_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "wire/wire.h"

struct dp;

struct dp_ops {
	/* A packet for dst has no session: it waits in the queue (64 packets or 100 kB per destination, 1,000
	 * destinations). The answer is dp_session_use() or dp_unreachable(). Once per destination and second.
	 */
	void (*need_session)(void *arg, const uint8_t dst[16]);
	/* An authenticated frame with the newest counter of its lane came from another address than the
	 * link's. */
	void (*path_seen)(void *arg, uint32_t link, const struct endpoint *from);
	/* Authentication failures on a session passed the AEAD's limit, or a counter its hard limit: it is
	 * unusable. */
	void (*session_spent)(void *arg, uint32_t session);
	/* The kernel said a frame was too big for the path (EMSGSIZE or ICMP): search again. */
	void (*path_too_big)(void *arg, uint32_t link);
};

enum { DP_SELF_ALSO = 4 };

struct dp_config {
	unsigned nworkers;	    /* 1-16 */
	const int *tun_fd, *udp_fd; /* [nworkers]; borrowed until dp_free() */
	int udp_family;
	bool tun_uso;
	unsigned tun_mtu;
	uint8_t self[16];			  /* own overlay address */
	struct ip_prefix self_also[DP_SELF_ALSO]; /* other inner destinations accepted here: the overlay IPv4
						     address */
	unsigned nself_also;
	struct loop *control;
	const struct dp_ops *ops;
	void *arg;
};

int dp_new(const struct dp_config *cfg, struct dp **ret, struct err *e); /* starts the workers */
struct dp *dp_free(struct dp *dp); /* stops and joins them; wipes all keys */

/* ---- links: how frames reach a neighbour ---- */
struct dp_link {
	uint32_t id;		     /* the control thread's handle */
	uint32_t rx_index, tx_index; /* link indices: what we chose, what the neighbour chose */
	struct sipkey rx_key, tx_key;
	uint64_t peer_label;
	struct endpoint to;
	unsigned frame_max; /* largest UDP payload the path is known to take; >= 1220 */
};
int dp_link_add(struct dp *dp, const struct dp_link *l, struct err *e);
int dp_link_path(struct dp *dp, uint32_t id, const struct endpoint *to, unsigned frame_max);
void dp_link_remove(struct dp *dp, uint32_t id); /* frames on its rx_index die afterwards */

/* ---- sessions: end-to-end keys ---- */
struct dp_lane {
	uint32_t index; /* session index, chosen by the lane's receiver */
	uint8_t key[AEAD_KEY], iv[AEAD_IV];
};
struct dp_session {
	uint32_t id;		      /* the control thread's handle */
	uint32_t link;		      /* link its frames leave by */
	uint8_t peer[16];	      /* overlay address: the only inner source accepted */
	struct ip_prefix provides[8]; /* other inner sources policy lets it provide (its IPv4 address) */
	unsigned nprovides;
	enum aead_suite rx_suite, tx_suite;
	unsigned nrx, ntx;
	struct dp_lane rx[LANES_MAX], tx[LANES_MAX];
};
/* A fresh index for a receive lane of `worker` (= lane number), unpredictable and unused. */
uint32_t dp_index_new(struct dp *dp, unsigned worker, struct rng *rng);
/* Receiving works when this returns; nothing is sent with it yet. Copies and wipes the keys in `s`. */
int dp_session_add(struct dp *dp, struct dp_session *s, struct err *e);
/* From now on packets for its peer leave with this session; an older one of the same peer keeps only
 * receiving. */
int dp_session_use(struct dp *dp, uint32_t id);
void dp_session_remove(struct dp *dp, uint32_t id);
/* No way to dst: drops what waits with ICMP unreachable, and answers so for `hold_ns`. */
void dp_unreachable(struct dp *dp, const uint8_t dst[16], uint64_t hold_ns);

struct dp_session_stats {
	uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes; /* inner */
	uint64_t last_rx, last_tx; /* ns, monotonic, 0: never; at most 100 ms stale */
	uint64_t tx_counter_max;   /* over the lanes */
	uint64_t auth_failures, replays;
};
int dp_session_stats(struct dp *dp, uint32_t id, struct dp_session_stats *ret);

/* Sums over the workers. tunnel/counters.def lists them: X(name, metric, help). */
struct dp_counters {
#define X(name, metric, help) uint64_t name;
#include "tunnel/counters.def"
#undef X
};
void dp_counters(struct dp *dp, struct dp_counters *ret);

#endif
