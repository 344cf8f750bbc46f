/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: broker
 *
 * x0-broker is the only process with rights: a small ELF of its own (libc, libmnl) that makes the TUN device,
 * its addresses and routes, and the UDP sockets, and hands the fds to the main process over a SOCK_SEQPACKET
 * Unix socket. It keeps them while main restarts, so that a crash loses neither the device nor the port, and
 * the unreachable route for the overlay prefix keeps overlay traffic from leaving in clear.
 *
 * Requests are fixed-size structs, length-checked, parameters only. The broker refuses: an interface it did
 * not make, an address or route outside the overlay ranges, a default route, more queues or sockets than its
 * limits, a second client while one is connected, a peer whose uid (SO_PEERCRED) is not the one it was
 * started for.
 *
 * This header is the client's side and the messages both ends share.
 */
#ifndef X0_BROKER_BROKER_H
#define X0_BROKER_BROKER_H

#include "base/base.h"

enum { BROKER_PROTO = 1, BROKER_FDS = 32, BROKER_QUEUES = 16 };

struct broker; /* a connection; blocking calls of at most 2 s each, used at start and by the control thread */

int broker_connect(const char *path, struct broker **ret, struct err *e);
struct broker *broker_close(struct broker *b);

struct broker_tun {
	char name[16]; /* the device that was made or kept, for example "x0" */
	uint32_t ifindex;
	unsigned nfds;
	/* Owned by the caller; IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, vnet_hdr of 10 bytes,
	 * non-blocking. */
	int fd[BROKER_QUEUES];
	bool uso;  /* the kernel takes TUN_F_USO4/6 */
	bool kept; /* it was there from an earlier main */
};

/*
 * Makes (or hands over, without what was queued) the TUN device with `queues` queues; sets the MTU
 * (1280-65535) and brings it up. Another name or number of queues: the old device goes, also for whoever
 * still has its descriptors, and with it its addresses and routes. Without `kept` there are none: add them.
 * ERR_DENIED: there is such an interface, and the broker did not make it.
 */
int broker_tun(struct broker *b, const char *name, unsigned queues, unsigned mtu, struct broker_tun *ret,
	       struct err *e);
int broker_mtu(struct broker *b, unsigned mtu, struct err *e);
/* Overlay address on the TUN: inside fd00::/8 with /128, or IPv4 in 10/8, 172.16/12, 192.168/16, 100.64/10
 * with /32. */
int broker_addr(struct broker *b, const struct ip_prefix *addr, bool add, struct err *e);
/* Route to the overlay: fd00::/8 with length >= 40, private IPv4 with length >= 16. `unreachable` ones get
 * metric 4278198272 (above any other) and stay until broker_down(). */
int broker_route(struct broker *b, const struct ip_prefix *dst, bool unreachable, bool add, struct err *e);

struct broker_udp {
	unsigned nfds; /* nworkers + 1: [0..nworkers) get DATA frames of their lane, [nworkers] all else */
	int fd[BROKER_QUEUES + 1];
	int family; /* AF_INET6 dual-stack, or AF_INET if the host has no IPv6 */
	bool kept;
};

/*
 * One reuseport group on one port (0.0.0.0/[::] or one address): nworkers + 1 sockets, steering by classic
 * BPF as wire.h says, 8 MiB buffers (SO_RCVBUFFORCE), UDP_GRO on all, IP_RECVTOS / IPV6_RECVTCLASS, path MTU
 * discovery set to probe (never fragment), non-blocking. Port >= 1024. ERR_CONFLICT: somebody has the port;
 * that is also the caller, who must close its old sockets before it asks for another number of workers, or
 * they would be steered wrongly. With `kept` what was queued is gone. A UDP_GRO batch is steered by its first
 * datagram: others in it may name another worker.
 */
int broker_udp(struct broker *b, const struct endpoint *bind, unsigned nworkers, struct broker_udp *ret,
	       struct err *e);
/* Closes everything the broker keeps: device, routes, sockets. `x0 down`. */
int broker_down(struct broker *b, struct err *e);

#endif
