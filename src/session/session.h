/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: session
 *
 * Authenticated control sessions between identities: first contact (KNOCK, COOKIE, HELLO), one QUIC
 * connection per peer (ngtcp2 over OpenSSL's TLS 1.3: X25519MLKEM768 only, ML-DSA-65 both ways, no
 * resumption), stream 0 and typed messages, and what hangs on it: data keys by the TLS exporter, epochs and
 * re-keying (make before break), expiry, revocation; and links: the path to a neighbour, its validation,
 * keepalive, round-trip time and path MTU.
 *
 * Three layers, one file family each:
 *   session_core  pure: which peers to dial, when, tie-break, epochs, expiry, revocation. (state, event, now,
 * rng) -> actions link          pure: probes, path validation, path MTU search quic          ngtcp2 + TLS; no
 * socket, no clock: datagrams in, datagrams out This header is the manager that joins them. Everything runs
 * on the thread of `loop`. The daemon's UDP socket and the tests' in-memory transport are both just ops->send
 * and sess_input().
 */
#ifndef X0_SESSION_SESSION_H
#define X0_SESSION_SESSION_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "identity/identity.h"
#include "wire/wire.h"

struct sess_mgr;

/* Everything the data path needs of a session whose peer is authenticated. Wiped by the manager after the
 * call. */
struct sess_keys {
	uint32_t session, link; /* handles; link handles outlive re-keys of the same peer */
	const struct svid_info *peer;
	enum aead_suite rx_suite, tx_suite;
	unsigned nrx, ntx;
	struct {
		uint32_t index;
		uint8_t key[AEAD_KEY], iv[AEAD_IV];
	} rx[LANES_MAX], tx[LANES_MAX];
	uint32_t link_rx_index, link_tx_index; /* new with each epoch */
	struct sipkey link_rx_key, link_tx_key;
	struct endpoint path;
	unsigned frame_max;
};

enum sess_end {
	SESS_CLOSED,
	SESS_REKEYED,
	SESS_TIMEOUT,
	SESS_EXPIRED,
	SESS_REVOKED,
	SESS_REFUSED,
	SESS_SPENT
};

struct sess_ops {
	void (*send)(void *arg, const struct endpoint *to, const void *p, size_t n);
	uint32_t (*index_new)(void *arg, unsigned lane); /* data-path index for a receive lane */
	/* Install receive keys (and keep the transmit keys); 0 or an error, which ends the session. */
	int (*keys)(void *arg, struct sess_keys *k, struct err *e);
	void (*use)(void *arg,
		    uint32_t session); /* the peer has our receive keys' other half: send with it */
	void (*gone)(void *arg, uint32_t session, enum sess_end why,
		     const char *detail); /* receive keys end now */
	void (*path)(void *arg, uint32_t link, const struct endpoint *to, unsigned frame_max); /* validated */
	/* Verified: newer, or a second one of our number, which an issuer merges (what this node makes of it:
	 * bundle_settle()). Owned by the callee. */
	void (*bundle)(void *arg, struct bundle *theirs);
	/* Authenticated message of a later part (type >= 64) or CTL_RENEW/CTL_RENEWED. */
	void (*message)(void *arg, uint32_t session, const struct svid_info *peer, uint16_t type,
			const uint8_t *p, size_t n);
	/* A dial failed for good (until the next try): what the first packets wait for will not come soon. */
	void (*unreachable)(void *arg, const struct spiffe_id *peer, const char *why);
	/* Activity for re-key decisions: packets and ns of last use of the data path; see dp_session_stats().
	 */
	void (*usage)(void *arg, uint32_t session, uint64_t *ret_packets, uint64_t *ret_last_use,
		      uint64_t *ret_last_rx);
	/* The issuer's answer to a join request (ALPN x0-join/1); NULL ops member: this node is no issuer.
	 * Answer, now or later, with sess_join_answer(). */
	void (*join)(void *arg, uint64_t ticket, const struct endpoint *from, const uint8_t exporter[32],
		     const uint8_t *p, size_t n);
}; /* every member but send, index_new and keys may be NULL */

struct sess_params {		/* all ns; defaults by sess_params_default(): DESIGN section 5 */
	uint64_t rekey_after;	/* 120 s of use */
	uint64_t rekey_packets; /* 2^31 */
	uint64_t rekey_idle;	/* 3600 s */
	uint64_t hard_stop;	/* 180 s of use */
	uint64_t old_keys_live; /* 30 s */
	uint64_t keepalive;	/* 25 s without traffic: a PING (NAT) */
	uint64_t dead_after;	/* 15 s with unanswered traffic: session lost, dial again */
	uint64_t dial_retry_min, dial_retry_max;    /* 250 ms, 30 s; exponential with jitter */
	unsigned max_half_open, reserved_half_open; /* 256 in all, 64 of them for known peers */
	unsigned accept_burst, accept_per_s;	    /* new handshakes per source address: 16, 2 */
};
void sess_params_default(struct sess_params *p);

