/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a packet through two data paths, with the test as the network between them. */
#include "tunnel/pipe_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t a4[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
		     b4[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 2 };
static uint8_t buf[70000], got[70000], frame[70000];

static struct pkt_spec spec(struct pipe_lab *p, bool v6, uint8_t flags, size_t payload)
{
	return (struct pkt_spec){ .v6 = v6,
				  .src = v6 ? p->addr[SIDE_A] : a4,
				  .dst = v6 ? p->addr[SIDE_B] : b4,
				  .sport = 1000,
				  .dport = 2000,
				  .flags = flags,
				  .payload = payload };
}

/* From A's application to B's worker: everything that was written. Returns the frames on the wire. */
static unsigned pass(struct pipe_lab *p)
{
	unsigned n;

	pipe_turn(p, SIDE_A);
	n = pipe_forward(p, SIDE_B);
	pipe_turn(p, SIDE_B);
	return n;
}

/* Without the test in between: the kernel then keeps a batch of frames together, as on a real path. */
static void connect_directly(struct pipe_lab *p)
{
	for (int i = 0; i < SIDES; i++)
		assert_int_equal(dp_link_path(p->dp[i], 1, &p->at[!i], p->frame_max), 0);
}

static void expect_same(struct pipe_lab *p, const uint8_t *want, size_t n, struct virtio_net_hdr *v)
{
	ssize_t r = pipe_read(p, SIDE_B, v, got, sizeof(got));

	assert_int_equal(r, n);
	assert_memory_equal(got, want, n);
}

static void expect_nothing(struct pipe_lab *p, int side)
{
	assert_int_equal(pipe_read(p, side, NULL, got, sizeof(got)), -1);
}

static void whole_packets_both_suites(void **state)
{
	(void)state;
	for (int suite = AEAD_AES_256_GCM; suite <= AEAD_CHACHA20_POLY1305; suite++) {
		struct pipe_lab p;
		struct virtio_net_hdr v;
		struct dp_session_stats st;

		pipe_up(&p, 1452);
		p.suite = (enum aead_suite)suite;
		pipe_session(&p, SIDES, 1);
		for (int v6 = 0; v6 < 2; v6++) {
			struct pkt_spec s = spec(&p, v6, 0, 333);
			size_t n = pkt_make(&s, buf);

			pipe_write(&p, SIDE_A, NULL, buf, n);
			assert_int_equal(pass(&p), 1);
			expect_same(&p, buf, n, &v);
			assert_int_equal(v.flags, 0); /* its checksum is complete and stays so */
			s.flags = TCP_ACK;
			n = pkt_make(&s, buf);
			pkt_offload(buf, n, 0, &v);
			pipe_write(&p, SIDE_A, &v, buf, n);
			assert_int_equal(pass(&p), 1);
			expect_same(&p, buf, n, &v);
			assert_int_equal(v.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
			assert_int_equal(v.csum_start, v6 ? 40 : 20);
			assert_int_equal(v.csum_offset, 16);
		}
		assert_int_equal(pipe_counters(&p, SIDE_A).tx_packets, 4);
		assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, 4);
		assert_int_equal(dp_session_stats(p.dp[SIDE_B], 1, &st), 0);
		assert_int_equal(st.rx_packets, 4);
		assert_true(st.last_rx > 0 && st.last_tx == 0);
		assert_int_equal(dp_session_stats(p.dp[SIDE_A], 1, &st), 0);
		assert_int_equal(st.tx_packets, 4);
		assert_int_equal(st.tx_counter_max, 4);
		assert_int_equal(dp_session_stats(p.dp[SIDE_A], 2, &st), ERR_NOT_FOUND);
		pipe_down(&p);
	}
}

