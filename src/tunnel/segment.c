/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: segmentation
 *
 * What a network card does with TSO and USO, done before sealing, so that each frame carries a whole packet
 * and one lost frame costs one packet. TCP: sequence numbers advance, FIN and PSH stay on the last piece, CWR
 * on the first (RFC 3168 6.1.2); IPv4 identifications count up. Checksums stay partial: the AEAD protects the
 * bytes.
 */
#include "tunnel/segment.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static int cut_gso(struct cut *c, const struct virtio_net_hdr *v, size_t max_piece)
{
	const struct inner *in = c->in;
	uint8_t type = v->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	uint8_t want = type == VIRTIO_NET_HDR_GSO_UDP_L4 ? PROTO_UDP : PROTO_TCP;

	if (type != VIRTIO_NET_HDR_GSO_UDP_L4 &&
	    type != (in->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4))
		return ERR_PARSE;
	if (!in->head || in->proto != want || v->gso_size == 0 || !(v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return ERR_PARSE;
	c->head = in->head;
	c->size = v->gso_size;
	if (want == PROTO_TCP && c->head < max_piece && c->size > max_piece - c->head)
		c->size = max_piece - c->head;
	if (c->n - c->head <= c->size) {
		c->size = 0; /* one piece: nothing to cut */
		return 0;
	}
	memcpy(c->hdr, c->pkt, c->head);
	c->off = c->head;
	c->id = in->v6 ? 0 : get_u16(c->pkt + 4);
	c->seq = get_u32(c->pkt + in->l4 + 4);
	c->flags = c->pkt[in->l4 + 13];
	c->pseudo = inner_pseudo(c->pkt, in->v6, in->proto, 0);
	return 0;
}

int cut_init(struct cut *c, const struct virtio_net_hdr *v, uint8_t *pkt, size_t n, const struct inner *in,
	     size_t max_piece)
{
	c->pkt = pkt;
	c->n = n;
	c->in = in;
	c->size = 0;
	c->done = false;
	c->partial = v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (v->gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return cut_gso(c, v, max_piece);
	/* A partial checksum of anything but plain TCP or UDP (behind extension headers, say) is finished
	 * here. */
	if (c->partial &&
	    (!in->head || v->csum_start != in->l4 || in->l4 + v->csum_offset != inner_csum_at(in))) {
		c->partial = false;
		if (v->csum_start < in->l4) /* it would be written into the IP header */
			return ERR_PARSE;
		return inner_csum_finish(pkt, n, v->csum_start, v->csum_offset);
	}
	return 0;
}

static void piece_head(struct cut *c, uint8_t *p, size_t n, bool first, bool last)
{
	const struct inner *in = c->in;
	size_t l4_n = n - in->l4;
	uint8_t *l4 = p + in->l4;
	uint32_t sum = (uint32_t)c->pseudo + (uint32_t)l4_n;

	memcpy(p, c->hdr, c->head);
	if (in->v6) {
		put_u16(p + 4, (uint16_t)l4_n);
	} else {
		put_u16(p + 2, (uint16_t)n);
		put_u16(p + 4, c->id++);
		inner_v4_csum(p);
	}
	sum = (sum & 0xffff) + (sum >> 16);
	if (in->proto == PROTO_UDP) {
		put_u16(l4 + 4, (uint16_t)l4_n);
		put_u16(l4 + 6, (uint16_t)sum);
		return;
	}
	put_u32(l4 + 4, c->seq);
	l4[13] = (uint8_t)(c->flags & ~((last ? 0 : TCP_FIN | TCP_PSH) | (first ? 0 : TCP_CWR)));
	put_u16(l4 + 16, (uint16_t)sum);
	c->seq += (uint32_t)(n - c->head);
}

uint8_t *cut_next(struct cut *c, size_t *ret_n)
{
	size_t len;
	uint8_t *p;

	if (c->done)
		return NULL;
	if (!c->size) {
		c->done = true;
		*ret_n = c->n;
		return c->pkt;
	}
	len = c->n - c->off < c->size ? c->n - c->off : c->size;
	p = c->pkt + c->off - c->head;
	c->done = c->off + len == c->n;
	piece_head(c, p, c->head + len, c->off == c->head, c->done);
	c->off += len;
	*ret_n = c->head + len;
	return p;
}
