/* SPDX-License-Identifier: Apache-2.0 */
/* Private to tunnel/: the data path's own state. */
#ifndef X0_TUNNEL_DP_H
#define X0_TUNNEL_DP_H

#include <pthread.h>

#include "tunnel/coalesce.h"
#include "tunnel/firstq.h"
#include "tunnel/table.h"
#include "tunnel/tx_batch.h"

enum { HANDED_MAX = 1024 };
enum { RX_MSGS = 16, RX_BYTES = 65536, RX_CTL = 128, TUN_BYTES = 65536 + 64, EVENTS = 64 };

/* What a worker tells the control thread. From a fixed pool: when it is empty the event is lost, and occurs
 * again. */
struct event {
	struct loop_task task;
	struct event_pool *pool;
	atomic_bool busy;
	enum event_kind { EV_NEED_SESSION, EV_PATH_SEEN, EV_SPENT, EV_TOO_BIG } kind;
	uint32_t id;
	uint8_t dst[16];
	struct endpoint from;
};

struct event_pool {
	struct dp *dp;	    /* the control thread's; NULL after dp_free() */
	atomic_uint posted; /* on their way; the last one frees an orphaned pool */
	struct event event[EVENTS];
};

/* A frame that the kernel gave to the wrong worker: it steers a batch (GRO) by the first frame of it. */
struct handover {
	struct handover *next;
	struct sockaddr_storage from;
	uint8_t tos;
	size_t n;
	uint8_t frame[];
};

struct worker {
	struct dp *dp;
	unsigned id;
	pthread_t thread;
	int tun, udp, wake; /* wake: eventfd, owned */
	uint64_t now;	    /* ns, read once per turn */
	uint64_t icmp_at;   /* ns: ICMP token bucket */
	unsigned icmp_tokens;
	uint64_t too_big_at;	   /* ns: last EV_TOO_BIG */
	const struct table *table; /* valid within one turn */
	uint8_t last_dst[16];	   /* one-entry cache of table_dst(), valid within one turn */
	struct sess *last_sess;
	struct dp_counters count;
	struct txb txb;
	struct coalesce co;
	uint8_t *bufs; /* owned, one mapping: receive, send and TUN buffers; untouched pages cost nothing */
	uint8_t *rx_buf, *tun_buf;
	struct sockaddr_storage rx_from[RX_MSGS];
	_Alignas(16) uint8_t rx_ctl[RX_MSGS][RX_CTL];
	_Atomic(struct firstq_pkt *) inbox; /* a reversed list from the control thread */
	_Atomic(struct handover *) handed;  /* the same from other workers */
	atomic_uint nhanded;
};

struct dp {
	struct dp_ops ops;
	void *arg;
	struct loop *control;
	struct loop_timer timer;
	unsigned nworkers;
	int udp_family;
	uint8_t self[16];
	struct ip_prefix self_also[DP_SELF_ALSO];
	unsigned nself_also;
	uint64_t self_label, seed;
	struct qsbr qsbr;
	_Atomic(struct table *) table;
	struct firstq firstq;
	atomic_bool stop;
	struct sess *sessions; /* owned list */
	struct link *links;    /* owned list */
	uint64_t orders;
	struct dp_counters gone; /* drops counted by the control thread */
	struct event_pool *events;
	struct worker *worker; /* owned [nworkers] */
	unsigned nstarted;
};

/* dp.c: dp_new() without starting the workers, for tests that turn them by hand. */
int dp_make(const struct dp_config *cfg, struct dp **ret, struct err *e);
/* Reclaims memory and ages the queue within that time. */
void dp_tick_within(struct dp *dp, uint64_t ns);

/* worker.c */
int worker_init(struct worker *w, struct dp *dp, unsigned id, const struct dp_config *cfg, struct err *e);
int worker_start(struct worker *w, struct err *e);
void worker_wake(struct worker *w);
void worker_fini(struct worker *w); /* after its thread ended */
/* One turn of both directions; returns the packets and frames taken, 0: nothing to do. */
unsigned worker_turn(struct worker *w);
/* Posts an event; false if the pool is empty. */
bool worker_event(struct worker *w, enum event_kind kind, uint32_t id, const uint8_t *dst,
		  const struct endpoint *from);

/* pipeline.c: each does a bounded amount and returns the number of packets or frames it took. */
unsigned pipeline_tx(struct worker *w);
unsigned pipeline_rx(struct worker *w);
unsigned pipeline_inbox(struct worker *w);
unsigned pipeline_handed(struct worker *w);
/* rx.c: one frame (or several of equal size) from one address. */
void rx_datagram(struct worker *w, uint8_t *p, size_t n, size_t frame, uint8_t tos,
		 const struct sockaddr_storage *from);
/* tx.c: one read of the TUN device. p: packet, with the vnet header in v. */
void tx_packet(struct worker *w, const struct virtio_net_hdr *v, uint8_t *p, size_t n, bool refuse);
/* Called by the coalescer. */
void tun_write(void *worker, const struct iovec *iov, unsigned niov, unsigned packets);

#endif