/* A super-packet leaves in pieces of one packet each and arrives whole. */
static void super_packets(void **state)
{
	struct pipe_lab p;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	connect_directly(&p);
	for (int kind = 0; kind < 4; kind++) {
		bool v6 = kind & 1, udp = kind & 2;
		struct pkt_spec s = spec(&p, v6, udp ? 0 : TCP_ACK | TCP_PSH, udp ? 20 * 1200 : 40 * 1300);
		struct virtio_net_hdr v, w;
		size_t n = pkt_make(&s, buf);

		pkt_offload(buf, n, udp ? 1200 : 1300, &v);
		pipe_write(&p, SIDE_A, &v, buf, n);
		pass(&p);
		expect_same(&p, buf, n, &w);
		assert_int_equal(w.gso_type, v.gso_type);
		assert_int_equal(w.gso_size, v.gso_size);
		assert_int_equal(w.flags, v.flags);
		expect_nothing(&p, SIDE_B);
	}
	assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, 120);
	assert_true(pipe_counters(&p, SIDE_A).tx_batches < 10);
	pipe_down(&p);
}

/* TCP pieces that would not fit a frame are cut smaller, and no packet is split for it. */
static void recut_to_the_path(void **state)
{
	struct pipe_lab p;
	struct virtio_net_hdr v;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1300);
	pipe_session(&p, SIDES, 1);
	connect_directly(&p);
	s = spec(&p, false, TCP_ACK, 30000);
	n = pkt_make(&s, buf);
	pkt_offload(buf, n, 1460, &v);
	pipe_write(&p, SIDE_A, &v, buf, n);
	pass(&p);
	assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, 25); /* 1300 - 60 - 40 = 1200 bytes each */
	expect_same(&p, buf, n, &v);
	assert_int_equal(v.gso_size, 1200);
	pipe_down(&p);
}

static void mss_is_clamped(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	struct inner in;
	size_t n;

	(void)state;
	pipe_up(&p, 1300);
	pipe_session(&p, SIDES, 1);
	for (int v6 = 0; v6 < 2; v6++) {
		s = spec(&p, v6, TCP_SYN, 0);
		s.mss = true;
		n = pkt_make(&s, buf);
		pipe_write(&p, SIDE_A, NULL, buf, n);
		pass(&p);
		assert_int_equal(pipe_read(&p, SIDE_B, NULL, got, sizeof(got)), n);
		assert_int_equal(get_u16(got + n - 2), 1300 - 60 - (v6 ? 60 : 40));
		assert_int_equal(inner_parse(got, n, 0, &in), 0);
		assert_true(inner_csum_ok(got, n, &in));
	}
	pipe_down(&p);
}

static void split_in_two(void **state)
{
	struct pipe_lab p;
	uint8_t first[2000];
	ssize_t fn, sn;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1220);
	pipe_session(&p, SIDES, 1);
	s = spec(&p, true, 0, 1280 - 48);
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	assert_int_equal(pass(&p), 2);
	expect_same(&p, buf, n, NULL);
	/* either order, other frames in between */
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	fn = pipe_catch(&p, first, sizeof(first));
	sn = pipe_catch(&p, frame, sizeof(frame));
	assert_true(fn > 0 && fn <= 1220 && sn > 0 && sn <= 1220);
	pipe_throw(&p, SIDE_B, frame, (size_t)sn);
	pipe_turn(&p, SIDE_B);
	expect_nothing(&p, SIDE_B);
	pipe_throw(&p, SIDE_B, first, (size_t)fn);
	pipe_turn(&p, SIDE_B);
	expect_same(&p, buf, n, NULL);
	/* a part alone delivers nothing, and is counted once newer ones need its place */
	for (int i = 0; i < 2 * SPLIT_SLOTS; i++) {
		pipe_write(&p, SIDE_A, NULL, buf, n);
		pipe_turn(&p, SIDE_A);
		fn = pipe_catch(&p, first, sizeof(first));
		pipe_catch(&p, frame, sizeof(frame));
		pipe_throw(&p, SIDE_B, first, (size_t)fn);
		pipe_turn(&p, SIDE_B);
	}
	expect_nothing(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_split, SPLIT_SLOTS);
	pipe_down(&p);
}

