/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/wire.h"

/*
 * Frames: first contact and the hop header. Pure functions on bytes; what a tag covers is decided in
 * hop_tag() alone.
 */

int knock_encode(const struct knock *k, const uint8_t key[KNOCK_KEY], knock_mac_fn *mac,
		 uint8_t to[KNOCK_LEN])
{
	memset(to, 0, KNOCK_LEN);
	to[0] = FRAME_KNOCK;
	to[1] = 1;
	to[2] = k->flags;
	put_u64(to + 4, k->nonce);
	memcpy(to + 12, k->key_id, sizeof(k->key_id));
	return mac(key, to, 32, to + 32);
}

int knock_decode(const uint8_t *p, size_t n, struct knock *ret)
{
	struct rd r = rd_init(p, n);
	struct knock k;
	uint8_t type = rd_u8(&r), version = rd_u8(&r), zero = 0;

	k.flags = rd_u8(&r);
	zero |= rd_u8(&r);
	k.nonce = rd_u64(&r);
	rd_copy(&r, k.key_id, sizeof(k.key_id));
	for (int i = 0; i < 12; i++)
		zero |= rd_u8(&r);
	rd_bytes(&r, 16);
	if (!rd_done(&r) || type != FRAME_KNOCK || version != 1 || zero != 0 ||
	    (k.flags & ~KNOCK_F_JOIN) != 0)
		return ERR_PARSE;
	*ret = k;
	return 0;
}

int knock_check(const uint8_t p[KNOCK_LEN], const uint8_t key[KNOCK_KEY], knock_mac_fn *mac)
{
	uint8_t want[16];

	if (mac(key, p, 32, want) != 0 || !secret_equal(want, p + 32, sizeof(want)))
		return ERR_AUTH;
	return 0;
}

uint64_t cookie_value(const struct sipkey *secret, uint8_t epoch, const struct endpoint *from, uint64_t nonce)
{
	uint8_t b[31];
	struct wr w = wr_init(b, sizeof(b));

	wr_bytes(&w, from->addr, sizeof(from->addr));
	wr_u16(&w, from->port);
	wr_u32(&w, from->scope_id);
	wr_u64(&w, nonce);
	wr_u8(&w, epoch);
	return siphash24(secret, b, sizeof(b));
}

/* COOKIE and the head of HELLO end in the same 17 bytes: epoch, nonce, value. */
static void cookie_put(uint8_t to[17], const struct cookie *c)
{
	to[0] = c->epoch;
	put_u64(to + 1, c->nonce);
	put_u64(to + 9, c->value);
}

static void cookie_get(struct rd *r, struct cookie *c)
{
	c->epoch = rd_u8(r);
	c->nonce = rd_u64(r);
	c->value = rd_u64(r);
}

void cookie_encode(const struct cookie *c, uint8_t to[COOKIE_LEN])
{
	memset(to, 0, COOKIE_LEN);
	to[0] = FRAME_COOKIE;
	to[1] = 1;
	cookie_put(to + 3, c);
}

int cookie_decode(const uint8_t *p, size_t n, struct cookie *ret)
{
	struct rd r = rd_init(p, n);
	struct cookie c;
	uint8_t type = rd_u8(&r), version = rd_u8(&r), zero = rd_u8(&r);

	cookie_get(&r, &c);
	for (int i = 20; i < COOKIE_LEN; i++)
		zero |= rd_u8(&r);
	if (!rd_done(&r) || type != FRAME_COOKIE || version != 1 || zero != 0)
		return ERR_PARSE;
	*ret = c;
	return 0;
}

void hello_encode_head(const struct hello *h, uint8_t to[HELLO_HEAD])
{
	to[0] = FRAME_HELLO;
	to[1] = 1;
	to[2] = h->reply ? HELLO_F_REPLY : 0;
	cookie_put(to + 3, &h->cookie);
}

