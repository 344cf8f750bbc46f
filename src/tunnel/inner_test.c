/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tunnel/pipe_lab.h"

static uint8_t a4[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
	       b4[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 2 };
static uint8_t a6[16] = { 0xfd, [15] = 1 }, b6[16] = { 0xfd, [15] = 2 };
static uint8_t buf[4096], to[INNER_ICMP_MAX];

static size_t make(bool v6, uint8_t flags, size_t payload)
{
	struct pkt_spec s = { .v6 = v6,
			      .src = v6 ? a6 : a4,
			      .dst = v6 ? b6 : b4,
			      .sport = 1,
			      .dport = 2,
			      .flags = flags,
			      .payload = payload,
			      .mss = flags & TCP_SYN };

	return pkt_make(&s, buf);
}

static void lengths_are_checked(void **state)
{
	struct inner in;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		for (int tcp = 0; tcp < 2; tcp++) {
			size_t n = make(v6, tcp ? TCP_ACK : 0, 30);

			assert_int_equal(inner_parse(buf, n, 0, &in), 0);
			assert_int_equal(in.head, (v6 ? 40 : 20) + (tcp ? 20 : 8));
			assert_memory_equal(in.src, v6 ? a6 : a4, 16);
			assert_memory_equal(in.dst, v6 ? b6 : b4, 16);
			for (size_t i = 0; i < n + 5; i++) {
				if (i != n)
					assert_int_equal(inner_parse(buf, i, 0, &in), ERR_PARSE);
			}
		}
	}
	for (int version = 0; version < 16; version++) {
		size_t n = make(false, 0, 100);

		buf[0] = (uint8_t)(version << 4 | 5);
		if (version != 4)
			assert_int_equal(inner_parse(buf, n, 0, &in), ERR_PARSE);
	}
}

static void bad_headers(void **state)
{
	struct inner in;
	size_t n;

	(void)state;
	n = make(false, TCP_ACK, 10);
	buf[0] = 0x44; /* header shorter than itself */
	assert_int_equal(inner_parse(buf, n, 0, &in), ERR_PARSE);
	buf[0] = 0x4f; /* options beyond the packet */
	put_u16(buf + 2, 50);
	assert_int_equal(inner_parse(buf, 50, 0, &in), ERR_PARSE);
	n = make(false, TCP_ACK, 10);
	buf[32] = 0x40; /* data offset below and beyond: carried, not touched */
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_int_equal(in.head, 0);
	buf[32] = 0xf0;
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_int_equal(in.head, 0);
	n = make(false, 0, 10);
	put_u16(buf + 24, 500);
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_int_equal(in.head, 0);
	n = make(false, 0, 10);
	buf[6] = 0x20; /* fragments have no ports */
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_true(in.frag && in.head == 0);
	buf[6] = 0;
	buf[7] = 1;
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_true(in.frag && in.head == 0);
	n = make(true, 0, 10);
	buf[6] = 0; /* hop-by-hop header: not followed */
	assert_int_equal(inner_parse(buf, n, 0, &in), 0);
	assert_int_equal(in.head, 0);
	n = make(true, TCP_ACK, 0);
	put_u16(buf + 4, 10); /* too short for TCP */
	assert_int_equal(inner_parse(buf, 50, 0, &in), 0);
	assert_int_equal(in.head, 0);
}

static void flows_differ(void **state)
{
	struct inner x, y;
	size_t n = make(true, 0, 4);

	(void)state;
	inner_parse(buf, n, 1, &x);
	buf[50] ^= 1; /* payload: same flow */
	inner_parse(buf, n, 1, &y);
	assert_int_equal(x.hash, y.hash);
	for (size_t i = 8; i < 44; i++) {
		buf[i] ^= 1;
		inner_parse(buf, n, 1, &y);
		assert_int_not_equal(x.hash, y.hash);
		buf[i] ^= 1;
	}
	inner_parse(buf, n, 2, &y);
	assert_int_not_equal(x.hash, y.hash); /* and another seed hides it */
}

static uint16_t slow_sum(const uint8_t *p, size_t n)
{
	uint32_t s = 0;

	for (size_t i = 0; i < n; i++) {
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
		s = (s & 0xffff) + (s >> 16);
	}
	return (uint16_t)s;
}

static void checksums(void **state)
{
	struct inner in;
	struct rng g;

	(void)state;
	rng_init_seeded(&g, 3);
	for (int i = 0; i < 2000; i++) {
		size_t n = rng_below(&g, 200);

		rng_fill(&g, buf, n);
		assert_int_equal(csum_add(buf, n, 0), slow_sum(buf, n));
	}
	for (size_t payload = 0; payload < 40; payload++) {
		size_t n = make(payload & 1, payload & 2 ? TCP_ACK : 0, payload);

		assert_int_equal(inner_parse(buf, n, 0, &in), 0);
		assert_true(inner_csum_ok(buf, n, &in));
		for (size_t i = in.l4; i < n; i++) {
			buf[i] ^= 0x10;
			assert_false(inner_csum_ok(buf, n, &in));
			buf[i] ^= 0x10;
		}
	}
	{
		size_t n = make(false, 0, 8);

		put_u16(buf + 26, 0);
		inner_parse(buf, n, 0, &in);
		assert_false(inner_csum_ok(buf, n, &in)); /* none is not right */
	}
}