static void too_big_is_answered(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1400);
	pipe_session(&p, SIDES, 1);
	for (int v6 = 0; v6 < 2; v6++) {
		s = spec(&p, v6, 0, 4000);
		n = pkt_make(&s, buf);
		pipe_write(&p, SIDE_A, NULL, buf, n);
		assert_int_equal(pass(&p), 0);
		assert_true(pipe_read(&p, SIDE_A, NULL, got, sizeof(got)) > 0);
		if (v6) {
			assert_int_equal(got[40], 2);
			assert_int_equal(get_u32(got + 44), 1340);
			assert_memory_equal(got + 24, p.addr[SIDE_A], 16);
		} else {
			assert_int_equal(got[20], 3);
			assert_int_equal(got[21], 4);
			assert_int_equal(get_u16(got + 26), 1340);
		}
	}
	assert_int_equal(pipe_counters(&p, SIDE_A).drop_too_big, 2);
	pipe_down(&p);
}

/* Every single bit of a frame matters, and nothing changes when one is wrong. */
static void bit_flips(void **state)
{
	struct pipe_lab p;
	struct dp_counters c;
	struct pkt_spec s;
	uint8_t bad[300];
	ssize_t len;
	size_t n;
	uint64_t dropped;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	s = spec(&p, true, 0, 20);
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	len = pipe_catch(&p, frame, sizeof(frame));
	assert_int_equal(len, n + DATA_OVERHEAD);
	for (ssize_t bit = 0; bit < len * 8; bit++) {
		memcpy(bad, frame, (size_t)len);
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		/* ttl is rewritten by relays, under their own link's tag */
		pipe_throw(&p, SIDE_B, bad, (size_t)len);
		pipe_turn(&p, SIDE_B);
		expect_nothing(&p, SIDE_B);
	}
	c = pipe_counters(&p, SIDE_B);
	dropped = c.drop_malformed + c.drop_link + c.drop_auth;
	assert_int_equal(dropped, len * 8);
	assert_int_equal(c.drop_auth, (len - DATA_HEAD) * 8);
	assert_int_equal(c.drop_replay, 0);
	/* every truncation */
	for (ssize_t i = 0; i < len; i++) {
		pipe_throw(&p, SIDE_B, frame, (size_t)i);
		pipe_turn(&p, SIDE_B);
	}
	expect_nothing(&p, SIDE_B);
	assert_int_equal(p.seen[SIDE_B].path_seen, 0);
	/* and the frame itself still counts as new */
	pipe_throw(&p, SIDE_B, frame, (size_t)len);
	pipe_turn(&p, SIDE_B);
	expect_same(&p, buf, n, NULL);
	for (int i = 0; i < 10; i++)
		pipe_throw(&p, SIDE_B, frame, (size_t)len);
	pipe_turn(&p, SIDE_B);
	expect_nothing(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_replay, 10);
	pipe_down(&p);
}

