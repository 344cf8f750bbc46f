/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: inner packets
 *
 * Parses through length checks and never looks past what it checked. Checksums: RFC 1071, incremental updates
 * RFC 1624, ECN in tunnels RFC 6040, ICMP errors RFC 792, 1191, 4443.
 */
#include "tunnel/inner.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static inline uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint32_t flow_hash(const struct inner *in, uint32_t ports, uint64_t seed)
{
	uint64_t w[4], h;

	memcpy(w, in->src, 16);
	memcpy(w + 2, in->dst, 16);
	h = mix(w[0] ^ seed, w[1] ^ 0x9e3779b97f4a7c15ull);
	h = mix(h ^ w[2], w[3] ^ 0xe7037ed1a0b428dbull);
	h = mix(h ^ ((uint64_t)ports << 8 | in->proto), seed ^ 0x8ebc6af09c88c6e3ull);
	return (uint32_t)(h ^ h >> 32);
}

static int parse_ip(const uint8_t *p, size_t n, struct inner *in)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (n >= 40 && p[0] >> 4 == 6) {
		if (get_u16(p + 4) + 40u != n)
			return ERR_PARSE;
		in->v6 = true;
		in->proto = p[6];
		in->tos = (uint8_t)(p[0] << 4 | p[1] >> 4);
		in->l4 = 40;
		memcpy(in->src, p + 8, 16);
		memcpy(in->dst, p + 24, 16);
		return 0;
	}
	if (n < 20 || n > UINT16_MAX || p[0] >> 4 != 4)
		return ERR_PARSE;
	in->l4 = (p[0] & 15) * 4;
	if (in->l4 < 20 || in->l4 > n || get_u16(p + 2) != n)
		return ERR_PARSE;
	in->proto = p[9];
	in->tos = p[1];
	in->frag = (get_u16(p + 6) & 0x3fff) != 0; /* more fragments, or not the first */
	memcpy(in->src, mapped, 12);
	memcpy(in->src + 12, p + 12, 4);
	memcpy(in->dst, mapped, 12);
	memcpy(in->dst + 12, p + 16, 4);
	return 0;
}

int inner_parse(const uint8_t *p, size_t n, uint64_t seed, struct inner *ret)
{
	struct inner in = { 0 };
	uint32_t ports = 0;
	size_t left;

	if (parse_ip(p, n, &in) != 0)
		return ERR_PARSE;
	left = n - in.l4;
	if (!in.frag && in.proto == PROTO_TCP && left >= 20) {
		size_t doff = (p[in.l4 + 12] >> 4) * 4;

		if (doff >= 20 && doff <= left)
			in.head = (uint16_t)(in.l4 + doff);
	} else if (!in.frag && in.proto == PROTO_UDP && left >= 8 && get_u16(p + in.l4 + 4) == left) {
		in.head = (uint16_t)(in.l4 + 8);
	}
	if (in.head)
		ports = get_u32(p + in.l4);
	in.hash = flow_hash(&in, ports, seed);
	*ret = in;
	return 0;
}

uint16_t csum_add(const uint8_t *p, size_t n, uint32_t sum)
{
	uint64_t s = sum;

	for (; n >= 4; p += 4, n -= 4)
		s += get_u32(p);
	if (n >= 2) {
		s += (uint64_t)get_u16(p);
		p += 2;
		n -= 2;
	}
	if (n)
		s += (uint64_t)p[0] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)s;
}

uint16_t inner_pseudo(const uint8_t *p, bool v6, uint8_t proto, size_t l4_n)
{
	uint32_t sum = (uint32_t)(l4_n >> 16) + (uint32_t)(l4_n & 0xffff) + proto;

	return v6 ? csum_add(p + 8, 32, sum) : csum_add(p + 12, 8, sum);
}

void inner_v4_csum(uint8_t *p)
{
	put_u16(p + 10, 0);
	put_u16(p + 10, (uint16_t)~csum_add(p, (p[0] & 15) * 4u, 0));
}

void inner_csum_partial(uint8_t *p, size_t n, const struct inner *in)
{
	put_u16(p + inner_csum_at(in), inner_pseudo(p, in->v6, in->proto, n - in->l4));
}

int inner_csum_finish(uint8_t *p, size_t n, size_t start, size_t offset)
{
	uint16_t sum;

	if (start > n || offset > n - start || n - start - offset < 2)
		return ERR_PARSE;
	sum = (uint16_t)~csum_add(p + start, n - start, 0);
	put_u16(p + start + offset, sum ? sum : 0xffff); /* 0 would mean "none" in UDP; the two are equal */
	return 0;
}

bool inner_csum_ok(const uint8_t *p, size_t n, const struct inner *in)
{
	if (!in->head || (in->proto == PROTO_UDP && get_u16(p + inner_csum_at(in)) == 0))
		return false;
	return csum_add(p + in->l4, n - in->l4, inner_pseudo(p, in->v6, in->proto, n - in->l4)) == 0xffff;
}

