/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that must be refused, revocation, expiry, bundles, joins. */
#include <unistd.h>

#include "session/mgr.h"
#include "session/testlib.h"

static int log_fd = -1;

static void log_begin(void)
{
	char path[] = "/tmp/x0-session-log-XXXXXX";

	if (log_fd >= 0)
		close(log_fd);
	log_fd = mkstemp(path);
	assert_true(log_fd >= 0);
	unlink(path);
	log_init(log_fd, LOG_TEXT, LOG_WARN);
}

/* The log is rate limited by the real clock: the first refusal is looked for there, all of them here. */
static bool told(struct test_node *t, const char *text)
{
	const char *have = sess_last_refusal(t->m);

	if (!strstr(have, text))
		print_message("last refusal was: %s\n", have);
	return strstr(have, text) != NULL;
}

static bool logged(const char *text)
{
	static char buf[1 << 16];
	ssize_t n = pread(log_fd, buf, sizeof(buf) - 1, 0);

	assert_true(n >= 0);
	buf[n] = 0;
	if (!strstr(buf, text))
		print_message("log was: %s\n", buf);
	return strstr(buf, text) != NULL;
}

/* Node 1 shows `id`; node 0, sound, is dialled by it and dials it. Neither may get a session; 0 says why. */
static void refused(struct net *net, struct node_identity *id, const char *why, bool by_dial)
{
	struct sess_counters c;

	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, id, NULL, NULL);
	log_begin();
	if (by_dial)
		know(net, 0, 1, true);
	else
		know(net, 1, 0, true);
	run_for(net, 5 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys, 0);
	assert_int_equal(net->node[1].nkeys, 0);
	c = counters(&net->node[0]);
	assert_true(c.refused_identity + c.refused_revoked + c.refused_tls > 0);
	assert_true(c.handshakes_failed > 0);
	assert_true(told(&net->node[0], why));
	log_set_level(LOG_ERROR);
	net_free(net);
}

static void expired(void **state)
{
	(void)state;
	for (int d = 0; d < 2; d++) {
		struct net *net = net_new(1);

		refused(net,
			mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65,
				  WALL - 7200, WALL - 3600),
			"expired", d);
		assert_true(d || logged("expired"));
	}
}

static void clock_wrong_by_a_day(void **state)
{
	struct net *net = net_new(2);

	(void)state;
	refused(net,
		mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL + 86400 - 600,
			  WALL + 2 * 86400),
		"not valid yet", false);
}

/* The host whose clock is wrong says so itself, with both times: that is where the operator will look. */
static void own_clock_wrong_by_a_day(void **state)
{
	(void)state;
	for (int d = 0; d < 4; d++) {
		struct net *net = net_new(20);
		struct test_node *right = &net->node[0], *wrong = &net->node[1];
		const char *clock = d & 1 ? "clock says 2027-01-16 08:00" : "clock says 2027-01-14 08:00";

		wrong->skew = d & 1 ? 86400 : -86400;
		node_up(net, 0,
			mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n0", KEY_MLDSA65, WALL - 600,
				  WALL + 3600),
			NULL, NULL);
		/* Its own SVID would do for both, so that nothing else is wrong. */
		node_up(net, 1,
			mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65,
				  WALL - 2 * 86400, WALL + 2 * 86400),
			NULL, NULL);
		know(net, d & 2 ? 1 : 0, d & 2 ? 0 : 1, true);
		run_for(net, 5 * NS_PER_S);
		assert_int_equal(right->nuse + wrong->nuse, 0);
		assert_true(told(wrong, d & 1 ? "has expired" : "is not valid yet") && told(wrong, clock));
		if (d & 2)
			assert_non_null(strstr(info_of(wrong).last_error, clock));
		net_free(net);
	}
}

static void lookalike(void **state)
{
	(void)state;
	for (int d = 0; d < 2; d++) {
		struct net *net = net_new(3);
		struct mint evil = mint_new(KEY_MLDSA65, TD);

		/* The right URI, the right bundle for the knock, a root nobody trusts. */
		refused(net,
			mint_node(&evil, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL - 600,
				  WALL + 86400),
			"not vouched for", d);
		mint_fini(&evil);
	}
}

static void wrong_domain(void **state)
{
	struct net *net = net_new(4);

	(void)state;
	refused(net,
		mint_node(&net->mint, net->bundle, "spiffe://other.example/node/n1", KEY_MLDSA65, WALL - 600,
			  WALL + 86400),
		"other.example", false);
}

