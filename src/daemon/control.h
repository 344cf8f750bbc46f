/* SPDX-License-Identifier: Apache-2.0 */
/* The main process from inside: its state, which belongs to the control thread, and the parts that share it.
 */
#ifndef X0_DAEMON_CONTROL_H
#define X0_DAEMON_CONTROL_H

#include "broker/broker.h"
#include "daemon/api.h"
#include "daemon/config.h"
#include "daemon/doctor.h"
#include "daemon/issuer.h"
#include "daemon/metrics.h"
#include "session/session.h"
#include "tunnel/tunnel.h"

/* Messages between daemons on the control session, beside those of wire.h. */
enum {
	MSG_CLOCK = 64,	      /* sender's monotonic time u64 */
	MSG_CLOCK_REPLY = 65, /* the same echoed, replier's wall clock in ns u64 */
};

enum { SEEDS_MAX = 64, PENDING_RENEW = 256 };

/* A key epoch with a peer: one data-path session and one data-path link of the same number. */
struct epoch {
	uint32_t session, link; /* handles of the session manager; the data path knows both by `session` */
	struct spiffe_id id;
	bool used;
};

struct seed {
	struct spiffe_id id;
	unsigned n;
	struct endpoint ep[TOKEN_ADDRS];
};

struct control {
	const char *config_path;
	bool config_must_exist;
	struct config *cfg;    /* owned; in force */
	struct config *before; /* owned; what POST /config replaced and waits for confirmation */
	struct loop *loop;     /* owned */
	struct rng rng;
	uint64_t started;	      /* ns, monotonic */
	int64_t wall_offset;	      /* ns: wall time = loop time + offset */
	struct node_identity *self;   /* owned */
	struct broker *broker;	      /* owned */
	struct broker_tun tun;	      /* its fds are owned */
	struct broker_udp udp;	      /* its fds are owned */
	struct sess_mgr *sess;	      /* owned */
	struct dp *dp;		      /* owned */
	struct issuer_client *issuer; /* owned; NULL: this node is no issuer */
	struct api *api;	      /* owned */
	int signal_fd, moved_fd, landlock_abi;
	bool sandboxed, ready, stopping;
	struct loop_io udp_io, signal_io, moved_io;
	struct loop_timer confirm_timer, clock_timer, stop_timer, moved_timer;
	uint64_t moved_at;   /* ns, of the loop; 0: never */
	struct epoch *epoch; /* owned */
	size_t nepochs, epoch_cap;
	struct seed seed[SEEDS_MAX];
	unsigned nseeds;
	struct histogram handshakes;
	struct renewal *renewal; /* owned; control_id.c */
	bool clock_known;
	int64_t clock_off_ns; /* the peer whose clock differs most: its wall clock minus ours */
	char clock_peer[NODE_NAME_MAX + 1];
	uint64_t clock_at;
	uint8_t *rxbuf; /* owned; 64 KiB */
};

int64_t control_wall(const struct control *c); /* Unix seconds */

void control_stop_soon(struct control *c); /* ends the loop once answers under way are out */

/* ---- modules.c: each step of the start; stopped in reverse ---- */
struct module {
	const char *name, *what;
	int (*start)(struct control *c, struct err *e);
	void (*stop)(struct control *c); /* NULL: nothing to do; called only if start succeeded */
};
extern const struct module modules[];
extern const size_t nmodules;

/* ---- control.c: sessions and data path ---- */
int control_sessions_start(struct control *c, struct err *e);
void control_sessions_stop(struct control *c);
int control_path_start(struct control *c, struct err *e);
void control_path_stop(struct control *c);
struct epoch *control_epoch(struct control *c, uint32_t session);

/* ---- control_moved.c: changes of our own addresses ---- */
int control_moved_start(struct control *c, struct err *e);
void control_moved_stop(struct control *c);

/* ---- control_peers.c: which peers there are ---- */
int control_peers_start(struct control *c, struct err *e);
/* Makes the session manager's peers those of `now` (and seeds); `was` may be NULL. */
void control_peers_set(struct control *c, const struct config *was, const struct config *now);
/* "node-b", or a SPIFFE ID of our trust domain. */
int control_peer_id(struct control *c, const char *name, struct spiffe_id *ret, struct err *e);
/* ERR_NOT_FOUND; *ret is a copy. */
int control_peer_find(struct control *c, const struct spiffe_id *id, struct sess_peer_info *ret);
void control_clock_message(struct control *c, uint32_t session, const struct svid_info *peer, uint16_t type,
			   const uint8_t *p, size_t n);

/* ---- control_id.c: our SVID, the bundle, joins ---- */
int control_id_start(struct control *c, struct err *e);
void control_id_stop(struct control *c);
void control_bundle(struct control *c, struct bundle *theirs); /* takes it */
/* Reply of the issuer that holds an encoded bundle: adopts it. */
int control_bundle_bytes(struct control *c, const uint8_t *p, size_t n, struct err *e);
void control_join(struct control *c, uint64_t ticket, const uint8_t exporter[32], const uint8_t *p, size_t n);
void control_renew_message(struct control *c, uint32_t session, const struct svid_info *peer, uint16_t type,
			   const uint8_t *p, size_t n);
void control_renew_session_up(struct control *c, uint32_t session, const struct spiffe_id *id);
/* Renews now; fn once with the outcome (code 0 or ERR_*, sentence). ERR_CONFLICT: a renewal is under way. */
int control_renew(struct control *c, void (*fn)(void *arg, const struct err *e), void *arg, struct err *e);
/* Borrowed; the bundle's root that signed its link SVID, or NULL. */
X509 *control_own_root(const struct node_identity *self);

/* ---- control_conf.c: reload, apply, confirm ---- */
int control_apply(struct control *c, const char *text, size_t n, uint64_t confirm_ns, struct err *e);
int control_confirm(struct control *c, struct err *e);
void control_reload(struct control *c); /* SIGHUP */
void control_conf_init(struct control *c);

/* ---- doctor_daemon.c: what only the daemon knows ---- */
void doctor_daemon(struct doctor *d, struct control *c);

/* ---- api_routes.c: runs on the control thread; answers now or later with api_reply() ---- */
void api_route(struct control *c, struct api_request *r);

#endif
