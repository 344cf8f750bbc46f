/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dp_bench: the data path alone, without daemon and handshake, beside the bare veth pair, in one run.
 *	dp_bench [-w workers] [-t seconds] [-P streams] [-6] [-n] [tcp] [pps] [rtt] [hold]
 * Two processes with a data path each, in two namespaces; CPU is theirs. -n: tunnel only. hold: 20 s of TCP,
 *for perf.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tunnel/dp_lab.h"

static struct lab lab;
static pid_t daemon_pid[2];
static double seconds = 4;
static int streams = 1;
static struct shared {
	_Atomic uint64_t bytes, sent, received, stop;
	struct dp_counters c[2];
	_Atomic uint32_t ask;
} *sh;

static double now_s(void)
{
	return (double)clock_mono_ns() / 1e9;
}

static double cpu(void)
{
	double t = 0;

	for (int i = 0; i < 2; i++) {
		char path[64], buf[1024], *p;
		unsigned long u = 0, s = 0;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/stat", daemon_pid[i]);
		f = fopen(path, "r");
		if (!f)
			continue;
		buf[fread(buf, 1, sizeof(buf) - 1, f)] = 0;
		fclose(f);
		p = strrchr(buf, ')');
		if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s) == 2)
			t += (double)(u + s) / (double)sysconf(_SC_CLK_TCK);
	}
	return t;
}

static struct sockaddr_in addr_of(int end, bool tunnel, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	a.sin_addr.s_addr = htonl((tunnel ? 0x0a4e0000u : 0x0a4d0000u) + (unsigned)end + 1);
	return a;
}

static pid_t child(int end)
{
	pid_t p = fork();

	if (p == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (end >= 0)
			lab_enter(&lab, end);
	}
	return p;
}

static void reap(pid_t p)
{
	kill(p, SIGKILL);
	waitpid(p, NULL, 0);
}

/* ---- TCP ---- */

static void tcp_server(bool tunnel, uint16_t port)
{
	static char buf[128 << 10];
	struct sockaddr_in a = addr_of(1, tunnel, port);
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1, c;
	ssize_t n;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (void *)&a, sizeof(a)) || listen(l, 8))
		_exit(1);
	c = accept(l, NULL, NULL);
	while ((n = read(c, buf, sizeof(buf))) > 0)
		atomic_fetch_add(&sh->bytes, (uint64_t)n);
	_exit(0);
}

static void tcp_client(bool tunnel, uint16_t port)
{
	static char buf[128 << 10];
	struct sockaddr_in a = addr_of(1, tunnel, port);
	int c = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(c, (void *)&a, sizeof(a)) != 0) {
		perror("connect");
		_exit(1);
	}
	while (write(c, buf, sizeof(buf)) > 0)
		;
	_exit(0);
}

static void tcp(bool tunnel, double secs)
{
	pid_t p[32];
	int n = 0;
	double t, c;
	uint64_t b;

	for (int i = 0; i < streams; i++) {
		p[n] = child(1);
		if (!p[n++])
			tcp_server(tunnel, (uint16_t)(5000 + i));
	}
	usleep(200000);
	for (int i = 0; i < streams; i++) {
		p[n] = child(0);
		if (!p[n++])
			tcp_client(tunnel, (uint16_t)(5000 + i));
	}
	usleep(700000);
	t = now_s();
	b = sh->bytes;
	c = cpu();
	usleep((unsigned)(secs * 1e6));
	b = sh->bytes - b;
	c = cpu() - c;
	t = now_s() - t;
	printf("tcp %-7s %d stream(s)  %6.2f Gbit/s  %5.2f CPU s/GB\n", tunnel ? "tunnel" : "bare", streams,
	       (double)b * 8e-9 / t, tunnel ? c / ((double)b / 1e9) : 0.0);
	for (int i = 0; i < n; i++)
		reap(p[i]);
}

/* ---- packets ---- */

static void udp_server(bool tunnel)
{
	struct sockaddr_in a = addr_of(1, tunnel, 6000);
	int s = socket(AF_INET, SOCK_DGRAM, 0), big = 8 << 20;
	char buf[2048];

	setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	if (bind(s, (void *)&a, sizeof(a)))
		_exit(1);
	while (recv(s, buf, sizeof(buf), 0) >= 0)
		atomic_store_explicit(&sh->received, sh->received + 1, memory_order_relaxed);
	_exit(0);
}

/* rate 0: as fast as it goes */
static void udp_client(bool tunnel, double rate, double secs)
{
	struct sockaddr_in a = addr_of(1, tunnel, 6000);
	int s = socket(AF_INET, SOCK_DGRAM, 0), big = 8 << 20;
	double start, end;
	uint64_t sent = 0;
	char buf[64] = { 0 };

	setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
	if (connect(s, (void *)&a, sizeof(a)) != 0)
		_exit(1);
	start = now_s();
	end = start + secs;
	for (;;) {
		double t = now_s();
		uint64_t due = rate > 0 ? (uint64_t)((t - start) * rate) : sent + 64;

		if (t >= end)
			break;
		if (due <= sent) {
			usleep(50);
			continue;
		}
		for (; sent < due; sent++) {
			if (send(s, buf, sizeof(buf), 0) < 0 && errno != ENOBUFS)
				_exit(1);
		}
	}
	sh->sent = sent;
	_exit(0);
}

static double pps_once(bool tunnel, double rate, double *ret_rate, double *ret_cpu)
{
	pid_t s, c;
	double used;

	sh->received = 0;
	s = child(1);
	if (!s)
		udp_server(tunnel);
	usleep(100000);
	used = cpu();
	c = child(0);
	if (!c)
		udp_client(tunnel, rate, 2);
	waitpid(c, NULL, 0);
	usleep(200000);
	used = cpu() - used;
	reap(s);
	*ret_rate = (double)sh->received / 2;
	*ret_cpu = used * 1e6 / (double)sh->received;
	return 1 - (double)sh->received / (double)sh->sent;
}