/* Frames that are authentic but say something a peer may not say. */
static void authentic_but_refused(void **state)
{
	static const uint8_t other6[16] = { 0xfd, [15] = 9 },
			     other4[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 9 };
	struct pipe_lab p;
	struct dp_counters c;
	struct pkt_spec s;
	uint64_t counter = 0;
	size_t n, len;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t code = v6 ? INNER_V6 << 4 : 0;

		/* foreign source, foreign destination */
		for (int k = 0; k < 2; k++) {
			s = spec(&p, v6, 0, 50);
			if (k)
				s.dst = v6 ? other6 : other4;
			else
				s.src = v6 ? other6 : other4;
			n = pkt_make(&s, buf);
			buf[0] = (uint8_t)(code | (buf[0] & 15));
			len = pipe_frame(&p, SIDE_A, 1, counter++, buf, n, frame);
			pipe_throw(&p, SIDE_B, frame, len);
		}
		/* one byte too many, one too few, a code that means nothing, a partial checksum of no
		 * transport */
		s = spec(&p, v6, 0, 50);
		n = pkt_make(&s, buf);
		for (int k = 0; k < 5; k++) {
			size_t m = k == 0 ? n + 1 : k == 1 ? n - 1 : k == 2 ? 1 : n;

			buf[0] = (uint8_t)((k == 3   ? 0x50
					    : k == 4 ? code | INNER_PARTIAL << 4
						     : code) |
					   (v6 ? 0 : 5));
			if (k == 4)
				buf[v6 ? 6 : 9] = 132;
			len = pipe_frame(&p, SIDE_A, 1, counter++, buf, m, frame);
			pipe_throw(&p, SIDE_B, frame, len);
		}
		pipe_turn(&p, SIDE_B);
	}
	c = pipe_counters(&p, SIDE_B);
	assert_int_equal(c.drop_source, 2);
	assert_int_equal(c.drop_destination, 2);
	assert_int_equal(c.drop_inner, 10);
	expect_nothing(&p, SIDE_B);
	/* a keepalive is nobody's packet, and proves the peer is there */
	len = pipe_frame(&p, SIDE_A, 1, counter++, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	pipe_turn(&p, SIDE_B);
	expect_nothing(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_inner, 10);
	/* an index nobody has, and a worker that does not exist */
	len = pipe_frame(&p, SIDE_A, 7, 0, buf, n, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_index, 1);
	/* counters behind the window */
	len = pipe_frame(&p, SIDE_A, 1, 100000, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	len = pipe_frame(&p, SIDE_A, 1, 100000 - REPLAY_WINDOW_MAX, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_replay, 1);
	pipe_down(&p);
}

static void subnets_of_policy(void **state)
{
	static const uint8_t in[16] = { [10] = 0xff, [11] = 0xff, 10, 9, 1, 1 };
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	s = spec(&p, false, 0, 10);
	s.dst = in; /* A may send there; B is not that address */
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	assert_int_equal(pass(&p), 1);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_destination, 1);
	s = spec(&p, false, 0, 10);
	s.src = in; /* and B may send from there */
	s.dst = a4;
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_B, NULL, buf, n);
	pipe_turn(&p, SIDE_B);
	pipe_forward(&p, SIDE_A);
	pipe_turn(&p, SIDE_A);
	assert_int_equal(pipe_read(&p, SIDE_A, NULL, got, sizeof(got)), n);
	pipe_down(&p);
}

