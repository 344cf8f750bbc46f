/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sending in batches
 *
 * A message collects frames of one lane, size and traffic class; the kernel cuts it (UDP_SEGMENT) at the last
 * moment, or the card does. A frame may only be added to the newest message of its lane: order inside a flow
 * is kept.
 *
 * A full socket buffer is back-pressure: wait briefly, the TUN queue holds what comes. A kernel or device
 * that cannot cut (EIO, EINVAL) gets single frames from then on.
 */
#include "tunnel/tx_batch.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
enum { WAIT_MS = 5, WAITS = 4, CTL_ROOM = 64 };

void txb_init(struct txb *b, int fd, uint8_t *buf, struct dp_counters *count,
	      void (*too_big)(void *, uint32_t), void *arg)
{
	*b = (struct txb){ .fd = fd, .gso = true, .count = count, .too_big = too_big, .arg = arg };
	for (unsigned i = 0; i < TXB_MSGS; i++)
		b->msg[i].buf = buf + (size_t)i * TXB_BYTES;
}

/* Traffic class and segment size as control messages. */
struct control {
	_Alignas(struct cmsghdr) uint8_t b[CTL_ROOM];
	size_t n;
};

static void control_add(struct control *c, int level, int type, const void *p, size_t n)
{
	struct cmsghdr h = { .cmsg_len = CMSG_LEN(n), .cmsg_level = level, .cmsg_type = type };

	memcpy(c->b + c->n, &h, sizeof(h));
	memcpy(c->b + c->n + CMSG_LEN(0), p, n);
	c->n += CMSG_SPACE(n);
}

static void message(const struct txb_msg *m, bool gso, struct msghdr *h, struct iovec *iov, struct control *c)
{
	memset(c, 0, sizeof(*c));
	if (m->tos) {
		int tos = m->tos;
		bool v4 = endpoint_is_v4(&m->path->to); /* on an IPv6 socket, too, IPv4 takes IP_TOS */

		control_add(c, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof(tos));
	}
	if (gso && m->nframes > 1)
		control_add(c, IPPROTO_UDP, UDP_SEGMENT, &m->size, sizeof(m->size));
	*iov = (struct iovec){ .iov_base = m->buf, .iov_len = m->used };
	*h = (struct msghdr){ .msg_name = (void *)(uintptr_t)&m->path->ss,
			      .msg_namelen = m->path->ss_len,
			      .msg_iov = iov,
			      .msg_iovlen = 1,
			      .msg_control = c->n ? c->b : NULL,
			      .msg_controllen = c->n };
}

/* True: try again. Counts what is lost otherwise. */
static bool may_retry(struct txb *b, const struct txb_msg *m, int error, unsigned frames, unsigned *tries)
{
	struct pollfd p = { .fd = b->fd, .events = POLLOUT };

	if (error == EINTR)
		return true;
	if ((error == EAGAIN || error == ENOBUFS) && (*tries)++ < WAITS) {
		poll(&p, 1, WAIT_MS);
		return true;
	}
	/* An asynchronous ICMP error of an earlier frame is reported once; the frame at hand was not sent. */
	if (error == ECONNREFUSED && (*tries)++ < WAITS)
		return true;
	if (error == EMSGSIZE)
		b->too_big(b->arg, m->link);
	count_add(&b->count->drop_send, frames);
	return false;
}

static void send_single(struct txb *b, const struct txb_msg *m)
{
	struct msghdr h;
	struct iovec iov;
	struct control c;
	unsigned tries = 0;

	message(m, false, &h, &iov, &c);
	for (size_t at = 0; at < m->used;) {
		iov.iov_base = m->buf + at;
		iov.iov_len = m->used - at < m->size ? m->used - at : m->size;
		count_add(&b->count->tx_batches, 1);
		if (sendmsg(b->fd, &h, 0) < 0 && may_retry(b, m, errno, 1, &tries))
			continue;
		at += m->size;
		tries = 0;
	}
}

/* Deals with the error of one message; afterwards it is sent, or lost and counted. */
static void send_one(struct txb *b, const struct txb_msg *m, int error)
{
	struct msghdr h;
	struct iovec iov;
	struct control c;
	unsigned tries = 0;

	for (;;) {
		if (m->nframes > 1 && (error == EIO || error == EINVAL)) {
			b->gso = b->gso && error != EIO;
			send_single(b, m);
			return;
		}
		if (!may_retry(b, m, error, m->nframes, &tries))
			return;
		message(m, true, &h, &iov, &c);
		count_add(&b->count->tx_batches, 1);
		if (sendmsg(b->fd, &h, 0) >= 0)
			return;
		error = errno;
	}
}

void txb_flush(struct txb *b)
{
	struct mmsghdr h[TXB_MSGS];
	struct iovec iov[TXB_MSGS];
	struct control c[TXB_MSGS];
	unsigned n = b->n, at = 0;

	if (!n)
		return;
	b->n = 0;
	if (!b->gso) {
		while (at < n)
			send_single(b, &b->msg[at++]);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		message(&b->msg[i], true, &h[i].msg_hdr, &iov[i], &c[i]);
	while (at < n) {
		int sent = n - at == 1 ? (sendmsg(b->fd, &h[at].msg_hdr, 0) < 0 ? -1 : 1)
				       : sendmmsg(b->fd, h + at, n - at, 0);

		count_add(&b->count->tx_batches, 1);
		if (sent > 0)
			at += (unsigned)sent;
		else
			send_one(b, &b->msg[at++], errno);
	}
}

static bool takes(const struct txb_msg *m, uint8_t tos, size_t n)
{
	return !m->closed && m->tos == tos && n <= m->size && m->nframes < TXB_FRAMES &&
	       m->used + n <= TXB_SEND_MAX;
}

uint8_t *txb_room(struct txb *b, const struct path *path, uint32_t link, uint32_t lane, uint8_t tos, size_t n)
{
	struct txb_msg *m = NULL;

	for (unsigned i = b->n; i-- > 0;) {
		if (b->msg[i].path == path && b->msg[i].lane == lane) {
			m = takes(&b->msg[i], tos, n) ? &b->msg[i] : NULL;
			break;
		}
	}
	if (!m) {
		if (b->n == TXB_MSGS || (b->n && b->msg[b->n - 1].used > TXB_SEND_MAX / 2))
			txb_flush(b);
		m = &b->msg[b->n++];
		m->path = path;
		m->link = link;
		m->lane = lane;
		m->tos = tos;
		m->size = (uint16_t)n;
		m->used = 0;
		m->nframes = 0;
	}
	m->closed = n < m->size;
	m->used += n;
	m->nframes++;
	return m->buf + m->used - n;
}