int hello_decode(const uint8_t *p, size_t n, struct hello *ret)
{
	struct rd r = rd_init(p, n);
	struct hello h;
	uint8_t type = rd_u8(&r), version = rd_u8(&r), flags = rd_u8(&r);

	cookie_get(&r, &h.cookie);
	h.reply = flags & HELLO_F_REPLY;
	h.quic_n = rd_left(&r);
	h.quic = r.p;
	if (!rd_ok(&r) || type != FRAME_HELLO || version != 1 || (flags & ~HELLO_F_REPLY) != 0 ||
	    h.quic_n == 0)
		return ERR_PARSE;
	*ret = h;
	return 0;
}

/* The shortest frame of each type with a hop header; 0: not such a type. */
static size_t hop_least(uint8_t type)
{
	switch (type) {
	case FRAME_CONTROL:
		return HOP_LEN + 1;
	case FRAME_DATA:
		return DATA_OVERHEAD;
	case FRAME_PROBE:
		return PROBE_LEN;
	default:
		return 0;
	}
}

int hop_decode(const uint8_t *p, size_t n, struct hop *ret)
{
	size_t least = n > 0 ? hop_least(p[0]) : 0;

	if (least == 0 || n < least)
		return ERR_PARSE;
	*ret = (struct hop){ .type = p[0],
			     .ttl = p[1],
			     .flow = get_u16(p + 2),
			     .link = get_u32(p + 4),
			     .dst = get_u64(p + 8),
			     .src = get_u64(p + 16),
			     .tag = get_u64(p + 24) };
	return 0;
}

uint64_t hop_tag(const struct sipkey *link_key, const uint8_t *frame, size_t n)
{
	uint8_t b[36 + 2048];

	/* The tag field itself is left out by moving what follows it over it. Frames other than DATA are at
	 * most 2 kB but for MTU probes, whose padding is zeros: those count by length. */
	memcpy(b, frame, 24);
	if (frame[0] == FRAME_DATA) {
		memcpy(b + 24, frame + HOP_LEN, 12);
		return siphash24(link_key, b, 36);
	}
	size_t rest = n - HOP_LEN, take = rest < 2048 ? rest : 2048;
	memcpy(b + 24, frame + HOP_LEN, take);
	put_u32(b + 24 + take, (uint32_t)rest);
	return siphash24(link_key, b, 24 + take + 4);
}

int hop_check(const struct sipkey *link_key, const uint8_t *frame, size_t n)
{
	uint8_t want[8];

	put_u64(want, hop_tag(link_key, frame, n));
	return secret_equal(want, frame + 24, 8) ? 0 : ERR_AUTH;
}

void probe_encode(const struct probe *p, const struct sipkey *link_key, uint32_t link, uint64_t dst,
		  uint64_t src, uint8_t *to, size_t total)
{
	struct wr w = wr_init(to + HOP_LEN, total - HOP_LEN);

	hop_put(to, FRAME_PROBE, HOP_TTL, 0, link, dst, src);
	wr_u8(&w, p->kind);
	wr_u8(&w, 0);
	wr_u16(&w, p->size);
	wr_u32(&w, p->seq);
	wr_u64(&w, p->counter);
	wr_u64(&w, p->data);
	memset(w.p, 0, (size_t)(w.end - w.p));
	hop_seal(link_key, to, total);
}

int probe_decode(const uint8_t *frame, size_t n, struct probe *ret)
{
	struct rd r = rd_init(frame, n);
	struct probe p;
	uint8_t zero;

	rd_bytes(&r, HOP_LEN);
	p.kind = rd_u8(&r);
	zero = rd_u8(&r);
	p.size = rd_u16(&r);
	p.seq = rd_u32(&r);
	p.counter = rd_u64(&r);
	p.data = rd_u64(&r);
	if (!rd_ok(&r) || p.kind < PROBE_PING || p.kind > PROBE_MTU_ACK || zero != 0)
		return ERR_PARSE;
	/* Only an MTU probe may be padded, and it must be as long as it says: else its answer would prove
	 * nothing. */
	if (p.kind == PROBE_MTU ? p.size != n : rd_left(&r) != 0)
		return ERR_PARSE;
	*ret = p;
	return 0;
}
