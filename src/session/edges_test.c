/* SPDX-License-Identifier: Apache-2.0 */
/* What only happens when something is lost at the wrong moment, and what must hold over a long time. */
#include <malloc.h>

#include "session/mgr.h"
#include "session/testlib.h"

static struct net *pair_up(uint64_t seed, struct sess_params *change)
{
	struct net *net = net_new(seed);

	if (change)
		net->params = *change;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 5 * NS_PER_S));
	return net;
}

/* 720 re-keys at intervals of a second; every 10 ms each end sends with keys the other has. */
static void rekeys_720(void **state)
{
	struct sess_params p;
	struct net *net;
	size_t heap = 0;

	(void)state;
	sess_params_default(&p);
	p.rekey_after = NS_PER_S;
	p.old_keys_live = 5 * NS_PER_S;
	net = pair_up(1, &p);
	net->loss = 5;
	net->reorder = net->dup = 5;
	net->node[0].busy = net->node[1].busy = true;
	for (unsigned i = 0; i < 100 * 1500 && counters(&net->node[0]).rekeys < 720; i++) {
		run_for(net, 10 * NS_PER_MS);
		if (!net->node[0].used || !net->node[1].used || !paired(&net->node[0], &net->node[1]) ||
		    !paired(&net->node[1], &net->node[0]))
			fail_msg("a gap after %llu re-keys",
				 (unsigned long long)counters(&net->node[0]).rekeys);
		if (!heap && counters(&net->node[0]).rekeys == 100)
			heap = mallinfo2().uordblks;
	}
	assert_true(counters(&net->node[0]).rekeys >= 720);
	assert_true(live_sessions(&net->node[0]) < 16);
	assert_true(mallinfo2().uordblks < heap + (1 << 20));
	net_free(net);
}

/* One end took the new keys into use, the other lost them: its knock brings them together again. */
static void one_side_lost_its_keys(void **state)
{
	(void)state;
	for (unsigned victim = 0; victim < 2; victim++) {
		struct net *net = pair_up(2 + victim, NULL);
		struct test_node *v = &net->node[victim], *o = &net->node[!victim];
		uint32_t before = v->used, lost;
		struct epoch *e;

		know(net, 1, 0, true);
		sess_rekey(net->node[0].m, net->node[0].used);
		assert_true(run_until(net, v->used != before && both_up(net, 0, 1), 5 * NS_PER_S));
		/* As if READY had never come to the victim, nor its goodbye to the other. */
		lost = v->used;
		e = epoch_by_id(v->m, lost);
		net->cut = true;
		core_session_end(&v->m->core, &e->core, SESS_CLOSED, loop_now(net->loop));
		mgr_run(v->m);
		run_for(net, NS_PER_MS);
		net->cut = false;
		v->busy = o->busy = true;
		assert_true(v->used != 0 && v->used != lost);
		assert_true(run_until(net, both_up(net, 0, 1), 8 * NS_PER_S));
		net_free(net);
	}
}

/* The node that was dialled restarts and knows nobody: the first frames of the dialler bring the session
 * back. */
static void restarted_listener(void **state)
{
	struct net *net = pair_up(4, NULL);
	struct test_node *a = &net->node[0], *b = &net->node[1];
	struct node_identity *self = b->self;
	uint64_t t0;

	(void)state;
	run_for(net, 3 * NS_PER_S);
	net->cut = true;
	sess_free(b->m);
	net->cut = false;
	node_up(net, 1, self, NULL, NULL);
	t0 = loop_now(net->loop);
	sess_send(a->m, a->used, 64, "hello", 6);
	assert_true(run_until(net, both_up(net, 0, 1), 10 * NS_PER_S));
	assert_true(loop_now(net->loop) - t0 < 3 * NS_PER_S);
	assert_true(a->last_end != SESS_TIMEOUT);
	assert_int_equal(counters(b).recovery_knocks, 1);
	run_for(net, 60 * NS_PER_S);
	assert_int_equal(live_sessions(a), 1);
	assert_true(both_up(net, 0, 1));
	net_free(net);
}

/* Bursts for unknown indices from everywhere: no answer but a few knocks, and no memory. */
static void spoofed_bursts(void **state)
{
	struct net *net = pair_up(5, NULL);
	struct test_node *b = &net->node[1];
	uint8_t f[PROBE_LEN] = { 0 };
	uint64_t sent = net->sent;
	unsigned epochs = 0;

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		struct endpoint from = ep_at(1000 + i / 10, 1);

		hop_put(f, FRAME_PROBE, HOP_TTL, 0, 1 + i, b->m->self_label, 1);
		sess_input(b->m, &from, f, sizeof(f));
		if (i % 100 == 0)
			run_for(net, 10 * NS_PER_MS);
	}
	assert_true(net->sent - sent < 60);
	run_for(net, 20 * NS_PER_S);
	for (const struct epoch *e = b->m->epochs; e; e = e->next)
		epochs++;
	assert_int_equal(epochs, 1);
	assert_true(both_up(net, 0, 1));
	net_free(net);
}

/* A message lost in an outage arrives within a second of the way being open again, from another port. */
static void message_after_outage(void **state)
{
	(void)state;
	for (unsigned mover = 0; mover < 2; mover++) {
		struct net *net = pair_up(6, NULL);
		struct test_node *a = &net->node[mover], *b = &net->node[!mover];
		unsigned keys = a->nkeys;

		run_for(net, 2 * NS_PER_S);
		net->cut = true;
		assert_int_equal(sess_send(a->m, a->used, 64, "late", 5), 0);
		assert_int_equal(sess_send(b->m, b->used, 64, "late", 5), 0);
		run_for(net, 9 * NS_PER_S);
		net->cut = false;
		a->at.port = 9999;
		sess_moved(a->m);
		assert_true(run_until(net, a->nmsg && b->nmsg, NS_PER_S));
		assert_int_equal(a->nkeys, keys);
		net_free(net);
	}
}

