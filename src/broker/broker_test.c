/* SPDX-License-Identifier: Apache-2.0 */
/* The whole broker against the kernel, in a network namespace of the test's own. Needs root. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker_int.h"

#include <cmocka.h>

enum { PORT = 17430 };

static struct {
	char dir[32], path[48];
	pid_t pid;
} br;

static const char *missing; /* why the tests cannot run here */

/* exit() writes coverage; but a leak check at exit needs ptrace, which the child has given up by then. */
extern void __asan_init(void) __attribute__((weak));

static void child_exit(int status)
{
	if (__asan_init)
		_exit(status);
	exit(status);
}

static pid_t broker_fork(char **argv)
{
	pid_t pid;
	int argc = 0, null;

	fflush(NULL); /* or the child would write it again */
	pid = fork();
	if (pid)
		return pid;
	null = open("/dev/null", O_WRONLY);
	if (!getenv("BROKER_TEST_LOG")) {
		dup2(null, STDERR_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	while (argv[argc])
		argc++;
	child_exit(broker_run(argc, argv));
	return -1;
}

static int status_of(pid_t pid)
{
	int st;

	assert_int_equal(waitpid(pid, &st, 0), pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 256 + WTERMSIG(st);
}

static int program(char **argv)
{
	return status_of(broker_fork(argv));
}

static void broker_start(void)
{
	char *argv[] = { "x0-broker", "--socket", br.path, "--user", "0", "--log", "json", NULL };
	struct broker *b = NULL;

	br.pid = broker_fork(argv);
	for (int i = 0; i < 300 && !b; i++) {
		if (broker_connect(br.path, &b, NULL))
			usleep(10000);
	}
	assert_non_null(b);
	broker_close(b);
}

static int broker_end(int sig)
{
	int rc;

	kill(br.pid, sig);
	rc = status_of(br.pid);
	br.pid = 0;
	return rc;
}

static struct broker *dial(void)
{
	struct broker *b = NULL;
	struct err e = { 0 };

	for (int i = 0; i < 100; i++) { /* the one before may not be noticed as dead yet */
		if (broker_connect(br.path, &b, &e) == 0)
			return b;
		usleep(10000);
	}
	fail_msg("%s", e.what);
	return NULL;
}

static int setup_group(void **state)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd;

	(void)state;
	if (geteuid() != 0)
		missing = "not root";
	else if (access("/dev/net/tun", F_OK) != 0)
		missing = "no /dev/net/tun: modprobe tun";
	else if (unshare(CLONE_NEWNET) != 0)
		missing = "cannot make a network namespace";
	if (missing) {
		fprintf(stderr, "broker tests cannot run: %s\n", missing);
		return getenv("CI") ? -1 : 0;
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCSIFFLAGS, &r) != 0)
		return -1;
	close(fd);
	strcpy(br.dir, "/tmp/x0brokerXXXXXX");
	if (!mkdtemp(br.dir))
		return -1;
	snprintf(br.path, sizeof(br.path), "%s/s", br.dir);
	return 0;
}

static int teardown_group(void **state)
{
	(void)state;
	if (!missing)
		rmdir(br.dir);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	if (!missing)
		broker_start();
	return 0;
}

static int teardown(void **state)
{
	struct rtnl *r = NULL;

	(void)state;
	if (missing)
		return 0;
	if (br.pid)
		broker_end(SIGTERM);
	if (rtnl_open(&r, NULL) == 0)
		rtnl_unreachable(r, true, NULL);
	rtnl_close(r);
	unlink(br.path);
	return 0;
}

#define NEED_ROOT()                                                                                          \
	do {                                                                                                 \
		(void)state;                                                                                 \
		if (missing)                                                                                 \
			skip();                                                                              \
	} while (0)

/* ---- helpers ---- */

static struct ip_prefix pfx(const char *s)
{
	struct ip_prefix p;
	struct err e = { 0 };

	if (ip_prefix_parse(s, &p, &e))
		fail_msg("%s", e.what);
	return p;
}

static int route(struct broker *b, const char *s, bool unreachable, bool add)
{
	struct ip_prefix p = pfx(s);

	return broker_route(b, &p, unreachable, add, NULL);
}

static int addr(struct broker *b, const char *s, bool add)
{
	struct ip_prefix p = pfx(s);

	return broker_addr(b, &p, add, NULL);
}

static int unreachable_count(void)
{
	struct rtnl *r = NULL;
	int n;

	assert_int_equal(rtnl_open(&r, NULL), 0);
	n = rtnl_unreachable(r, false, NULL);
	rtnl_close(r);
	return n;
}

static void close_all(int *fd, unsigned n)
{
	while (n--)
		close(fd[n]);
}

/* Sends a datagram the way an application would: 0, or errno. */
static int send_to(const char *to, const void *p, size_t n)
{
	struct sockaddr_storage ss;
	struct endpoint ep;
	int fd, rc = 0;
	socklen_t len;

	assert_int_equal(endpoint_parse(to, PORT, &ep, NULL), 0);
	fd = socket(endpoint_is_v4(&ep) ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
	len = endpoint_to_sockaddr(&ep, endpoint_is_v4(&ep) ? AF_INET : AF_INET6, &ss);
	if (sendto(fd, p, n, 0, (struct sockaddr *)&ss, len) < 0)
		rc = errno;
	close(fd);
	return rc;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1 && p.revents & POLLIN;
}

static int link_value(const char *name, const char *what)
{
	struct ifreq r = { 0 }; /* /sys shows the namespace it was mounted in, sockets show ours */
	int fd, n = -1;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (!strcmp(what, "mtu"))
		n = ioctl(fd, SIOCGIFMTU, &r) ? -1 : r.ifr_mtu;
	else if (!strcmp(what, "txqlen"))
		n = ioctl(fd, SIOCGIFTXQLEN, &r) ? -1 : r.ifr_qlen;
	else if (!strcmp(what, "up"))
		n = ioctl(fd, SIOCGIFFLAGS, &r) ? -1 : !!(r.ifr_flags & IFF_UP);
	close(fd);
	return n;
}

/* Lines of /proc/self/net/if_inet6 for this interface. */
static unsigned v6_addrs(const char *name)
{
	FILE *f = fopen("/proc/self/net/if_inet6", "r");
	char line[128];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		n += strlen(line) > strlen(name) && !strcmp(line + strlen(line) - strlen(name), name) &&
		     line[strlen(line) - strlen(name) - 1] == ' ';
	}
	fclose(f);
	return n;
}

/* ---- TUN ---- */

static void tun_device(void **state)
{
	struct broker_tun t, again;
	struct err e = { 0 };
	struct broker *b;
	uint8_t buf[2048];
	ssize_t n;
	int size = 0;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_mtu(b, 1400, NULL), ERR_CONFLICT); /* no device yet */
	assert_int_equal(addr(b, "fd12:3456::1/128", true), ERR_CONFLICT);
	assert_int_equal(route(b, "fd12:3456::/40", false, true), ERR_CONFLICT);

	assert_int_equal(broker_tun(b, "x0t", 2, 1400, &t, &e), 0);
	assert_false(t.kept);
	assert_string_equal(t.name, "x0t");
	assert_int_equal(t.nfds, 2);
	assert_int_equal(t.ifindex, if_nametoindex("x0t"));
	assert_int_equal(link_value("x0t", "mtu"), 1400);
	assert_int_equal(link_value("x0t", "up"), 1);
	assert_true(link_value("x0t", "txqlen") >= 1000);
	assert_int_equal(v6_addrs("x0t"), 0); /* no link-local one */
	for (unsigned i = 0; i < t.nfds; i++) {
		assert_true(fcntl(t.fd[i], F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(t.fd[i], F_GETFD) & FD_CLOEXEC);
		assert_int_equal(ioctl(t.fd[i], TUNGETVNETHDRSZ, &size), 0);
		assert_int_equal(size, 10);
	}
	assert_int_equal(broker_mtu(b, 9000, &e), 0);
	assert_int_equal(link_value("x0t", "mtu"), 9000);

	assert_int_equal(addr(b, "fd12:3456::1/128", true), 0);
	assert_int_equal(addr(b, "fd12:3456::1/128", true), 0); /* again is no error */
	assert_int_equal(addr(b, "100.64.0.1/32", true), 0);
	assert_int_equal(v6_addrs("x0t"), 1);
	assert_int_equal(route(b, "fd12:3456::/40", false, true), 0);
	assert_int_equal(route(b, "fd12:3456::/40", false, true), 0);
	assert_int_equal(route(b, "100.64.0.0/16", false, true), 0);
	assert_int_equal(send_to("[fd12:3456::77]:9", "overlay", 7), 0);
	assert_true(readable(t.fd[0], 500) || readable(t.fd[1], 500));
	n = read(readable(t.fd[0], 0) ? t.fd[0] : t.fd[1], buf, sizeof(buf));
	assert_int_equal(n, 10 + 40 + 8 + 7);
	assert_int_equal(buf[10] >> 4, 6);
	assert_memory_equal(buf + n - 7, "overlay", 7);

	/* Stale packets are not handed over; the same device is. */
	assert_int_equal(send_to("100.64.3.3:9", "stale", 5), 0);
	assert_true(readable(t.fd[0], 500) || readable(t.fd[1], 500));
	assert_int_equal(broker_tun(b, "x0t", 2, 1300, &again, &e), 0);
	assert_true(again.kept);
	assert_int_equal(again.ifindex, t.ifindex);
	assert_int_equal(again.uso, t.uso);
	assert_int_equal(link_value("x0t", "mtu"), 1300);
	assert_false(readable(again.fd[0], 20) || readable(again.fd[1], 20));
	close_all(again.fd, again.nfds);

	/* In this order: with its last IPv4 address a device loses its IPv4 routes. */
	assert_int_equal(route(b, "100.64.0.0/16", false, false), 0);
	assert_int_equal(route(b, "100.64.0.0/16", false, false), ERR_NOT_FOUND);
	assert_int_equal(addr(b, "100.64.0.1/32", false), 0);
	assert_int_equal(addr(b, "100.64.0.1/32", false), ERR_NOT_FOUND);
	assert_int_equal(addr(b, "fd12:3456::1/128", false), 0);

	/* Another number of queues: a new device, while the old descriptors are still open. */
	assert_int_equal(broker_tun(b, "x0t", 3, 1400, &again, &e), 0);
	assert_false(again.kept);
	assert_int_equal(again.nfds, 3);
	assert_int_not_equal(again.ifindex, t.ifindex);
	assert_true(read(t.fd[0], buf, sizeof(buf)) < 0);
	close_all(again.fd, again.nfds);
	/* Another name: the old device goes. */
	assert_int_equal(broker_tun(b, "x0u", 1, 1400, &again, &e), 0);
	assert_int_equal(if_nametoindex("x0t"), 0);
	close_all(again.fd, again.nfds);
	close_all(t.fd, t.nfds);
	broker_close(b);
}

/* Segments of any size the kernel may hand over need the offloads: without, bulk traffic would be half as
 * fast. */
static void tun_offloads(void **state)
{
	struct broker_tun t;
	struct broker *b;
	unsigned features = 0;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_tun(b, "x0", BROKER_QUEUES, 1400, &t, NULL), 0);
	assert_int_equal(t.nfds, BROKER_QUEUES);
	assert_int_equal(ioctl(t.fd[0], TUNGETFEATURES, &features), 0);
	assert_true(features & IFF_MULTI_QUEUE);
	if (t.uso)
		assert_int_equal(ioctl(t.fd[0], TUNSETOFFLOAD, TUN_F_CSUM | 0x60), 0);
	close_all(t.fd, t.nfds);
	broker_close(b);
}

