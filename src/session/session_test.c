/* SPDX-License-Identifier: Apache-2.0 */
/* Two and more managers on a virtual network, with real TLS. */
#include <malloc.h>

#include "session/testlib.h"

static struct net *pair(uint64_t seed)
{
	struct net *net = net_new(seed);

	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	return net;
}

static void come_up(void **state)
{
	struct net *net = pair(1);
	struct sess_peer_info i;

	(void)state;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, NS_PER_S);
	i = info_of(&net->node[0]);
	assert_int_equal(i.state, SESS_UP);
	assert_string_equal(i.id.uri, "spiffe://" TD "/node/n1");
	assert_string_equal(i.group, "X25519MLKEM768");
	assert_string_equal(i.signature, "mldsa65");
	assert_true(i.rtt_ns >= 10 * NS_PER_MS && i.rtt_ns < 12 * NS_PER_MS);
	assert_true(i.handshake_ns > 0 && i.handshake_ns < 200 * NS_PER_MS);
	assert_int_equal(i.epoch, 1);
	assert_int_equal(i.frame_max, 1452);
	assert_int_equal(net->node[0].nkeys, 1);
	assert_int_equal(net->node[1].nkeys, 1);
	net_free(net);
}

static void both_dial(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct net *net = pair(seed);

		net->loss = seed > 4 ? 20 : 0;
		net->reorder = seed > 8 ? 30 : 0;
		know(net, 0, 1, true);
		know(net, 1, 0, true);
		assert_true(run_until(net, both_up(net, 0, 1), 20 * NS_PER_S));
		net->loss = 0;
		run_for(net, 45 * NS_PER_S);
		assert_true(both_up(net, 0, 1));
		/* The dial that was given up is no refusal. */
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(counters(&net->node[i]).refused_tls, 0);
			assert_string_equal(sess_last_refusal(net->node[i].m), "");
		}
		assert_int_equal(live_sessions(&net->node[0]), 1);
		assert_int_equal(live_sessions(&net->node[1]), 1);
		net_free(net);
	}
}

/* Every tick both send with keys the other can receive with. */
static void gapless(struct net *net, uint64_t ns)
{
	const uint64_t end = loop_now(net->loop) + ns;

	while (loop_now(net->loop) < end) {
		run_for(net, 10 * NS_PER_MS);
		assert_true(net->node[0].used && net->node[1].used);
		assert_true(paired(&net->node[0], &net->node[1]));
		assert_true(paired(&net->node[1], &net->node[0]));
	}
}

static void rekey_of_use(void **state)
{
	struct net *net = pair(2);

	(void)state;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	net->node[0].busy = net->node[1].busy = true;
	gapless(net, 100 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys, 1);
	gapless(net, 40 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys, 2);
	assert_int_equal(info_of(&net->node[0]).epoch, 2);
	gapless(net, 40 * NS_PER_S);
	assert_int_equal(live_sessions(&net->node[0]), 1);
	assert_int_equal(net->node[0].last_end, SESS_REKEYED);
	net->node[0].busy = net->node[1].busy = false;
	gapless(net, 1000 * NS_PER_S); /* idle: no new keys */
	assert_int_equal(net->node[0].nkeys, 2);
	gapless(net, 3000 * NS_PER_S); /* but hourly */
	assert_int_equal(net->node[0].nkeys, 3);
	net_free(net);
}

static size_t heap(void)
{
	struct mallinfo2 i = mallinfo2();

	return i.uordblks + i.hblkhd;
}

