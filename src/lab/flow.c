/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab/flow.h"

enum { FLOW_PORT = 7999, FLOW_CHUNK = 128 * 1024 };

static socklen_t flow_addr(const char *text, struct sockaddr_storage *ss)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(FLOW_PORT);
		return sizeof(*v6);
	}
	if (inet_pton(AF_INET, text, &v4->sin_addr) != 1)
		return 0;
	v4->sin_family = AF_INET;
	v4->sin_port = htons(FLOW_PORT);
	return sizeof(*v4);
}

/* Byte i of the stream: cheap to make and to check, and no two places within 64 kB look alike. */
static void pattern(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i ^ i >> 8);
}

struct tcp_result {
	uint64_t bytes, ns;
	bool same;
};

static void tcp_receive(int listener, int report)
{
	static uint8_t buf[FLOW_CHUNK], want[65536 + FLOW_CHUNK];
	struct tcp_result r = { .same = true };
	uint64_t start = 0;
	int fd = accept(listener, NULL, NULL);
	ssize_t n;

	pattern(want, sizeof(want));
	while (fd >= 0 && (n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		if (start == 0)
			start = clock_mono_ns();
		r.same = r.same && memcmp(buf, want + r.bytes % 65536, (size_t)n) == 0;
		r.bytes += (uint64_t)n;
	}
	r.ns = start ? clock_mono_ns() - start : 0;
	if (write(report, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(0);
}

static void tcp_send(const struct sockaddr_storage *ss, socklen_t len, unsigned ms)
{
	static uint8_t buf[65536 + FLOW_CHUNK];
	uint64_t end = clock_mono_ns() + ms * NS_PER_MS, sent = 0;
	int fd = socket(ss->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pattern(buf, sizeof(buf));
	if (fd < 0 || connect(fd, (const struct sockaddr *)ss, len) != 0)
		_exit(1);
	while (clock_mono_ns() < end) {
		ssize_t n = send(fd, buf + sent % 65536, FLOW_CHUNK, MSG_NOSIGNAL);

		if (n <= 0)
			_exit(1);
		sent += (uint64_t)n;
	}
	_exit(0);
}

/* A child inside the host; it dies with us. */
static pid_t fork_into(const char *host)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_IGN);
		if (lab_enter(host, NULL) != 0)
			_exit(1);
	}
	return pid;
}

static void reap(pid_t pid)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
}

static bool readable(int fd, unsigned ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, (int)ms) == 1;
}

int flow_tcp(const char *from, const char *to, const char *addr, unsigned ms, double *ret_gbps, struct err *e)
{
	struct sockaddr_storage ss;
	socklen_t len = flow_addr(addr, &ss);
	struct tcp_result r = { 0 };
	int report[2], one = 1, rc = 0;
	pid_t rx, tx = -1;
	uint8_t ready = 0;

	if (len == 0)
		return err_set(e, ERR_USAGE, "%s is no address", addr);
	if (pipe(report) != 0)
		return err_sys(e, "pipe");
	rx = fork_into(to);
	if (rx == 0) {
		int l = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (l >= 0)
			setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (l < 0 || bind(l, (struct sockaddr *)&ss, len) != 0 || listen(l, 1) != 0 ||
		    write(report[1], "r", 1) != 1)
			_exit(1);
		tcp_receive(l, report[1]);
	}
	if (rx > 0 && readable(report[0], 2000) && read(report[0], &ready, 1) == 1)
		tx = fork_into(from);
	if (tx == 0)
		tcp_send(&ss, len, ms);
	if (tx < 0 || !readable(report[0], ms + 5000) || read(report[0], &r, sizeof(r)) != sizeof(r) ||
	    r.ns == 0)
		rc = err_set(e, ERR_TIMEOUT, "no TCP stream from %s to %s (%s)", from, to, addr);
	else if (!r.same)
		rc = err_set(e, ERR_CHECK, "bytes of a TCP stream from %s to %s were changed", from, to);
	reap(tx);
	reap(rx);
	close(report[0]);
	close(report[1]);
	if (rc == 0)
		*ret_gbps = (double)r.bytes * 8 / (double)r.ns;
	return rc;
}