/* RFC 1624: HC' = ~(~HC + ~m + m'). The word may lie at an odd offset of the summed bytes. */
static void csum_replace(uint8_t *csum, uint16_t from, uint16_t to, bool odd)
{
	uint32_t s = (uint16_t)~get_u16(csum);

	if (odd) {
		from = (uint16_t)(from << 8 | from >> 8);
		to = (uint16_t)(to << 8 | to >> 8);
	}
	s += (uint16_t)~from + (uint32_t)to;
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	put_u16(csum, (uint16_t)~s);
}

bool inner_mss_clamp(uint8_t *p, size_t n, const struct inner *in, bool partial, uint16_t mss)
{
	size_t at = in->l4 + 20u;

	if (in->proto != PROTO_TCP || !in->head || in->head > n || !(p[in->l4 + 13] & TCP_SYN))
		return false;
	while (at < in->head && p[at] != 0) {
		size_t len = 1;

		if (p[at] != 1) {
			if (at + 2 > in->head || p[at + 1] < 2 || at + p[at + 1] > in->head)
				return false;
			len = p[at + 1];
		}
		if (p[at] == 2 && len == 4) {
			uint16_t old = get_u16(p + at + 2);

			if (old <= mss)
				return false;
			put_u16(p + at + 2, mss);
			if (!partial)
				csum_replace(p + inner_csum_at(in), old, mss, (at + 2 - in->l4) & 1);
			return true;
		}
		at += len;
	}
	return false;
}

static void set_tos(uint8_t *p, struct inner *in, uint8_t tos)
{
	in->tos = tos;
	if (in->v6) {
		p[0] = (uint8_t)((p[0] & 0xf0) | tos >> 4);
		p[1] = (uint8_t)((p[1] & 0x0f) | tos << 4);
		return;
	}
	p[1] = tos;
	inner_v4_csum(p);
}

bool inner_ecn_in(uint8_t *p, struct inner *in, uint8_t outer)
{
	uint8_t ecn = in->tos & 3;

	outer &= 3;
	if (outer == ECN_CE && ecn == ECN_NOT_ECT)
		return false;
	if (outer == ECN_CE && ecn != ECN_CE)
		set_tos(p, in, in->tos | ECN_CE);
	else if (outer == ECN_ECT1 && ecn == ECN_ECT0)
		set_tos(p, in, (uint8_t)((in->tos & ~3) | ECN_ECT1));
	return true;
}

/* Errors are answered to no error, no multicast or broadcast, no later fragment (RFC 1122 3.2.2, RFC 4443 2.4
 * e). */
static bool may_answer(const uint8_t *p, size_t n, const struct inner *in)
{
	static const uint8_t none[16];

	if (in->v6) {
		if (in->dst[0] == 0xff || in->src[0] == 0xff || memcmp(in->src, none, 16) == 0)
			return false;
		return in->proto != PROTO_ICMP6 || (n > 40 && p[40] >= 128);
	}
	if (in->dst[12] >= 224 || in->src[12] >= 224 || in->src[12] == 0 || (get_u16(p + 6) & 0x1fff) != 0)
		return false;
	if (in->proto == PROTO_ICMP) {
		uint8_t type = n > in->l4 ? p[in->l4] : 0xff;

		return type == 0 || type == 8 || (type >= 13 && type <= 18);
	}
	return true;
}

size_t inner_icmp_error(const uint8_t *p, size_t n, const struct inner *in, enum inner_icmp kind,
			unsigned mtu, uint8_t *to)
{
	size_t quoted, total;

	if (!may_answer(p, n, in))
		return 0;
	if (in->v6) {
		quoted = n < INNER_ICMP_MAX - 48 ? n : INNER_ICMP_MAX - 48;
		total = 48 + quoted;
		memset(to, 0, 48);
		to[0] = 0x60;
		put_u16(to + 4, (uint16_t)(8 + quoted));
		to[6] = PROTO_ICMP6;
		to[7] = 64;
		memcpy(to + 8, p + 24, 16);
		memcpy(to + 24, p + 8, 16);
		to[40] = kind == INNER_TOO_BIG ? 2 : 1;
		to[41] = kind == INNER_TOO_BIG ? 0 : 3; /* address unreachable */
		put_u32(to + 44, kind == INNER_TOO_BIG ? mtu : 0);
		memcpy(to + 48, p, quoted);
		put_u16(to + 42, (uint16_t)~csum_add(to + 40, total - 40,
						     inner_pseudo(to, true, PROTO_ICMP6, total - 40)));
		return total;
	}
	quoted = n < 576 - 28 ? n : 576 - 28;
	total = 28 + quoted;
	memset(to, 0, 28);
	to[0] = 0x45;
	put_u16(to + 2, (uint16_t)total);
	to[8] = 64;
	to[9] = PROTO_ICMP;
	memcpy(to + 12, p + 16, 4);
	memcpy(to + 16, p + 12, 4);
	inner_v4_csum(to);
	to[20] = 3;
	to[21] = kind == INNER_TOO_BIG ? 4 : 1; /* fragmentation needed, host unreachable */
	put_u16(to + 26, kind == INNER_TOO_BIG ? (uint16_t)mtu : 0);
	memcpy(to + 28, p, quoted);
	put_u16(to + 22, (uint16_t)~csum_add(to + 20, total - 20, 0));
	return total;
}