static void rekey_every_second_under_loss(void **state)
{
	struct net *net = net_new(3);
	size_t early = 0;
	unsigned seconds = 0;

	(void)state;
	net->params.rekey_after = NS_PER_S;
	net->params.old_keys_live = 5 * NS_PER_S;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	know(net, 0, 1, true);
	know(net, 1, 0, true);
	assert_true(run_until(net, both_up(net, 0, 1), 5 * NS_PER_S));
	net->loss = net->reorder = net->dup = 5;
	net->node[0].busy = net->node[1].busy = true;
	while (counters(&net->node[0]).rekeys < 720) {
		gapless(net, 10 * NS_PER_S);
		/* Old keys live 5 s; under loss both ends may begin, so up to two epochs a second. */
		assert_true(live_sessions(&net->node[0]) < 20);
		seconds += 10;
		assert_true(seconds < 1400); /* one in two seconds at the very least */
		if (!early && counters(&net->node[0]).rekeys >= 100)
			early = heap();
	}
	assert_true(heap() < early + (256 << 10));
	assert_int_equal(net->node[0].nunreachable + net->node[1].nunreachable, 0);
	net_free(net);
}

static void send_to(struct net *net, unsigned i, const char *text)
{
	assert_int_equal(sess_send(net->node[i].m, net->node[i].used, 64, text, strlen(text) + 1), 0);
}

static void roam(void **state)
{
	(void)state;
	for (unsigned mover = 0; mover < 2; mover++) {
		struct net *net = pair(4 + mover);
		struct test_node *a = &net->node[mover], *b = &net->node[!mover];
		unsigned keys;
		uint64_t t0;

		know(net, 0, 1, true);
		assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
		run_for(net, NS_PER_S);
		keys = a->nkeys + b->nkeys;
		a->at.port = 9999;
		t0 = loop_now(net->loop);
		send_to(net, mover, "from the new port");
		assert_true(run_until(net, b->nmsg == 1, NS_PER_S));
		assert_string_equal((char *)b->msg, "from the new port");
		run_for(net, 200 * NS_PER_MS);
		assert_int_equal(b->path.port, 9999);
		send_to(net, !mover, "and back");
		assert_true(run_until(net, a->nmsg == 1, NS_PER_S));
		assert_true(a->msg_at - t0 < NS_PER_S);
		assert_int_equal(counters(b).path_changes, 1);
		/* Moved again, and now the other end speaks first: the mover said so with sess_moved(). */
		a->at.port = 9998;
		sess_moved(a->m);
		run_for(net, 100 * NS_PER_MS);
		send_to(net, !mover, "again");
		assert_true(run_until(net, a->nmsg == 2, NS_PER_S));
		assert_int_equal(a->nkeys + b->nkeys, keys);
		run_for(net, 2 * NS_PER_S);
		assert_int_equal(b->frame_max, 1452);
		net_free(net);
	}
}

static void dead_peer(void **state)
{
	struct net *net = pair(6);
	struct test_node *a = &net->node[0];

	(void)state;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	net->cut = true;
	assert_true(run_until(net, !a->used, 50 * NS_PER_S));
	assert_int_equal(a->last_end, SESS_TIMEOUT);
	assert_true(run_until(net, a->nunreachable > 0, 10 * NS_PER_S));
	assert_int_equal(info_of(a).state == SESS_UP, 0);
	net->cut = false;
	assert_true(run_until(net, both_up(net, 0, 1), 60 * NS_PER_S));
	net_free(net);
}

static void restart(void **state)
{
	(void)state;
	for (unsigned victim = 0; victim < 2; victim++) {
		struct net *net = pair(7 + victim);
		struct test_node *t = &net->node[victim];
		struct node_identity *self;

		know(net, 0, 1, true);
		know(net, 1, 0, true);
		assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
		run_for(net, 3 * NS_PER_S);
		net->cut = true; /* a crash says nothing */
		self = t->self;
		sess_free(t->m);
		t->m = NULL;
		net->cut = false;
		node_up(net, victim, self, NULL, NULL);
		know(net, victim, !victim, true);
		assert_true(run_until(net, both_up(net, 0, 1), NS_PER_S));
		run_for(net, 90 * NS_PER_S);
		assert_true(both_up(net, 0, 1));
		assert_int_equal(live_sessions(&net->node[!victim]), 1);
		net_free(net);
	}
}

