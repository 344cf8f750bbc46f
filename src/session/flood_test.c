/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams that nobody in the mesh sent, and too many of those that anybody can. */
#include <malloc.h>
#include <unistd.h>

#include "session/testlib.h"

static struct dgram *seen;
static unsigned nseen;
enum { SEEN_MAX = 400 };

static void remember(struct net *net, const struct endpoint *from, const struct endpoint *to,
		     const uint8_t *p, size_t n)
{
	(void)net;
	if (nseen == SEEN_MAX || n > sizeof(seen->p))
		return;
	seen[nseen].from = *from;
	seen[nseen].to = *to;
	seen[nseen].n = n;
	memcpy(seen[nseen++].p, p, n);
}

static uint64_t drops(const struct sess_counters *c)
{
	return c->drop_type + c->drop_malformed + c->drop_knock + c->drop_cookie + c->drop_link +
	       c->drop_half_open + c->drop_quic + c->drop_probe;
}

/* A sanitizer keeps what was freed for a while. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

static size_t resident(void)
{
	unsigned long size, rss = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &rss), 2);
	fclose(f);
	return rss * (size_t)sysconf(_SC_PAGESIZE);
}

enum hostile { GARBAGE, STRANGE_TYPE, FLIPPED, CUT, OVERSIZED, STRANGE_INDEX, MOVED, REPLAYED, HOSTILES };
enum { FLOOD = 1000000, SOURCES = 100000, BIG = 65507 };

/* One datagram of the kind, made of the recorded ones; its length. */
static size_t hostile_make(enum hostile kind, struct rng *r, uint8_t *b, struct endpoint *from)
{
	static const uint8_t types[] = { FRAME_KNOCK, FRAME_COOKIE, FRAME_HELLO, FRAME_CONTROL, FRAME_PROBE };
	const struct dgram *d = &seen[rng_below(r, nseen)];
	unsigned source = (unsigned)rng_below(r, SOURCES);
	size_t n = d->n;

	*from = ep_at(source, (uint16_t)(1 + rng_below(r, 65535)));
	from->addr[13] = (uint8_t)(1 + (source >> 16));
	memcpy(b, d->p, n);
	switch (kind) {
	case GARBAGE:
	case STRANGE_TYPE:
		n = 1 + rng_below(r, 1500);
		rng_fill(r, b, n);
		b[0] = kind == GARBAGE ? types[rng_below(r, ARRAY_SIZE(types))] : (uint8_t)(0x80 | b[0]);
		return n;
	case FLIPPED:
		b[rng_below(r, n)] ^= (uint8_t)(1 << rng_below(r, 8));
		return n;
	case CUT:
		return rng_below(r, n);
	case OVERSIZED:
		rng_fill(r, b + n, 64);
		return rng_below(r, 16) ? n + 1 + rng_below(r, 64) : BIG;
	case STRANGE_INDEX:
		while (d->p[0] != FRAME_CONTROL && d->p[0] != FRAME_PROBE)
			d = &seen[rng_below(r, nseen)];
		memcpy(b, d->p, d->n);
		put_u32(b + 4, (uint32_t)rng_u64(r));
		return d->n;
	case REPLAYED:
		*from = d->from;
		return n;
	default:
		return n;
	}
}

/* What nobody in the mesh sent: 10^6 datagrams from 10^5 addresses. Each is counted under its reason, none
 * leaves anything behind, and the session goes on. */
static void hostile_datagrams(void **state)
{
	struct net *net = net_new(16);
	uint8_t *b = calloc(1, BIG);
	uint64_t sent, nquiet = 0;
	bool quiet;
	struct sess_counters c;
	struct mallinfo2 before, after;
	size_t rss = 0;
	struct rng r;

	(void)state;
	seen = calloc(SEEN_MAX, sizeof(*seen));
	nseen = 0;
	net->tap = remember;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, 30 * NS_PER_S);
	net->tap = NULL;
	rng_init_seeded(&r, 99);
	sent = net->sent;
	before = mallinfo2();
	for (unsigned i = 0; i < FLOOD; i++) {
		struct test_node *t = &net->node[rng_below(&r, 2)];
		enum hostile kind = i % HOSTILES;
		struct endpoint from;
		size_t n = hostile_make(kind, &r, b, &from);
		uint64_t dropped, answered = net->sent;

		c = counters(t);
		dropped = drops(&c);
		sess_input(t->m, &from, b, n);
		c = counters(t);
		/* What looks like a handshake of a connection that is there, QUIC itself passes over. */
		quiet = drops(&c) == dropped && net->sent == answered;
		if (quiet && (kind < FLIPPED || kind == STRANGE_INDEX || b[0] != FRAME_HELLO))
			fail_msg("datagram %u (%zu bytes of type %u) was not counted", i, n, b[0]);
		nquiet += quiet;
		if (i % 1000 == 0)
			run_for(net, NS_PER_MS);
		if (i == FLOOD / 10)
			rss = resident();
	}
	assert_true(nquiet < FLOOD / 10);
	assert_true(both_up(net, 0, 1));
	run_for(net, 60 * NS_PER_S);
	after = mallinfo2();
	assert_true(after.uordblks < before.uordblks + (1 << 20));
	assert_true(SANITIZED || resident() < rss + (1 << 20));
	assert_true(both_up(net, 0, 1));
	assert_int_equal(net->node[0].nkeys, 1);
	c = counters(&net->node[0]);
	assert_true(c.drop_cookie && c.drop_link && c.drop_probe && c.drop_malformed && c.drop_knock &&
		    c.drop_type);
	/* Knocks that were heard before are answered (28 bytes for 48); nothing else costs a datagram. */
	assert_true(net->sent - sent < FLOOD / 20);
	free(b);
	free(seen);
	net_free(net);
}

