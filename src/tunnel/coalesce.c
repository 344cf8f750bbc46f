/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: coalescing
 *
 * The rules of Linux' GRO (tcp_gro_receive, udp_gro_receive): pieces of one super-packet agree in every
 * header byte but length, identification, sequence number, checksum and PSH; all have the size of the first,
 * except that a shorter one or PSH ends it. SYN, FIN, RST and URG travel alone; CWR only begins. A checksum
 * that is not partial must be right before the packet is merged: merging would hide that it was wrong.
 */
#include "tunnel/coalesce.h"

#include <string.h>

#include "base/buf.h"

void co_init(struct coalesce *c, bool uso, void (*write)(void *, const struct iovec *, unsigned, unsigned),
	     void *arg)
{
	c->write = write;
	c->arg = arg;
	c->uso = uso;
	c->nflows = 0;
	for (unsigned i = 0; i < CO_FLOWS; i++)
		c->slot[i] = (uint8_t)i;
}

static void super_head(struct co_flow *f)
{
	const struct inner *in = &f->in;

	if (in->v6) {
		put_u16(f->pkt + 4, (uint16_t)(f->n - 40));
	} else {
		put_u16(f->pkt + 2, (uint16_t)f->n);
		inner_v4_csum(f->pkt);
	}
	if (in->proto == PROTO_UDP)
		put_u16(f->pkt + in->l4 + 4, (uint16_t)(f->n - in->l4));
}

static void emit(struct coalesce *c, struct co_flow *f)
{
	const struct inner *in = &f->in;
	struct virtio_net_hdr v = { 0 };

	if (f->npieces > 1) {
		super_head(f);
		v.gso_size = (uint16_t)f->size;
		v.hdr_len = in->head;
		v.gso_type = in->proto == PROTO_UDP ? VIRTIO_NET_HDR_GSO_UDP_L4
			     : in->v6		    ? VIRTIO_NET_HDR_GSO_TCPV6
						    : VIRTIO_NET_HDR_GSO_TCPV4;
		if (in->proto == PROTO_TCP && f->pkt[in->l4 + 13] & TCP_CWR)
			v.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	}
	if (f->npieces > 1 || f->partial) {
		v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		v.csum_start = in->l4;
		v.csum_offset = (uint16_t)(inner_csum_at(in) - in->l4);
		inner_csum_partial(f->pkt, f->n, in);
	}
	f->iov[0].iov_base = f->pkt - VNET_LEN;
	f->iov[0].iov_len += VNET_LEN;
	memcpy(f->pkt - VNET_LEN, &v, VNET_LEN);
	c->write(c->arg, f->iov, f->npieces, f->npieces);
}

/* Writes the flow at position i of the open ones and closes it. */
static void close_flow(struct coalesce *c, unsigned i)
{
	uint8_t slot = c->slot[i];

	emit(c, &c->flow[slot]);
	memmove(c->slot + i, c->slot + i + 1, c->nflows - i - 1);
	c->slot[--c->nflows] = slot;
}

void co_flush(struct coalesce *c)
{
	for (unsigned i = 0; i < c->nflows; i++)
		emit(c, &c->flow[c->slot[i]]);
	c->nflows = 0;
}

static bool same_flow(const struct co_flow *f, const uint8_t *p, const struct inner *in)
{
	return f->in.hash == in->hash && f->in.proto == in->proto && f->in.v6 == in->v6 &&
	       f->in.l4 == in->l4 && memcmp(f->pkt + f->in.l4, p + in->l4, 4) == 0 &&
	       memcmp(f->in.src, in->src, 16) == 0 && memcmp(f->in.dst, in->dst, 16) == 0;
}