/* A peer that is there a moment later does not wait for a coarse timer. */
static void late_peer(void **state)
{
	struct net *net = net_new(12);

	(void)state;
	net->delay = NS_PER_MS / 10;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	net->cut = true;
	know(net, 0, 1, true);
	run_for(net, 32 * NS_PER_MS); /* the first knock is gone by then, whichever end is the lower */
	net->cut = false;
	assert_true(run_until(net, both_up(net, 0, 1), 45 * NS_PER_MS));
	net_free(net);
}

static void polite_end(void **state)
{
	struct net *net = pair(9);

	(void)state;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	node_down(net, 1);
	assert_true(run_until(net, !net->node[0].used, NS_PER_S));
	assert_int_equal(net->node[0].last_end, SESS_CLOSED);
	net_free(net);
}

static void on_pong(void *arg, int code, uint64_t rtt)
{
	uint64_t *r = arg;

	*r = code ? (uint64_t)code : rtt;
}

static void ping_and_messages(void **state)
{
	struct net *net = pair(10);
	struct test_node *a = &net->node[0], *b = &net->node[1];
	uint8_t *big = calloc(1, CTL_MAX);
	uint64_t rtt = 0;

	(void)state;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	assert_int_equal(sess_ping(a->m, a->used, on_pong, &rtt), 0);
	run_for(net, 100 * NS_PER_MS);
	assert_true(rtt >= 10 * NS_PER_MS && rtt < 50 * NS_PER_MS);
	net->loss = 10;
	assert_int_equal(sess_send(a->m, a->used, 70, big, CTL_MAX), 0);
	assert_int_equal(sess_send(a->m, a->used, 70, big, CTL_MAX), 0);
	assert_int_equal(sess_send(a->m, a->used, 70, big, CTL_MAX), 0);
	assert_int_equal(sess_send(a->m, a->used, 70, big, CTL_MAX), ERR_LIMIT);
	assert_int_equal(sess_send(a->m, a->used, 70, big, CTL_MAX + 1), ERR_LIMIT);
	assert_true(run_until(net, b->nmsg == 3, 60 * NS_PER_S));
	assert_int_equal(sess_send(a->m, a->used, 63, "x", 1), 0);
	assert_int_equal(sess_send(a->m, a->used, CTL_RENEW, "r", 1), 0);
	assert_true(run_until(net, b->nmsg == 4, 5 * NS_PER_S));
	assert_int_equal(b->msg_type, CTL_RENEW);
	assert_int_equal(counters(b).unknown_messages, 1);
	assert_int_equal(sess_send(a->m, 424242, 70, "x", 1), ERR_NOT_FOUND);
	net->cut = true;
	rtt = 0;
	assert_int_equal(sess_ping(a->m, a->used, on_pong, &rtt), 0);
	run_for(net, 6 * NS_PER_S);
	assert_int_equal((int)rtt, ERR_TIMEOUT);
	free(big);
	net_free(net);
}

static void versions(void **state)
{
	static const struct {
		uint16_t a, b;
		bool works;
	} c[] = { { 1, 2, true }, { 2, 1, true }, { 5, 4, true }, { 3, 1, false }, { 1, 3, false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct net *net = net_new(20 + i);

		net->node[0].proto = c[i].a;
		net->node[1].proto = c[i].b;
		node_up(net, 0, node_id(net, 0), NULL, NULL);
		node_up(net, 1, node_id(net, 1), NULL, NULL);
		know(net, 0, 1, true);
		assert_int_equal(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S), c[i].works);
		if (!c[i].works) {
			assert_true(counters(&net->node[0]).refused_version +
					    counters(&net->node[1]).refused_version >
				    0);
			assert_non_null(strstr(info_of(&net->node[0]).last_error, "versions too far apart"));
			assert_int_equal(net->node[0].nkeys + net->node[1].nkeys, 0);
		}
		net_free(net);
	}
}