static void mss(void **state)
{
	struct inner in;
	size_t n;

	(void)state;
	n = make(false, TCP_SYN | TCP_ACK, 0);
	inner_parse(buf, n, 0, &in);
	assert_false(inner_mss_clamp(buf, n, &in, false, 1460)); /* small enough */
	assert_true(inner_mss_clamp(buf, n, &in, false, 1200));
	assert_int_equal(get_u16(buf + 42), 1200);
	assert_true(inner_csum_ok(buf, n, &in));
	assert_true(inner_mss_clamp(buf, n, &in, true, 1100)); /* partial: the sum is not its business */
	assert_false(inner_csum_ok(buf, n, &in));
	n = make(false, TCP_ACK, 100); /* no SYN */
	inner_parse(buf, n, 0, &in);
	assert_false(inner_mss_clamp(buf, n, &in, false, 10));
	/* odd offset: NOP, MSS, NOP, NOP, end */
	n = make(false, TCP_SYN, 4);
	memcpy(buf + 40, (uint8_t[]){ 1, 2, 4, 5, 0xb4, 1, 1, 0 }, 8);
	buf[32] = 7 << 4;
	inner_parse(buf, n, 0, &in);
	inner_csum_partial(buf, n, &in);
	inner_csum_finish(buf, n, 20, 16);
	assert_true(inner_mss_clamp(buf, n, &in, false, 1000));
	assert_int_equal(get_u16(buf + 43), 1000);
	assert_true(inner_csum_ok(buf, n, &in));
	/* hostile options: no end, length 0, 1, beyond */
	for (int len = 0; len < 256; len++) {
		n = make(false, TCP_SYN, 0);
		buf[40] = 2;
		buf[41] = (uint8_t)len;
		inner_parse(buf, n, 0, &in);
		assert_int_equal(inner_mss_clamp(buf, n, &in, true, 1), len == 4);
	}
}

static void ecn(void **state)
{
	/* RFC 6040 figure 4: rows inner Not-ECT, ECT(1), ECT(0), CE; columns outer likewise; 9: drop */
	static const uint8_t want[4][4] = { { 0, 0, 0, 9 }, { 1, 1, 1, 3 }, { 2, 1, 2, 3 }, { 3, 3, 3, 3 } };
	struct inner in;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		for (uint8_t inner = 0; inner < 4; inner++) {
			for (uint8_t outer = 0; outer < 4; outer++) {
				struct pkt_spec s = { .v6 = v6,
						      .src = v6 ? a6 : a4,
						      .dst = v6 ? b6 : b4,
						      .tos = 0x28 | inner,
						      .payload = 9 };
				size_t n = pkt_make(&s, buf);
				bool ok;

				inner_parse(buf, n, 0, &in);
				ok = inner_ecn_in(buf, &in, 0xfc | outer);
				assert_int_equal(ok, want[inner][outer] != 9);
				if (!ok)
					continue;
				inner_parse(buf, n, 0, &in);
				assert_int_equal(in.tos, 0x28 | want[inner][outer]);
				if (!v6)
					assert_int_equal(csum_add(buf, 20, 0), 0xffff);
			}
		}
	}
}

static void icmp_errors(void **state)
{
	struct inner in;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		for (size_t payload = 0; payload < 2000; payload += 111) {
			size_t n = make(v6, 0, payload), got;

			inner_parse(buf, n, 0, &in);
			got = inner_icmp_error(buf, n, &in, INNER_TOO_BIG, 1300, to);
			assert_true(got > 0 && got <= INNER_ICMP_MAX);
			assert_int_equal(inner_parse(to, got, 0, &in), 0);
			assert_int_equal(in.proto, v6 ? PROTO_ICMP6 : PROTO_ICMP);
			assert_memory_equal(in.dst, v6 ? a6 : a4, 16);
			assert_int_equal(csum_add(to + in.l4, got - in.l4,
						  v6 ? inner_pseudo(to, true, PROTO_ICMP6, got - 40) : 0),
					 0xffff);
			/* never an error about an error */
			memcpy(buf, to, got);
			assert_int_equal(inner_icmp_error(buf, got, &in, INNER_UNREACHABLE, 0, to), 0);
			buf[in.l4] = v6 ? 128 : 8; /* an echo request is answered */
			assert_true(inner_icmp_error(buf, got, &in, INNER_UNREACHABLE, 0, to) > 0);
		}
	}
	{
		size_t n = make(false, 0, 10);

		buf[7] = 1; /* not the first fragment */
		inner_parse(buf, n, 0, &in);
		assert_int_equal(inner_icmp_error(buf, n, &in, INNER_UNREACHABLE, 0, to), 0);
		n = make(false, 0, 10);
		buf[16] = 224;
		inner_parse(buf, n, 0, &in);
		assert_int_equal(inner_icmp_error(buf, n, &in, INNER_UNREACHABLE, 0, to), 0);
		n = make(true, 0, 10);
		memset(buf + 8, 0, 16); /* no source to answer to */
		inner_parse(buf, n, 0, &in);
		assert_int_equal(inner_icmp_error(buf, n, &in, INNER_UNREACHABLE, 0, to), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_are_checked),
		cmocka_unit_test(bad_headers),
		cmocka_unit_test(flows_differ),
		cmocka_unit_test(checksums),
		cmocka_unit_test(mss),
		cmocka_unit_test(ecn),
		cmocka_unit_test(icmp_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
