/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: the path to a neighbour. Keepalive and round-trip time by PING, validation of a new address by
 * CHALLENGE before anything moves, path MTU by padded probes. Pure: authenticated probes in, probes out; the
 * owner adds counter and tag.
 */
#ifndef X0_SESSION_LINK_H
#define X0_SESSION_LINK_H

#include "base/base.h"
#include "wire/wire.h"

enum { LINK_MTU_BASE = 1280 - 48, LINK_OUT_MAX = 4 };

struct link_params {
	uint64_t keepalive, dead_after; /* ns */
	unsigned mtu;			/* largest UDP payload our interface takes */
};

struct link {
	struct link_params p;
	struct endpoint path, candidate;
	bool up, has_candidate, probing; /* probing: traffic is unanswered, pings come quickly */
	uint64_t challenge, challenge_at,
		challenge_again; /* value; ns of the last one; ns before which no new candidate */
	unsigned challenge_tries;
	uint32_t seq;
	uint64_t last_rx, last_tx, ping_at, ping_soon, unanswered; /* ns; the last three 0: none */
	uint64_t srtt, rttvar;					   /* ns; 0: unknown */
	unsigned frame_max, lo, hi, trying,
		tries;	   /* search between lo (works) and hi; trying 0: none under way */
	unsigned mtu;	   /* largest UDP payload both interfaces take */
	uint64_t mtu_at;   /* next step of the search or the next confirmation */
	uint64_t raise_at; /* search again for more */
};

struct link_out {
	struct endpoint to;
	struct probe probe; /* the owner sets .counter */
	size_t size;
};
struct link_result {
	struct link_out out[LINK_OUT_MAX];
	unsigned n;
	bool path_changed, mtu_changed;
	bool back; /* it can be heard again after a silence: what was lost meanwhile may be sent again */
	bool dead; /* unanswered for dead_after */
};

void link_init(struct link *l, const struct link_params *p);
/* New keys over a path that their handshake has proved (cookie). Also the first one. */
void link_keys(struct link *l, const struct endpoint *path, unsigned mtu, uint64_t now,
	       struct link_result *r);
void link_down(struct link *l);
/* An authenticated, fresh frame came from `from`. */
void link_seen(struct link *l, const struct endpoint *from, struct rng *rng, uint64_t now,
	       struct link_result *r);
/* Data-path activity: times of the last authenticated frame received and of the last one sent, 0: never. */
void link_usage(struct link *l, uint64_t last_rx, uint64_t last_tx);
void link_sent(struct link *l, uint64_t now); /* we sent something that wants an answer */
/* An authenticated probe with a new counter. False: of no use (stale answer). */
bool link_probe(struct link *l, const struct endpoint *from, const struct probe *p, uint64_t now,
		struct link_result *r);
void link_too_big(struct link *l, uint64_t now, struct link_result *r);
void link_ping(struct link *l, uint64_t now,
	       struct link_result *r); /* now: our own address may have changed */
void link_tick(struct link *l, struct rng *rng, uint64_t now, struct link_result *r);
uint64_t link_next(const struct link *l, uint64_t now); /* when to tick; NS_NEVER: down */

#endif