/* The peer's old SVID ends while the session with its new one is there. */
static void renewed_at_the_last_moment(void **state)
{
	struct net *net = net_new(7);
	struct node_identity *old;

	(void)state;
	pair_for_a_minute(net);
	run_for(net, 57 * NS_PER_S + 900 * NS_PER_MS);
	old = net->node[1].self;
	net->node[1].self = node_id(net, 1);
	assert_int_equal(sess_identity(net->node[1].m, net->node[1].self, NULL), 0);
	node_identity_free(old);
	run_for(net, 10 * NS_PER_S);
	assert_true(both_up(net, 0, 1));
	assert_int_equal(net->node[0].nkeys, 2); /* the renewed one, not one dialled after it was gone */
	net_free(net);
}

/* The wall clock jumps past the end of the peer's SVID: sessions end, though the loop's clock went on evenly.
 */
static void clock_is_set(void **state)
{
	struct net *net = pair_up(8, NULL);

	(void)state;
	sess_clock(net->node[0].m, (WALL + 20 * 86400) * (int64_t)NS_PER_S);
	run_for(net, 2 * NS_PER_S);
	assert_int_equal(live_sessions(&net->node[0]), 0);
	assert_int_equal(net->node[0].last_end, SESS_EXPIRED);
	sess_clock(net->node[0].m, WALL * (int64_t)NS_PER_S);
	assert_true(run_until(net, both_up(net, 0, 1), 60 * NS_PER_S));
	net_free(net);
}

/* Whoever has the higher address and is the only one that dials does not wait for the other. */
static void higher_dials_at_once(void **state)
{
	struct net *net = net_new(9);
	unsigned high;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	high = memcmp(net->node[0].self->addr, net->node[1].self->addr, 16) < 0;
	know(net, high, !high, true);
	assert_true(run_until(net, both_up(net, 0, 1),
			      120 * NS_PER_MS)); /* 30 ms, and four round trips of 10 ms */
	net_free(net);
}

/* The peer comes back with a smaller interface while our session to it lives: no black hole. */
static void peer_with_smaller_interface(void **state)
{
	struct link_params lp = { .keepalive = NS_PER_S, .dead_after = NS_PER_S, .mtu = 1452 };
	struct endpoint at = ep_at(1, 1);
	struct link_result r = { 0 };
	struct link l;

	(void)state;
	link_init(&l, &lp);
	link_keys(&l, &at, 1452, NS_PER_S, &r);
	l.frame_max = l.lo = 1452;
	l.trying = 0;
	link_keys(&l, &at, 1300, 2 * NS_PER_S, &r);
	assert_true(r.mtu_changed);
	assert_int_equal(l.frame_max, LINK_MTU_BASE);
	assert_int_equal(l.hi, 1300);
	l.trying = 0;
	link_keys(&l, &at, 1452, 3 * NS_PER_S, &r);
	assert_int_equal(l.hi, 1452);
}

/* Cookie and first flight of a handshake under way, seen on the way: they open nothing beside it. */
static struct dgram seen[64];
static unsigned nseen;

static void hellos(struct net *net, const struct endpoint *from, const struct endpoint *to, const uint8_t *p,
		   size_t n)
{
	(void)net;
	if (p[0] != FRAME_HELLO || (p[2] & HELLO_F_REPLY) || nseen == ARRAY_SIZE(seen))
		return;
	seen[nseen].from = *from;
	seen[nseen].to = *to;
	seen[nseen].n = n;
	memcpy(seen[nseen++].p, p, n);
}

static void one_connection_per_cookie(void **state)
{
	struct net *net = net_new(10);
	struct test_node *b = &net->node[1];
	uint8_t f[HELLO_HEAD + QUIC_DGRAM];
	unsigned open = 0;

	(void)state;
	nseen = 0;
	net->tap = hellos;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, nseen > 0, NS_PER_S));
	run_for(net, 6 * NS_PER_MS); /* it arrived */
	assert_true(seen[0].n <= sizeof(f));
	/* The same first flight for another connection: byte 26 is the first of its destination ID. */
	for (unsigned i = 0; i < 100; i++) {
		memcpy(f, seen[0].p, seen[0].n);
		put_u32(f + HELLO_HEAD + 6, i);
		sess_input(b->m, &seen[0].from, f, seen[0].n);
	}
	for (const struct epoch *e = b->m->epochs; e; e = e->next)
		open++;
	assert_int_equal(open, 1);
	assert_int_equal(counters(b).drop_quic, 100);
	assert_true(run_until(net, both_up(net, 0, 1), NS_PER_S));
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rekeys_720),
		cmocka_unit_test(one_side_lost_its_keys),
		cmocka_unit_test(restarted_listener),
		cmocka_unit_test(spoofed_bursts),
		cmocka_unit_test(message_after_outage),
		cmocka_unit_test(renewed_at_the_last_moment),
		cmocka_unit_test(clock_is_set),
		cmocka_unit_test(higher_dials_at_once),
		cmocka_unit_test(peer_with_smaller_interface),
		cmocka_unit_test(one_connection_per_cookie),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
