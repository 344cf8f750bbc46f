/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of the bundles that peers offer: newer, unknown, forged, of one number with ours. */
#include <unistd.h>

#include "session/mgr.h"
#include "session/testlib.h"

static void bundle_before_ready(void **state)
{
	struct net *net = net_new(11);
	struct bundle *b = next_bundle(net, "spiffe://" TD "/node/n1");

	(void)state;
	/* 0 does not know yet that 1 is revoked; 2's bundle tells it before anything else. A revoked 1
	 * dialling 2: no keys. */
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	node_up(net, 2, node_id(net, 2), NULL, NULL);
	set_bundle_of(net, 2, b);
	know(net, 0, 2, true);
	assert_true(run_until(net, both_up(net, 0, 2), 2 * NS_PER_S));
	assert_int_equal(net->node[0].nbundles, 1);
	know(net, 1, 0, true);
	run_for(net, 3 * NS_PER_S);
	assert_int_equal(net->node[1].nuse, 0);
	assert_int_equal(net->node[0].nkeys, 1);
	bundle_free(b);
	net_free(net);
}

/* A sound identity of node i that shows bundle b. */
static struct node_identity *bearer(struct net *net, unsigned i, const struct bundle *b)
{
	struct node_identity *id = node_id(net, i);

	bundle_free(id->bundle);
	assert_int_equal(bundle_decode(b->encoded, b->encoded_n, NULL, NULL, &id->bundle, NULL), 0);
	return id;
}

