/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: control
 *
 * The control thread joins the session manager and the data path: keys and paths go one way, needs and
 * sightings the other. It owns both, the control socket and the broker's connection, and never waits for
 * anybody.
 *
 * Each key epoch becomes one data-path session and one data-path link, both numbered by the epoch's session
 * handle, so that frames of an old epoch are still received on its link index until its receive keys end.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "daemon/control.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { RX_BUF = 65536, RX_BURST = 64 };
#define UNREACHABLE_HOLD (2 * NS_PER_S)

int64_t control_wall(const struct control *c)
{
	return ((int64_t)loop_now(c->loop) + c->wall_offset) / (int64_t)NS_PER_S;
}

struct epoch *control_epoch(struct control *c, uint32_t session)
{
	for (size_t i = 0; i < c->nepochs; i++)
		if (c->epoch[i].session == session)
			return &c->epoch[i];
	return NULL;
}

/* ---- session manager -> data path ---- */

static void on_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	struct control *c = arg;
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(to, c->udp.family, &ss);

	/* What the socket refuses is a lost datagram: QUIC and the probes repeat it. */
	while (sendto(c->udp.fd[c->cfg->workers], p, n, MSG_DONTWAIT, (struct sockaddr *)&ss, len) < 0 &&
	       errno == EINTR)
		;
}

static uint32_t on_index_new(void *arg, unsigned lane)
{
	struct control *c = arg;

	return dp_index_new(c->dp, lane, &c->rng);
}

static int epoch_add(struct control *c, const struct sess_keys *k, struct err *e)
{
	if (c->nepochs == c->epoch_cap) {
		size_t cap = c->epoch_cap ? c->epoch_cap * 2 : 16;
		struct epoch *grown = realloc(c->epoch, cap * sizeof(*grown));

		if (!grown)
			return err_set(e, ERR_NOMEM, "no memory for a session");
		c->epoch = grown;
		c->epoch_cap = cap;
	}
	c->epoch[c->nepochs++] = (struct epoch){ .session = k->session, .link = k->link, .id = k->peer->id };
	return 0;
}

static void epoch_del(struct control *c, uint32_t session)
{
	struct epoch *ep = control_epoch(c, session);

	if (ep)
		*ep = c->epoch[--c->nepochs];
}

static int on_keys(void *arg, struct sess_keys *k, struct err *e)
{
	struct control *c = arg;
	struct dp_link l = { .id = k->session,
			     .rx_index = k->link_rx_index,
			     .tx_index = k->link_tx_index,
			     .rx_key = k->link_rx_key,
			     .tx_key = k->link_tx_key,
			     .peer_label = overlay_label(k->peer->addr),
			     .to = k->path,
			     .frame_max = k->frame_max };
	struct dp_session *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, ERR_NOMEM, "no memory for a session");
	s->id = s->link = k->session;
	memcpy(s->peer, k->peer->addr, 16);
	s->rx_suite = k->rx_suite;
	s->tx_suite = k->tx_suite;
	s->nrx = k->nrx;
	s->ntx = k->ntx;
	for (unsigned i = 0; i < k->nrx; i++) {
		s->rx[i].index = k->rx[i].index;
		memcpy(s->rx[i].key, k->rx[i].key, AEAD_KEY);
		memcpy(s->rx[i].iv, k->rx[i].iv, AEAD_IV);
	}
	for (unsigned i = 0; i < k->ntx; i++) {
		s->tx[i].index = k->tx[i].index;
		memcpy(s->tx[i].key, k->tx[i].key, AEAD_KEY);
		memcpy(s->tx[i].iv, k->tx[i].iv, AEAD_IV);
	}
	rc = epoch_add(c, k, e);
	if (rc == 0) {
		rc = dp_link_add(c->dp, &l, e);
		if (rc == 0) {
			rc = dp_session_add(c->dp, s, e);
			if (rc < 0)
				dp_link_remove(c->dp, k->session);
		}
		if (rc < 0)
			epoch_del(c, k->session);
	}
	secret_wipe(s, sizeof(*s));
	free(s);
	secret_wipe(&l, sizeof(l));
	return rc;
}

static void send_clock(struct control *c, uint32_t session)
{
	uint8_t p[8];

	put_u64(p, loop_now_fresh(c->loop));
	sess_send(c->sess, session, MSG_CLOCK, p, sizeof(p));
}

