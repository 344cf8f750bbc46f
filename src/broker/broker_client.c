/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: client of x0-broker
 *
 * Invariants: a call takes at most CALL_MS; no more than BROKER_QUEUES + 1 descriptors are ever accepted, all
 * close-on-exec, and none leaks on any error; the reply is checked as if it came from a stranger, so that two
 * releases that disagree fail with a sentence. After a transport error the connection is dead: broker_close()
 * and connect again.
 */
#include "broker/broker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "broker/broker_proto.h"

enum { CALL_MS = 2000, DRAIN_MAX = 16384 };

struct broker {
	int fd;
	uint32_t seq;
};

struct fds {
	int fd[BROKER_FDS];
	unsigned n;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fds_close(struct fds *f)
{
	while (f->n)
		close(f->fd[--f->n]);
}

/* Takes every descriptor out of the control data, so that those beyond what was asked for can be closed. */
static void fds_take(struct fds *f, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (f->n < BROKER_FDS)
				f->fd[f->n++] = fd;
			else
				close(fd);
		}
	}
}

static int gone(struct err *e)
{
	err_set(e, ERR_UNREACHABLE, "x0-broker closed the connection");
	return err_todo(e, "look at its log: journalctl -u x0-broker");
}

/* One datagram from the broker, before `deadline`. On error no descriptor is left open. */
static int receive(int fd, int64_t deadline, struct broker_reply *ret, struct fds *f, struct err *e)
{
	union {
		char buf[CMSG_SPACE(BROKER_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct broker_reply r;
	struct iovec io = { .iov_base = &r, .iov_len = sizeof(r) };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct pollfd pf = { .fd = fd, .events = POLLIN };
	bool reset = false;
	ssize_t n;

	for (;;) {
		int64_t left = deadline - now_ms();
		int rc = left > 0 ? poll(&pf, 1, (int)left) : 0;

		if (rc == 0) {
			err_set(e, ERR_TIMEOUT, "x0-broker did not answer within %d ms", CALL_MS);
			return err_todo(e, "look at its log: journalctl -u x0-broker");
		}
		n = rc < 0 ? -1 : recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (n >= 0)
			break;
		/* A refusal that the broker sent before it closed is still readable behind one ECONNRESET. */
		if (errno == ECONNRESET && !reset)
			reset = true;
		else if (errno == ECONNRESET)
			return gone(e);
		else if (errno != EINTR && errno != EAGAIN)
			return err_sys(e, "cannot read from x0-broker");
	}
	fds_take(f, &m);
	if (n == 0) {
		fds_close(f);
		return gone(e);
	}
	if (n != (ssize_t)sizeof(r) || m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
	    r.head.proto != BROKER_PROTO || r.nfds != f->n || (r.code && f->n) ||
	    (r.code && !strcmp(err_name(r.code), "unknown"))) {
		fds_close(f);
		err_set(e, ERR_PARSE,
			"x0-broker answered with a message that this release does not understand");
		return err_todo(e, "install x0 and x0-broker of one release");
	}
	r.what[sizeof(r.what) - 1] = r.todo[sizeof(r.todo) - 1] = 0;
	*ret = r;
	return 0;
}

static int refused(const struct broker_reply *r, struct err *e)
{
	err_set(e, r->code, "%s", r->what);
	if (r->todo[0])
		err_todo(e, "%s", r->todo);
	return r->code;
}

/* Sends the request and waits for its own reply; replies to earlier calls that timed out are dropped. */
static int call(struct broker *b, union broker_req *q, uint16_t op, unsigned want_fds,
		struct broker_reply *ret, struct fds *f, struct err *e)
{
	int64_t deadline = now_ms() + CALL_MS;
	size_t n = broker_req_len(op);
	struct broker_reply r = { 0 };
	int rc;

	if (++b->seq == 0)
		b->seq = 1;
	q->head = (struct broker_head){ .proto = BROKER_PROTO, .op = op, .seq = b->seq };
	/* A dead socket's last message says more than EPIPE: read on. */
	if (send(b->fd, q, n, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		return err_sys(e, "cannot write to x0-broker");
	for (;;) {
		rc = receive(b->fd, deadline, &r, f, e);
		if (rc)
			return rc;
		if (r.head.seq == b->seq && r.head.op == op)
			break;
		fds_close(f);
	}
	if (r.code)
		return refused(&r, e);
	if (f->n != want_fds) {
		fds_close(f);
		return err_set(e, ERR_PARSE, "x0-broker answered with %u descriptors instead of %u", r.nfds,
			       want_fds);
	}
	*ret = r;
	return 0;
}

static int dial(const char *path, int *ret, struct err *e)
{
	struct timeval tv = { .tv_sec = CALL_MS / 1000 };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, ERR_CONFIG, "the broker's socket path is longer than %zu bytes",
			       sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		*ret = fd;
		return 0;
	}
	err_set(e, ERR_UNREACHABLE, "cannot reach x0-broker at %s: %s", path, strerror(errno));
	err_todo(e, errno == EACCES ? "run as the user that x0-broker was started for"
				    : "start it: systemctl start x0-broker");
	close(fd);
	return ERR_UNREACHABLE;
}

int broker_connect(const char *path, struct broker **ret, struct err *e)
{
	struct broker_reply r = { 0 };
	struct fds f = { .n = 0 };
	struct broker *b;
	int fd = -1, rc;

	rc = dial(path, &fd, e);
	if (rc)
		return rc;
	rc = receive(fd, now_ms() + CALL_MS, &r, &f, e);
	fds_close(&f);
	if (!rc && r.code)
		rc = refused(&r, e);
	if (!rc && r.head.seq != 0)
		rc = err_set(e, ERR_PARSE, "x0-broker did not greet");
	b = rc ? NULL : malloc(sizeof(*b));
	if (!b) {
		close(fd);
		return rc ? rc : err_set(e, ERR_NOMEM, "no memory for the broker's connection");
	}
	*b = (struct broker){ .fd = fd };
	*ret = b;
	return 0;
}

struct broker *broker_close(struct broker *b)
{
	if (b) {
		close(b->fd);
		free(b);
	}
	return NULL;
}

/* What queued up while nobody read is stale: peers and applications have sent it again or given up. */
static void drain(int fd)
{
	char buf[64]; /* the rest of a datagram or packet is cut off and gone */

	for (int i = 0; i < DRAIN_MAX && (read(fd, buf, sizeof(buf)) >= 0 || errno == EINTR); i++)
		;
}

int broker_tun(struct broker *b, const char *name, unsigned queues, unsigned mtu, struct broker_tun *ret,
	       struct err *e)
{
	union broker_req q = { .tun = { .queues = queues, .mtu = mtu } };
	struct broker_reply r;
	struct fds f = { .n = 0 };
	size_t n = strlen(name);
	int rc;

	if (n >= sizeof(q.tun.name))
		return err_set(e, ERR_CONFIG, "the interface name %s is longer than %zu bytes", name,
			       sizeof(q.tun.name) - 1);
	if (queues < 1 || queues > BROKER_QUEUES)
		return err_set(e, ERR_LIMIT, "%u queues: 1-%d are possible", queues, BROKER_QUEUES);
	memcpy(q.tun.name, name, n);
	rc = call(b, &q, BROKER_OP_TUN, queues, &r, &f, e);
	if (rc)
		return rc;
	*ret = (struct broker_tun){
		.ifindex = r.ifindex,
		.nfds = f.n,
		.uso = r.flags & BROKER_REPLY_USO,
		.kept = r.flags & BROKER_REPLY_KEPT,
	};
	memcpy(ret->name, name, n);
	for (unsigned i = 0; i < f.n; i++) {
		ret->fd[i] = f.fd[i];
		if (ret->kept)
			drain(f.fd[i]);
	}
	return 0;
}

static int simple(struct broker *b, union broker_req *q, uint16_t op, struct err *e)
{
	struct broker_reply r;
	struct fds f = { .n = 0 };

	return call(b, q, op, 0, &r, &f, e);
}

int broker_mtu(struct broker *b, unsigned mtu, struct err *e)
{
	union broker_req q = { .head = { 0 } };

	q.mtu.mtu = mtu;
	return simple(b, &q, BROKER_OP_MTU, e);
}

int broker_addr(struct broker *b, const struct ip_prefix *addr, bool add, struct err *e)
{
	union broker_req q = { .prefix = { .len = addr->len, .add = add } };

	memcpy(q.prefix.addr, addr->addr, sizeof(q.prefix.addr));
	return simple(b, &q, BROKER_OP_ADDR, e);
}

int broker_route(struct broker *b, const struct ip_prefix *dst, bool unreachable, bool add, struct err *e)
{
	union broker_req q = { .prefix = { .len = dst->len, .add = add, .unreachable = unreachable } };

	memcpy(q.prefix.addr, dst->addr, sizeof(q.prefix.addr));
	return simple(b, &q, BROKER_OP_ROUTE, e);
}

int broker_udp(struct broker *b, const struct endpoint *bind, unsigned nworkers, struct broker_udp *ret,
	       struct err *e)
{
	union broker_req q = { .udp = { .scope_id = bind->scope_id, .port = bind->port } };
	struct broker_reply r;
	struct fds f = { .n = 0 };
	int rc;

	if (nworkers < 1 || nworkers > BROKER_QUEUES) /* before it is cut to 16 bits */
		return err_set(e, ERR_LIMIT, "%u workers: 1-%d are possible", nworkers, BROKER_QUEUES);
	q.udp.nworkers = (uint16_t)nworkers;
	memcpy(q.udp.addr, bind->addr, sizeof(q.udp.addr));
	rc = call(b, &q, BROKER_OP_UDP, nworkers + 1, &r, &f, e);
	if (rc)
		return rc;
	*ret = (struct broker_udp){
		.nfds = f.n,
		.family = r.flags & BROKER_REPLY_INET6 ? AF_INET6 : AF_INET,
		.kept = r.flags & BROKER_REPLY_KEPT,
	};
	for (unsigned i = 0; i < f.n; i++) {
		ret->fd[i] = f.fd[i];
		if (ret->kept)
			drain(f.fd[i]);
	}
	return 0;
}

int broker_down(struct broker *b, struct err *e)
{
	union broker_req q = { .head = { 0 } };

	return simple(b, &q, BROKER_OP_DOWN, e);
}