/* 50,000 knocks a second from made-up addresses, half of them heard before and so answered: nodes of the mesh
 * get in as if nothing was, and nothing is kept for those who knock. */
static void flood_of_knocks(void **state)
{
	struct net *net = net_new(18);
	struct endpoint from;
	struct rng r;
	uint8_t b[KNOCK_LEN];
	unsigned knocks = 0;
	uint64_t start;

	(void)state;
	seen = calloc(SEEN_MAX, sizeof(*seen));
	nseen = 0;
	rng_init_seeded(&r, 100);
	for (unsigned i = 0; i < 4; i++)
		node_up(net, i, node_id(net, i), NULL, NULL);
	net->tap = remember;
	know(net, 3, 0, true);
	assert_true(run_until(net, nseen, NS_PER_S));
	net->tap = NULL;
	assert_true(seen[0].p[0] == FRAME_KNOCK && seen[0].n == sizeof(b));
	start = loop_now(net->loop);
	while (loop_now(net->loop) < start + 2 * NS_PER_S) {
		for (unsigned i = 0; i < 50; i++, knocks++) {
			from = ep_at(knocks, (uint16_t)(1 + rng_below(&r, 65535)));
			from.addr[13] = (uint8_t)(1 + (knocks >> 16));
			memcpy(b, seen[0].p, sizeof(b));
			if (i & 1)
				rng_fill(&r, b + sizeof(b) - 16, 16);
			sess_input(net->node[0].m, &from, b, sizeof(b));
		}
		if (knocks == 50000) { /* in the midst of it */
			know(net, 1, 0, true);
			know(net, 2, 0, true);
		}
		run_for(net, NS_PER_MS);
	}
	for (unsigned i = 1; i < 4; i++)
		assert_true(net->node[i].used);
	assert_int_equal(counters(&net->node[0]).drop_knock, knocks / 2);
	assert_int_equal(counters(&net->node[0]).drop_half_open, 0);
	assert_int_equal(counters(&net->node[0]).handshakes_ok, 3);
	assert_int_equal(live_sessions(&net->node[0]), 3);
	free(seen);
	net_free(net);
}

/* First flights with valid cookies that stop: bounded, and a known peer still gets in. */
static void half_open_flood(void **state)
{
	struct net *net = net_new(17);
	struct sess_counters c;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	node_up(net, 2, node_id(net, 2), NULL, NULL);
	know(net, 0, 2, false);
	/* Node 1 dials again and again from ever new addresses and never hears an answer. */
	for (unsigned i = 0; i < 1200; i++) {
		struct err e;
		struct spiffe_id id;
		char name[16];

		snprintf(name, sizeof(name), "x%u", i);
		assert_int_equal(spiffe_id_node(TD, name, &id, &e), 0);
		net->node[1].at = ep_at(1000 + i / 4, X0_PORT);
		assert_int_equal(sess_peer_add(net->node[1].m, &id, &net->node[0].at, 1, true, &e), 0);
		assert_int_equal(sess_want(net->node[1].m, (uint8_t[16]){ 1 }), ERR_NOT_FOUND);
		if (i % 4 == 3) /* the cookies arrive and the first flights leave; then it is gone */
			run_for(net, 11 * NS_PER_MS);
	}
	c = counters(&net->node[0]);
	know(net, 2, 0, true);
	assert_true(run_until(net, both_up(net, 0, 2), 2 * NS_PER_S));
	node_down(net, 1);
	run_for(net, 30 * NS_PER_S);
	assert_true(both_up(net, 0, 2));
	assert_true(c.drop_half_open > 0);
	assert_int_equal(c.handshakes_ok, 0);
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_datagrams),
		cmocka_unit_test(flood_of_knocks),
		cmocka_unit_test(half_open_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