static void wanted(void **state)
{
	struct net *net = pair(30);
	struct test_node *a = &net->node[0];

	(void)state;
	know(net, 0, 1, false);
	run_for(net, 2 * NS_PER_S);
	assert_int_equal(net->sent, 0);
	assert_int_equal(sess_want(a->m, net->node[1].self->addr), 0);
	assert_true(run_until(net, both_up(net, 0, 1), NS_PER_S));
	sess_rekey(a->m, a->used);
	assert_true(run_until(net, a->nuse == 2, NS_PER_S));
	sess_spent(a->m, a->used);
	assert_int_equal(a->used, 0); /* the older keys are no way back */
	assert_int_equal(a->last_end, SESS_SPENT);
	assert_int_equal(sess_want(a->m, net->node[1].self->addr), 0);
	assert_true(run_until(net, both_up(net, 0, 1), NS_PER_S));
	sess_peer_remove(a->m, &net->node[1].self->id);
	run_for(net, NS_PER_S);
	assert_int_equal(live_sessions(a), 0);
	assert_int_equal(live_sessions(&net->node[1]), 0);
	assert_int_equal(sess_want(a->m, net->node[1].self->addr), ERR_NOT_FOUND);
	net_free(net);
}

static void many_peers_one_node(void **state)
{
	struct net *net = net_new(31);

	(void)state;
	for (unsigned i = 0; i < NODES; i++)
		node_up(net, i, node_id(net, i), NULL, NULL);
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned j = 0; j < NODES; j++)
			if (i != j)
				know(net, i, j, true);
	run_for(net, 60 * NS_PER_S);
	for (unsigned i = 0; i < NODES; i++)
		assert_int_equal(live_sessions(&net->node[i]), NODES - 1);
	net_free(net);
}

static void bad_config(void **state)
{
	struct net *net = net_new(32);
	struct sess_config c = { .loop = net->loop,
				 .rng = &net->rng,
				 .nlanes = 1,
				 .mtu = 1452,
				 .ops = &test_ops,
				 .params = net->params };
	struct sess_mgr *m;
	struct err e;

	(void)state;
	c.nlanes = 0;
	assert_int_equal(sess_new(&c, &m, &e), ERR_USAGE);
	c.nlanes = LANES_MAX + 1;
	assert_int_equal(sess_new(&c, &m, &e), ERR_USAGE);
	c.nlanes = 1;
	c.mtu = 1000;
	assert_int_equal(sess_new(&c, &m, &e), ERR_USAGE);
	c.mtu = 1452;
	c.ops = NULL;
	assert_int_equal(sess_new(&c, &m, &e), ERR_USAGE);
	assert_null(sess_free(NULL));
	net_free(net);
}

static void small_mtu(void **state)
{
	struct net *net = pair(33);

	(void)state;
	net->mtu = 1400;
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, 20 * NS_PER_S);
	assert_true(net->node[0].frame_max <= 1400 && net->node[0].frame_max > 1400 - 8);
	/* The path shrinks under a busy link: a black hole, found and left. */
	net->mtu = 1300;
	net->node[0].busy = net->node[1].busy = true;
	run_for(net, 60 * NS_PER_S);
	assert_true(net->node[0].frame_max <= 1300 && net->node[0].frame_max > 1300 - 8);
	assert_true(both_up(net, 0, 1));
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(come_up),
		cmocka_unit_test(both_dial),
		cmocka_unit_test(rekey_of_use),
		cmocka_unit_test(rekey_every_second_under_loss),
		cmocka_unit_test(roam),
		cmocka_unit_test(dead_peer),
		cmocka_unit_test(restart),
		cmocka_unit_test(late_peer),
		cmocka_unit_test(polite_end),
		cmocka_unit_test(ping_and_messages),
		cmocka_unit_test(versions),
		cmocka_unit_test(wanted),
		cmocka_unit_test(many_peers_one_node),
		cmocka_unit_test(bad_config),
		cmocka_unit_test(small_mtu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