static void tun_of_others(void **state)
{
	struct ifreq r = { .ifr_name = "x0host", .ifr_flags = IFF_TUN | IFF_NO_PI };
	struct broker_tun t;
	struct err e = { 0 };
	struct broker *b;
	unsigned index;
	int fd;

	NEED_ROOT();
	fd = open("/dev/net/tun", O_RDWR);
	assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
	index = if_nametoindex("x0host");
	b = dial();
	assert_int_equal(broker_tun(b, "x0host", 1, 1400, &t, &e), ERR_DENIED);
	assert_true(e.todo[0]);
	assert_int_equal(if_nametoindex("x0host"), index);
	assert_int_equal(link_value("x0host", "up"), 0);
	assert_int_equal(broker_tun(b, "lo", 1, 1400, &t, &e), ERR_DENIED);
	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, &e), 0); /* the connection goes on */
	close_all(t.fd, t.nfds);
	close(fd);
	broker_close(b);
}

/* ---- routes ---- */

static void routes(void **state)
{
	struct ip_prefix net = pfx("fd12:3456::/48"), v4 = pfx("10.20.0.0/16");
	struct rtnl *r = NULL;
	struct broker_tun t;
	struct err e = { 0 };
	struct broker *b;
	char text[64];
	int rc = 0;

	NEED_ROOT();
	b = dial();
	/* Closed before there is a device. */
	assert_int_equal(route(b, "fd12:3456::/48", true, true), 0);
	assert_int_equal(route(b, "10.20.0.0/16", true, true), 0);
	assert_int_equal(route(b, "10.20.0.0/16", true, true), 0);
	assert_int_equal(unreachable_count(), 2);
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), EHOSTUNREACH);
	assert_int_equal(send_to("10.20.1.1:9", "x", 1), EHOSTUNREACH);

	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, &e), 0);
	assert_int_equal(addr(b, "fd12:3456::1/128", true), 0);
	assert_int_equal(addr(b, "10.20.0.1/32", true), 0);
	assert_int_equal(route(b, "fd12:3456::/48", false, true), 0);
	assert_int_equal(route(b, "10.20.0.0/16", false, true), 0);
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), 0); /* the working route wins */
	assert_int_equal(send_to("10.20.1.1:9", "x", 1), 0);
	assert_int_equal(route(b, "fd12:3456::/48", false, false), 0);
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), EHOSTUNREACH);
	assert_int_equal(route(b, "fd12:3456::/48", false, true), 0);
	assert_int_equal(route(b, "fd12:3456::/48", true, false), 0);
	assert_int_equal(route(b, "fd12:3456::/48", true, false), ERR_NOT_FOUND);
	assert_int_equal(unreachable_count(), 1);
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), 0); /* deletion took only its own */

	/* A route of the host's own in the same place is an error, not a success; and it stays. */
	assert_int_equal(route(b, "10.20.0.0/16", false, false), 0);
	assert_int_equal(system("ip route add 10.20.0.0/16 dev lo scope link"), 0);
	assert_int_equal(broker_route(b, &v4, false, true, &e), ERR_CONFLICT);
	assert_true(e.todo[0]);
	assert_int_equal(broker_route(b, &v4, false, false, &e), ERR_NOT_FOUND);
	assert_int_equal(system("ip route del 10.20.0.0/16 dev lo"), 0);

	for (int i = 0; i < RTNL_PREFIXES_MAX + 2 && !rc; i++) {
		snprintf(text, sizeof(text), "fd12:3456:%x::/48", i + 16);
		rc = route(b, text, true, true);
	}
	assert_int_equal(rc, ERR_LIMIT);
	assert_int_equal(rtnl_open(&r, NULL), 0);
	assert_int_equal(rtnl_route(r, 0, &net, true, NULL), ERR_LIMIT);
	rtnl_close(r);
	rc = 0;
	for (int i = 0; i < RTNL_PREFIXES_MAX + 2 && !rc; i++) {
		snprintf(text, sizeof(text), "10.20.3.%d/32", i);
		rc = addr(b, text, true);
	}
	assert_int_equal(rc, ERR_LIMIT);
	assert_int_equal(broker_down(b, &e), 0);
	assert_int_equal(unreachable_count(), 0);
	close_all(t.fd, t.nfds);
	broker_close(b);
}

