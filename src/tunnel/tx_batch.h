/* SPDX-License-Identifier: Apache-2.0 */
/* Sending: frames for one path with one size and one traffic class leave in one system call (UDP_SEGMENT). */
#ifndef X0_TUNNEL_TX_BATCH_H
#define X0_TUNNEL_TX_BATCH_H

#include "tunnel/table.h"

enum { TXB_MSGS = 8, TXB_BYTES = 65536, TXB_SEND_MAX = 65000, TXB_FRAMES = 64 };

struct txb_msg {
	const struct path *path;
	uint32_t link, lane;
	size_t used;
	uint16_t size; /* of every frame but the last */
	uint16_t nframes;
	uint8_t tos;
	bool closed;  /* its last frame was shorter */
	uint8_t *buf; /* TXB_BYTES */
};

struct txb {
	int fd;
	bool gso;
	unsigned n;
	struct dp_counters *count; /* the worker's */
	void (*too_big)(void *arg, uint32_t link);
	void *arg;
	struct txb_msg msg[TXB_MSGS];
};

/* buf: TXB_MSGS * TXB_BYTES, borrowed. */
void txb_init(struct txb *b, int fd, uint8_t *buf, struct dp_counters *count,
	      void (*too_big)(void *, uint32_t), void *arg);
/*
 * Room for a frame of n bytes (at most FRAME_MAX) that will be sent; may send what waits. The path must stay
 * until txb_flush(). Frames of one lane leave in the order of these calls. Lanes do not share a message: the
 * receiver steers a whole batch by its first frame.
 */
uint8_t *txb_room(struct txb *b, const struct path *path, uint32_t link, uint32_t lane, uint8_t tos,
		  size_t n);
void txb_flush(struct txb *b);

static inline void count_add(uint64_t *c, uint64_t n)
{
	/* One writer, readers elsewhere: a relaxed load and store is a plain add. */
	__atomic_store_n(c, __atomic_load_n(c, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

#endif
