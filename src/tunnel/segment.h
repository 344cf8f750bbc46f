/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting: one read of the TUN device, possibly a TCP or UDP super-packet, becomes valid inner packets. */
#ifndef X0_TUNNEL_SEGMENT_H
#define X0_TUNNEL_SEGMENT_H

#include <linux/virtio_net.h>

#include "tunnel/inner.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif
enum { VNET_LEN = 10 };

/*
 * A packet being cut. Each piece is built in place: its header is written over the end of the piece before,
 * which the caller has consumed by then. Pieces therefore are contiguous, and nothing but headers is copied.
 */
struct cut {
	uint8_t *pkt;
	size_t n;     /* whole super-packet */
	size_t head;  /* IP + transport header */
	size_t off;   /* next payload byte */
	size_t size;  /* payload bytes of a piece, the last may have fewer; 0: the packet goes as it is */
	bool partial; /* pieces have partial checksums */
	bool done;
	const struct inner *in;
	uint16_t id, pseudo; /* IPv4 identification of the next piece; pseudo-header sum without length */
	uint32_t seq;
	uint8_t flags; /* TCP flags of the super-packet */
	uint8_t hdr[120];
};

/*
 * Checks the vnet header against the packet. `in` is the packet's parse and must outlive the cut. max_piece:
 * largest inner packet wanted; TCP pieces are made smaller to fit it, UDP datagrams cannot be. ERR_PARSE: not
 * a packet that this header can describe.
 */
int cut_init(struct cut *c, const struct virtio_net_hdr *v, uint8_t *pkt, size_t n, const struct inner *in,
	     size_t max_piece);
/* Number of pieces, 1 if it goes whole. */
static inline unsigned cut_pieces(const struct cut *c)
{
	return c->size ? (unsigned)((c->n - c->head + c->size - 1) / c->size) : 1;
}
/* The next piece and its length, or NULL. Valid until the next call; the caller may change it. */
uint8_t *cut_next(struct cut *c, size_t *ret_n);

#endif
