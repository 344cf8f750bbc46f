/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: two network namespaces joined by a veth pair, a data path with fixed keys in each.
 */
#ifndef X0_TUNNEL_DP_LAB_H
#define X0_TUNNEL_DP_LAB_H

#include "tunnel/tunnel.h"

enum { LAB_WORKERS = 4 };

struct lab {
	char name[2][16]; /* of the namespaces */
	int home, ns[2];
	unsigned nworkers;
	bool v6; /* underlay */
	unsigned frame_max, tun_mtu, veth_mtu;
	uint8_t addr[2][16]; /* overlay */
};

struct lab_end {
	int tun[LAB_WORKERS], udp[LAB_WORKERS];
	bool uso;
	struct dp *dp;
	struct loop *loop;
};

/* Fields nworkers, v6, frame_max, tun_mtu, veth_mtu (0: defaults) are the caller's. False: not possible here
 * (no root). */
bool lab_up(struct lab *l);
void lab_down(struct lab *l);
void lab_enter(const struct lab *l, int end); /* this thread moves into the namespace; -1: back home */
/* Device, sockets and data path of one end, with a link and a session to the other. ops may be NULL. */
void lab_end_up(const struct lab *l, int end, struct lab_end *ret, const struct dp_ops *ops, void *arg,
		bool session);
/* Adds the session `generation` (keys differ) on link 1, to receive with. */
void lab_session_add(const struct lab *l, int end, struct lab_end *e, uint32_t generation);
void lab_end_down(struct lab_end *e);
struct endpoint lab_underlay(const struct lab *l, int end);
/* Runs a shell command; dies if it fails. */
void lab_sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