/* May begin or join a super-packet at all. */
static bool mergeable(const struct coalesce *c, const uint8_t *p, size_t n, const struct inner *in,
		      bool partial)
{
	if (!in->head || n <= in->head || (!in->v6 && in->l4 != 20))
		return false;
	if (in->proto == PROTO_UDP
		    ? !c->uso
		    : (p[in->l4 + 13] & (TCP_SYN | TCP_FIN | TCP_RST | TCP_URG | TCP_ACK)) != TCP_ACK)
		return false;
	return partial || inner_csum_ok(p, n, in);
}

static bool joins_tcp(const struct co_flow *f, const uint8_t *p, const struct inner *in)
{
	const uint8_t *a = f->pkt + in->l4, *b = p + in->l4;

	return get_u32(b + 4) == f->next_seq && memcmp(a + 8, b + 8, 4) == 0 && a[12] == b[12] &&
	       !(b[13] & TCP_CWR) && ((a[13] ^ b[13]) & ~(TCP_PSH | TCP_CWR)) == 0 &&
	       memcmp(a + 14, b + 14, 2) == 0 && memcmp(a + 20, b + 20, in->head - in->l4 - 20u) == 0;
}

static bool joins(const struct co_flow *f, const uint8_t *p, size_t n, const struct inner *in)
{
	size_t len = n - in->head;

	if (f->in.head != in->head || len > f->size || f->npieces == CO_PIECES || f->n + len > UINT16_MAX)
		return false;
	if (in->v6) {
		if (memcmp(f->pkt, p, 4) != 0 || f->pkt[7] != p[7] || f->n + len > UINT16_MAX - 40)
			return false;
	} else if (f->in.tos != in->tos || memcmp(f->pkt + 6, p + 6, 3) != 0 ||
		   (get_u16(p + 4) != f->next_id && !(p[6] & 0x40))) {
		return false;
	}
	return in->proto == PROTO_UDP || joins_tcp(f, p, in);
}

static void append(struct co_flow *f, uint8_t *p, size_t n, const struct inner *in)
{
	size_t len = n - in->head;

	f->iov[f->npieces++] = (struct iovec){ .iov_base = p + in->head, .iov_len = len };
	f->n += len;
	f->next_seq += (uint32_t)len;
	f->next_id++;
	if (in->proto == PROTO_TCP)
		f->pkt[in->l4 + 13] |= p[in->l4 + 13] & TCP_PSH;
}

static struct co_flow *begin(struct coalesce *c, uint8_t *p, size_t n, const struct inner *in, bool partial)
{
	struct co_flow *f;

	if (c->nflows == CO_FLOWS)
		close_flow(c, 0);
	f = &c->flow[c->slot[c->nflows++]];
	f->pkt = p;
	f->n = n;
	f->in = *in;
	f->npieces = 1;
	f->partial = partial;
	f->iov[0].iov_len = n;
	if (in->head) {
		f->size = n - in->head;
		f->next_id = (uint16_t)(get_u16(p + 4) + 1);
		f->next_seq = get_u32(p + in->l4 + 4) + (uint32_t)f->size;
	}
	return f;
}

void co_add(struct coalesce *c, uint8_t *pkt, size_t n, const struct inner *in, bool partial)
{
	bool merge = mergeable(c, pkt, n, in, partial);
	unsigned i = c->nflows;

	if (!in->head)
		co_flush(c); /* without ports it may belong to any of them */
	else
		for (i = 0; i < c->nflows && !same_flow(&c->flow[c->slot[i]], pkt, in);)
			i++;
	if (in->head && i < c->nflows) {
		struct co_flow *f = &c->flow[c->slot[i]];

		if (merge && joins(f, pkt, n, in)) {
			append(f, pkt, n, in);
			if (n - in->head < f->size || (in->proto == PROTO_TCP && pkt[in->l4 + 13] & TCP_PSH))
				close_flow(c, i);
			return;
		}
		close_flow(c, i);
	}
	begin(c, pkt, n, in, partial);
	if (!merge || (in->proto == PROTO_TCP && pkt[in->l4 + 13] & TCP_PSH))
		close_flow(c, c->nflows - 1);
}
