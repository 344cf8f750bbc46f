/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pure core of sessions: which peers to dial and when, which of several sessions carries traffic, when
 * keys are renewed and when a session ends. No I/O, no clock, no keys. Objects are embedded in their owner's
 * structs; actions are queued and taken by the owner after each call.
 */
#ifndef X0_SESSION_SESSION_CORE_H
#define X0_SESSION_SESSION_CORE_H

#include "base/base.h"
#include "session/session.h"

struct core_session {
	struct core_peer *peer;
	struct core_session *next;
	bool ours;	 /* we dialled it */
	bool ready;	 /* both ends installed their keys */
	bool old;	 /* replaced: its receive keys live until old_until */
	bool in_use_now; /* packets grew in the last tick */
	uint64_t born, ready_at, old_until, used, packets, last_rx,
		expires; /* ns; expires: NS_NEVER if far */
};

struct core_peer {
	struct core_peer *next, **prev;
	uint8_t addr[16];
	bool keep, lower, dialing; /* lower: our address is the lower one, we decide ties */
	unsigned nep, next_ep, failures, round;
	uint64_t wanted_until, dial_at; /* ns; dial_at: not before */
	uint64_t rekey_at;		/* ns; NS_NEVER: no re-key wanted */
	struct core_session *sessions, *current;
};

enum core_kind {
	CORE_DIAL,  /* dial peer's endpoint number `ep` (modulo how many there are), or its link's path on a
		       re-key */
	CORE_ABORT, /* give the dial under way up: the other end's is better */
	CORE_USE,   /* send with this session from now on */
	CORE_REPLACED,	  /* tell the peer that this session is replaced; its receive keys stay */
	CORE_END,	  /* the session is over; already unlinked from the core */
	CORE_UNREACHABLE, /* all endpoints were tried in vain */
};
struct core_act {
	enum core_kind kind;
	struct core_peer *peer;
	struct core_session *session;
	unsigned ep;
	bool rekey;
	enum sess_end why;
};

struct core {
	struct sess_params p;
	uint8_t self[16];
	struct rng *rng;
	struct core_peer *peers;
	size_t nobjects;
	struct core_act *act; /* owned; a queue with room for everything the objects can ask at once */
	size_t nact, next_act, cap;
	uint64_t last_tick, next_dial; /* ns; next_dial: when a dial that had to wait becomes due */
};

int core_init(struct core *c, const struct sess_params *p, const uint8_t self[16], struct rng *rng);
void core_fini(struct core *c);
void core_self(struct core *c, const uint8_t self[16]);

int core_peer_add(struct core *c, struct core_peer *p, const uint8_t addr[16],
		  uint64_t now); /* p is zeroed */
/* Ends its sessions (CORE_END with `why`), then forgets it. Take the actions before p goes away. */
void core_peer_remove(struct core *c, struct core_peer *p, enum sess_end why);
void core_peer_dial(struct core *c, struct core_peer *p, unsigned nep, bool keep,
		    uint64_t now);				   /* what to dial */
void core_want(struct core *c, struct core_peer *p, uint64_t now); /* traffic waits for it */
void core_dial_failed(struct core *c, struct core_peer *p, uint64_t now);

/* The handshake completed and the peer is known. s is zeroed; expires: end of the peer's SVID, ns of the
 * loop. */
int core_session_open(struct core *c, struct core_peer *p, struct core_session *s, bool ours,
		      uint64_t expires, uint64_t now);
void core_session_ready(struct core *c, struct core_session *s, uint64_t now);
/* It died, or the peer closed it, or was refused: CORE_END follows. Ended already (with another): nothing. */
void core_session_end(struct core *c, struct core_session *s, enum sess_end why, uint64_t now);
void core_session_replaced(struct core *c, struct core_session *s, uint64_t now); /* the peer says so */
/* Of the data path, before each tick: sum of packets both ways, time of the last one received. */
void core_usage(struct core *c, struct core_session *s, uint64_t packets, uint64_t last_rx);
void core_rekey(struct core *c, struct core_peer *p, uint64_t now);
void core_rekey_all(struct core *c, uint64_t now);
uint64_t core_tick(struct core *c, uint64_t now); /* when to call again, or earlier: at next_dial */
uint64_t core_tick_every(const struct core *c);
bool core_next(struct core *c, struct core_act *ret); /* false: no more actions */

#endif