static void path_follows_newest(void **state)
{
	struct pipe_lab p;
	size_t len;
	struct endpoint elsewhere;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	endpoint_parse("127.0.0.1:9", 0, &elsewhere, NULL);
	assert_int_equal(dp_link_path(p.dp[SIDE_B], 1, &elsewhere, 1452), 0);
	assert_int_equal(dp_link_path(p.dp[SIDE_B], 2, &elsewhere, 1452), ERR_NOT_FOUND);
	len = pipe_frame(&p, SIDE_A, 1, 5, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(p.seen[SIDE_B].path_seen, 1);
	assert_true(endpoint_equal(&p.seen[SIDE_B].from, &p.middle_at));
	/* an older one, a replayed one: no */
	pipe_throw(&p, SIDE_B, frame, len);
	len = pipe_frame(&p, SIDE_A, 1, 4, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	p.dp[SIDE_B]->links->seen_reported = 0;
	pipe_turn(&p, SIDE_B);
	assert_int_equal(p.seen[SIDE_B].path_seen, 1);
	/* rate limited */
	for (uint64_t i = 6; i < 20; i++) {
		len = pipe_frame(&p, SIDE_A, 1, i, NULL, 0, frame);
		pipe_throw(&p, SIDE_B, frame, len);
		pipe_turn(&p, SIDE_B);
	}
	assert_in_range(p.seen[SIDE_B].path_seen, 2, 3);
	pipe_down(&p);
}

static void first_packets_wait(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDE_B, 1);
	s = spec(&p, true, 0, 100);
	for (uint8_t i = 0; i < 70; i++) {
		s.seed = i;
		n = pkt_make(&s, buf);
		pipe_write(&p, SIDE_A, NULL, buf, n);
	}
	assert_int_equal(pass(&p), 0);
	assert_int_equal(p.seen[SIDE_A].need_session, 1);
	assert_memory_equal(p.seen[SIDE_A].dst, p.addr[SIDE_B], 16);
	assert_int_equal(pipe_counters(&p, SIDE_A).drop_no_session, 70 - FIRSTQ_PACKETS);
	pipe_session(&p, SIDE_A, 1);
	assert_int_equal(pass(&p), FIRSTQ_PACKETS);
	{
		struct virtio_net_hdr v;
		size_t total = 0;
		ssize_t r;

		/* in order: USO gives one super-packet, or a few */
		while ((r = pipe_read(&p, SIDE_B, &v, got, sizeof(got))) > 0) {
			for (size_t at = 48; at < (size_t)r; at += 100)
				assert_int_equal(got[at], total++);
		}
		assert_int_equal(total, FIRSTQ_PACKETS);
	}
	pipe_down(&p);
}

static void unreachable_is_answered(void **state)
{
	static const uint8_t mc[16] = { 0xff, 2, [15] = 1 };
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	s = spec(&p, true, TCP_SYN, 0);
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	expect_nothing(&p, SIDE_A);
	dp_unreachable(p.dp[SIDE_A], p.addr[SIDE_B], 1000 * NS_PER_S);
	pipe_turn(&p, SIDE_A);
	assert_int_equal(pipe_read(&p, SIDE_A, NULL, got, sizeof(got)), 48 + n);
	assert_int_equal(got[40], 1);
	assert_memory_equal(got + 48, buf, n);
	/* the next one at once */
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	assert_int_equal(pipe_counters(&p, SIDE_A).drop_unreachable,
			 1 + (pipe_read(&p, SIDE_A, NULL, got, 2000) > 0));
	/* multicast: no question, no answer */
	s.dst = mc;
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	expect_nothing(&p, SIDE_A);
	pipe_down(&p);
}

static void rekey_loses_nothing(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	s = spec(&p, true, 0, 100);
	n = pkt_make(&s, buf);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A); /* on the wire under the old key */
	pipe_session(&p, SIDES, 2);
	pipe_write(&p, SIDE_A, NULL, buf, n);
	pipe_turn(&p, SIDE_A);
	assert_int_equal(pipe_forward(&p, SIDE_B), 2);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, 2);
	dp_session_remove(p.dp[SIDE_B], 1);
	n = pipe_frame(&p, SIDE_A, 1, 9, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, n);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_index, 1);
	dp_link_remove(p.dp[SIDE_B], 1);
	n = pipe_frame(&p, SIDE_A, 2, 9, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, n);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_link, 1);
	loop_run_until(p.loop, loop_now(p.loop) + NS_PER_S);
	assert_null(p.dp[SIDE_B]->qsbr.head); /* all of it was reclaimed */
	pipe_down(&p);
}

static void spent_keys_stop(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	p.dp[SIDE_A]->sessions->tx[0].counter = 1ull << 33;
	s = spec(&p, true, 0, 100);
	n = pkt_make(&s, buf);
	for (int i = 0; i < 3; i++)
		pipe_write(&p, SIDE_A, NULL, buf, n);
	assert_int_equal(pass(&p), 0);
	assert_int_equal(p.seen[SIDE_A].spent, 1);
	/* forgeries: the limit itself is out of reach, so stand just below it */
	p.dp[SIDE_B]->sessions->rx[0].auth_failures = (1ull << 52) - 1;
	n = pipe_frame(&p, SIDE_A, 1, 1, buf, n, frame);
	frame[n - 1] ^= 1;
	pipe_throw(&p, SIDE_B, frame, n);
	pipe_turn(&p, SIDE_B);
	assert_int_equal(p.seen[SIDE_B].spent, 1);
	pipe_down(&p);
}