/* ---- main dies, broker dies ---- */

static void main_killed(void **state)
{
	struct endpoint any = { .port = PORT };
	struct broker_tun t;
	struct broker_udp u;
	struct broker *b;
	unsigned index;
	char frame[64] = { 0x11 };
	pid_t pid;

	NEED_ROOT();
	pid = fork();
	if (pid == 0) {
		b = dial();
		if (broker_tun(b, "x0", 2, 1400, &t, NULL) || addr(b, "fd12:3456::1/128", true) ||
		    route(b, "fd12:3456::/40", false, true) || route(b, "fd12:3456::/40", true, true) ||
		    broker_udp(b, &any, 2, &u, NULL))
			_exit(1);
		raise(SIGKILL);
	}
	assert_int_equal(status_of(pid), 256 + SIGKILL);
	index = if_nametoindex("x0");
	assert_true(index > 0);
	assert_int_equal(v6_addrs("x0"), 1);
	/* Into the device, where it is dropped: nothing leaves in clear, and applications see no error. */
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), 0);
	assert_int_equal(send_to("127.0.0.1:17430", frame, sizeof(frame)), 0); /* the port is still bound */

	b = dial();
	assert_int_equal(broker_tun(b, "x0", 2, 1400, &t, NULL), 0);
	assert_true(t.kept);
	assert_int_equal(t.ifindex, index);
	assert_false(readable(t.fd[0], 20) || readable(t.fd[1], 20)); /* stale ones are gone */
	assert_int_equal(v6_addrs("x0"), 1);
	assert_int_equal(unreachable_count(), 1);
	assert_int_equal(route(b, "fd12:3456::/40", false, true), 0);
	assert_int_equal(broker_udp(b, &any, 2, &u, NULL), 0);
	assert_true(u.kept);
	for (unsigned i = 0; i < u.nfds; i++)
		assert_false(readable(u.fd[i], 0));
	assert_int_equal(send_to("127.0.0.1:17430", frame, sizeof(frame)), 0);
	assert_true(readable(u.fd[0], 500));
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), 0);
	assert_true(readable(t.fd[0], 500) || readable(t.fd[1], 500));
	close_all(t.fd, t.nfds);
	close_all(u.fd, u.nfds);
	broker_close(b);
}

