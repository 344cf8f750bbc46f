/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests and fuzzing, without privileges: two data paths turned by hand, UDP over loopback with the test
 * in the middle, Unix socket pairs in place of TUN devices.
 */
#ifndef X0_TUNNEL_PIPE_LAB_H
#define X0_TUNNEL_PIPE_LAB_H

#include "tunnel/dp.h"

enum { SIDE_A, SIDE_B, SIDES };

struct seen {
	unsigned need_session, path_seen, spent, too_big;
	uint8_t dst[16];
	struct endpoint from;
};

struct pipe_lab {
	struct loop *loop; /* virtual */
	struct dp *dp[SIDES];
	int udp[SIDES], tun[SIDES] /* the data path's end */, app[SIDES] /* the test's end */;
	int middle; /* what both send to; the test forwards */
	struct endpoint at[SIDES], middle_at;
	uint8_t addr[SIDES][16];
	struct seen seen[SIDES];
	unsigned frame_max;
	enum aead_suite suite;
};

void pipe_up(struct pipe_lab *p, unsigned frame_max);
void pipe_down(struct pipe_lab *p);
/* Session `id` (keys and indices follow from it) at one side, or both; used at once. */
void pipe_session(struct pipe_lab *p, int side, uint32_t id);
uint32_t pipe_index(int receiver, uint32_t id);
/* One turn of a side's worker and its events. */
void pipe_turn(struct pipe_lab *p, int side);
/* The test's application writes a packet (v may be NULL: none) and reads one: length without vnet header, -1:
 * none. */
void pipe_write(struct pipe_lab *p, int side, const struct virtio_net_hdr *v, const void *pkt, size_t n);
ssize_t pipe_read(struct pipe_lab *p, int side, struct virtio_net_hdr *v, void *to, size_t cap);
/* A frame from whoever sent to the middle, -1: none; and one to a side. */
ssize_t pipe_catch(struct pipe_lab *p, void *to, size_t cap);
void pipe_throw(struct pipe_lab *p, int side, const void *frame, size_t n);
/* Everything the other side sent goes to `side`; returns the number of frames. */
unsigned pipe_forward(struct pipe_lab *p, int side);
/* A frame as `from` would seal it. */
size_t pipe_frame(struct pipe_lab *p, int from, uint32_t id, uint64_t counter, const void *plain, size_t n,
		  uint8_t *to);
struct dp_counters pipe_counters(struct pipe_lab *p, int side);

/* Packets. payload bytes are i * 7 + seed. flags 0: UDP. Checksums complete; returns the length. */
struct pkt_spec {
	bool v6;
	const uint8_t *src, *dst; /* 16 bytes, IPv4 mapped */
	uint16_t sport, dport;
	uint8_t flags; /* TCP; 0: UDP */
	uint8_t tos;
	uint32_t seq;
	size_t payload;
	uint8_t seed;
	bool mss; /* with an MSS option of 1460 */
};
size_t pkt_make(const struct pkt_spec *s, uint8_t *to);
/* Makes the checksum partial and fills the vnet header; gso_size 0: none. */
void pkt_offload(uint8_t *p, size_t n, uint16_t gso_size, struct virtio_net_hdr *v);

#endif
