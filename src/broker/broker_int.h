/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of x0-broker share. Not for x0 itself. */
#ifndef X0_BROKER_INT_H
#define X0_BROKER_INT_H

#include "broker/broker_proto.h"

/* ---- rtnetlink (broker_rtnl.c): one socket, blocking, each call is one exchange with the kernel ---- */

enum {
	RTPROT_X0 = 0x7a,	/* marks our routes in `ip route`; no other program may use it */
	RTNL_PREFIXES_MAX = 64, /* addresses, and routes, that one main may add */
};
#define UNREACHABLE_METRIC 4278198272u /* above all that a host uses, so any working route wins */

struct rtnl;

int rtnl_open(struct rtnl **ret, struct err *e);
struct rtnl *rtnl_close(struct rtnl *r);
int rtnl_link_up(struct rtnl *r, uint32_t ifindex, uint32_t mtu,
		 struct err *e);				    /* also if it is up: a new MTU */
int rtnl_link_del(struct rtnl *r, uint32_t ifindex, struct err *e); /* 0 also if it is gone already */
/* Adding what is there is 0, deleting what is not is ERR_NOT_FOUND. */
int rtnl_addr(struct rtnl *r, uint32_t ifindex, const struct ip_prefix *p, bool add, struct err *e);
/*
 * ifindex 0: an unreachable route with UNREACHABLE_METRIC. ERR_CONFLICT if the host has another route in its
 * place. All our routes carry RTPROT_X0, and only such are ever deleted.
 */
int rtnl_route(struct rtnl *r, uint32_t ifindex, const struct ip_prefix *dst, bool add, struct err *e);
/* Unreachable routes of ours, from this broker or one before it: deletes them if told to; returns their
 * number. */
int rtnl_unreachable(struct rtnl *r, bool del, struct err *e);

/* ---- what the broker keeps (broker_net.c, broker_udp.c) ---- */

struct kept {
	struct rtnl *rtnl;
	struct {
		char name[16];
		uint32_t ifindex; /* 0: there is none */
		unsigned n;
		int fd[BROKER_QUEUES];
		bool uso;
	} tun;
	struct {
		struct endpoint bind;
		int family; /* 0: there is none */
		unsigned n;
		int fd[BROKER_QUEUES + 1];
	} udp;
};

int kept_tun(struct kept *k, const struct broker_req_tun *q, bool *ret_kept, struct err *e);
int kept_udp(struct kept *k, const struct broker_req_udp *q, bool *ret_kept, struct err *e);
void kept_tun_close(struct kept *k); /* the device goes, also when a main still holds queues */
void kept_udp_close(struct kept *k);

/* ---- server (broker_server.c) ---- */

struct broker_options {
	const char *socket, *prefix; /* path; what interface names start with */
	uint32_t uid;		     /* the only one that may connect */
};

/* Makes the listening socket; it belongs to `uid`, mode 0600. ERR_CONFLICT if another broker answers there.
 */
int broker_listen(const struct broker_options *o, int *ret_fd, struct err *e);
/* Serves until `stop_fd` (a signalfd) is readable. Closes neither. Leaves unreachable routes where they are.
 */
int broker_serve(const struct broker_options *o, int listen_fd, int stop_fd, struct err *e);

/* Only CAP_NET_ADMIN is left, nothing can be gained by exec, nothing of the process can be read by others. */
int broker_harden(struct err *e);
int broker_run(int argc, char **argv); /* the program; returns its exit status */

#endif