static void broker_killed(void **state)
{
	struct broker_tun t;
	struct broker *b;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, NULL), 0);
	assert_int_equal(addr(b, "fd12:3456::1/128", true), 0);
	assert_int_equal(route(b, "fd12:3456::/40", true, true), 0);
	assert_int_equal(route(b, "fd12:3456::/40", false, true), 0);
	close_all(t.fd, t.nfds);
	assert_int_equal(broker_end(SIGKILL), 256 + SIGKILL);
	assert_int_equal(broker_mtu(b, 1400, NULL), ERR_UNREACHABLE);
	broker_close(b);
	for (int i = 0; i < 100 && if_nametoindex("x0"); i++)
		usleep(10000);
	assert_int_equal(if_nametoindex("x0"), 0);
	assert_int_equal(send_to("[fd12:3456::5]:9", "x", 1), EHOSTUNREACH);

	/* The next one takes the old socket's place and the old routes over. */
	broker_start();
	assert_int_equal(unreachable_count(), 1);
	b = dial();
	assert_int_equal(route(b, "fd12:3456::/40", true, true), 0);
	assert_int_equal(broker_down(b, NULL), 0);
	assert_int_equal(unreachable_count(), 0);
	broker_close(b);
}

static void broker_stopped(void **state)
{
	struct endpoint any = { .port = PORT };
	struct broker_tun t;
	struct broker_udp u;
	struct broker *b;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, NULL), 0);
	assert_int_equal(broker_udp(b, &any, 1, &u, NULL), 0);
	assert_int_equal(route(b, "fd12:3456::/40", true, true), 0);
	assert_int_equal(broker_end(SIGTERM), 0);
	assert_int_equal(if_nametoindex("x0"), 0); /* although this process still has its queue */
	assert_int_equal(access(br.path, F_OK), -1);
	assert_int_equal(unreachable_count(), 1);
	close_all(t.fd, t.nfds);
	close_all(u.fd, u.nfds);
	broker_close(b);
}

