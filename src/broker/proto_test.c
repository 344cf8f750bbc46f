/* SPDX-License-Identifier: Apache-2.0 */
/* The rules for requests, and the client against brokers that answer wrongly. Needs no rights. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker_proto.h"

#include <cmocka.h>

static struct broker_head head(uint16_t op)
{
	return (struct broker_head){ .proto = BROKER_PROTO, .op = op, .seq = 1 };
}

static int parse(const void *p, size_t n)
{
	union broker_req r, before;
	struct err e = { 0 };
	int rc;

	memset(&r, 0x5a, sizeof(r));
	before = r;
	rc = broker_parse(p, n, "x0", &r, &e);
	assert_int_equal(rc, e.code);
	if (rc) {
		assert_memory_equal(&r, &before, sizeof(r));
		assert_true(e.what[0]);
	} else {
		assert_memory_equal(&r, p, n);
	}
	return rc;
}

static void form(void **state)
{
	uint8_t buf[256] = { 0 };
	struct broker_req_mtu m = { head(BROKER_OP_MTU), 1400 };

	(void)state;
	assert_int_equal(parse(&m, sizeof(m)), 0);
	for (size_t n = 0; n < sizeof(buf); n++) {
		memcpy(buf, &m, sizeof(m));
		if (n != sizeof(m))
			assert_int_equal(parse(buf, n), ERR_PARSE);
	}
	for (unsigned op = 0; op < 300; op++) {
		struct broker_head h = head((uint16_t)op);

		memset(buf, 0, sizeof(buf));
		memcpy(buf, &h, sizeof(h));
		if (op < BROKER_OP_TUN || op > BROKER_OP_DOWN)
			for (size_t n = sizeof(h); n < 80; n++)
				assert_int_equal(parse(buf, n), ERR_PARSE);
	}
	m.head.proto = BROKER_PROTO + 1;
	assert_int_equal(parse(&m, sizeof(m)), ERR_PARSE);
	m.head.proto = 0;
	assert_int_equal(parse(&m, sizeof(m)), ERR_PARSE);
	m.head = head(BROKER_OP_MTU);
	m.head.seq = 0;
	assert_int_equal(parse(&m, sizeof(m)), ERR_PARSE);
	m.head = head(BROKER_OP_DOWN);
	assert_int_equal(parse(&m, sizeof(m.head)), 0);
	assert_int_equal(parse(&m, sizeof(m)), ERR_PARSE);
}

static int tun(const char *name, unsigned queues, unsigned mtu)
{
	struct broker_req_tun t = { .head = head(BROKER_OP_TUN), .queues = queues, .mtu = mtu };

	memcpy(t.name, name, strnlen(name, sizeof(t.name)));
	return parse(&t, sizeof(t));
}

static void names(void **state)
{
	struct broker_req_tun t = { .head = head(BROKER_OP_TUN), .name = "x0", .queues = 1, .mtu = 1400 };

	(void)state;
	assert_int_equal(tun("x0", 1, 1400), 0);
	assert_int_equal(tun("x0-lab_1", 1, 1400), 0);
	assert_int_equal(tun("x0aaaaaaaaaaaaa", 1, 1400), 0);
	assert_int_equal(tun("x0aaaaaaaaaaaaaa", 1, 1400), ERR_PARSE); /* 16: not terminated */
	assert_int_equal(tun("", 1, 1400), ERR_PARSE);
	assert_int_equal(tun("eth0", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("x", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("ax0", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("x0%d", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("x0/..", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("x0:1", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("x0 a", 1, 1400), ERR_DENIED);
	assert_int_equal(tun("X0", 1, 1400), ERR_DENIED);
	t.name[5] = 'z';
	assert_int_equal(parse(&t, sizeof(t)), ERR_PARSE);
}

static void numbers(void **state)
{
	struct broker_req_udp u = { .head = head(BROKER_OP_UDP), .port = 7430, .nworkers = 1 };
	struct broker_req_mtu m = { head(BROKER_OP_MTU), 1279 };

	(void)state;
	assert_int_equal(tun("x0", 0, 1400), ERR_LIMIT);
	assert_int_equal(tun("x0", BROKER_QUEUES, 1400), 0);
	assert_int_equal(tun("x0", BROKER_QUEUES + 1, 1400), ERR_LIMIT);
	assert_int_equal(tun("x0", UINT32_MAX, 1400), ERR_LIMIT);
	assert_int_equal(tun("x0", 1, 1279), ERR_DENIED);
	assert_int_equal(tun("x0", 1, 1280), 0);
	assert_int_equal(tun("x0", 1, 65535), 0);
	assert_int_equal(tun("x0", 1, 65536), ERR_DENIED);
	assert_int_equal(parse(&m, sizeof(m)), ERR_DENIED);

	assert_int_equal(parse(&u, sizeof(u)), 0);
	u.port = 1023;
	assert_int_equal(parse(&u, sizeof(u)), ERR_DENIED);
	u.port = 0;
	assert_int_equal(parse(&u, sizeof(u)), ERR_DENIED);
	u.port = 1024;
	assert_int_equal(parse(&u, sizeof(u)), 0);
	u.nworkers = 0;
	assert_int_equal(parse(&u, sizeof(u)), ERR_LIMIT);
	u.nworkers = BROKER_QUEUES + 1;
	assert_int_equal(parse(&u, sizeof(u)), ERR_LIMIT);
	u.nworkers = 1;
	u.addr[0] = 0xff;
	assert_int_equal(parse(&u, sizeof(u)), ERR_DENIED);
	memcpy(u.addr, (uint8_t[]){ [10] = 0xff, 0xff, 224, 0, 0, 1 }, 16);
	assert_int_equal(parse(&u, sizeof(u)), ERR_DENIED);
	u.addr[12] = 192;
	assert_int_equal(parse(&u, sizeof(u)), 0);
}

/* "unreachable" is tried too for routes: it is no way around. */
static int prefix(uint16_t op, const char *text, uint8_t len)
{
	struct broker_req_prefix r = { .head = head(op), .len = len, .add = 1 };
	struct endpoint ep;
	int rc;

	assert_int_equal(endpoint_parse(text, 1, &ep, NULL), 0);
	memcpy(r.addr, ep.addr, sizeof(r.addr));
	rc = parse(&r, sizeof(r));
	if (op == BROKER_OP_ROUTE) {
		r.unreachable = 1;
		assert_int_equal(parse(&r, sizeof(r)), rc);
	}
	r.add = 0;
	assert_int_equal(parse(&r, sizeof(r)), rc);
	return rc;
}

static void ranges(void **state)
{
	static const struct {
		uint16_t op;
		const char *addr;
		uint8_t len;
		int rc;
	} c[] = {
		{ BROKER_OP_ADDR, "[fd01::1]", 128, 0 },
		{ BROKER_OP_ADDR, "[fd01::1]", 127, ERR_DENIED },
		{ BROKER_OP_ADDR, "[fd01::]", 64, ERR_DENIED },
		{ BROKER_OP_ADDR, "[fc01::1]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "[2001:db8::1]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "[fe80::1]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "[ff02::1]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "[::1]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "[::]", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "10.1.2.3", 128, 0 },
		{ BROKER_OP_ADDR, "10.1.2.3", 127, ERR_DENIED },
		{ BROKER_OP_ADDR, "10.1.2.3", 32, ERR_DENIED },
		{ BROKER_OP_ADDR, "11.1.2.3", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "172.16.0.1", 128, 0 },
		{ BROKER_OP_ADDR, "172.31.255.1", 128, 0 },
		{ BROKER_OP_ADDR, "172.15.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "172.32.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "192.168.9.9", 128, 0 },
		{ BROKER_OP_ADDR, "192.169.9.9", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "100.64.0.1", 128, 0 },
		{ BROKER_OP_ADDR, "100.127.0.1", 128, 0 },
		{ BROKER_OP_ADDR, "100.63.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "100.128.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "127.0.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "169.254.1.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "224.0.0.1", 128, ERR_DENIED },
		{ BROKER_OP_ADDR, "255.255.255.255", 128, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[fd01:203:400::]", 40, 0 },
		{ BROKER_OP_ROUTE, "[fd01:203:400::]", 39, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[fd00::]", 8, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[fd01::1]", 64, ERR_DENIED }, /* host bits */
		{ BROKER_OP_ROUTE, "[fd01::1]", 128, 0 },
		{ BROKER_OP_ROUTE, "[::]", 0, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[::]", 1, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[2000::]", 64, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[fe80::]", 64, ERR_DENIED },
		{ BROKER_OP_ROUTE, "[ff00::]", 64, ERR_DENIED },
		{ BROKER_OP_ROUTE, "0.0.0.0", 96, ERR_DENIED },
		{ BROKER_OP_ROUTE, "0.0.0.0", 0, ERR_DENIED },
		{ BROKER_OP_ROUTE, "10.0.0.0", 0, ERR_DENIED },
		{ BROKER_OP_ROUTE, "10.0.0.0", 96, ERR_DENIED },
		{ BROKER_OP_ROUTE, "10.0.0.0", 104, ERR_DENIED },
		{ BROKER_OP_ROUTE, "10.2.0.0", 111, ERR_DENIED },
		{ BROKER_OP_ROUTE, "10.2.0.0", 112, 0 },
		{ BROKER_OP_ROUTE, "10.2.0.1", 112, ERR_DENIED },
		{ BROKER_OP_ROUTE, "8.8.0.0", 112, ERR_DENIED },
		{ BROKER_OP_ROUTE, "224.0.0.0", 112, ERR_DENIED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		if (prefix(c[i].op, c[i].addr, c[i].len) != c[i].rc)
			fail_msg("%s/%u", c[i].addr, c[i].len);
	}
}

static void flags(void **state)
{
	struct broker_req_prefix r = {
		.head = head(BROKER_OP_ADDR), .addr = { 0xfd, [15] = 1 }, .len = 128, .add = 1
	};
	struct broker_req_prefix ok = r;

	(void)state;
	assert_int_equal(parse(&r, sizeof(r)), 0);
	r.unreachable = 1;
	assert_int_equal(parse(&r, sizeof(r)), ERR_PARSE);
	r = ok;
	r.add = 2;
	assert_int_equal(parse(&r, sizeof(r)), ERR_PARSE);
	r = ok;
	r.zero = 1;
	assert_int_equal(parse(&r, sizeof(r)), ERR_PARSE);
	r = ok;
	r.len = 129;
	assert_int_equal(parse(&r, sizeof(r)), ERR_PARSE);
}

/* ---- a broker that answers as the test says ---- */

struct fake {
	int listener, conn;
	char dir[32], path[48];
	pid_t pid;
};

/* What the fake one sends after the greeting, in answer to the first request. */
struct script {
	size_t greet_n, n; /* bytes of each reply, 0: none */
	struct broker_reply greet, reply;
	bool stale_first; /* an answer to an earlier call comes first */
	bool hang_up;
	unsigned nfds;
};

static void send_fds(int fd, const struct broker_reply *r, size_t n, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec io = { .iov_base = (void *)(uintptr_t)r, .iov_len = n };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *c;

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr){ CMSG_LEN(nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
		perror("sendmsg");
}

static void fake_start(struct fake *f, const struct script *s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct broker_head h;

	strcpy(f->dir, "/tmp/x0brokerXXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
	strcpy(sa.sun_path, f->path);
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(f->listener, 1), 0);
	f->pid = fork();
	if (f->pid)
		return;
	f->conn = accept(f->listener, NULL, NULL);
	if (s->greet_n)
		send_fds(f->conn, &s->greet, s->greet_n, 0);
	if (s->hang_up)
		_exit(0);
	if (recv(f->conn, &h, sizeof(h), MSG_TRUNC) <= 0)
		_exit(0);
	if (s->stale_first) {
		struct broker_reply old = { .head = { BROKER_PROTO, h.op, h.seq - 1 }, .nfds = 2 };

		send_fds(f->conn, &old, sizeof(old), 2);
	}
	if (s->n) {
		struct broker_reply r[2] = { s->reply, s->reply };

		r[0].head = (struct broker_head){ s->reply.head.proto, h.op, h.seq };
		send_fds(f->conn, r, s->n, s->nfds);
		pause();
	}
	sleep(10);
	_exit(0);
}

static void fake_stop(struct fake *f)
{
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	close(f->listener);
	unlink(f->path);
	rmdir(f->dir);
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static struct script good(void)
{
	struct script s = { .greet_n = sizeof(struct broker_reply), .n = sizeof(struct broker_reply) };

	s.greet.head = s.reply.head = (struct broker_head){ .proto = BROKER_PROTO };
	return s;
}

/* Connects and asks for a TUN device with two queues; no descriptor may be left over after a failure. */
static int ask(const struct script *s, struct err *e)
{
	struct broker_tun t = { 0 };
	struct broker *b = NULL;
	struct fake f;
	int before, rc;

	fake_start(&f, s);
	before = open_fds();
	*e = (struct err){ 0 };
	rc = broker_connect(f.path, &b, e);
	if (rc) {
		assert_null(b);
	} else {
		rc = broker_tun(b, "x0", 2, 1400, &t, e);
		for (unsigned i = 0; i < t.nfds; i++) {
			assert_int_equal(fcntl(t.fd[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
			close(t.fd[i]);
		}
		assert_int_equal(t.nfds, rc ? 0 : 2);
		assert_null(broker_close(b));
	}
	assert_int_equal(open_fds(), before);
	fake_stop(&f);
	assert_int_equal(e->code, rc);
	return rc;
}

static void strange_brokers(void **state)
{
	struct script s = good();
	struct err e;

	(void)state;
	s.nfds = s.reply.nfds = 2;
	assert_int_equal(ask(&s, &e), 0);
	s.stale_first = true;
	assert_int_equal(ask(&s, &e), 0);
	s.stale_first = false;

	s.n--;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.n += 2;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.n--;
	s.reply.head.proto++;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.reply.head.proto--;
	s.nfds = 3; /* more than announced */
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.reply.nfds = 3; /* more than asked for */
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.nfds = s.reply.nfds = 40; /* more than there is room for */
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.nfds = s.reply.nfds = 0;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.nfds = s.reply.nfds = 2;
	s.reply.code = ERR_DENIED; /* a refusal brings nothing */
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.nfds = s.reply.nfds = 0;
	s.reply.code = -12345;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s.reply.code = 5;
	assert_int_equal(ask(&s, &e), ERR_PARSE);

	s.reply.code = ERR_LIMIT;
	memset(s.reply.what, 'a', sizeof(s.reply.what)); /* not terminated */
	memset(s.reply.todo, 'b', sizeof(s.reply.todo));
	assert_int_equal(ask(&s, &e), ERR_LIMIT);
	assert_int_equal(e.what[0], 'a');
	assert_int_equal(e.todo[0], 'b');
}

static void strange_greetings(void **state)
{
	struct script s = good();
	struct err e;

	(void)state;
	s.greet_n = 4;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s = good();
	s.greet.head.proto = 9;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s = good();
	s.greet.head.seq = 1;
	assert_int_equal(ask(&s, &e), ERR_PARSE);
	s = good();
	s.greet.code = ERR_CONFLICT;
	strcpy(s.greet.what, "taken");
	s.hang_up = true;
	assert_int_equal(ask(&s, &e), ERR_CONFLICT);
	assert_string_equal(e.what, "taken");
	s = good();
	s.hang_up = true; /* greets and dies */
	assert_int_equal(ask(&s, &e), ERR_UNREACHABLE);
	s.greet_n = 0;
	assert_int_equal(ask(&s, &e), ERR_UNREACHABLE);
	s = good();
	s.greet_n = 0; /* accepts, and says nothing */
	assert_int_equal(ask(&s, &e), ERR_TIMEOUT);
	s = good();
	s.n = 0;
	assert_int_equal(ask(&s, &e), ERR_TIMEOUT);
	assert_true(e.todo[0]);
}

static void arguments(void **state)
{
	struct script s = good();
	struct endpoint any = { .port = 7430 };
	struct broker_tun t;
	struct broker_udp u;
	struct broker *b = NULL;
	struct fake f;
	struct err e = { 0 };
	char longer[200];

	(void)state;
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(broker_connect(longer, &b, &e), ERR_CONFIG);
	assert_int_equal(broker_connect("/nowhere/at/all", &b, &e), ERR_UNREACHABLE);
	assert_true(e.todo[0]);
	assert_null(b);
	assert_null(broker_close(NULL));
	fake_start(&f, &s);
	assert_int_equal(broker_connect(f.path, &b, &e), 0);
	assert_int_equal(broker_tun(b, "x0aaaaaaaaaaaaaa", 1, 1400, &t, &e), ERR_CONFIG);
	assert_int_equal(broker_tun(b, "x0", BROKER_QUEUES + 1, 1400, &t, &e), ERR_LIMIT);
	assert_int_equal(broker_tun(b, "x0", 0, 1400, &t, &e), ERR_LIMIT);
	assert_int_equal(broker_udp(b, &any, 0x10001, &u, &e), ERR_LIMIT);
	assert_int_equal(broker_udp(b, &any, 0, &u, &e), ERR_LIMIT);
	broker_close(b);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(form),
		cmocka_unit_test(names),
		cmocka_unit_test(numbers),
		cmocka_unit_test(ranges),
		cmocka_unit_test(flags),
		cmocka_unit_test(strange_brokers),
		cmocka_unit_test(strange_greetings),
		cmocka_unit_test(arguments),
	};

	return cmocka_run_group_tests_name("broker/proto", tests, NULL, NULL);
}