static void congestion_marks_pass(void **state)
{
	struct pipe_lab p;
	struct pkt_spec s;
	int ce = ECN_CE;
	size_t n;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	for (int v6 = 0; v6 < 2; v6++) {
		s = spec(&p, v6, 0, 100);
		s.tos = 0xb8 | ECN_ECT0;
		n = pkt_make(&s, buf);
		pipe_write(&p, SIDE_A, NULL, buf, n);
		pipe_turn(&p, SIDE_A);
		{
			uint8_t ctl[64];
			struct iovec iov = { frame, sizeof(frame) };
			struct msghdr m = { .msg_iov = &iov,
					    .msg_iovlen = 1,
					    .msg_control = ctl,
					    .msg_controllen = sizeof(ctl) };
			ssize_t r = recvmsg(p.middle, &m, 0);
			struct cmsghdr *c = CMSG_FIRSTHDR(&m);

			/* outside as inside */
			assert_true(r > 0 && c && c->cmsg_type == IP_TOS);
			assert_int_equal(*CMSG_DATA(c), 0xb8 | ECN_ECT0);
			setsockopt(p.middle, IPPROTO_IP, IP_TOS, &ce, sizeof(ce));
			pipe_throw(&p, SIDE_B, frame, (size_t)r);
		}
		pipe_turn(&p, SIDE_B);
		s.tos = 0xb8 | ECN_CE;
		n = pkt_make(&s, buf);
		expect_same(&p, buf, n, NULL);
		/* not ECN-capable inside, marked outside: dropped */
		s.tos = 0;
		n = pkt_make(&s, buf);
		pipe_write(&p, SIDE_A, NULL, buf, n);
		pass(&p);
		expect_nothing(&p, SIDE_B);
		ce = 0;
		setsockopt(p.middle, IPPROTO_IP, IP_TOS, &ce, sizeof(ce));
		ce = ECN_CE;
	}
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_inner, 2);
	pipe_down(&p);
}

/* Where the kernel or the card cannot cut, frames leave one by one; a socket that takes none loses and counts
 * them. */
static void without_segmentation(void **state)
{
	struct pipe_lab p;
	struct virtio_net_hdr v;
	struct pkt_spec s;
	struct txb *b;
	size_t n;
	int fd;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	connect_directly(&p);
	b = &p.dp[SIDE_A]->worker[0].txb;
	fd = b->fd;
	s = spec(&p, true, TCP_ACK, 13000);
	for (int i = 0; i < 3; i++) {
		n = pkt_make(&s, buf);
		pkt_offload(buf, n, 1300, &v);
		b->gso = i > 0;
		b->fd = i < 2 ? fd : -1;
		pipe_write(&p, SIDE_A, &v, buf, n);
		pipe_turn(&p, SIDE_A);
		pipe_turn(&p, SIDE_B);
	}
	b->fd = fd;
	assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, 20);
	assert_int_equal(pipe_counters(&p, SIDE_A).drop_send, 10);
	pipe_down(&p);
}

