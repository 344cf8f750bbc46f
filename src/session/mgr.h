/* SPDX-License-Identifier: Apache-2.0 */
/* The manager's own structures, shared by session.c and mgr_*.c; nobody else includes this. */
#ifndef X0_SESSION_MGR_H
#define X0_SESSION_MGR_H

#include "session/contact.h"
#include "session/link.h"
#include "session/quic.h"
#include "session/session.h"
#include "session/session_core.h"
#include "session/tab.h"
#include "session/tls.h"

/* CTL_CLOSE's code and the application error of CONNECTION_CLOSE. */
enum close_code {
	CLOSE_BYE = 1,
	CLOSE_REPLACED = 2,
	CLOSE_VERSION = 3,
	CLOSE_REVOKED = 4,
	CLOSE_EXPIRED = 5,
	CLOSE_REFUSED = 6,
	CLOSE_SPENT = 7
};
/* Message types of ALPN x0-join/1: a space of their own on its stream 0. */
enum join_type { JOIN_REQUEST = 1, JOIN_REPLY = 2 };
enum { BURST_SLOTS = 64 };
enum { JOIN_REQUEST_MAX = 32 * 1024 };

struct join_out { /* a join of ours under way */
	struct token token;
	const struct sess_join_ops *ops;
	void *arg;
	unsigned next_addr;
	struct err last;
	struct join_out *next;
};

struct peer {
	struct tab_node by_addr;
	struct core_peer core;
	struct spiffe_id id;
	struct endpoint *ep; /* owned */
	size_t nep;
	bool dynamic;	       /* not configured: forgotten when its last session is gone */
	struct epoch *dial;    /* under way, or NULL */
	struct epoch *current; /* the session in use, or NULL */
	unsigned attempts;
	struct link link;
	uint32_t link_id;
	struct loop_timer link_timer;
	uint64_t epochs, handshake_ns, up_since;
	char group[24], signature[16];
	char last_error[200];
	struct sess_mgr *m;
	struct peer *next, **prev;
};

/* One attempt and what becomes of it: knock, QUIC connection, session. */
struct epoch {
	struct sess_mgr *m;
	struct tab_node by_id, by_link,
		by_nonce; /* by_nonce: of a dial; on the accepting side by the cookie */
	uint32_t id;
	bool server, dead, half_open, known, in_core;
	bool hello_in, state_in, wait_bundle, installed, ready_in, used;
	uint64_t offer_number; /* the bundle that the peer says it has */
	uint8_t offer_hash[SHA256_LEN];
	uint64_t ask_bundle_at; /* not before: its last one was of no use */
	unsigned useless_bundles;
	struct loop_timer bundle_timer; /* asks then */
	bool control;	   /* the peer has our link keys' other half: CONTROL frames instead of HELLO */
	struct peer *peer; /* dialled, or authenticated; NULL before, and on joins */
	struct join_out *join;
	bool join_server; /* a newcomer, waiting for sess_join_answer() */
	struct core_session core;
	struct endpoint path;
	struct cookie cookie; /* the client's nonce and the server's cookie */
	uint8_t knock[KNOCK_LEN];
	struct loop_timer timer; /* knock repetition; later: control exchange must end */
	unsigned tries;
	struct quic_conn *conn;
	struct tls_who who;
	struct tls *tls; /* reference */
	uint64_t started, handshake_ns;
	uint32_t link_rx, link_tx;
	struct sipkey rx_key, tx_key;
	uint64_t tx_counter, rx_counter;
	unsigned peer_mtu;
	unsigned nlanes;
	uint32_t lane[LANES_MAX]; /* ours */
	struct sess_keys *keys;	  /* owned; between HELLO and installation */
	char group[24], signature[16];
	struct epoch *next, **prev;
};

struct ping {
	uint64_t id, sent;
	uint32_t session;
	void (*fn)(void *arg, int code, uint64_t rtt_ns);
	void *arg;
	struct ping *next;
};

