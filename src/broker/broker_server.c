/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: server of x0-broker
 *
 * One thread, one client, one request at a time. What was made stays when the client goes; the next one gets
 * it.
 *
 * Invariants: a byte is read only from a peer whose uid the kernel vouches for (SO_PEERCRED); descriptors
 * sent to us are never taken (no room for control data); a malformed request ends the connection, a refused
 * one does not; nothing a client does or leaves undone blocks the broker (sends never wait). One broker per
 * network namespace: it regards all unreachable routes with its protocol number as its own.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker_int.h"

struct server {
	const struct broker_options *o;
	struct kept kept;
	int client; /* -1: none */
};

/* ---- listening ---- */

/* Removes a socket that nobody answers on; anything else at that path is not ours to remove. */
static int clear_path(const struct sockaddr_un *sa, struct err *e)
{
	struct stat st;
	int fd, rc;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot look at %s", sa->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "%s exists and is not a socket", sa->sun_path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	rc = connect(fd, (const struct sockaddr *)sa, sizeof(*sa));
	/* EAGAIN: it has more connections waiting than it takes, so somebody listens. */
	rc = rc == 0 || errno == EAGAIN;
	close(fd);
	if (rc)
		return err_set(e, ERR_CONFLICT, "another x0-broker answers at %s", sa->sun_path);
	return unlink(sa->sun_path) < 0 ? err_sys(e, "cannot remove the old %s", sa->sun_path) : 0;
}

int broker_listen(const struct broker_options *o, int *ret_fd, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	mode_t mask;
	int fd, rc;

	if (!o->socket[0] || strlen(o->socket) >= sizeof(sa.sun_path))
		return err_set(e, ERR_USAGE, "a socket path has 1-%zu bytes", sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, o->socket, strlen(o->socket));
	rc = clear_path(&sa, e);
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	umask(mask);
	if (rc < 0) {
		err_sys(e, "cannot bind %s", o->socket);
		if (errno == ENOENT)
			err_todo(e, "make its directory first");
		close(fd);
		return ERR_SYS;
	}
	if ((o->uid != geteuid() && lchown(o->socket, o->uid, (gid_t)-1) < 0) || listen(fd, 4) < 0) {
		rc = err_sys(e, "cannot listen on %s for uid %u", o->socket, o->uid);
		unlink(o->socket);
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

/* ---- replies ---- */

/* Sends one reply; false if the client does not take it. */
static bool answer(int fd, struct broker_reply *r, const struct err *e, const int *fds, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(BROKER_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec io = { .iov_base = r, .iov_len = sizeof(*r) };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };

	r->head.proto = BROKER_PROTO;
	r->code = e->code;
	memcpy(r->what, e->what, sizeof(r->what));
	memcpy(r->todo, e->todo, sizeof(r->todo));
	if (!e->code && nfds) {
		struct cmsghdr *c;

		r->nfds = nfds;
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*r);
}

static void client_drop(struct server *s, const char *why)
{
	log_info("broker", "client gone", LS("why", why));
	close(s->client);
	s->client = -1;
}

/* ---- requests ---- */

static int run_prefix(struct server *s, const struct broker_req_prefix *q, struct err *e)
{
	struct ip_prefix p = { .len = q->len };
	bool tun = q->head.op == BROKER_OP_ADDR || !q->unreachable;

	memcpy(p.addr, q->addr, sizeof(p.addr));
	if (tun && !s->kept.tun.ifindex)
		return err_set(e, ERR_CONFLICT, "there is no TUN device yet");
	if (q->head.op == BROKER_OP_ADDR)
		return rtnl_addr(s->kept.rtnl, s->kept.tun.ifindex, &p, q->add, e);
	return rtnl_route(s->kept.rtnl, tun ? s->kept.tun.ifindex : 0, &p, q->add, e);
}

static int run_down(struct server *s, struct err *e)
{
	int rc;

	kept_tun_close(&s->kept);
	kept_udp_close(&s->kept);
	rc = rtnl_unreachable(s->kept.rtnl, true, e);
	return rc < 0 ? rc : 0;
}

/* Does it and answers; false if the connection is of no use any more. */
static bool run(struct server *s, const union broker_req *q)
{
	struct broker_reply r = { .head = { .op = q->head.op, .seq = q->head.seq } };
	struct kept *k = &s->kept;
	struct err e = { 0 };
	const int *fds = NULL;
	unsigned nfds = 0;
	bool kept = false;
	int rc;

	switch (q->head.op) {
	case BROKER_OP_TUN:
		rc = kept_tun(k, &q->tun, &kept, &e);
		fds = k->tun.fd;
		nfds = k->tun.n;
		r.ifindex = k->tun.ifindex;
		r.flags = k->tun.uso ? BROKER_REPLY_USO : 0;
		break;
	case BROKER_OP_MTU:
		rc = k->tun.ifindex ? rtnl_link_up(k->rtnl, k->tun.ifindex, q->mtu.mtu, &e)
				    : err_set(&e, ERR_CONFLICT, "there is no TUN device yet");
		break;
	case BROKER_OP_ADDR:
	case BROKER_OP_ROUTE:
		rc = run_prefix(s, &q->prefix, &e);
		break;
	case BROKER_OP_UDP:
		rc = kept_udp(k, &q->udp, &kept, &e);
		fds = k->udp.fd;
		nfds = k->udp.n;
		r.flags = k->udp.family == AF_INET6 ? BROKER_REPLY_INET6 : 0;
		break;
	default:
		rc = run_down(s, &e);
	}
	r.flags |= kept ? BROKER_REPLY_KEPT : 0;
	if (rc) {
		/* A refusal that carried flags or numbers would not be one. */
		r = (struct broker_reply){ .head = r.head };
		log_warn("broker", "request failed", LU("op", q->head.op), LS("why", e.what));
	} else {
		log_info("broker", "request done", LU("op", q->head.op), LB("kept", kept));
	}
	return answer(s->client, &r, &e, fds, nfds);
}

static void client_ready(struct server *s)
{
	uint8_t buf[BROKER_REQ_MAX + 1]; /* what is longer is malformed, and cut */
	struct iovec io = { .iov_base = buf, .iov_len = sizeof(buf) };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	struct broker_reply r = { 0 };
	struct err e = { 0 };
	union broker_req q;
	ssize_t n = recvmsg(s->client, &m, MSG_DONTWAIT);
	int rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_drop(s, "closed");
		return;
	}
	if (m.msg_flags & MSG_CTRUNC)
		rc = err_set(&e, ERR_PARSE, "a request with descriptors or credentials");
	else
		rc = broker_parse(buf, (size_t)n, s->o->prefix, &q, &e);
	if (rc == 0) {
		if (!run(s, &q))
			client_drop(s, "takes no replies");
		return;
	}
	log_warn("broker", "request refused", LS("why", e.what));
	/* Op and number as far as they were there, so that the client can tell what was refused. */
	if (n >= (ssize_t)sizeof(r.head))
		memcpy(&r.head, buf, sizeof(r.head));
	if (!answer(s->client, &r, &e, NULL, 0) || rc == ERR_PARSE)
		client_drop(s, e.what);
}

/* ---- connections ---- */

static bool client_dead(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

static int may_connect(struct server *s, int fd, struct err *e)
{
	struct ucred c;
	socklen_t n = sizeof(c);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) < 0)
		return err_sys(e, "cannot tell who connects");
	if (c.uid != s->o->uid) {
		err_set(e, ERR_DENIED, "this broker serves uid %u, not uid %u", s->o->uid, c.uid);
		return err_todo(e, "run as that user, or start x0-broker with --user %u", c.uid);
	}
	if (s->client >= 0 && client_dead(s->client))
		client_drop(s, "replaced");
	if (s->client >= 0) {
		err_set(e, ERR_CONFLICT, "another x0 is connected to this broker");
		return err_todo(e, "stop it first: x0 down");
	}
	return 0;
}