static void on_use(void *arg, uint32_t session)
{
	struct control *c = arg;
	struct epoch *ep = control_epoch(c, session);
	struct sess_peer_info info;

	dp_session_use(c->dp, session);
	if (!ep)
		return;
	ep->used = true;
	send_clock(c, session);
	control_renew_session_up(c, session, &ep->id);
	if (control_peer_find(c, &ep->id, &info) == 0) {
		double ms = (double)info.handshake_ns / 1e6;

		if (info.handshake_ns)
			histogram_add(&c->handshakes, ms / 1e3);
		if (info.epoch <= 1)
			log_info("session", "up", LS("peer", ep->id.uri), LF("handshake_ms", ms),
				 LS("group", info.group), LS("signature", info.signature),
				 LS("cipher", info.cipher));
	}
}

static void on_gone(void *arg, uint32_t session, enum sess_end why, const char *detail)
{
	static const char *const name[] = { "closed",  "rekeyed", "timeout", "expired",
					    "revoked", "refused", "spent" };
	struct control *c = arg;
	struct epoch *ep = control_epoch(c, session);

	dp_session_remove(c->dp, session);
	dp_link_remove(c->dp, session);
	if (why != SESS_REKEYED && ep)
		log_info("session", "ended", LS("peer", ep->id.uri), LS("why", name[why]),
			 LS("detail", detail ? detail : ""));
	epoch_del(c, session);
}

static void on_path(void *arg, uint32_t link, const struct endpoint *to, unsigned frame_max)
{
	struct control *c = arg;

	for (size_t i = 0; i < c->nepochs; i++)
		if (c->epoch[i].link == link)
			dp_link_path(c->dp, c->epoch[i].session, to, frame_max);
}

static void on_bundle(void *arg, struct bundle *newer)
{
	control_bundle(arg, newer);
}

static void on_message(void *arg, uint32_t session, const struct svid_info *peer, uint16_t type,
		       const uint8_t *p, size_t n)
{
	struct control *c = arg;

	if (type == CTL_RENEW || type == CTL_RENEWED)
		control_renew_message(c, session, peer, type, p, n);
	else if (type == MSG_CLOCK || type == MSG_CLOCK_REPLY)
		control_clock_message(c, session, peer, type, p, n);
}

static void on_unreachable(void *arg, const struct spiffe_id *peer, const char *why)
{
	struct control *c = arg;
	uint8_t addr[16];

	overlay_addr(peer, addr);
	dp_unreachable(c->dp, addr, UNREACHABLE_HOLD);
	log_info("session", "cannot reach peer", LS("peer", peer->uri), LS("why", why));
}

static void on_usage(void *arg, uint32_t session, uint64_t *ret_packets, uint64_t *ret_last_use,
		     uint64_t *ret_last_rx)
{
	struct control *c = arg;
	struct dp_session_stats st;

	*ret_packets = *ret_last_use = *ret_last_rx = 0;
	if (dp_session_stats(c->dp, session, &st) < 0)
		return;
	*ret_packets = st.tx_packets > st.rx_packets ? st.tx_packets : st.rx_packets;
	*ret_last_use = st.last_rx > st.last_tx ? st.last_rx : st.last_tx;
	*ret_last_rx = st.last_rx;
}

static void on_join(void *arg, uint64_t ticket, const struct endpoint *from, const uint8_t exporter[32],
		    const uint8_t *p, size_t n)
{
	(void)from;
	control_join(arg, ticket, exporter, p, n);
}

/* ---- data path -> session manager ---- */

static void on_need_session(void *arg, const uint8_t dst[16])
{
	struct control *c = arg;

	if (!c->sess || sess_want(c->sess, dst) < 0)
		dp_unreachable(c->dp, dst, UNREACHABLE_HOLD);
}

static void on_path_seen(void *arg, uint32_t link, const struct endpoint *from)
{
	struct control *c = arg;
	const struct epoch *ep = control_epoch(c, link);

	if (ep && c->sess)
		sess_path_seen(c->sess, ep->link, from);
}

static void on_session_spent(void *arg, uint32_t session)
{
	struct control *c = arg;

	if (c->sess)
		sess_spent(c->sess, session);
}