static void down(void **state)
{
	struct endpoint any = { .port = PORT };
	struct broker_tun t;
	struct broker_udp u;
	struct broker *b;
	int fd;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, NULL), 0);
	assert_int_equal(broker_udp(b, &any, 1, &u, NULL), 0);
	assert_int_equal(route(b, "fd12:3456::/40", true, true), 0);
	assert_int_equal(route(b, "10.20.0.0/16", true, true), 0);
	close_all(u.fd, u.nfds);
	assert_int_equal(broker_down(b, NULL), 0);
	assert_int_equal(if_nametoindex("x0"), 0);
	assert_int_equal(unreachable_count(), 0);
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(bind(fd,
			      (struct sockaddr *)&(struct sockaddr_in6){ .sin6_family = AF_INET6,
									 .sin6_port = htons(PORT) },
			      sizeof(struct sockaddr_in6)),
			 0);
	close(fd);
	assert_int_equal(broker_down(b, NULL), 0); /* twice is no error */
	close_all(t.fd, t.nfds);
	broker_close(b);
}

/* ---- UDP ---- */

static int got(const struct broker_udp *u)
{
	int at = -1;

	for (int ms = 0; at < 0 && ms < 500; ms += 5) {
		for (unsigned i = 0; i < u->nfds; i++)
			if (readable(u->fd[i], i ? 0 : 5))
				at = (int)i;
	}
	for (unsigned i = 0; i < u->nfds; i++) {
		char buf[256];

		if (readable(u->fd[i], 0)) {
			assert_int_equal(i, at);
			while (recv(u->fd[i], buf, sizeof(buf), 0) >= 0)
				;
		}
	}
	return at;
}

static void check_steering(const struct broker_udp *u, const char *to)
{
	int other = (int)u->nfds - 1;
	uint8_t f[64] = { 0x11 };

	for (int w = 0; w < 256; w++) {
		f[35] = (uint8_t)w;
		if (w > 20 && w < 250)
			continue;
		assert_int_equal(send_to(to, f, sizeof(f)), 0);
		assert_int_equal(got(u), w < other ? w : other);
	}
	f[35] = 0;
	assert_int_equal(send_to(to, f, 36), 0);
	assert_int_equal(got(u), 0);
	assert_int_equal(send_to(to, f, 35), 0); /* too short to name a worker */
	assert_int_equal(got(u), other);
	assert_int_equal(send_to(to, f, 1), 0);
	assert_int_equal(got(u), other);
	assert_int_equal(send_to(to, f, 0), 0);
	assert_int_equal(got(u), other);
	for (int type = 0; type < 256; type += 1) {
		f[0] = (uint8_t)type;
		if (type > 0x20 && type < 0xf0)
			continue;
		assert_int_equal(send_to(to, f, sizeof(f)), 0);
		assert_int_equal(got(u), type == 0x11 ? 0 : other);
	}
}

static int option(int fd, int level, int opt)
{
	int v = -1;
	socklen_t n = sizeof(v);

	assert_int_equal(getsockopt(fd, level, opt, &v, &n), 0);
	return v;
}