static void pps(bool tunnel)
{
	double low = 0, high = 0, rate, us, best_us = 0, loss = pps_once(tunnel, 0, &high, &us);

	printf("pps %-7s flood: %7.0f/s arrive, %4.1f %% lost, %5.2f CPU us/packet\n",
	       tunnel ? "tunnel" : "bare", high, loss * 100, tunnel ? us : 0.0);
	high *= 1.5;
	for (int i = 0; i < 7; i++) {
		double mid = (low + high) / 2;

		loss = pps_once(tunnel, mid, &rate, &us);
		if (loss <= 0.001 && rate > 0.97 * mid) {
			low = mid;
			best_us = us;
		} else {
			high = mid;
		}
	}
	printf("pps %-7s at <= 0.1 %% loss: %7.0f/s, %5.2f CPU us/packet\n", tunnel ? "tunnel" : "bare", low,
	       tunnel ? best_us : 0.0);
}

/* ---- round trip ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void rtt(bool tunnel)
{
	enum { N = 2000 };
	static double v[N];
	struct sockaddr_in a = addr_of(1, tunnel, 6001);
	pid_t e = child(1);
	int s;

	if (!e) {
		struct sockaddr_in from;
		socklen_t n = sizeof(from);
		char buf[64];

		s = socket(AF_INET, SOCK_DGRAM, 0);
		if (bind(s, (void *)&a, sizeof(a)))
			_exit(1);
		while (recvfrom(s, buf, 64, 0, (void *)&from, &n) > 0)
			sendto(s, buf, 64, 0, (void *)&from, n);
		_exit(0);
	}
	usleep(100000);
	lab_enter(&lab, 0);
	s = socket(AF_INET, SOCK_DGRAM, 0);
	lab_enter(&lab, -1);
	if (connect(s, (void *)&a, sizeof(a)) != 0)
		exit(1);
	for (int i = 0; i < N; i++) {
		char buf[64] = { 0 };
		double t = now_s();
		struct pollfd p = { .fd = s, .events = POLLIN };

		if (send(s, buf, 64, 0) < 0 || poll(&p, 1, 1000) <= 0 || recv(s, buf, 64, 0) < 0) {
			printf("rtt: lost\n");
			break;
		}
		v[i] = (now_s() - t) * 1e6;
		usleep(1000);
	}
	qsort(v, N, sizeof(*v), by_value);
	printf("rtt %-7s p50 %5.1f us  p99 %5.1f us\n", tunnel ? "tunnel" : "bare", v[N / 2],
	       v[N * 99 / 100]);
	close(s);
	reap(e);
}

/* ---- the two data paths ---- */

static void dump(void *arg, uint64_t now)
{
	struct lab_end *e = arg;

	(void)now;
	dp_counters(e->dp, &sh->c[getpid() == daemon_pid[1]]);
}

static struct lab_end my_end;
static struct loop_timer my_timer;

static void every_100ms(void *arg, uint64_t now)
{
	dump(&my_end, now);
	loop_timer_set(my_end.loop, &my_timer, now + 100 * NS_PER_MS);
	(void)arg;
}

static void run_daemon(int end)
{
	daemon_pid[end] = getpid();
	lab_end_up(&lab, end, &my_end, NULL, NULL, true);
	loop_timer_init(&my_timer, every_100ms, NULL);
	loop_timer_set(my_end.loop, &my_timer, loop_now(my_end.loop));
	loop_run(my_end.loop);
}

static void print_counters(void)
{
	usleep(200000);
	for (int i = 0; i < 2; i++) {
		printf("end %d:", i);
#define X(name, metric, help)                                                                                \
	if (sh->c[i].name)                                                                                   \
		printf(" %s=%llu", #name, (unsigned long long)sh->c[i].name);
#include "tunnel/counters.def"
#undef X
		printf("\n");
	}
}

static void print_rss(void)
{
	for (int i = 0; i < 2; i++) {
		char cmd[64];

		snprintf(cmd, sizeof(cmd), "grep VmRSS /proc/%d/status", daemon_pid[i]);
		fflush(stdout);
		if (system(cmd) != 0)
			return;
	}
}

int main(int argc, char **argv)
{
	bool bare = true;
	int c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((c = getopt(argc, argv, "w:t:P:6n")) != -1) {
		if (c == 'w')
			lab.nworkers = (unsigned)atoi(optarg);
		else if (c == 't')
			seconds = atof(optarg);
		else if (c == 'P')
			streams = atoi(optarg);
		else if (c == '6')
			lab.v6 = true;
		else if (c == 'n')
			bare = false;
	}
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!lab_up(&lab))
		return 77;
	for (int i = 0; i < 2; i++) {
		daemon_pid[i] = child(-1);
		if (!daemon_pid[i]) {
			run_daemon(i);
			_exit(0);
		}
	}
	usleep(500000);
	print_rss();
	for (int i = optind; i < argc; i++) {
		for (int tunnel = !bare; tunnel < 2; tunnel++) {
			if (!strcmp(argv[i], "tcp"))
				tcp(tunnel, seconds);
			else if (!strcmp(argv[i], "pps"))
				pps(tunnel);
			else if (!strcmp(argv[i], "rtt"))
				rtt(tunnel);
			else if (!strcmp(argv[i], "hold") && tunnel)
				tcp(true, 20);
		}
	}
	print_counters();
	print_rss();
	for (int i = 0; i < 2; i++)
		reap(daemon_pid[i]);
	lab_down(&lab);
	return 0;
}
