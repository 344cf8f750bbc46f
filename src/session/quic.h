/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QUIC connections without socket or clock: datagrams in, datagrams out, stream 0 as a byte pipe. ngtcp2 over
 * the SSL objects of tls.h. ngtcp2 sees fixed pseudo-addresses: QUIC lets only the client move, here either
 * end does, so the real path is the manager's. A connection that dies is freed by quic_reap() only, never
 * under its caller's feet.
 */
#ifndef X0_SESSION_QUIC_H
#define X0_SESSION_QUIC_H

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_ossl.h>

#include "base/base.h"
#include "session/tab.h"
#include "session/tls.h"
#include "wire/wire.h"

enum { QUIC_CID = 8, QUIC_ROOM = HOP_LEN, QUIC_UNACKED_MAX = 4 << 20 };

struct quic_conn;

struct quic_ops {
	/* A datagram to send; QUIC_ROOM writable bytes lie before p for a frame header. */
	void (*send)(void *arg, struct quic_conn *c, uint8_t *p, size_t n);
	void (*up)(void *arg, struct quic_conn *c); /* handshake completed on this side; c->ssl is there */
	/* A message of stream 0; non-zero stops delivery (the connection was closed meanwhile). */
	int (*message)(void *arg, struct quic_conn *c, uint16_t type, const uint8_t *p, size_t n);
	void (*closed)(void *arg, struct quic_conn *c,
		       const struct err *why); /* died by itself; not after quic_close() */
};

struct quic {
	struct loop *loop;
	struct rng *rng;
	const struct quic_ops *ops;
	void *arg;
	struct sipkey cid_key;
	struct tab cids;
	struct quic_conn *dirty, *dead, *all;
	struct loop_timer flush;
};

struct quic_cid {
	struct tab_node node;
	ngtcp2_cid id;
	struct quic_conn *conn;
	struct quic_cid *next; /* of the same connection */
};

struct quic_chunk { /* bytes of stream 0 not yet acknowledged; never moves */
	struct quic_chunk *next;
	uint64_t off; /* in the stream */
	size_t n, cap;
	uint8_t p[];
};

struct quic_conn {
	struct quic *q;
	ngtcp2_conn *nc;	      /* owned */
	SSL *ssl;		      /* owned; NULL after quic_drop_tls() */
	ngtcp2_crypto_ossl_ctx *octx; /* owned */
	ngtcp2_crypto_conn_ref ref;
	bool server, complete, announced, is_dead, is_dirty, delivering;
	struct quic_cid *cids; /* owned */
	struct loop_timer timer;
	int64_t stream;			    /* -1: not open yet */
	struct quic_chunk *tx, *tx_tail;    /* owned */
	uint64_t tx_end, tx_next, tx_acked; /* stream offsets */
	uint8_t *rx; /* owned; received in this datagram, delivered after ngtcp2 returned */
	size_t rx_n, rx_cap;
	struct ctl_reader reader;
	uint64_t rx_packets;	   /* authenticated packets received: a datagram that raises it is fresh */
	const struct tls_who *who; /* borrowed */
	void *user;
	struct quic_conn *dirty_next, *next, **prev;
};

int quic_init(struct quic *q, struct loop *loop, struct rng *rng, const struct quic_ops *ops, void *arg);
void quic_fini(struct quic *q); /* frees what is left, without a word to the peers */

/* Takes ownership of `ssl` in any case. The cookie travels as the Initial's token: it lifts the amplification
 * limit. */
int quic_dial(struct quic *q, SSL *ssl, const struct tls_who *who, uint64_t cookie, void *user,
	      struct quic_conn **ret);
/* Whether p begins a connection we could accept: a version 1 Initial that carries the cookie. */
bool quic_is_initial(const uint8_t *p, size_t n, uint64_t cookie);
int quic_accept(struct quic *q, SSL *ssl, const struct tls_who *who, const uint8_t *p, size_t n,
		uint64_t cookie, void *user, struct quic_conn **ret);
struct quic_conn *quic_find(struct quic *q, const uint8_t *p,
			    size_t n); /* by destination connection ID, or NULL */
/* One datagram for c; true if it held at least one authenticated, new packet. ops may be called. */
bool quic_input(struct quic_conn *c, const uint8_t *p, size_t n);
void quic_wake(struct quic_conn *c); /* something to write: at the end of this burst */
void quic_flush(struct quic *q);     /* writes now */
void quic_reap(struct quic *q);	     /* frees the dead: only where none of them is on the stack */

/* Appends a message to stream 0. 0, ERR_LIMIT (more than 4 MiB unacknowledged), ERR_NOMEM. */
int quic_send(struct quic_conn *c, uint16_t type, const void *p, size_t n);
/* Frees the TLS object; streams and key updates go on without. Not from inside ngtcp2 (ops are called
 * outside). */
void quic_drop_tls(struct quic_conn *c);
/* Sends one CONNECTION_CLOSE (code 0: none at all), forgets the connection. */
void quic_close(struct quic_conn *c, uint64_t code, bool tell);

/* quic_stream.c, for quic.c */
int quic_rx_append(struct quic_conn *c, const uint8_t *p, size_t n);
void quic_rx_deliver(struct quic_conn *c);
void quic_tx_acked(struct quic_conn *c, uint64_t upto);
size_t quic_tx_vec(struct quic_conn *c, ngtcp2_vec *v, size_t max);
void quic_stream_fini(struct quic_conn *c);

#endif