static void on_path_too_big(void *arg, uint32_t link)
{
	struct control *c = arg;
	const struct epoch *ep = control_epoch(c, link);

	if (ep && c->sess)
		sess_path_too_big(c->sess, ep->link);
}

static const struct dp_ops dp_ops = {
	.need_session = on_need_session,
	.path_seen = on_path_seen,
	.session_spent = on_session_spent,
	.path_too_big = on_path_too_big,
};

int control_path_start(struct control *c, struct err *e)
{
	struct dp_config cfg = {
		.nworkers = c->cfg->workers,
		.tun_fd = c->tun.fd,
		.udp_fd = c->udp.fd,
		.udp_family = c->udp.family,
		.tun_uso = c->tun.uso,
		.tun_mtu = c->cfg->tun_mtu,
		.control = c->loop,
		.ops = &dp_ops,
		.arg = c,
	};

	memcpy(cfg.self, c->self->addr, 16);
	return dp_new(&cfg, &c->dp, e);
}

void control_path_stop(struct control *c)
{
	c->dp = dp_free(c->dp);
	free(c->epoch);
	c->epoch = NULL;
	c->nepochs = c->epoch_cap = 0;
}

/* ---- the control socket ---- */

/* GRO may have joined datagrams of one sender: `seg` is their size. */
static void input(struct control *c, const struct endpoint *from, const uint8_t *p, size_t n, size_t seg)
{
	if (!seg)
		seg = n;
	while (n) {
		size_t k = n < seg ? n : seg;

		sess_input(c->sess, from, p, k);
		p += k;
		n -= k;
	}
}

static size_t gro_size(struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h))
		if (h->cmsg_level == IPPROTO_UDP && h->cmsg_type == UDP_GRO) {
			int v;

			memcpy(&v, CMSG_DATA(h), sizeof(v));
			return v > 0 ? (size_t)v : 0;
		}
	return 0;
}

static void on_udp(void *arg, int fd, unsigned events)
{
	struct control *c = arg;

	(void)events;
	for (unsigned i = 0; i < RX_BURST; i++) {
		struct sockaddr_storage ss;
		struct iovec iov = { c->rxbuf, RX_BUF };
		_Alignas(struct cmsghdr) char ctl[256];
		struct msghdr m = { .msg_name = &ss,
				    .msg_namelen = sizeof(ss),
				    .msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = ctl,
				    .msg_controllen = sizeof(ctl) };
		struct endpoint from;
		ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			continue; /* an ICMP error of some sender, or an empty datagram */
		endpoint_from_sockaddr(&from, (struct sockaddr *)&ss);
		input(c, &from, c->rxbuf, (size_t)n, gro_size(&m));
	}
}

int control_sessions_start(struct control *c, struct err *e)
{
	static const struct sess_ops issuer_ops = {
		.send = on_send,
		.index_new = on_index_new,
		.keys = on_keys,
		.use = on_use,
		.gone = on_gone,
		.path = on_path,
		.bundle = on_bundle,
		.message = on_message,
		.unreachable = on_unreachable,
		.usage = on_usage,
		.join = on_join,
	};
	static struct sess_ops ops;
	struct sess_config cfg = {
		.loop = c->loop,
		.rng = &c->rng,
		.self = c->self,
		.nlanes = c->cfg->workers,
		.suite = aead_best_suite(),
		.mtu = c->cfg->udp_payload,
		.wall_offset = c->wall_offset,
		.params = c->cfg->session,
		.join_root = c->issuer ? control_own_root(c->self) : NULL,
		.ops = &ops,
		.arg = c,
	};
	int rc;

	ops = issuer_ops;
	if (!c->issuer)
		ops.join = NULL;
	c->rxbuf = malloc(RX_BUF);
	if (!c->rxbuf)
		return err_set(e, ERR_NOMEM, "no memory for receiving");
	rc = sess_new(&cfg, &c->sess, e);
	rc = rc ? rc : loop_io_add(c->loop, &c->udp_io, c->udp.fd[c->cfg->workers], LOOP_READ, on_udp, c, e);
	if (rc < 0)
		control_sessions_stop(c);
	return rc;
}

void control_sessions_stop(struct control *c)
{
	struct sess_mgr *m = c->sess;

	loop_io_del(c->loop, &c->udp_io);
	sess_free(m);
	c->sess = NULL;
	free(c->rxbuf);
	c->rxbuf = NULL;
}
