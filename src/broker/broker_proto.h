/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages between x0 and x0-broker, one per SOCK_SEQPACKET datagram, in host byte order: both ends are
 * on one host.
 *
 * The broker speaks first: a reply with seq 0 says whether the connection is taken. Then each request gets
 * one reply with its seq and op. Every struct has a fixed size without padding; any other length is
 * malformed.
 */
#ifndef X0_BROKER_PROTO_H
#define X0_BROKER_PROTO_H

#include "broker/broker.h"

enum broker_op {
	BROKER_OP_TUN = 1,
	BROKER_OP_MTU = 2,
	BROKER_OP_ADDR = 3,
	BROKER_OP_ROUTE = 4,
	BROKER_OP_UDP = 5,
	BROKER_OP_DOWN = 6,
};

enum {
	BROKER_MTU_MIN = 1280, /* what IPv6 asks of every link */
	BROKER_MTU_MAX = 65535,
	BROKER_PORT_MIN = 1024,
	BROKER_REQ_MAX = 64, /* no request is longer */
};

struct broker_head {
	uint16_t proto; /* BROKER_PROTO */
	uint16_t op;	/* enum broker_op */
	uint32_t seq;	/* never 0 in requests */
};

struct broker_req_tun {
	struct broker_head head;
	char name[16]; /* NUL-terminated, and zero behind it */
	uint32_t queues, mtu;
};

struct broker_req_mtu {
	struct broker_head head;
	uint32_t mtu;
};

/* ADDR and ROUTE */
struct broker_req_prefix {
	struct broker_head head;
	uint8_t addr[16];
	uint8_t len, add, unreachable, zero;
};

struct broker_req_udp {
	struct broker_head head;
	uint8_t addr[16];
	uint32_t scope_id;
	uint16_t port, nworkers;
};

union broker_req {
	struct broker_head head; /* all of DOWN */
	struct broker_req_tun tun;
	struct broker_req_mtu mtu;
	struct broker_req_prefix prefix;
	struct broker_req_udp udp;
};

enum { BROKER_REPLY_USO = 1, BROKER_REPLY_KEPT = 2, BROKER_REPLY_INET6 = 4 };

struct broker_reply {
	struct broker_head head;
	int32_t code;	  /* 0 or ERR_* */
	uint32_t nfds;	  /* descriptors that come with it (SCM_RIGHTS) */
	uint32_t ifindex; /* TUN */
	uint32_t flags;	  /* BROKER_REPLY_* */
	char what[320], todo[200];
};

_Static_assert(sizeof(struct broker_head) == 8, "padding");
_Static_assert(sizeof(struct broker_req_tun) == 32, "padding");
_Static_assert(sizeof(struct broker_req_mtu) == 12, "padding");
_Static_assert(sizeof(struct broker_req_prefix) == 28, "padding");
_Static_assert(sizeof(struct broker_req_udp) == 32, "padding");
_Static_assert(sizeof(union broker_req) <= BROKER_REQ_MAX, "BROKER_REQ_MAX");
_Static_assert(sizeof(struct broker_reply) == 24 + 520, "padding");

/*
 * Checks one datagram against every rule that needs no kernel: version, op, exact length, names, ranges,
 * limits. `prefix` is what interface names must start with. ERR_PARSE: malformed, the peer is not one of ours
 * and should be dropped; ERR_DENIED, ERR_LIMIT: well formed, and refused.
 */
int broker_parse(const void *p, size_t n, const char *prefix, union broker_req *ret, struct err *e);
/* Bytes of the request with this op, 0 if there is none. */
size_t broker_req_len(unsigned op);

#endif
