/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the way of a packet
 *
 * Sending, pipeline_tx(): one packet or super-packet at a time from the TUN queue
 *	inner_parse()       lengths, addresses, ports                                    inner.c
 *	table_dst()         whose address it is, or firstq_add(): wait for a session     table.c, firstq.c
 *	inner_mss_clamp()   on SYN
 *	cut_init()          checks the vnet header; how many pieces                      segment.c
 *	take_counters()     one atomic add for all of them                               tx.c
 *	cut_next()          the next whole packet, built in place                        segment.c
 *	seal()              hop header, AEAD from the TUN buffer into the batch, hop tag tx.c
 *	txb_flush()         UDP_SEGMENT: one system call for up to 64 frames             tx_batch.c
 *
 * Receiving, pipeline_rx(): several datagrams, each of up to 64 frames (UDP_GRO)
 *	link_of()           by link index                                                rx.c
 *	hop_check()         one SipHash; strangers end here                              wire/
 *	table_lane()        by session index; it names this worker                       table.c
 *	replay_ok()         not seen, inside the window                                  replay.c
 *	aead_open()         in place                                                     crypto/
 *	replay_take()       only now something changes
 *	check_path()        did the neighbour move?                                      rx.c
 *	split_add()         parts of a split packet wait for each other                  split.c
 *	inner_parse(), source_ok(), is_self(), inner_ecn_in(), inner_mss_clamp()         rx.c, inner.c
 *	co_add()            joins the super-packet of its flow                           coalesce.c
 *	tun_write()         one write for up to 64 packets, gathered from where they lie
 *
 * Invariants: no lock and no allocation on the way (but the first frame of a lane makes its AEAD context,
 * packets that wait for a session are copied, and so are frames the kernel gave to the wrong worker:
 * pipeline_handed()); a lane's receive state has one writer; nothing changes before the AEAD said yes.
 */
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tunnel/dp.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
/* One turn's share of each direction: bounds latency of the other and of snapshots. */
enum { TX_READS = 128, TX_BYTES = 256 * 1024 };

unsigned pipeline_tx(struct worker *w)
{
	unsigned reads = 0;
	size_t bytes = 0;

	while (reads < TX_READS && bytes < TX_BYTES) {
		ssize_t n = read(w->tun, w->tun_buf, TUN_BYTES);
		struct virtio_net_hdr v;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < VNET_LEN)
			break;
		memcpy(&v, w->tun_buf, VNET_LEN);
		tx_packet(w, &v, w->tun_buf + VNET_LEN, (size_t)n - VNET_LEN, false);
		bytes += (size_t)n;
		reads++;
	}
	txb_flush(&w->txb);
	return reads;
}

/* Packets that waited for a session, handed over by the control thread. */
unsigned pipeline_inbox(struct worker *w)
{
	struct firstq_pkt *list = atomic_exchange_explicit(&w->inbox, NULL, memory_order_acquire),
			  *in_order = NULL;
	unsigned n = 0;

	while (list) {
		struct firstq_pkt *p = list;

		list = p->next;
		p->next = in_order;
		in_order = p;
	}
	for (struct firstq_pkt *p = in_order; p; p = p->next, n++) {
		struct virtio_net_hdr v;

		memcpy(&v, p->data, VNET_LEN);
		tx_packet(w, &v, p->data + VNET_LEN, p->n - VNET_LEN, p->refuse);
	}
	if (n)
		txb_flush(&w->txb);
	firstq_list_free(in_order);
	return n;
}

/* Frames of our lanes that came to another worker's socket. */
unsigned pipeline_handed(struct worker *w)
{
	struct handover *list = atomic_exchange_explicit(&w->handed, NULL, memory_order_acquire),
			*in_order = NULL;
	unsigned n = 0;

	while (list) {
		struct handover *h = list;

		list = h->next;
		h->next = in_order;
		in_order = h;
	}
	for (struct handover *h = in_order; h; h = h->next, n++)
		rx_datagram(w, h->frame, h->n, h->n, h->tos, &h->from);
	co_flush(&w->co);
	while (in_order) {
		struct handover *h = in_order;

		in_order = h->next;
		free(h);
	}
	atomic_fetch_sub_explicit(&w->nhanded, n, memory_order_relaxed);
	return n;
}

static void read_control(struct msghdr *h, size_t *ret_frame, uint8_t *ret_tos)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		int value = 0;

		/* IP_TOS comes as one byte, the others as an int. */
		memcpy(&value, CMSG_DATA(c), c->cmsg_len == CMSG_LEN(1) ? 1 : sizeof(value));
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO && value > 0)
			*ret_frame = (size_t)value;
		else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
			 (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS))
			*ret_tos = (uint8_t)value;
	}
}

unsigned pipeline_rx(struct worker *w)
{
	struct mmsghdr m[RX_MSGS];
	struct iovec iov[RX_MSGS];
	int n;

	for (unsigned i = 0; i < RX_MSGS; i++) {
		iov[i] = (struct iovec){ .iov_base = w->rx_buf + (size_t)i * RX_BYTES, .iov_len = RX_BYTES };
		m[i].msg_hdr = (struct msghdr){ .msg_name = &w->rx_from[i],
						.msg_namelen = sizeof(w->rx_from[i]),
						.msg_iov = &iov[i],
						.msg_iovlen = 1,
						.msg_control = w->rx_ctl[i],
						.msg_controllen = RX_CTL };
	}
	n = recvmmsg(w->udp, m, RX_MSGS, MSG_DONTWAIT, NULL);
	if (n <= 0)
		return 0;
	count_add(&w->count.rx_batches, 1);
	for (int i = 0; i < n; i++) {
		size_t frame = RX_BYTES;
		uint8_t tos = 0;

		read_control(&m[i].msg_hdr, &frame, &tos);
		rx_datagram(w, iov[i].iov_base, m[i].msg_len, frame, tos, &w->rx_from[i]);
	}
	co_flush(&w->co);
	return (unsigned)n;
}

void tun_write(void *worker, const struct iovec *iov, unsigned niov, unsigned packets)
{
	struct worker *w = worker;
	ssize_t n;

	do
		n = niov == 1 ? write(w->tun, iov->iov_base, iov->iov_len) : writev(w->tun, iov, (int)niov);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		count_add(&w->count.drop_tun, packets);
}