static void udp(void **state)
{
	struct endpoint any = { .port = PORT }, other = { .port = PORT + 1 };
	struct broker_udp u, again;
	struct err e = { 0 };
	struct broker *b;
	uint8_t f[64] = { 0x11 };

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_udp(b, &any, 3, &u, &e), 0);
	assert_int_equal(u.nfds, 4);
	assert_int_equal(u.family, AF_INET6);
	assert_false(u.kept);
	for (unsigned i = 0; i < u.nfds; i++) {
		assert_true(fcntl(u.fd[i], F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(u.fd[i], F_GETFD) & FD_CLOEXEC);
		assert_true(option(u.fd[i], SOL_SOCKET, SO_RCVBUF) >= 8 << 20);
		assert_true(option(u.fd[i], SOL_SOCKET, SO_SNDBUF) >= 8 << 20);
		assert_int_equal(option(u.fd[i], IPPROTO_UDP, 104), 1);
		assert_int_equal(option(u.fd[i], IPPROTO_IP, IP_RECVTOS), 1);
		assert_int_equal(option(u.fd[i], IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_PROBE);
		assert_int_equal(option(u.fd[i], IPPROTO_IPV6, IPV6_RECVTCLASS), 1);
		assert_int_equal(option(u.fd[i], IPPROTO_IPV6, IPV6_MTU_DISCOVER), IPV6_PMTUDISC_PROBE);
		assert_int_equal(option(u.fd[i], IPPROTO_IPV6, IPV6_V6ONLY), 0);
	}
	check_steering(&u, "127.0.0.1:17430");
	check_steering(&u, "[::1]:17430");

	/* The same group again, without what queued up. */
	assert_int_equal(send_to("[::1]:17430", f, sizeof(f)), 0);
	assert_true(readable(u.fd[0], 500));
	assert_int_equal(broker_udp(b, &any, 3, &again, &e), 0);
	assert_true(again.kept);
	assert_false(readable(again.fd[0], 0));
	close_all(again.fd, again.nfds);

	/* Another size: not beside sockets that are still open, or the numbers would be wrong. */
	assert_int_equal(broker_udp(b, &any, 2, &again, &e), ERR_CONFLICT);
	assert_true(e.todo[0]);
	close_all(u.fd, u.nfds);
	assert_int_equal(broker_udp(b, &any, 2, &u, &e), 0);
	assert_int_equal(u.nfds, 3);
	assert_false(u.kept);
	check_steering(&u, "[::1]:17430");
	close_all(u.fd, u.nfds);
	assert_int_equal(broker_udp(b, &other, BROKER_QUEUES, &u, &e), 0);
	assert_int_equal(u.nfds, BROKER_QUEUES + 1);
	assert_false(u.kept);
	check_steering(&u, "127.0.0.1:17431");
	close_all(u.fd, u.nfds);
	broker_close(b);
}

/* Everything that a main gone wrong can do to the sockets, without rights, is gone when the next one gets
 * them. */
static void udp_spoiled(void **state)
{
	struct sock_filter drop[] = { BPF_STMT(BPF_RET | BPF_K, 0) },
			   first[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog all = { 1, drop }, steer = { 1, first };
	struct sockaddr_in6 away = { .sin6_family = AF_INET6,
				     .sin6_port = htons(9),
				     .sin6_addr = in6addr_loopback };
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct endpoint any = { .port = PORT };
	struct broker_udp u, next;
	struct err e = { 0 };
	struct broker *b;
	int on = 1, off = 0;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_udp(b, &any, 2, &u, &e), 0);
	for (unsigned i = 0; i < u.nfds; i++) {
		assert_int_equal(setsockopt(u.fd[i], SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof(all)), 0);
		assert_int_equal(setsockopt(u.fd[i], IPPROTO_UDP, 104, &off, sizeof(off)), 0);
	}
	assert_int_equal(setsockopt(u.fd[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &steer, sizeof(steer)), 0);
	assert_int_equal(broker_udp(b, &any, 2, &next, &e), 0);
	assert_true(next.kept);
	close_all(u.fd, u.nfds);
	check_steering(&next, "127.0.0.1:17430");
	check_steering(&next, "[::1]:17430");
	assert_int_equal(option(next.fd[1], IPPROTO_UDP, 104), 1);

	/* What cannot be undone costs the sockets, once their last user closed them. */
	assert_int_equal(setsockopt(next.fd[1], SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof(all)), 0);
	assert_int_equal(setsockopt(next.fd[1], SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)), 0);
	close_all(next.fd, next.nfds);
	assert_int_equal(broker_udp(b, &any, 2, &u, &e), 0);
	assert_false(u.kept);
	check_steering(&u, "[::1]:17430");
	assert_int_equal(connect(u.fd[2], (struct sockaddr *)&away, sizeof(away)), 0);
	assert_int_equal(shutdown(u.fd[2], SHUT_RDWR), 0);
	close_all(u.fd, u.nfds);
	assert_int_equal(broker_udp(b, &any, 2, &u, &e), 0);
	assert_false(u.kept);
	check_steering(&u, "[::1]:17430");
	/* Connected, and connected and no more: both are out of the group. */
	for (int again = 0; again < 2; again++) {
		assert_int_equal(connect(u.fd[1], (struct sockaddr *)&away, sizeof(away)), 0);
		if (again)
			assert_int_equal(connect(u.fd[1], &none, sizeof(none)), 0);
		close_all(u.fd, u.nfds);
		assert_int_equal(broker_udp(b, &any, 2, &u, &e), 0);
		assert_false(u.kept);
		check_steering(&u, "[::1]:17430");
	}
	close_all(u.fd, u.nfds);
	broker_close(b);
}

static void udp_binds(void **state)
{
	struct endpoint one, taken = { .port = PORT + 2 };
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(PORT + 2) };
	struct broker_udp u;
	struct err e = { 0 };
	struct broker *b;
	int fd, on = 1;

	NEED_ROOT();
	b = dial();
	assert_int_equal(endpoint_parse("127.0.0.1:17433", 0, &one, NULL), 0);
	assert_int_equal(broker_udp(b, &one, 1, &u, &e), 0);
	check_steering(&u, "127.0.0.1:17433");
	close_all(u.fd, u.nfds);
	assert_int_equal(endpoint_parse("198.51.100.1:17433", 0, &one, NULL), 0);
	assert_int_equal(broker_udp(b, &one, 1, &u, &e), ERR_SYS); /* not on this host */
	assert_true(e.todo[0]);

	/* A stranger on the port, even one that is willing to share. */
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(broker_udp(b, &taken, 1, &u, &e), ERR_CONFLICT);
	close(fd);
	assert_int_equal(broker_udp(b, &taken, 1, &u, &e), 0);
	close_all(u.fd, u.nfds);
	broker_close(b);
}

