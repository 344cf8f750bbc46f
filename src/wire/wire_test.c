/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "wire/wire.h"

static const struct sipkey key = { 0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull };

/* Not a MAC: the frame code must pass key, bytes and length through and compare what comes back. */
static int test_mac(const uint8_t k[KNOCK_KEY], const uint8_t *p, size_t n, uint8_t mac[16])
{
	struct sipkey a = sipkey_from(k), b = sipkey_from(k + 16);

	put_u64(mac, siphash24(&a, p, n));
	put_u64(mac + 8, siphash24(&b, p, n));
	return 0;
}

static void knock_round_trip(void **state)
{
	uint8_t k[KNOCK_KEY], f[KNOCK_LEN + 1] = { 0 };
	struct knock in = { .flags = KNOCK_F_JOIN, .nonce = 0x1122334455667788ull, .key_id = "abcdefg" }, out;

	(void)state;
	memset(k, 7, sizeof(k));
	assert_int_equal(knock_encode(&in, k, test_mac, f), 0);
	assert_int_equal(knock_decode(f, KNOCK_LEN, &out), 0);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(out.nonce, in.nonce);
	assert_memory_equal(out.key_id, in.key_id, 8);
	assert_int_equal(knock_check(f, k, test_mac), 0);
	for (size_t n = 0; n < KNOCK_LEN; n++)
		assert_int_equal(knock_decode(f, n, &out), ERR_PARSE);
	assert_int_equal(knock_decode(f, KNOCK_LEN + 1, &out), ERR_PARSE);
	for (size_t bit = 0; bit < KNOCK_LEN * 8; bit++) {
		f[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(knock_check(f, k, test_mac), ERR_AUTH);
		f[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t at = 20; at < 32; at++) { /* reserved bytes stay zero, so that they can get a meaning */
		f[at] = 1;
		assert_int_equal(knock_decode(f, KNOCK_LEN, &out), ERR_PARSE);
		f[at] = 0;
	}
}

static void cookie_round_trip(void **state)
{
	struct cookie in = { .epoch = 9, .nonce = 1, .value = UINT64_MAX }, out;
	uint8_t f[COOKIE_LEN];

	(void)state;
	assert_true(COOKIE_LEN <= KNOCK_LEN); /* no amplification */
	cookie_encode(&in, f);
	assert_int_equal(cookie_decode(f, sizeof(f), &out), 0);
	assert_int_equal(out.epoch, 9);
	assert_int_equal(out.nonce, 1);
	assert_true(out.value == UINT64_MAX);
	for (size_t n = 0; n < sizeof(f); n++)
		assert_int_equal(cookie_decode(f, n, &out), ERR_PARSE);
	f[COOKIE_LEN - 1] = 1;
	assert_int_equal(cookie_decode(f, sizeof(f), &out), ERR_PARSE);
}

static void cookie_is_bound(void **state)
{
	struct endpoint a = { .addr = { [15] = 1 }, .port = 7430 }, b = a;
	uint64_t v = cookie_value(&key, 3, &a, 42);

	(void)state;
	assert_true(v == cookie_value(&key, 3, &b, 42));
	b.port++;
	assert_true(v != cookie_value(&key, 3, &b, 42));
	b = a;
	b.addr[0] = 1;
	assert_true(v != cookie_value(&key, 3, &b, 42));
	b = a;
	b.scope_id = 2;
	assert_true(v != cookie_value(&key, 3, &b, 42));
	assert_true(v != cookie_value(&key, 4, &a, 42));
	assert_true(v != cookie_value(&key, 3, &a, 43));
}

static void hello_round_trip(void **state)
{
	uint8_t f[HELLO_HEAD + 3] = { 0 };
	struct hello in = { .reply = true, .cookie = { .epoch = 1, .nonce = 2, .value = 3 } }, out;

	(void)state;
	hello_encode_head(&in, f);
	memcpy(f + HELLO_HEAD, "abc", 3);
	assert_int_equal(hello_decode(f, sizeof(f), &out), 0);
	assert_true(out.reply);
	assert_int_equal(out.cookie.value, 3);
	assert_int_equal(out.quic_n, 3);
	assert_memory_equal(out.quic, "abc", 3);
	for (size_t n = 0; n <= HELLO_HEAD; n++)
		assert_int_equal(hello_decode(f, n, &out), ERR_PARSE);
	f[2] = 0x80;
	assert_int_equal(hello_decode(f, sizeof(f), &out), ERR_PARSE);
}

static void hop_tag_covers(void **state)
{
	uint8_t f[DATA_OVERHEAD + 100];
	struct hop h;

	(void)state;
	for (size_t i = 0; i < sizeof(f); i++)
		f[i] = (uint8_t)i;
	hop_put(f, FRAME_DATA, HOP_TTL, 0xabcd, 77, 0x0102030405060708ull, 0x1112131415161718ull);
	hop_seal(&key, f, sizeof(f));
	assert_int_equal(hop_check(&key, f, sizeof(f)), 0);
	assert_int_equal(hop_decode(f, sizeof(f), &h), 0);
	assert_int_equal(h.flow, 0xabcd);
	assert_int_equal(h.link, 77);
	assert_true(h.dst == 0x0102030405060708ull && h.src == 0x1112131415161718ull);
	for (size_t at = 0; at < sizeof(f);
	     at++) { /* of DATA: header, index, counter; the rest is the AEAD's */
		f[at] ^= 0x10;
		int want = at == 0 ? ERR_AUTH : at < DATA_HEAD ? ERR_AUTH : 0;
		assert_int_equal(hop_check(&key, f, sizeof(f)), want);
		f[at] ^= 0x10;
	}
	hop_put(f, FRAME_CONTROL, HOP_TTL, 0, 77, 1, 2);
	hop_seal(&key, f, sizeof(f));
	for (size_t at = 0; at < sizeof(f); at++) { /* of CONTROL: everything */
		f[at] ^= 0x10;
		assert_int_equal(hop_check(&key, f, sizeof(f)), ERR_AUTH);
		f[at] ^= 0x10;
	}
	assert_int_equal(hop_check(&key, f, sizeof(f) - 1), ERR_AUTH);
	assert_int_equal(hop_check(&(struct sipkey){ key.k0 + 1, key.k1 }, f, sizeof(f)), ERR_AUTH);
}

static void hop_lengths(void **state)
{
	uint8_t f[DATA_OVERHEAD] = { FRAME_DATA };
	struct hop h;

	(void)state;
	assert_int_equal(DATA_OVERHEAD, 60); /* 1388 - 48 (IPv6, UDP) - 60 = 1280 */
	assert_int_equal(hop_decode(f, DATA_OVERHEAD, &h), 0);
	assert_int_equal(hop_decode(f, DATA_OVERHEAD - 1, &h), ERR_PARSE);
	f[0] = FRAME_PROBE;
	assert_int_equal(hop_decode(f, PROBE_LEN - 1, &h), ERR_PARSE);
	assert_int_equal(hop_decode(f, PROBE_LEN, &h), 0);
	f[0] = FRAME_CONTROL;
	assert_int_equal(hop_decode(f, HOP_LEN, &h), ERR_PARSE);
	f[0] = FRAME_HELLO;
	assert_int_equal(hop_decode(f, sizeof(f), &h), ERR_PARSE);
	assert_int_equal(hop_decode(f, 0, &h), ERR_PARSE);
}

static void probe_round_trip(void **state)
{
	static uint8_t f[9000];
	struct probe in = { .kind = PROBE_MTU, .size = 1400, .seq = 5, .counter = 6, .data = 7 }, out;

	(void)state;
	probe_encode(&in, &key, 9, 1, 2, f, 1400);
	assert_int_equal(hop_check(&key, f, 1400), 0);
	assert_int_equal(probe_decode(f, 1400, &out), 0);
	assert_int_equal(out.size, 1400);
	assert_true(out.seq == 5 && out.counter == 6 && out.data == 7);
	assert_int_equal(probe_decode(f, 1399, &out), ERR_PARSE); /* cut on its way */
	assert_int_equal(hop_check(&key, f, 1399), ERR_AUTH);
	in.kind = PROBE_PING;
	probe_encode(&in, &key, 9, 1, 2, f, PROBE_LEN);
	assert_int_equal(probe_decode(f, PROBE_LEN, &out), 0);
	assert_int_equal(probe_decode(f, PROBE_LEN + 1, &out), ERR_PARSE);
	f[HOP_LEN] = 0;
	assert_int_equal(probe_decode(f, PROBE_LEN, &out), ERR_PARSE);
	f[HOP_LEN] = PROBE_MTU_ACK + 1;
	assert_int_equal(probe_decode(f, PROBE_LEN, &out), ERR_PARSE);
	in = (struct probe){ .kind = PROBE_MTU, .size = 8900 };
	probe_encode(&in, &key, 9, 1, 2, f, 8900);
	assert_int_equal(hop_check(&key, f, 8900), 0);
	assert_int_equal(hop_check(&key, f, 8899), ERR_AUTH);
}

static void ctl_hello_round_trip(void **state)
{
	struct ctl_hello in = { .version = 2,
				.version_min = 1,
				.caps = 5,
				.suite = 1,
				.mtu = 1452,
				.link = 8,
				.nlanes = 2,
				.lane = { 0x100, 0x201 } },
			 out;
	uint8_t b[200];
	size_t n = ctl_hello_encode(&in, b, sizeof(b));

	(void)state;
	assert_true(n > 0);
	assert_int_equal(ctl_hello_decode(b, n, &out), 0);
	assert_int_equal(out.nlanes, 2);
	assert_int_equal(out.lane[1], 0x201);
	b[n] = 0xee; /* a later version says more */
	assert_int_equal(ctl_hello_decode(b, n + 1, &out), 0);
	for (size_t k = 0; k < n; k++)
		assert_int_equal(ctl_hello_decode(b, k, &out), ERR_PARSE);
	assert_int_equal(ctl_hello_encode(&in, b, n - 1), 0);
	in.nlanes = 0;
	n = ctl_hello_encode(&in, b, sizeof(b));
	assert_int_equal(ctl_hello_decode(b, n, &out), ERR_PARSE);
	in.nlanes = 1;
	in.version_min = 3;
	n = ctl_hello_encode(&in, b, sizeof(b));
	assert_int_equal(ctl_hello_decode(b, n, &out), ERR_PARSE);
}

struct seen {
	unsigned n;
	size_t bytes;
	uint16_t last;
	int answer;
};

static int on_message(void *arg, uint16_t type, const uint8_t *value, size_t len)
{
	struct seen *s = arg;

	s->n++;
	s->bytes += len;
	s->last = type;
	if (len)
		assert_int_equal(value[0], value[len - 1]);
	return s->answer;
}

static void ctl_feed_any_split(void **state)
{
	uint8_t b[2 * CTL_HEAD + 10 + CTL_HEAD + 300];
	struct wr w = wr_init(b, sizeof(b));

	(void)state;
	wr_u16(&w, 5);
	wr_u32(&w, 0);
	wr_u16(&w, 6);
	wr_u32(&w, 10);
	memset(wr_room(&w, 10), 3, 10);
	wr_u16(&w, 7);
	wr_u32(&w, 300);
	memset(wr_room(&w, 300), 4, 300);
	assert_true(wr_ok(&w));
	for (size_t step = 1; step <= sizeof(b); step++) {
		struct ctl_reader r = { .max = 300 };
		struct seen s = { 0 };

		for (size_t at = 0; at < sizeof(b); at += step)
			assert_int_equal(ctl_feed(&r, b + at, sizeof(b) - at < step ? sizeof(b) - at : step,
						  on_message, &s),
					 0);
		assert_int_equal(s.n, 3);
		assert_int_equal(s.bytes, 310);
		assert_int_equal(s.last, 7);
		ctl_reader_fini(&r);
	}
}

static void ctl_feed_bounds(void **state)
{
	uint8_t b[CTL_HEAD] = { 0, 1, 0, 0, 1, 45 }; /* 301 bytes */
	struct ctl_reader r = { .max = 300 };
	struct seen s = { 0 };

	(void)state;
	assert_int_equal(ctl_feed(&r, b, 6, on_message, &s), 0); /* nothing but a head yet */
	assert_int_equal(ctl_feed(&r, b, 1, on_message, &s), ERR_LIMIT);
	assert_int_equal(s.n, 0);
	ctl_reader_fini(&r);
	memset(b + 2, 0xff, 4);
	assert_int_equal(ctl_feed(&r, b, 6, on_message, &s), 0);
	assert_int_equal(ctl_feed(&r, b, 1, on_message, &s), ERR_LIMIT);
	ctl_reader_fini(&r);
	memset(b, 0, sizeof(b));
	s.answer = ERR_DENIED;
	assert_int_equal(ctl_feed(&r, b, 6, on_message, &s), ERR_DENIED);
	ctl_reader_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knock_round_trip),   cmocka_unit_test(cookie_round_trip),
		cmocka_unit_test(cookie_is_bound),    cmocka_unit_test(hello_round_trip),
		cmocka_unit_test(hop_tag_covers),     cmocka_unit_test(hop_lengths),
		cmocka_unit_test(probe_round_trip),   cmocka_unit_test(ctl_hello_round_trip),
		cmocka_unit_test(ctl_feed_any_split), cmocka_unit_test(ctl_feed_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
