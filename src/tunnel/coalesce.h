/* SPDX-License-Identifier: Apache-2.0 */
/* Merging: opened packets of one flow become one TUN write again, gathered from the receive buffers without a
 * copy. */
#ifndef X0_TUNNEL_COALESCE_H
#define X0_TUNNEL_COALESCE_H

#include <sys/uio.h>

#include "tunnel/segment.h"

enum { CO_FLOWS = 8, CO_PIECES = 64 };

struct co_flow {
	uint8_t *pkt; /* first packet; its header becomes the super-packet's */
	size_t n;     /* bytes so far, header included */
	size_t size;  /* payload of every piece but the last */
	unsigned npieces;
	uint32_t next_seq;
	uint16_t next_id;
	bool partial;
	struct inner in;
	struct iovec iov[CO_PIECES];
};

struct coalesce {
	/* Writes one vnet header and packet; `packets`: how many inner packets are in it. */
	void (*write)(void *arg, const struct iovec *iov, unsigned niov, unsigned packets);
	void *arg;
	bool uso;	 /* the device takes UDP super-packets */
	unsigned nflows; /* open ones; flow[slot[0]] is the oldest */
	uint8_t slot[CO_FLOWS];
	struct co_flow flow[CO_FLOWS];
};

void co_init(struct coalesce *c, bool uso, void (*write)(void *, const struct iovec *, unsigned, unsigned),
	     void *arg);
/*
 * Takes a packet: VNET_LEN writable bytes lie before it, and both stay until co_flush(). partial: its
 * transport checksum is (in->head is then not 0). Packets of a flow are written in the order they came.
 */
void co_add(struct coalesce *c, uint8_t *pkt, size_t n, const struct inner *in, bool partial);
void co_flush(struct coalesce *c);

#endif