/* ---- who may ask, and how ---- */

static int raw(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct broker_reply r;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	strcpy(sa.sun_path, br.path);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(recv(fd, &r, sizeof(r), 0), sizeof(r));
		if (r.code == 0)
			return fd;
		close(fd);
		fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		usleep(10000);
	}
	fail_msg("%s", r.what);
	return -1;
}

/* The code of the answer; then whether the broker hung up. */
static int32_t exchange(int fd, const void *p, size_t n, bool *ret_gone)
{
	struct broker_reply r = { 0 };
	char c;

	assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);
	assert_int_equal(recv(fd, &r, sizeof(r), 0), sizeof(r));
	assert_int_equal(r.nfds, 0);
	assert_true(!r.code || r.what[0]);
	usleep(20000);
	*ret_gone = recv(fd, &c, 1, MSG_DONTWAIT) == 0;
	return r.code;
}

static void malformed(void **state)
{
	struct broker_req_mtu m = { { BROKER_PROTO, BROKER_OP_MTU, 7 }, 1400 };
	struct {
		union broker_req r;
		char more[400];
	} big = { .r.mtu = m };
	struct {
		const void *p;
		size_t n;
	} c[] = {
		{ &m, 1 },
		{ &m, sizeof(m) - 1 },
		{ &big, sizeof(m) + 1 },
		{ &big, BROKER_REQ_MAX },
		{ &big, BROKER_REQ_MAX + 1 },
		{ &big, sizeof(big) },
	};
	struct broker_head h = { BROKER_PROTO, 99, 7 };
	struct broker_reply r;
	bool gone;
	int fd;

	NEED_ROOT();
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		fd = raw();
		assert_int_equal(exchange(fd, c[i].p, c[i].n, &gone), ERR_PARSE);
		assert_true(gone);
		close(fd);
	}
	fd = raw();
	assert_int_equal(exchange(fd, &h, sizeof(h), &gone), ERR_PARSE); /* no such request */
	assert_true(gone);
	close(fd);
	m.head.proto++;
	fd = raw();
	assert_int_equal(exchange(fd, &m, sizeof(m), &gone), ERR_PARSE);
	assert_true(gone);
	close(fd);
	m.head.proto--;

	/* Refused is not malformed: the connection goes on. */
	m.mtu = 100;
	fd = raw();
	assert_int_equal(exchange(fd, &m, sizeof(m), &gone), ERR_DENIED);
	assert_false(gone);
	/* Descriptors are not wanted. */
	m.mtu = 1400;
	{
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec io = { &m, sizeof(m) };
		struct msghdr msg = { .msg_iov = &io,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };

		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
		assert_int_equal(sendmsg(fd, &msg, 0), sizeof(m));
		assert_int_equal(recv(fd, &r, sizeof(r), 0), sizeof(r));
		assert_int_equal(r.code, ERR_PARSE);
	}
	close(fd);
	close(raw()); /* still serving */
}

static void second_client(void **state)
{
	struct broker *b, *c = NULL;
	struct err e = { 0 };
	struct broker_tun t;

	NEED_ROOT();
	b = dial();
	assert_int_equal(broker_connect(br.path, &c, &e), ERR_CONFLICT);
	assert_null(c);
	assert_true(e.todo[0]);
	assert_int_equal(broker_tun(b, "x0", 1, 1400, &t, &e), 0); /* the first one did not notice */
	close_all(t.fd, t.nfds);
	broker_close(b);
	b = dial();
	broker_close(b);
}

/* One that asks and never reads: it is dropped when its queue is full, and nobody waits for it. */
static void deaf_client(void **state)
{
	struct broker_req_mtu m = { { BROKER_PROTO, BROKER_OP_MTU, 7 }, 100 };
	struct timeval tv = { .tv_sec = 1 };
	int fd, i;

	NEED_ROOT();
	fd = raw();
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	for (i = 0; i < 100000 && send(fd, &m, sizeof(m), MSG_NOSIGNAL) > 0; i++)
		;
	assert_true(i < 100000);
	broker_close(dial());
	close(fd);
}