/* ---- pings ---- */
struct echo {
	uint8_t needle[16];
	uint32_t seq, pad;
	uint64_t at;
	uint8_t fill[32];
};

static void echo_serve(int fd)
{
	struct sockaddr_storage from;
	struct echo m;

	for (;;) {
		socklen_t n = sizeof(from);
		ssize_t k = recvfrom(fd, &m, sizeof(m), 0, (struct sockaddr *)&from, &n);

		if (k > 0)
			sendto(fd, &m, (size_t)k, 0, (struct sockaddr *)&from, n);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

enum { ECHO_MAX = 20000 };

struct echo_run {
	struct flow_pings r;
	unsigned n;
	double rtt[ECHO_MAX];
};

/* Sends on schedule and takes answers until the time is over, then 200 ms more. */
static void echo_ask(int fd, const uint8_t needle[16], unsigned interval_us, unsigned ms,
		     void (*between)(void *), void *arg, struct echo_run *x)
{
	uint64_t start = clock_mono_ns(), next = start, end = start + ms * NS_PER_MS, last = start, now;
	struct echo m = { 0 };

	memcpy(m.needle, needle, 16);
	while ((now = clock_mono_ns()) < end + 200 * NS_PER_MS) {
		if (between && now > start + (end - start) / 2) {
			between(arg);
			between = NULL;
		}
		if (now >= next && now < end) {
			m.seq = x->r.sent++;
			m.at = now;
			if (send(fd, &m, sizeof(m), MSG_DONTWAIT) < 0)
				(void)errno; /* a ping that cannot leave is a lost one */
			next += interval_us * NS_PER_US;
		}
		if (!readable(fd, 1))
			continue;
		struct echo got;

		if (recv(fd, &got, sizeof(got), MSG_DONTWAIT) == sizeof(got) &&
		    memcmp(got.needle, needle, 16) == 0) {
			now = clock_mono_ns();
			if ((double)(now - last) / 1e6 > x->r.gap_ms)
				x->r.gap_ms = (double)(now - last) / 1e6;
			last = now;
			x->r.received++;
			if (x->n < ECHO_MAX)
				x->rtt[x->n++] = (double)(now - got.at) / 1e6;
		}
		if (x->r.received == x->r.sent && now >= end)
			break;
	}
}

int flow_ping(const char *from, const char *to, const char *addr, unsigned interval_us, unsigned ms,
	      const uint8_t needle[16], void (*between)(void *arg), void *arg, struct flow_pings *ret,
	      struct err *e)
{
	struct sockaddr_storage ss;
	socklen_t len = flow_addr(addr, &ss);
	int sync[2], home, fd = -1, rc = 0;
	uint8_t ready = 0;
	pid_t server;
	struct echo_run *x = calloc(1, sizeof(*x));

	if (len == 0 || !x || pipe(sync) != 0) {
		free(x);
		return err_set(e, ERR_USAGE, "cannot ping %s", addr);
	}
	server = fork_into(to);
	if (server == 0) {
		int s = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		if (s < 0 || bind(s, (struct sockaddr *)&ss, len) != 0 || write(sync[1], "r", 1) != 1)
			_exit(1);
		echo_serve(s);
	}
	if (server < 0 || !readable(sync[0], 2000) || read(sync[0], &ready, 1) != 1)
		rc = err_set(e, ERR_FAILED, "no echo server on %s at %s", to, addr);
	home = rc == 0 ? lab_socket(from, ss.ss_family, SOCK_DGRAM, e) : -1;
	if (rc == 0 && home < 0)
		rc = home;
	fd = home;
	if (rc == 0 && connect(fd, (struct sockaddr *)&ss, len) != 0)
		rc = err_sys(e, "host %s has no route to %s", from, addr);
	if (rc == 0) {
		echo_ask(fd, needle, interval_us, ms, between, arg, x);
		qsort(x->rtt, x->n, sizeof(double), by_value);
		x->r.rtt_ms = x->n ? x->rtt[x->n / 2] : 0;
		*ret = x->r;
	}
	if (fd >= 0)
		close(fd);
	reap(server);
	close(sync[0]);
	close(sync[1]);
	free(x);
	return rc;
}