/* Signed by a root that is in it, but not in ours: not accepted, and no reason to part. */
static void unknown_bundle(void **state)
{
	struct net *net = net_new(12);
	struct mint evil = mint_new(KEY_MLDSA65, TD);
	struct bundle *b = bundle_clone(net->bundle);
	uint64_t sent;

	(void)state;
	assert_int_equal(bundle_add_root(b, SVID_LINK, evil.root, NULL), 0);
	b->number = 9;
	assert_int_equal(bundle_sign(b, evil.root, evil.key, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		node_up(net, i, node_id(net, i), NULL, NULL);
	know(net, 0, 1, true);
	know(net, 0, 2, true);
	assert_true(run_until(net, net->node[0].nuse >= 2, 3 * NS_PER_S));
	/* In mid-session 2 has it (from its own disk), offers it, and has another one every 20 ms. */
	set_bundle_of(net, 2, b);
	run_for(net, 500 * NS_PER_MS);
	assert_int_equal(counters(&net->node[0]).bundles_unknown, 1);
	sent = net->bytes;
	for (unsigned i = 0; i < 300; i++) {
		b->number++;
		assert_int_equal(bundle_sign(b, evil.root, evil.key, NULL), 0);
		set_bundle_of(net, 2, b);
		run_for(net, 20 * NS_PER_MS);
	}
	assert_in_range(counters(&net->node[0]).bundles_unknown, 2, 5); /* asked after 1, 2, 4 s */
	assert_in_range(net->bytes - sent, 0, 300 * b->encoded_n / 2);	/* most were never sent */
	assert_int_equal(live_sessions(&net->node[0]), 2);
	assert_int_equal(net->node[0].nbundles, 0);
	/* At the start of a session. */
	know(net, 2, 1, true);
	assert_true(run_until(net, net->node[2].nuse >= 2, 3 * NS_PER_S));
	assert_int_equal(counters(&net->node[1]).bundles_unknown, 1);
	assert_int_equal(net->node[1].nbundles, 0);
	/* A real one still gets through, and the bearer of the strange one is still there. */
	b = bundle_free(b);
	b = next_bundle(net, "spiffe://" TD "/node/n7");
	set_bundle_of(net, 0, b);
	run_for(net, NS_PER_S);
	assert_int_equal(net->node[1].nbundles, 1);
	assert_int_equal(live_sessions(&net->node[1]), 2);
	bundle_free(b);
	mint_fini(&evil);
	net_free(net);
}

/* In the name of a root we know, but altered: who shows that is refused. */
static void forged_bundle(void **state)
{
	struct net *net = net_new(17);
	struct bundle *b = next_bundle(net, "spiffe://" TD "/node/n7"), *shown;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, bearer(net, 1, b), NULL, NULL);
	shown = net->node[1].m->bundle;
	shown->encoded[shown->encoded_n - 1] ^= 1;
	know(net, 0, 1, true);
	run_for(net, 3 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys, 0);
	assert_int_equal(net->node[0].nbundles, 0);
	assert_int_equal(counters(&net->node[0]).bundles_unknown, 0);
	assert_non_null(strstr(sess_last_refusal(net->node[0].m), "its bundle"));
	bundle_free(b);
	net_free(net);
}

/*
 * Two issuers revoke at the same moment, one each: n4 known at n0, n5 at n1. Every node must drop both,
 * choose the same bundle, and keep all other sessions; each of the two hears of the other's bundle, to merge
 * it.
 */
static void two_of_one_number(void **state)
{
	struct net *net = net_new(18);
	struct bundle *b4 = next_bundle(net, "spiffe://" TD "/node/n4"),
		      *b5 = next_bundle(net, "spiffe://" TD "/node/n5"), *both = NULL;

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		node_up(net, i, node_id(net, i), NULL, NULL);
	for (unsigned i = 0; i < 6; i++)
		for (unsigned j = i + 1; j < 6; j++)
			know(net, i, j, true);
	run_for(net, 3 * NS_PER_S);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(live_sessions(&net->node[i]), 5);
	set_bundle_of(net, 0, b4);
	set_bundle_of(net, 1, b5);
	run_for(net, 5 * NS_PER_S);
	for (unsigned i = 0; i < 4; i++) {
		const struct bundle *b = net->node[i].m->bundle;

		assert_int_equal(live_sessions(&net->node[i]), 3);
		assert_int_equal(counters(&net->node[i]).closed_revoked, 2);
		assert_memory_equal(b->hash, net->node[0].m->bundle->hash, SHA256_LEN);
		assert_true(net->node[i].nbundles >= 1);
	}
	/* Nobody goes on asking. */
	const unsigned heard = net->node[0].nbundles + net->node[1].nbundles;

	run_for(net, 10 * NS_PER_S);
	assert_int_equal(net->node[0].nbundles + net->node[1].nbundles, heard);
	/* The union, made by one of them. */
	assert_int_equal(bundle_merge(b4, b5, WALL, &both, NULL), 0);
	assert_int_equal(bundle_sign(both, net->mint.root, net->mint.key, NULL), 0);
	set_bundle_of(net, 2, both);
	run_for(net, NS_PER_S);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(net->node[i].m->bundle->number, 3);
		assert_null(net->node[i].m->bundle->also);
		assert_int_equal(live_sessions(&net->node[i]), 3);
	}
	bundle_free(b4);
	bundle_free(b5);
	bundle_free(both);
	net_free(net);
}

/* A bundle that a faster peer has overtaken is old news, no reason to part. */
static void overtaken(void **state)
{
	struct net *net = net_new(19);
	struct bundle *two = next_bundle(net, "spiffe://" TD "/node/n7"), *three;

	(void)state;
	bundle_free(net->bundle);
	net->bundle = bundle_copy(two);
	three = next_bundle(net, "spiffe://" TD "/node/n6");
	bundle_free(net->bundle);
	net->bundle = mint_bundle(&net->mint, 1);
	for (unsigned i = 0; i < 2; i++)
		node_up(net, i, node_id(net, i), NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 3 * NS_PER_S));
	set_bundle_of(net, 1, two);
	assert_true(run_until(net, net->node[0].m->epochs->wait_bundle, NS_PER_S));
	set_bundle_of(net, 0, three);
	run_for(net, NS_PER_S);
	assert_int_equal(live_sessions(&net->node[0]), 1);
	assert_int_equal(net->node[0].m->bundle->number, 3);
	assert_int_equal(net->node[1].m->bundle->number, 3);
	bundle_free(two);
	bundle_free(three);
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bundle_before_ready), cmocka_unit_test(unknown_bundle),
		cmocka_unit_test(forged_bundle),       cmocka_unit_test(two_of_one_number),
		cmocka_unit_test(overtaken),
	};

	return cmocka_run_group_tests_name("session/bundles", tests, NULL, NULL);
}