static void wrong_user(void **state)
{
	struct broker *b = NULL;
	struct err e = { 0 };
	struct stat st;
	pid_t pid;

	NEED_ROOT();
	assert_int_equal(stat(br.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* By the file's mode; and where that is lost, by what the kernel says about the peer. */
	chmod(br.dir, 0755);
	for (int open_mode = 0; open_mode < 2; open_mode++) {
		if (open_mode)
			chmod(br.path, 0777);
		pid = fork();
		if (pid == 0) {
			if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
				_exit(1);
			_exit(broker_connect(br.path, &b, &e) == (open_mode ? ERR_DENIED : ERR_UNREACHABLE) &&
					      !b && e.todo[0]
				      ? 0
				      : 2);
		}
		assert_int_equal(status_of(pid), 0);
	}
	broker_close(dial());
}

static void other_user_serves(void **state)
{
	char *argv[] = { "x0-broker", "--socket", br.path, "--user", "65534", "--name", "x0z", NULL };
	struct broker *b = NULL;
	struct broker_tun t;
	struct err e = { 0 };
	struct stat st;
	pid_t pid;

	NEED_ROOT();
	assert_int_equal(broker_end(SIGTERM), 0);
	br.pid = broker_fork(argv);
	for (int i = 0; i < 300 && broker_connect(br.path, &b, &e) != ERR_DENIED; i++)
		usleep(10000);
	assert_int_equal(e.code, ERR_DENIED); /* root is not that user */
	assert_int_equal(stat(br.path, &st), 0);
	assert_int_equal(st.st_uid, 65534);
	chmod(br.dir, 0755);
	pid = fork();
	if (pid == 0) {
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(1);
		if (broker_connect(br.path, &b, &e))
			_exit(2);
		if (broker_tun(b, "x0", 1, 1400, &t, &e) != ERR_DENIED)
			_exit(3);
		_exit(broker_tun(b, "x0z", 1, 1400, &t, &e) || t.ifindex != if_nametoindex("x0z") ? 4 : 0);
	}
	assert_int_equal(status_of(pid), 0);
}

static void hardened(void **state)
{
	char path[64], line[256];
	unsigned seen = 0;
	FILE *f;

	NEED_ROOT();
	snprintf(path, sizeof(path), "/proc/%d/status", (int)br.pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long v = 0;

		if (sscanf(line, "CapEff: %llx", &v) == 1 || sscanf(line, "CapPrm: %llx", &v) == 1 ||
		    sscanf(line, "CapBnd: %llx", &v) == 1) {
			assert_int_equal(v, 1 << 12);
			seen++;
		} else if (sscanf(line, "CapInh: %llx", &v) == 1 || sscanf(line, "CapAmb: %llx", &v) == 1) {
			assert_int_equal(v, 0);
			seen++;
		} else if (sscanf(line, "NoNewPrivs: %llu", &v) == 1) {
			assert_int_equal(v, 1);
			seen++;
		}
	}
	fclose(f);
	assert_int_equal(seen, 6);
}

/* ---- the program ---- */

static void command_line(void **state)
{
	char file[64], *s = br.path;
	char longer[200];
	pid_t pid;

	NEED_ROOT();
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
#define RUN(...) program((char *[]){ "x0-broker", __VA_ARGS__, NULL })
	assert_int_equal(RUN("--help"), 0);
	assert_int_equal(RUN("--version"), 0);
	assert_int_equal(RUN("--bogus"), 2);
	assert_int_equal(RUN("--socket"), 2);
	assert_int_equal(RUN("--socket", s), 2);
	assert_int_equal(RUN("--user", "0"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "0", "more"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "0", "--log", "xml"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "4294967295"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "99999999999999999999"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "no-such-user"), 4);
	assert_int_equal(RUN("--socket", s, "--user", "1x"), 4);
	assert_int_equal(RUN("--socket", s, "--user", "0", "--name", ""), 2);
	assert_int_equal(RUN("--socket", s, "--user", "0", "--name", "x%d"), 2);
	assert_int_equal(RUN("--socket", s, "--user", "0", "--name", "x0aaaaaaaaaaaaaaa"), 2);
	assert_int_equal(RUN("--socket", longer, "--user", "0"), 2);
	assert_int_equal(RUN("--socket", "", "--user", "0"), 2);
	assert_int_equal(RUN("--socket", "/nowhere/at/all", "--user", "0"), 1);
	assert_int_equal(RUN("--socket", s, "--user", "root"), 8); /* another broker answers there */
	snprintf(file, sizeof(file), "%s/file", br.dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(RUN("--socket", file, "--user", "0"), 8); /* not ours to remove */
	assert_int_equal(unlink(file), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		if (setresuid(65534, 65534, 65534))
			_exit(1);
		child_exit(broker_run(
			5, (char *[]){ "x0-broker", "--socket", "/tmp/x0b", "--user", "0", NULL }));
	}
	assert_int_equal(status_of(pid), 5); /* no rights */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(tun_device),	      T(tun_offloads),	 T(tun_of_others), T(routes),	   T(main_killed),
		T(broker_killed),     T(broker_stopped), T(down),	   T(udp),	   T(udp_spoiled),
		T(udp_binds),	      T(malformed),	 T(second_client), T(deaf_client), T(wrong_user),
		T(other_user_serves), T(hardened),	 T(command_line),
	};

	return cmocka_run_group_tests_name("broker/broker", tests, setup_group, teardown_group);
}