static void p256_chain(void **state)
{
	struct net *net = net_new(5);
	struct mint p256 = mint_new(KEY_P256, TD);

	(void)state;
	refused(net,
		mint_node(&p256, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL - 600,
			  WALL + 86400),
		"ML-DSA-65", false);
	mint_fini(&p256);
}

static void p256_leaf(void **state)
{
	struct net *net = net_new(6);

	(void)state;
	refused(net,
		mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_P256, WALL - 600,
			  WALL + 86400),
		"ML-DSA-65", false);
}

static void not_the_one_dialled(void **state)
{
	struct net *net = net_new(7);
	struct spiffe_id other;
	struct err e;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	/* n1's address under the name of n10: a prefix must never do. */
	assert_int_equal(spiffe_id_node(TD, "n10", &other, &e), 0);
	assert_int_equal(sess_peer_add(net->node[0].m, &other, &net->node[1].at, 1, true, &e), 0);
	run_for(net, 5 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys + net->node[1].nuse, 0);
	assert_true(told(&net->node[0], "/node/n1', dialled was"));
	assert_non_null(strstr(info_of(&net->node[0]).last_error, "dialled was"));
	log_set_level(LOG_ERROR);
	net_free(net);
}

static void self_dial(void **state)
{
	struct net *net = net_new(8);
	struct spiffe_id other;
	struct err e;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	assert_int_equal(sess_peer_add(net->node[0].m, &net->node[0].self->id, &net->node[0].at, 1, true, &e),
			 ERR_USAGE);
	assert_int_equal(spiffe_id_node(TD, "n1", &other, &e), 0);
	assert_int_equal(sess_peer_add(net->node[0].m, &other, &net->node[0].at, 1, true, &e), 0);
	run_for(net, 5 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys, 0);
	net_free(net);
}

static void stranger_gets_silence(void **state)
{
	struct net *net = net_new(9);
	struct mint evil = mint_new(KEY_MLDSA65, TD);
	struct bundle *b = mint_bundle(&evil, 1);
	uint64_t sent;

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, mint_node(&evil, b, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL - 600, WALL + 86400),
		NULL, NULL);
	know(net, 1, 0, true);
	run_for(net, 5 * NS_PER_S);
	sent = net->sent;
	assert_true(counters(&net->node[0]).drop_knock > 3);
	assert_true(counters(&net->node[0]).drop_knock == sent); /* nothing came back */
	assert_non_null(strstr(info_of(&net->node[1]).last_error, "no answer"));
	bundle_free(b);
	mint_fini(&evil);
	net_free(net);
}

static struct net *pair_up(uint64_t seed)
{
	struct net *net = net_new(seed);

	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, NS_PER_S);
	return net;
}

static void revocation(void **state)
{
	struct net *net = pair_up(10);
	struct bundle *b;

	(void)state;
	node_up(net, 2, node_id(net, 2), NULL, NULL);
	know(net, 2, 1, true);
	know(net, 2, 0, true);
	assert_true(run_until(net, net->node[2].nuse >= 2 && net->node[0].nuse >= 2 && net->node[1].nuse >= 2,
			      3 * NS_PER_S));
	/* 0 hears that 1 is revoked; 2 must hear it from 0, and both end their sessions with 1 in less than a
	 * second. */
	b = next_bundle(net, "spiffe://" TD "/node/n1");
	set_bundle_of(net, 0, b);
	run_for(net, 300 * NS_PER_MS);
	assert_int_equal(live_sessions(&net->node[0]), 1);
	assert_int_equal(live_sessions(&net->node[2]), 1);
	assert_int_equal(live_sessions(&net->node[1]), 0);
	assert_int_equal(net->node[2].nbundles, 1);
	assert_int_equal(net->node[2].got->number, 2);
	assert_int_equal(counters(&net->node[0]).closed_revoked, 1);
	/* It knocks, and is refused for ever. */
	know(net, 1, 0, true);
	run_for(net, 5 * NS_PER_S);
	assert_int_equal(live_sessions(&net->node[1]), 0);
	assert_true(counters(&net->node[0]).refused_revoked > 0);
	assert_true(told(&net->node[0], "revoked"));
	bundle_free(b);
	net_free(net);
}

/* Just re-keyed, there are two sessions with it: both end. */
static void revocation_after_a_rekey(void **state)
{
	struct net *net = pair_up(18);
	struct bundle *b = next_bundle(net, "spiffe://" TD "/node/n1");

	(void)state;
	sess_rekey(net->node[0].m, net->node[0].used);
	assert_true(run_until(net, net->node[0].nuse == 2, 2 * NS_PER_S));
	assert_int_equal(live_sessions(&net->node[0]), 2);
	set_bundle_of(net, 0, b);
	assert_int_equal(live_sessions(&net->node[0]), 0);
	assert_int_equal(net->node[0].last_end, SESS_REVOKED);
	bundle_free(b);
	net_free(net);
}

