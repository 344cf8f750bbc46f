/* SPDX-License-Identifier: Apache-2.0 */
/* Two data paths with real TUN devices and sockets, in two network namespaces. Needs root; skipped without.
 */
#include "tunnel/dp_lab.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 12 << 20 };

struct pair {
	struct lab lab;
	struct lab_end end[2];
};

static struct sockaddr_storage overlay(const struct pair *p, int end, bool v6, uint16_t port,
				       socklen_t *ret_n)
{
	struct sockaddr_storage ss = { 0 };
	struct endpoint ep = { .port = port };

	if (v6)
		memcpy(ep.addr, p->lab.addr[end], 16);
	else
		memcpy(ep.addr, (uint8_t[16]){ [10] = 0xff, [11] = 0xff, 10, 78, 0, (uint8_t)(end + 1) }, 16);
	*ret_n = endpoint_to_sockaddr(&ep, v6 ? AF_INET6 : AF_INET, &ss);
	return ss;
}

static int open_socket(const struct pair *p, int end, bool v6, int type)
{
	struct timeval tv = { .tv_sec = 10 };
	int fd;

	lab_enter(&p->lab, end);
	fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);
	lab_enter(&p->lab, -1);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return fd;
}

static bool pair_up(struct pair *p)
{
	if (!lab_up(&p->lab))
		return false;
	for (int i = 0; i < 2; i++)
		lab_end_up(&p->lab, i, &p->end[i], NULL, NULL, true);
	return true;
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static void run_events(struct lab_end *e)
{
	struct loop_task stop = { .fn = stop_loop, .arg = e->loop };

	loop_post(e->loop, &stop);
	loop_run(e->loop);
}

static void pair_down(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		run_events(&p->end[i]);
		lab_end_down(&p->end[i]);
	}
	lab_down(&p->lab);
}

struct stream {
	int fd;
	uint64_t seed;
	size_t bytes;
	bool ok;
};

static void *send_stream(void *arg)
{
	struct stream *s = arg;
	uint8_t buf[65536];
	struct rng g;

	rng_init_seeded(&g, s->seed);
	for (size_t left = s->bytes; left;) {
		size_t n = left < sizeof(buf) ? left : sizeof(buf);

		rng_fill(&g, buf, sizeof(buf));
		for (size_t at = 0; at < n;) {
			ssize_t r = write(s->fd, buf + at, n - at);

			if (r <= 0)
				return NULL;
			at += (size_t)r;
		}
		left -= n;
	}
	s->ok = true;
	return NULL;
}

static void *receive_stream(void *arg)
{
	struct stream *s = arg;
	uint8_t want[65536], buf[65536];
	struct rng g;

	rng_init_seeded(&g, s->seed);
	for (size_t left = s->bytes; left;) {
		size_t n = left < sizeof(buf) ? left : sizeof(buf);

		rng_fill(&g, want, sizeof(want));
		for (size_t at = 0; at < n;) {
			ssize_t r = read(s->fd, buf + at, n - at);

			if (r <= 0)
				return NULL;
			at += (size_t)r;
		}
		if (memcmp(buf, want, n) != 0)
			return NULL;
		left -= n;
	}
	s->ok = true;
	return NULL;
}

/* Random bytes both ways at once over one TCP connection; `during` runs meanwhile. */
static void tcp_both_ways(struct pair *p, bool v6, uint16_t port, void (*during)(struct pair *))
{
	int l = open_socket(p, 1, v6, SOCK_STREAM), a = open_socket(p, 0, v6, SOCK_STREAM), b, one = 1;
	struct stream s[4];
	pthread_t t[4];
	socklen_t n;
	struct sockaddr_storage ss = overlay(p, 1, v6, port, &n);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (struct sockaddr *)&ss, n) != 0)
		fail_msg("bind: %s", strerror(errno));
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(connect(a, (struct sockaddr *)&ss, n), 0);
	b = accept(l, NULL, NULL);
	assert_true(b >= 0);
	for (int i = 0; i < 4; i++) {
		s[i] = (struct stream){ .fd = i & 1 ? b : a,
					.seed = 10 + (uint64_t)(i == 0 || i == 1),
					.bytes = BYTES };
		pthread_create(&t[i], NULL, i == 0 || i == 3 ? send_stream : receive_stream, &s[i]);
	}
	if (during)
		during(p);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 4; i++)
		assert_true(s[i].ok);
	close(a);
	close(b);
	close(l);
}

static void print_counters(const struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		struct dp_counters c;

		dp_counters(p->end[i].dp, &c);
#define X(name, metric, help)                                                                                \
	if (c.name)                                                                                          \
		print_message("end %d: " #name " %llu\n", i, (unsigned long long)c.name);
#include "tunnel/counters.def"
#undef X
	}
}

static void udp_sizes(struct pair *p, bool v6, uint16_t port)
{
	int a = open_socket(p, 0, v6, SOCK_DGRAM), b = open_socket(p, 1, v6, SOCK_DGRAM);
	socklen_t n;
	struct sockaddr_storage ss = overlay(p, 1, v6, port, &n);
	uint8_t out[4000], in[4000];

	assert_int_equal(bind(b, (struct sockaddr *)&ss, n), 0);
	assert_int_equal(connect(a, (struct sockaddr *)&ss, n), 0);
	for (size_t len = 0; len < 3000; len += 37) { /* above the MTU they travel as fragments */
		memset(out, (int)len, sizeof(out));
		assert_int_equal(send(a, out, len, 0), len);
		if (recv(b, in, sizeof(in), 0) != (ssize_t)len) {
			print_counters(p);
			fail_msg("a datagram of %zu bytes did not arrive: %s", len, strerror(errno));
		}
		assert_memory_equal(in, out, len);
	}
	close(a);
	close(b);
}