static void accept_ready(struct server *s, int listen_fd)
{
	struct broker_reply r = { 0 };
	struct err e = { 0 };
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (may_connect(s, fd, &e)) {
		log_warn("broker", "connection refused", LS("why", e.what));
		answer(fd, &r, &e, NULL, 0);
		close(fd);
	} else if (answer(fd, &r, &e, NULL, 0)) {
		s->client = fd;
		log_info("broker", "client connected");
	} else {
		close(fd);
	}
}

static int loop(struct server *s, int listen_fd, int stop_fd, struct err *e)
{
	for (;;) {
		struct pollfd p[] = {
			{ .fd = stop_fd, .events = POLLIN },
			{ .fd = s->client, .events = POLLIN }, /* -1 is skipped */
			{ .fd = listen_fd, .events = POLLIN },
		};

		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, "poll");
		}
		if (p[0].revents)
			return 0;
		if (p[2].revents & (POLLERR | POLLNVAL))
			return err_set(e, ERR_SYS, "the listening socket failed");
		if (s->client >= 0 && p[1].revents)
			client_ready(s);
		if (p[2].revents)
			accept_ready(s, listen_fd);
	}
}

int broker_serve(const struct broker_options *o, int listen_fd, int stop_fd, struct err *e)
{
	struct server s = { .o = o, .client = -1 };
	int rc = rtnl_open(&s.kept.rtnl, e), n;

	if (rc)
		return rc;
	n = rtnl_unreachable(s.kept.rtnl, false, e);
	if (n < 0) {
		rc = n;
	} else {
		/* They closed the way out while no broker ran; the next main adds the same ones, or ends them
		 * by DOWN. */
		if (n > 0)
			log_info("broker", "unreachable routes taken over", LI("routes", n));
		rc = loop(&s, listen_fd, stop_fd, e);
	}
	if (s.client >= 0)
		client_drop(&s, "the broker ends");
	kept_tun_close(&s.kept);
	kept_udp_close(&s.kept);
	rtnl_close(s.kept.rtnl);
	return rc;
}
