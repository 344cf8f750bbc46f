/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting and merging: what was cut and merged and cut again is what was cut. Seeded; a failure prints its
 * seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tunnel/pipe_lab.h"

enum { PIECES = 2000, ROOM = 2048, FLOWS = 3 };

struct piece {
	size_t n;
	uint8_t p[ROOM];
};

struct list {
	unsigned n;
	struct piece *v; /* [PIECES] */
};

static uint8_t addr[2][2][16] = { { { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
				    { [10] = 0xff, [11] = 0xff, 10, 0, 0, 2 } },
				  { { 0xfd, [15] = 1 }, { 0xfd, [15] = 2 } } };

static void finish(uint8_t *p, size_t n, const struct inner *in)
{
	inner_csum_partial(p, n, in);
	assert_int_equal(inner_csum_finish(p, n, in->l4, inner_csum_at(in) - in->l4), 0);
}

/* Cuts into a list; every piece must be a valid packet. With complete checksums, so that lists compare. */
static void cut_all(const struct virtio_net_hdr *v, uint8_t *pkt, size_t n, size_t max, struct list *l)
{
	struct inner in, one;
	unsigned pieces, got = 0;
	uint8_t *p;
	struct cut c;

	assert_int_equal(inner_parse(pkt, n, 7, &in), 0);
	assert_int_equal(cut_init(&c, v, pkt, n, &in, max), 0);
	pieces = cut_pieces(&c);
	while ((p = cut_next(&c, &n))) {
		struct piece *to = &l->v[l->n++];

		assert_true(l->n <= PIECES && n <= ROOM);
		assert_int_equal(inner_parse(p, n, 7, &one), 0);
		if (!one.v6)
			assert_int_equal(csum_add(p, one.l4, 0), 0xffff);
		if (c.partial) {
			assert_int_equal(get_u16(p + inner_csum_at(&one)),
					 inner_pseudo(p, one.v6, one.proto, n - one.l4));
			finish(p, n, &one);
		}
		assert_true(one.proto == PROTO_UDP || n <= max);
		to->n = n;
		memcpy(to->p, p, n);
		got++;
	}
	assert_int_equal(got, pieces);
}

struct sink {
	struct list out[FLOWS];
	unsigned writes;
};

static void sink_write(void *arg, const struct iovec *iov, unsigned niov, unsigned packets)
{
	static uint8_t buf[VNET_LEN + 65536];
	struct virtio_net_hdr v;
	struct sink *s = arg;
	struct inner in;
	unsigned before, flow;
	size_t n = 0;

	for (unsigned i = 0; i < niov; i++) {
		assert_true(n + iov[i].iov_len <= sizeof(buf));
		memcpy(buf + n, iov[i].iov_base, iov[i].iov_len);
		n += iov[i].iov_len;
	}
	memcpy(&v, buf, VNET_LEN);
	n -= VNET_LEN;
	assert_int_equal(inner_parse(buf + VNET_LEN, n, 7, &in), 0);
	flow = get_u16(buf + VNET_LEN + in.l4) % FLOWS;
	before = s->out[flow].n;
	if (v.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		assert_int_equal(v.csum_start, in.l4);
	cut_all(&v, buf + VNET_LEN, n, ROOM, &s->out[flow]);
	assert_int_equal(s->out[flow].n - before, packets);
	s->writes++;
}

/* A flow: a few super-packets one after the other, cut. */
static void make_flow(struct rng *g, unsigned flow, struct list *l)
{
	bool v6 = rng_below(g, 2), tcp = rng_below(g, 2);
	uint16_t id = (uint16_t)rng_u64(g);
	uint32_t seq = (uint32_t)rng_u64(g);
	uint16_t size = (uint16_t)(1 + rng_below(g, 1400));

	for (int i = 0; i < 6 && l->n < PIECES / 3; i++) {
		static uint8_t buf[65536];
		uint8_t flags = (uint8_t)(TCP_ACK | (rng_below(g, 3) ? 0 : TCP_PSH) |
					  (rng_below(g, 9) ? 0 : TCP_CWR) | (rng_below(g, 12) ? 0 : TCP_FIN) |
					  (rng_below(g, 5) ? 0 : TCP_ECE));
		size_t most = tcp ? 40 : 60,
		       payload = 1 + rng_below(g, size * most < 60000 ? size * most : 60000);
		struct pkt_spec s = { .v6 = v6,
				      .src = addr[v6][0],
				      .dst = addr[v6][1],
				      .sport = (uint16_t)(300 + flow),
				      .dport = 80,
				      .flags = tcp ? flags : 0,
				      .seq = seq,
				      .payload = payload,
				      .seed = (uint8_t)i };
		struct virtio_net_hdr v;
		size_t n = pkt_make(&s, buf);
		unsigned before = l->n;

		if (!v6) {
			put_u16(buf + 4, id);
			inner_v4_csum(buf);
		}
		pkt_offload(buf, n, payload > size ? size : 0, &v);
		cut_all(&v, buf, n, ROOM, l);
		seq += (uint32_t)payload;
		id = (uint16_t)(id + l->n - before);
	}
}

/* Flows interleaved, in random bursts, with flushes in between. */
static void round_trip(uint64_t seed)
{
	struct list in[FLOWS] = { 0 };
	struct sink s = { 0 };
	unsigned at[FLOWS] = { 0 }, left = 0, total = 0;
	struct coalesce *c = malloc(sizeof(*c));
	struct piece *copies = calloc(FLOWS * PIECES / 2, sizeof(*copies));
	bool partial = seed & 1;
	struct rng g;

	rng_init_seeded(&g, seed);
	co_init(c, true, sink_write, &s);
	for (unsigned i = 0; i < FLOWS; i++) {
		in[i].v = calloc(PIECES, sizeof(struct piece));
		s.out[i].v = calloc(PIECES, sizeof(struct piece));
		make_flow(&g, i, &in[i]);
		left += in[i].n;
	}
	while (left) {
		unsigned f = (unsigned)rng_below(&g, FLOWS), burst = (unsigned)rng_below(&g, 50);

		for (; burst && at[f] < in[f].n; burst--, left--) {
			struct piece *to = &copies[total++ % (FLOWS * PIECES / 2)];
			struct inner one;

			assert_true(total <= FLOWS * PIECES / 2);
			/* the vnet header goes into what lies before the packet: here, the size field and the
			 * last one's tail */
			*to = in[f].v[at[f]++];
			memmove(to->p + 16, to->p, to->n);
			assert_int_equal(inner_parse(to->p + 16, to->n, 7, &one), 0);
			if (partial)
				inner_csum_partial(to->p + 16, to->n, &one);
			co_add(c, to->p + 16, to->n, &one, partial);
		}
		if (rng_below(&g, 10) == 0)
			co_flush(c);
	}
	co_flush(c);
	for (unsigned f = 0; f < FLOWS; f++) {
		if (s.out[f].n != in[f].n)
			fail_msg("seed %llu: flow %u has %u pieces, not %u", (unsigned long long)seed, f,
				 s.out[f].n, in[f].n);
		for (unsigned i = 0; i < in[f].n; i++) {
			if (in[f].v[i].n != s.out[f].v[i].n ||
			    memcmp(in[f].v[i].p, s.out[f].v[i].p, in[f].v[i].n) != 0)
				fail_msg("seed %llu: flow %u piece %u differs", (unsigned long long)seed, f,
					 i);
		}
		free(in[f].v);
		free(s.out[f].v);
	}
	assert_true(s.writes <= total);
	free(copies);
	free(c);
}

static void cut_merge_cut(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++)
		round_trip(seed);
}

static void flags_of_pieces(void **state)
{
	static uint8_t buf[65536];
	struct pkt_spec s = { .v6 = false,
			      .src = addr[0][0],
			      .dst = addr[0][1],
			      .sport = 1,
			      .dport = 2,
			      .flags = TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR | TCP_ECE,
			      .seq = 0xfffffff0,
			      .payload = 2500 };
	struct list l = { .v = calloc(PIECES, sizeof(struct piece)) };
	struct virtio_net_hdr v;
	size_t n = pkt_make(&s, buf);

	(void)state;
	pkt_offload(buf, n, 1000, &v);
	v.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	cut_all(&v, buf, n, ROOM, &l);
	assert_int_equal(l.n, 3);
	assert_int_equal(l.v[0].p[33], TCP_ACK | TCP_CWR | TCP_ECE);
	assert_int_equal(l.v[1].p[33], TCP_ACK | TCP_ECE);
	assert_int_equal(l.v[2].p[33], TCP_ACK | TCP_PSH | TCP_FIN | TCP_ECE);
	assert_int_equal(get_u32(l.v[2].p + 24), 0xfffffff0u + 2000u);
	assert_int_equal(get_u16(l.v[2].p + 4), 79);
	assert_int_equal(l.v[2].n, 540);
	free(l.v);
}

static void lies_in_the_vnet_header(void **state)
{
	static uint8_t buf[65536];
	struct pkt_spec s = { .src = addr[0][0], .dst = addr[0][1], .flags = TCP_ACK, .payload = 3000 };
	struct virtio_net_hdr v, bad;
	size_t n = pkt_make(&s, buf);
	struct inner in;
	struct cut c;

	(void)state;
	pkt_offload(buf, n, 1000, &v);
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	for (int i = 0; i < 6; i++) {
		bad = v;
		if (i == 0)
			bad.gso_size = 0;
		else if (i == 1)
			bad.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
		else if (i == 2)
			bad.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
		else if (i == 3)
			bad.gso_type = 77;
		else if (i == 4)
			bad.flags = 0;
		else
			bad.gso_type = VIRTIO_NET_HDR_GSO_UDP;
		assert_int_equal(cut_init(&c, &bad, buf, n, &in, 1400), ERR_PARSE);
	}
	/* checksum fields outside the packet */
	memset(&bad, 0, sizeof(bad));
	bad.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	bad.csum_start = (uint16_t)n;
	assert_int_equal(cut_init(&c, &bad, buf, n, &in, 1400), ERR_PARSE);
	bad.csum_start = 20;
	bad.csum_offset = (uint16_t)(n - 21);
	assert_int_equal(cut_init(&c, &bad, buf, n, &in, 1400), ERR_PARSE);
	/* not where TCP has it: finished here */
	bad.csum_offset = 30;
	assert_int_equal(cut_init(&c, &bad, buf, n, &in, 1400), 0);
	assert_false(c.partial);
}

static unsigned nwrites, npackets;

static void count_write(void *arg, const struct iovec *iov, unsigned niov, unsigned packets)
{
	(void)arg;
	(void)iov;
	assert_int_equal(niov, packets);
	nwrites++;
	npackets += packets;
}

/* Each rule that ends a super-packet: one change in the second packet, and they stay two. */
static void what_does_not_merge(void **state)
{
	enum {
		SAME,
		GAP,
		ACK,
		WINDOW,
		TOS,
		TTL,
		BIGGER,
		SYN,
		FIN,
		RST,
		URG,
		CWR,
		OPTIONS,
		BAD_SUM,
		DF,
		ECE,
		ID,
		KINDS
	};
	static struct coalesce c;
	static uint8_t buf[2][2048];

	(void)state;
	for (int kind = 0; kind < KINDS; kind++) {
		struct pkt_spec s = {
			.src = addr[0][0], .dst = addr[0][1], .sport = 1, .flags = TCP_ACK, .payload = 100
		};
		struct inner in[2];
		size_t n[2];

		co_init(&c, true, count_write, NULL);
		nwrites = npackets = 0;
		for (int i = 0; i < 2; i++) {
			uint8_t *p = buf[i] + 16;

			s.seq = (uint32_t)i * 100;
			if (i && kind == GAP)
				s.seq++;
			if (i && kind == BIGGER)
				s.payload++;
			if (i && kind == TOS)
				s.tos = 4;
			if (i && kind == OPTIONS)
				s.mss = true;
			n[i] = pkt_make(&s, p);
			put_u16(p + 4, (uint16_t)(50 + i));
			if (i && kind == ID)
				put_u16(p + 4, 50);
			if (i && kind == ACK)
				p[31]++;
			if (i && kind == WINDOW)
				p[35]++;
			if (i && kind == TTL)
				p[8]--;
			if (i && kind == DF)
				p[6] |= 0x40;
			if (i && kind >= SYN && kind <= CWR)
				p[33] |= (uint8_t[]){ TCP_SYN, TCP_FIN, TCP_RST, TCP_URG,
						      TCP_CWR }[kind - SYN];
			if (i && kind == ECE)
				p[33] |= TCP_ECE;
			inner_v4_csum(p);
			assert_int_equal(inner_parse(p, n[i], 0, &in[i]), 0);
			finish(p, n[i], &in[i]);
			if (i && kind == BAD_SUM)
				p[36] ^= 1;
			co_add(&c, p, n[i], &in[i], false);
		}
		co_flush(&c);
		assert_int_equal(npackets, 2);
		if (nwrites != (kind == SAME ? 1 : 2))
			fail_msg("kind %d: %u writes", kind, nwrites);
	}
}

static void more_flows_than_slots(void **state)
{
	static struct coalesce c;
	static uint8_t buf[64][512];

	(void)state;
	co_init(&c, true, count_write, NULL);
	nwrites = npackets = 0;
	for (int i = 0; i < 64; i++) {
		struct pkt_spec s = {
			.src = addr[0][0], .dst = addr[0][1], .sport = (uint16_t)(i % 16), .payload = 50
		};
		size_t n = pkt_make(&s, buf[i] + 16);
		struct inner in;

		assert_int_equal(inner_parse(buf[i] + 16, n, 0, &in), 0);
		co_add(&c, buf[i] + 16, n, &in, false);
	}
	co_flush(&c);
	assert_int_equal(npackets, 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut_merge_cut),	   cmocka_unit_test(flags_of_pieces),
		cmocka_unit_test(lies_in_the_vnet_header), cmocka_unit_test(what_does_not_merge),
		cmocka_unit_test(more_flows_than_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