static void no_drops(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		struct dp_counters c;

		dp_counters(p->end[i].dp, &c);
		assert_true(c.tx_packets > 0 && c.rx_packets > 0);
		assert_int_equal(c.drop_malformed + c.drop_link + c.drop_index + c.drop_replay + c.drop_auth,
				 0);
		assert_int_equal(c.drop_source + c.drop_destination + c.drop_inner + c.drop_split, 0);
		assert_int_equal(c.drop_tun + c.drop_no_session + c.drop_too_big, 0);
	}
}

static void traffic(struct pair *p)
{
	if (!pair_up(p))
		skip();
	for (int v6 = 0; v6 < 2; v6++) {
		tcp_both_ways(p, v6, (uint16_t)(4000 + v6), NULL);
		udp_sizes(p, v6, (uint16_t)(4100 + v6));
	}
	no_drops(p);
	pair_down(p);
}

static void over_ipv4(void **state)
{
	struct pair p = { 0 };

	(void)state;
	traffic(&p);
}

static void over_ipv6_two_workers(void **state)
{
	struct pair p = { .lab = { .v6 = true, .nworkers = 2 } };

	(void)state;
	traffic(&p);
}

/* An underlay of 1280 bytes: inner IPv6 keeps its 1280, in two frames. */
static void narrow_path(void **state)
{
	struct pair p = { .lab = { .v6 = true, .veth_mtu = 1280, .tun_mtu = 1280 } };

	(void)state;
	traffic(&p);
}

static void rekey(struct pair *p)
{
	for (uint32_t g = 1; g < 40; g++) {
		struct dp_session_stats st;

		/* both receive with the new keys before one sends with them */
		for (int i = 0; i < 2; i++)
			lab_session_add(&p->lab, i, &p->end[i], g);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(dp_session_use(p->end[i].dp, g), 0);
			if (g > 3)
				dp_session_remove(p->end[i].dp, g - 3);
			run_events(&p->end[i]);
		}
		assert_int_equal(dp_session_stats(p->end[0].dp, g, &st), 0);
		usleep(3000);
	}
}

static void rekey_under_load(void **state)
{
	struct pair p = { 0 };

	(void)state;
	if (!pair_up(&p))
		skip();
	tcp_both_ways(&p, true, 4000, rekey);
	for (int i = 0; i < 2; i++) {
		struct dp_counters c;

		dp_counters(p.end[i].dp, &c);
		assert_int_equal(c.drop_replay + c.drop_auth + c.drop_no_session, 0);
	}
	pair_down(&p);
}

struct told {
	unsigned too_big;
};

static void told_too_big(void *arg, uint32_t link)
{
	assert_int_equal(link, 1);
	((struct told *)arg)->too_big++;
}

/* A path that takes less than was believed: the kernel says so, we pass it on, and the smaller size works. */
static void path_shrinks(void **state)
{
	static const struct dp_ops ops = { .path_too_big = told_too_big };
	struct pair p = { .lab = { .veth_mtu = 1400, .frame_max = 1472, .tun_mtu = 1412 } };
	struct told told = { 0 };
	struct endpoint to;
	struct dp_counters c;
	uint8_t buf[1384] = { 0 };
	socklen_t n;
	struct sockaddr_storage ss;
	int a;

	(void)state;
	if (!lab_up(&p.lab))
		skip();
	for (int i = 0; i < 2; i++)
		lab_end_up(&p.lab, i, &p.end[i], &ops, &told, true);
	ss = overlay(&p, 1, false, 4000, &n);
	a = open_socket(&p, 0, false, SOCK_DGRAM);
	for (int i = 0; i < 20; i++)
		sendto(a, buf, sizeof(buf), 0, (struct sockaddr *)&ss, n);
	usleep(50000);
	run_events(&p.end[0]);
	dp_counters(p.end[0].dp, &c);
	assert_int_equal(c.drop_send, 20);
	assert_int_equal(told.too_big, 1);
	to = lab_underlay(&p.lab, 1);
	assert_int_equal(dp_link_path(p.end[0].dp, 1, &to, 1372), 0);
	to = lab_underlay(&p.lab, 0);
	assert_int_equal(dp_link_path(p.end[1].dp, 1, &to, 1372), 0);
	close(a);
	udp_sizes(&p, false, 4001);
	tcp_both_ways(&p, true, 4002, NULL);
	pair_down(&p);
}

/* Nobody crashes when one end goes away in mid-stream. */
static void end_in_the_middle(void **state)
{
	struct pair p = { 0 };
	socklen_t n;
	struct sockaddr_storage ss;
	uint8_t buf[1200] = { 0 };
	int a;

	(void)state;
	if (!pair_up(&p))
		skip();
	a = open_socket(&p, 0, true, SOCK_DGRAM);
	ss = overlay(&p, 1, true, 4000, &n);
	for (int i = 0; i < 3000; i++) {
		sendto(a, buf, sizeof(buf), 0, (struct sockaddr *)&ss, n);
		if (i == 1000)
			dp_link_remove(p.end[1].dp, 1);
		if (i == 2000)
			dp_session_remove(p.end[0].dp, 0);
	}
	close(a);
	pair_down(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_ipv4),	cmocka_unit_test(over_ipv6_two_workers),
		cmocka_unit_test(narrow_path),	cmocka_unit_test(rekey_under_load),
		cmocka_unit_test(path_shrinks), cmocka_unit_test(end_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