static void svid_runs_out(void **state)
{
	struct net *net = net_new(13);
	struct node_identity *fresh, *old;

	(void)state;
	pair_for_a_minute(net);
	/* Renewed in time: new keys, no gap. */
	run_for(net, 30 * NS_PER_S);
	old = net->node[1].self;
	fresh = mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL - 600,
			  WALL + 150);
	net->node[1].self = fresh;
	assert_int_equal(sess_identity(net->node[1].m, fresh, NULL), 0);
	node_identity_free(old);
	run_for(net, 60 * NS_PER_S);
	assert_true(both_up(net, 0, 1));
	assert_true(net->node[0].nkeys >= 2);
	/* And then not renewed. */
	run_for(net, 60 * NS_PER_S);
	assert_int_equal(live_sessions(&net->node[0]), 0);
	assert_int_equal(net->node[0].last_end, SESS_EXPIRED);
	net_free(net);
}

static void keys_refused(void **state)
{
	struct net *net = net_new(14);

	(void)state;
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	net->node[1].fail_keys = true;
	know(net, 0, 1, true);
	run_for(net, 2 * NS_PER_S);
	assert_int_equal(net->node[0].nuse, 0);
	assert_int_equal(net->node[0].used, 0);
	assert_true(told(&net->node[1], "too many sessions"));
	net_free(net);
}

/* ---- joins, against the real authority ---- */
struct joiner {
	struct token token;
	EVP_PKEY *link, *spiffe;
	struct joined got;
	unsigned ndone;
	int code;
	char why[320];
};

static struct authority *authority;

static void op_join(void *arg, uint64_t ticket, const struct endpoint *from, const uint8_t exporter[32],
		    const uint8_t *p, size_t n)
{
	struct test_node *t = arg;
	uint8_t *reply = NULL;
	size_t reply_n = 0;
	struct svid_info who;

	(void)from;
	authority_join(authority, exporter, p, n, WALL + 2, &reply, &reply_n, &who, NULL);
	assert_non_null(reply);
	sess_join_answer(t->m, ticket, reply, reply_n);
	free(reply);
}

static int jo_request(void *arg, const uint8_t exporter[32], uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	struct joiner *j = arg;

	return join_request(&j->token, exporter, j->link, j->spiffe, ret_p, ret_n, e);
}

static void jo_done(void *arg, const uint8_t *reply, size_t n, const struct err *e)
{
	struct joiner *j = arg;
	struct err er = { 0 };

	j->ndone++;
	if (e) {
		j->code = e->code;
		snprintf(j->why, sizeof(j->why), "%s", e->what);
		return;
	}
	j->code = join_reply(&j->token, reply, n, j->link, j->spiffe, WALL + 2, &j->got, &er);
	snprintf(j->why, sizeof(j->why), "%s", er.what);
}

static const struct sess_join_ops join_ops = { .request = jo_request, .done = jo_done };