struct sess_config {
	struct loop *loop;
	struct rng *rng;		  /* everything but TLS's own randomness */
	const struct node_identity *self; /* NULL: only sess_join() works */
	unsigned nlanes;		  /* receive lanes of this node */
	enum aead_suite suite;		  /* what we want to receive with */
	unsigned mtu;			  /* underlay interface MTU as UDP payload, e.g. 1452 or 1472 */
	uint16_t proto;			  /* 0: X0_PROTO; tests speak as another version */
	int64_t wall_offset;		  /* ns: wall time = loop now + offset (virtual time in tests) */
	struct sess_params params;
	X509 *join_root; /* our own link root if this node answers joins (ops->join), else NULL:
			    sess_join_root() */
	const struct sess_ops *ops;
	void *arg;
};

int sess_new(const struct sess_config *cfg, struct sess_mgr **ret, struct err *e);
struct sess_mgr *
sess_free(struct sess_mgr *m); /* closes all sessions politely (one CLOSE datagram each), calls gone */

/* One datagram from the control socket: KNOCK, COOKIE, HELLO, CONTROL or PROBE. Never fails; counts. */
void sess_input(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n);

/* Known peers: dialled when `keep` or when wanted; endpoints are tried in turn. Same URI again: replaces
 * endpoints. */
int sess_peer_add(struct sess_mgr *m, const struct spiffe_id *id, const struct endpoint *ep, size_t nep,
		  bool keep, struct err *e);
void sess_peer_remove(struct sess_mgr *m, const struct spiffe_id *id); /* ends its sessions */
/* The data path wants this overlay address; ERR_NOT_FOUND if no peer has it. */
int sess_want(struct sess_mgr *m, const uint8_t addr[16]);
void sess_path_seen(struct sess_mgr *m, uint32_t link, const struct endpoint *from); /* from dp_ops */
void sess_path_too_big(struct sess_mgr *m, uint32_t link);
void sess_spent(struct sess_mgr *m, uint32_t session);
void sess_rekey(struct sess_mgr *m, uint32_t session); /* now */

/* The wall clock was set, or the host slept: ends of validity are reckoned anew. ns: wall time = loop now +
 * offset. */
void sess_clock(struct sess_mgr *m, int64_t wall_offset);

/* New SVID (renewal) or new bundle: takes effect for new handshakes; sessions re-key; revoked ones end at
 * once. */
int sess_identity(struct sess_mgr *m, const struct node_identity *self, struct err *e);

/*
 * The link root that our link SVID comes from, if this node answers joins from now on; NULL: it does not.
 * Takes a reference; in force with the next sess_identity().
 */
void sess_join_root(struct sess_mgr *m, X509 *root);

/* Reliable message to an authenticated peer, in order within this session (a re-key makes another);
 * ERR_NOT_FOUND, ERR_LIMIT (more than 4 MiB unacknowledged). */
int sess_send(struct sess_mgr *m, uint32_t session, uint16_t type, const void *p, size_t n);
/* One CTL_PING over stream 0; fn gets the round trip in ns, or ERR_TIMEOUT after 5 s, or ERR_FAILED with the
 * session. */
int sess_ping(struct sess_mgr *m, uint32_t session, void (*fn)(void *arg, int code, uint64_t rtt_ns),
	      void *arg);
/* Our own address or socket may have changed: pings every link, so that neighbours see the new address at
 * once. */
void sess_moved(struct sess_mgr *m);

/* Join: dials an issuer with the token's pin, sends what `request` makes of the exporter, gives the reply to
 * `done`. */
struct sess_join_ops {
	int (*request)(void *arg, const uint8_t exporter[32], uint8_t **ret_p, size_t *ret_n, struct err *e);
	void (*done)(void *arg, const uint8_t *reply, size_t n, const struct err *e /* NULL: fine */);
};
int sess_join(struct sess_mgr *m, const struct token *t, const struct sess_join_ops *ops, void *arg,
	      struct err *e);
void sess_join_answer(struct sess_mgr *m, uint64_t ticket, const void *reply, size_t n);

/* ---- what there is, for status, peers and metrics ---- */
enum sess_state { SESS_IDLE, SESS_DIALING, SESS_HANDSHAKE, SESS_UP, SESS_FAILED };

struct sess_peer_info {
	struct spiffe_id id;
	uint8_t addr[16];
	enum sess_state state;
	uint32_t session, link; /* 0: none */
	struct endpoint path;
	unsigned frame_max;
	uint64_t rtt_ns, handshake_ns; /* 0: unknown */
	uint64_t up_since, epoch;      /* ns; number of this key epoch, from 1 */
	const char *group, *signature,
		*cipher; /* as negotiated: "X25519MLKEM768", "mldsa65", data suite's name */
	int64_t svid_not_after;
	char last_error[200];
};
/* Calls fn for each known peer. */
void sess_peers(struct sess_mgr *m, void (*fn)(void *arg, const struct sess_peer_info *p), void *arg);

/* Who was refused last and why, for doctor and status: "<address> <identity>: <sentence>"; "" if nobody.
 * Borrowed. */
const char *sess_last_refusal(const struct sess_mgr *m);

struct sess_counters { /* session/counters.def: X(field, metric, help) */
#define X(name, metric, help) uint64_t name;
#include "session/counters.def"
#undef X
};
void sess_counters(struct sess_mgr *m, struct sess_counters *ret);

#endif