struct sess_mgr {
	struct sess_config cfg;
	struct core core;
	struct contact contact;
	struct quic quic;
	struct tls_env env;
	struct tls *tls;       /* reference; NULL without an identity */
	SSL_CTX *join_ctx;     /* owned; made on the first sess_join() */
	struct bundle *bundle; /* owned; the newest known */
	struct spiffe_id self;
	uint8_t self_addr[16];
	uint64_t self_label;
	struct tab peers, ids, links, nonces, cookies;
	struct peer *peer_list;
	struct epoch *epochs, *graves;
	struct ping *pings;
	struct join_out *joins;
	uint32_t next_id, next_link;
	unsigned half_open, half_open_unknown;
	struct {
		uint64_t since; /* ns */
		unsigned n;
	} burst[BURST_SLOTS]; /* frames on unknown link indices, by keyed hash of the address */
	uint64_t burst_again; /* ns before which no knock answers one */
	struct loop_timer tick, reap;
	bool running, closing;
	struct sess_counters n;
	uint64_t bundle_log_at; /* of strange bundles: not before */
	uint8_t bundle_logged[SHA256_LEN];
	char refusal[480];
	struct sipkey addr_key;
};

static inline uint64_t mgr_now(const struct sess_mgr *m)
{
	return loop_now(m->cfg.loop);
}

/* session.c */
void mgr_run(struct sess_mgr *m); /* executes what the core asks */
struct peer *peer_find(struct sess_mgr *m, const uint8_t addr[16]);
struct peer *peer_get(struct sess_mgr *m, const struct spiffe_id *id,
		      struct err *e); /* finds or makes a dynamic one */
void peer_error(struct peer *p, const char *why);
/* Takes into force what bundle_settle() makes of it and ours. `theirs`: our own, or verified. 1: it changed
 * something. */
int mgr_settle_bundle(struct sess_mgr *m, const struct bundle *theirs, struct err *e);

/* mgr_dial.c */
struct epoch *epoch_new(struct sess_mgr *m, bool server);
/* Takes the epoch out of everything; its memory stays until the loop turns. `code` 0: no word to the peer. */
void epoch_kill(struct epoch *e, enum close_code code);
void not_half_open(struct epoch *e); /* it has shown who it is, or is gone */
struct epoch *epoch_by_id(struct sess_mgr *m, uint32_t id);
void dial_start(struct sess_mgr *m, struct peer *p, unsigned ep, bool rekey);
void dial_failed(struct epoch *e, const char *why); /* tells the core or the join; kills the epoch */
int dial_knock(struct epoch *e, const struct endpoint *to, const struct knock_key *key, bool join);
/* Knocks at an address whose frames we cannot read: who is there dialled us before we were restarted. */
void dial_unknown(struct sess_mgr *m, const struct endpoint *to);
void dial_cookie(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n);
void accept_hello(struct sess_mgr *m, const struct endpoint *from, const struct hello *h);

/* mgr_io.c */
void mgr_send(void *arg, struct quic_conn *c, uint8_t *p, size_t n);
void mgr_link(struct peer *p, struct link_result *r); /* sends probes, tells of changes, sets the timer */
void mgr_on_link_timer(void *arg, uint64_t now);

/* mgr_ctl.c */
void ctl_up(void *arg, struct quic_conn *c);
int ctl_message(void *arg, struct quic_conn *c, uint16_t type, const uint8_t *p, size_t n);
void ctl_closed(void *arg, struct quic_conn *c, const struct err *why);
void ctl_bundle_state(struct epoch *e);
void ctl_on_bundle_timer(void *arg, uint64_t now);
int ctl_close(struct epoch *e, enum close_code code, const char *why); /* reliable: a message on stream 0 */
void ctl_refuse(struct epoch *e, enum close_code code, const struct err *why); /* logs, closes, ends */
void ctl_pings_failed(struct sess_mgr *m, uint32_t session);

/* mgr_keys.c */
int keys_derive(struct epoch *e, const struct ctl_hello *theirs,
		struct err *er); /* fills e->keys, link keys */

/* mgr_join.c */
void join_up(struct epoch *e);
int join_message(struct epoch *e, uint16_t type, const uint8_t *p, size_t n);
void join_failed(struct epoch *e, const struct err *why); /* next address, or done() */
void join_fini(struct sess_mgr *m);

#endif