static void join_over_the_wire(void **state)
{
	char dir[] = "/tmp/x0-session-ca-XXXXXX", cmd[64];
	struct net *net = net_new(15);
	struct sess_ops ops = test_ops;
	struct endpoint at[2] = { ep_at(77, X0_PORT), ep_at(1, X0_PORT) };
	struct joiner j = { 0 }, bad = { 0 };
	struct err e = { 0 };
	struct rng rng;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(cmd, sizeof(cmd), "%s/ca", dir);
	rng_init_seeded(&rng, 5);
	assert_int_equal(authority_init(cmd, TD, NULL, WALL, &e), 0);
	assert_int_equal(authority_open(cmd, NULL, &authority, &e), 0);
	/* The issuer's own node takes its identity from the same authority. */
	mint_fini(&net->mint);
	net->mint = (struct mint){ 0 };
	struct node_identity *self = calloc(1, sizeof(*self));
	X509_REQ *req[2];

	assert_int_equal(spiffe_id_node(TD, "issuer", &self->id, &e), 0);
	overlay_addr(&self->id, self->addr);
	for (int i = 0; i < 2; i++) {
		EVP_PKEY **k = i ? &self->spiffe_key : &self->link_key;

		assert_int_equal(key_new(i ? KEY_P256 : KEY_MLDSA65, k, &e), 0);
		req[i] = X509_REQ_new();
		X509_REQ_set_pubkey(req[i], *k);
		assert_true(X509_REQ_sign(req[i], *k, i ? EVP_sha256() : NULL) > 0);
		/* Through DER, as it comes from another host. */
		unsigned char *der = NULL;
		int n = i2d_X509_REQ(req[i], &der);
		const unsigned char *q = der;

		X509_REQ_free(req[i]);
		req[i] = d2i_X509_REQ(NULL, &q, n);
		OPENSSL_free(der);
	}
	if (authority_issue(authority, &self->id, req[0], req[1], 3600, WALL, &self->link, &self->spiffe, &e))
		fail_msg("%s", e.what);
	X509_REQ_free(req[0]);
	X509_REQ_free(req[1]);
	const struct bundle *ab = authority_bundle(authority);
	assert_int_equal(bundle_decode(ab->encoded, ab->encoded_n, NULL, NULL, &self->bundle, &e), 0);
	ops.join = op_join;
	node_up(net, 0, self, &ops, authority_root(authority, SVID_LINK));
	node_up(net, 1, NULL, NULL, NULL); /* no identity yet */

	assert_int_equal(authority_token(authority, "fresh", 3600, false, at, 2, WALL, &rng, &j.token, &e),
			 0);
	assert_int_equal(key_new(KEY_MLDSA65, &j.link, &e), 0);
	assert_int_equal(key_new(KEY_P256, &j.spiffe, &e), 0);
	/* First a token whose pin is another root: nothing may be said. */
	bad = j;
	bad.token.issuer[0] ^= 1;
	assert_int_equal(sess_join(net->node[1].m, &bad.token, &join_ops, &bad, &e), 0);
	run_for(net, 20 * NS_PER_S);
	assert_int_equal(bad.ndone, 1);
	assert_true(bad.code != 0);
	assert_non_null(strstr(bad.why, "no answer"));
	assert_int_equal(counters(&net->node[0]).joins, 0);
	/* Under loss, the first of the two addresses dead. */
	net->loss = 20;
	assert_int_equal(sess_join(net->node[1].m, &j.token, &join_ops, &j, &e), 0);
	assert_true(run_until(net, j.ndone == 1, 30 * NS_PER_S));
	if (j.code)
		fail_msg("join: %s", j.why);
	net->loss = 0;
	assert_int_equal(counters(&net->node[0]).joins, 1);
	run_for(net, NS_PER_S);
	assert_int_equal(counters(&net->node[0]).refused_tls, 0); /* that the newcomer left is no refusal */
	/* The new identity works at once. */
	struct node_identity *me = calloc(1, sizeof(*me));

	me->link_key = j.link;
	me->spiffe_key = j.spiffe;
	me->link = j.got.link;
	me->spiffe = j.got.spiffe;
	me->bundle = j.got.bundle;
	assert_int_equal(spiffe_id_node(TD, "fresh", &me->id, &e), 0);
	overlay_addr(&me->id, me->addr);
	net->node[1].self = me;
	assert_int_equal(sess_identity(net->node[1].m, me, &e), 0);
	know(net, 1, 0, true);
	assert_true(run_until(net, both_up(net, 0, 1), 3 * NS_PER_S));
	run_for(net, 40 * NS_PER_S);
	net_free(net);
	authority = authority_free(authority);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- joins that only hold on ---- */
static unsigned nasked;
static size_t request_size;

static int idle_request(void *arg, const uint8_t exporter[32], uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	(void)arg;
	(void)exporter;
	(void)e;
	*ret_p = calloc(1, request_size);
	*ret_n = request_size;
	return 0;
}

static void idle_done(void *arg, const uint8_t *reply, size_t n, const struct err *e)
{
	(void)arg;
	(void)reply;
	(void)n;
	(void)e;
}

static void never_answer(void *arg, uint64_t ticket, const struct endpoint *from, const uint8_t exporter[32],
			 const uint8_t *p, size_t n)
{
	(void)arg;
	(void)ticket;
	(void)from;
	(void)exporter;
	(void)p;
	(void)n;
	nasked++;
}

static struct net *join_flood(uint64_t seed, unsigned joins)
{
	static const struct sess_join_ops join = { idle_request, idle_done };
	static struct sess_ops ops;
	struct net *net = net_new(seed);
	struct token t = { .naddrs = 1 };
	struct err e;

	nasked = 0;
	ops = test_ops;
	ops.join = never_answer;
	net->params.max_half_open = 8;
	net->params.reserved_half_open = 4;
	node_up(net, 0, node_id(net, 0), &ops, net->mint.root);
	node_up(net, 1, NULL, NULL, NULL);
	assert_int_equal(key_pub_hash(net->mint.key, t.issuer), 0);
	snprintf(t.trust_domain, sizeof(t.trust_domain), TD);
	t.addr[0] = net->node[0].at;
	for (unsigned i = 0; i < joins; i++) {
		net->node[1].at = ep_at(1000 + i, X0_PORT);
		assert_int_equal(sess_join(net->node[1].m, &t, &join, NULL, &e), 0);
		run_for(net, 45 * NS_PER_MS);
	}
	return net;
}

/* Whoever knows the pin can open them: they count as half open until they are answered. */
static void joins_are_capped(void **state)
{
	struct net *net;

	(void)state;
	request_size = 100;
	net = join_flood(18, 20);
	assert_in_range(nasked, 1, 4);
	assert_true(counters(&net->node[0]).drop_half_open > 0);
	/* A peer still gets in. */
	node_up(net, 2, node_id(net, 2), NULL, NULL);
	know(net, 0, 2, false);
	know(net, 2, 0, true);
	assert_true(run_until(net, both_up(net, 0, 2), 2 * NS_PER_S));
	net_free(net);
}

/* A stranger gets no room for a message as long as those of peers. */
static void join_request_too_long(void **state)
{
	struct net *net;

	(void)state;
	request_size = 100 << 10;
	net = join_flood(19, 1);
	run_for(net, 5 * NS_PER_S);
	assert_int_equal(nasked, 0);
	net_free(net);
}

/* ---- anything but what the design allows ---- */
static void other_tls(void **state)
{
	static const struct {
		const char *groups, *sigalgs, *alpn, *why;
	} t[] = {
		{ "X25519", NULL, NULL, "X25519MLKEM768" },
		{ "MLKEM768", NULL, NULL, "X25519MLKEM768" },
		{ "SecP256r1MLKEM768", NULL, NULL, "X25519MLKEM768" },
		{ NULL, "ecdsa_secp256r1_sha256", NULL, "ML-DSA-65" },
		{ NULL, "mldsa44:mldsa87", NULL, "ML-DSA-65" },
		{ NULL, NULL, "\2h3", "x0/1" },
		{ NULL, NULL, "\4x0/2", "x0/1" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct net *net = net_new(20 + i);
		struct sess_counters c;
		SSL_CTX *client;

		node_up(net, 0, node_id(net, 0), NULL, NULL);
		node_up(net, 1, node_id(net, 1), NULL, NULL);
		client = net->node[1].m->tls->client;
		if (t[i].groups)
			assert_int_equal(SSL_CTX_set1_groups_list(client, t[i].groups), 1);
		if (t[i].sigalgs)
			assert_int_equal(SSL_CTX_set1_sigalgs_list(client, t[i].sigalgs), 1);
		if (t[i].alpn)
			assert_int_equal(SSL_CTX_set_alpn_protos(client, (const unsigned char *)t[i].alpn,
								 (unsigned)strlen(t[i].alpn)),
					 0);
		log_begin();
		know(net, 1, 0, true);
		run_for(net, 5 * NS_PER_S);
		log_set_level(LOG_ERROR);
		c = counters(&net->node[0]);
		assert_true(c.refused_tls > 0);
		assert_int_equal(c.handshakes_ok + net->node[0].nkeys + net->node[1].nkeys, 0);
		assert_true(told(&net->node[0], t[i].why));
		/* The other end knows that it was refused, and does not claim to have refused. */
		assert_int_equal(counters(&net->node[1]).refused_tls, 0);
		assert_non_null(strstr(info_of(&net->node[1]).last_error, "refused us"));
		net_free(net);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expired),
		cmocka_unit_test(clock_wrong_by_a_day),
		cmocka_unit_test(own_clock_wrong_by_a_day),
		cmocka_unit_test(lookalike),
		cmocka_unit_test(wrong_domain),
		cmocka_unit_test(p256_chain),
		cmocka_unit_test(p256_leaf),
		cmocka_unit_test(not_the_one_dialled),
		cmocka_unit_test(self_dial),
		cmocka_unit_test(stranger_gets_silence),
		cmocka_unit_test(revocation),
		cmocka_unit_test(revocation_after_a_rekey),
		cmocka_unit_test(svid_runs_out),
		cmocka_unit_test(keys_refused),
		cmocka_unit_test(join_over_the_wire),
		cmocka_unit_test(joins_are_capped),
		cmocka_unit_test(join_request_too_long),
		cmocka_unit_test(other_tls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