/* The kernel steers a batch by its first frame: what belongs to another worker is handed over. */
static void wrong_worker(void **state)
{
	struct pipe_lab p;
	struct worker *w;
	struct pkt_spec s;
	size_t n, len;

	(void)state;
	pipe_up(&p, 1452);
	pipe_session(&p, SIDES, 1);
	w = &p.dp[SIDE_B]->worker[0];
	s = spec(&p, true, 0, 100);
	n = pkt_make(&s, buf);
	got[0] = (uint8_t)(INNER_V6 << 4);
	memcpy(got + 1, buf + 1, n - 1);
	w->table = atomic_load(&p.dp[SIDE_B]->table);
	w->id = 1; /* as if another worker had got it */
	for (uint64_t i = 0; i < HANDED_MAX + 5; i++) {
		len = pipe_frame(&p, SIDE_A, 1, i, got, n, frame);
		pipe_throw(&p, SIDE_B, frame, len);
		pipeline_rx(w);
	}
	assert_int_equal(pipe_counters(&p, SIDE_B).drop_index, 5);
	w->id = 0;
	pipe_turn(&p, SIDE_B);
	assert_int_equal(pipe_counters(&p, SIDE_B).rx_packets, HANDED_MAX);
	assert_int_equal(w->nhanded, 0);
	while (pipe_read(&p, SIDE_B, NULL, got, sizeof(got)) > 0)
		;
	w->id = 1; /* and one that nobody fetches */
	len = pipe_frame(&p, SIDE_A, 1, 9999, NULL, 0, frame);
	pipe_throw(&p, SIDE_B, frame, len);
	pipeline_rx(w);
	w->id = 0;
	pipe_down(&p);
}

static void bad_calls(void **state)
{
	struct pipe_lab p;
	struct dp_session s = { .id = 1, .link = 1, .nrx = 1, .ntx = 1 };
	struct dp_link l = { .id = 1 };
	struct rng rng;
	struct err e;

	(void)state;
	pipe_up(&p, 1452);
	assert_int_equal(dp_link_add(p.dp[0], &l, &e), ERR_CONFLICT);
	pipe_session(&p, SIDES, 1);
	s.rx[0].index = 0x500;
	assert_int_equal(dp_session_add(p.dp[0], &s, &e), ERR_CONFLICT);
	s.id = 2;
	s.link = 9;
	memset(s.tx[0].key, 5, AEAD_KEY);
	assert_int_equal(dp_session_add(p.dp[0], &s, &e), ERR_NOT_FOUND);
	assert_int_equal(s.tx[0].key[3], 0); /* wiped all the same */
	s.rx[0].index = 0x501;		     /* worker 1 does not exist */
	assert_int_equal(dp_session_add(p.dp[0], &s, &e), ERR_CONFLICT);
	s.nrx = 0;
	assert_int_equal(dp_session_add(p.dp[0], &s, &e), ERR_LIMIT);
	assert_int_equal(dp_session_use(p.dp[0], 77), ERR_NOT_FOUND);
	dp_session_remove(p.dp[0], 77);
	dp_link_remove(p.dp[0], 77);
	rng_init_seeded(&rng, 1);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(index_worker(dp_index_new(p.dp[0], 3, &rng)), 3);
	/* without its link a session is silent */
	dp_link_remove(p.dp[0], 1);
	{
		struct pkt_spec ps = spec(&p, true, 0, 10);

		pipe_write(&p, SIDE_A, NULL, buf, pkt_make(&ps, buf));
	}
	assert_int_equal(pass(&p), 0);
	assert_int_equal(pipe_counters(&p, SIDE_A).drop_no_session, 1);
	pipe_down(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_packets_both_suites),
		cmocka_unit_test(super_packets),
		cmocka_unit_test(recut_to_the_path),
		cmocka_unit_test(mss_is_clamped),
		cmocka_unit_test(split_in_two),
		cmocka_unit_test(too_big_is_answered),
		cmocka_unit_test(bit_flips),
		cmocka_unit_test(authentic_but_refused),
		cmocka_unit_test(subnets_of_policy),
		cmocka_unit_test(path_follows_newest),
		cmocka_unit_test(first_packets_wait),
		cmocka_unit_test(unreachable_is_answered),
		cmocka_unit_test(rekey_loses_nothing),
		cmocka_unit_test(spent_keys_stop),
		cmocka_unit_test(congestion_marks_pass),
		cmocka_unit_test(wrong_worker),
		cmocka_unit_test(without_segmentation),
		cmocka_unit_test(bad_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
