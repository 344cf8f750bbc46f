/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation fails, for every n: while a node starts (configuration, identity, session manager, data
 * path) and while two nodes set up a session (handshake, keys, re-key, new bundle). An error is reported,
 * nothing leaks, and the next attempt works.
 *
 * OpenSSL allocates thousands of times: of those at the start every 13th fails, all of them with X0_SOAK=1.
 */
#undef _FORTIFY_SOURCE
#include "base/faultlib.h"

#include "session/testlib.h"

#include <openssl/err.h>
#include <sys/socket.h>

#include "daemon/config.h"
#include "tunnel/tunnel.h"

/* ---- start ---- */
static const char config_text[] = "state_dir: /s\nrun_dir: /r\nuser: \"64500\"\nworkers: 2\n"
				  "peers:\n  - {name: b, endpoints: ['192.0.2.2:7430']}\n";
static char dir[] = "/tmp/x0-faults-XXXXXX";
static int tun[2][2], udp[2];

struct started {
	struct config *cfg;
	struct node_identity *self;
	struct sess_mgr *sess;
	struct dp *dp;
};

static int start(struct started *s, struct loop *loop, struct rng *rng, struct err *e)
{
	static const struct dp_ops dp_ops;
	struct sess_config sc = { .loop = loop,
				  .rng = rng,
				  .nlanes = 2,
				  .suite = AEAD_AES_256_GCM,
				  .mtu = 1452,
				  .wall_offset = WALL * (int64_t)NS_PER_S,
				  .ops = &test_ops };
	struct dp_config dc = { .nworkers = 2,
				.tun_fd = (int[]){ tun[0][0], tun[1][0] },
				.udp_fd = udp,
				.udp_family = AF_INET,
				.tun_mtu = 1400,
				.control = loop,
				.ops = &dp_ops };
	char path[64];
	int rc = config_parse("x0.yaml", config_text, sizeof(config_text) - 1, &s->cfg, e);

	snprintf(path, sizeof(path), "%s/identity", dir);
	rc = rc ? rc : node_identity_load(path, &s->self, e);
	if (rc)
		return rc;
	sc.self = s->self;
	sc.params = s->cfg->session;
	memcpy(dc.self, s->self->addr, 16);
	rc = sess_new(&sc, &s->sess, e);
	return rc ? rc : dp_new(&dc, &s->dp, e);
}

static void stop(struct started *s)
{
	dp_free(s->dp);
	sess_free(s->sess);
	node_identity_free(s->self);
	config_free(s->cfg);
	*s = (struct started){ 0 };
}

static void identity_make(struct net *net)
{
	struct node_identity *ni = node_id(net, 0);
	struct err e = { 0 };
	char path[64];

	ni->spiffe_key = ni->link_key;
	ni->spiffe = ni->link;
	EVP_PKEY_up_ref(ni->link_key);
	X509_up_ref(ni->link);
	snprintf(path, sizeof(path), "%s/identity", dir);
	if (node_identity_save(path, ni, &e))
		fail_msg("%s", e.what);
	node_identity_free(ni);
}

static void start_with(struct net *net, enum fault_kind kind, unsigned step)
{
	struct started s = { 0 };
	struct err e = { 0 };
	long long live;
	uint64_t n = 1, failed = 0;
	bool struck;
	int rc;

	for (int i = 0; i < 2; i++) { /* what OpenSSL keeps from a first time is no leak */
		assert_int_equal(start(&s, net->loop, &net->rng, &e), 0);
		stop(&s);
	}
	live = fault_live();
	do {
		e = (struct err){ 0 };
		fault_arm(kind, n);
		rc = start(&s, net->loop, &net->rng, &e);
		struck = fault_disarm();
		if (rc && (rc != e.code || !e.what[0]))
			fail_msg("allocation %lu: code %d, but the error says %d '%s'", n, rc, e.code,
				 e.what);
		assert_true(struck || rc == 0);
		failed += rc != 0;
		stop(&s);
		ERR_clear_error();
		if (fault_live() > live)
			fail_msg("allocation %lu: %lld blocks leaked (%s)", n, fault_live() - live, e.what);
		if (start(&s, net->loop, &net->rng, &e))
			fail_msg("after failure of allocation %lu: %s", n, e.what);
		stop(&s);
		n += step;
	} while (struck);
	print_message("%lu points, %lu of them failed the start\n", n / step, failed);
	assert_true(failed > 10);
}

static void start_without_memory(void **state)
{
	struct net *net = net_new(1);

	(void)state;
	assert_non_null(mkdtemp(dir));
	identity_make(net);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tun[i]), 0);
		udp[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	}
	start_with(net, FAULT_ALLOC, 1);
	start_with(net, FAULT_CRYPTO, getenv("X0_SOAK") ? 1 : 13);
	net_free(net);
}

/* ---- session ---- */
static struct net *faulty;
static enum fault_kind kind_now;

/* The network between the two is the test's own: it always has memory. */
static void send_paused(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	enum fault_kind k = fault_pause();

	op_send(arg, to, p, n);
	fault_resume(k);
}

static struct net *session_pair(void)
{
	static struct sess_ops ops;

	ops = test_ops;
	ops.send = send_paused;
	faulty = net_new(7);
	faulty->params.dial_retry_max = NS_PER_S;
	node_up(faulty, 0, node_id(faulty, 0), &ops, NULL);
	node_up(faulty, 1, node_id(faulty, 1), &ops, NULL);
	return faulty;
}

/* Two known nodes find each other although the n-th allocation on the way failed. */
static bool handshake(uint64_t n)
{
	struct net *net = session_pair();
	bool struck, up;

	know(net, 0, 1, true);
	fault_arm(kind_now, n);
	up = run_until(net, both_up(net, 0, 1), 2 * NS_PER_S);
	struck = fault_disarm();
	if (!up && !run_until(net, both_up(net, 0, 1), 40 * NS_PER_S))
		fail_msg("allocation %lu: no session afterwards: %s", n, info_of(&net->node[0]).last_error);
	net_free(net);
	return struck;
}

/* New keys under way: the session in use goes on, and the next re-key comes through. */
static bool rekey(uint64_t n)
{
	struct net *net = session_pair();
	struct test_node *a = &net->node[0], *b = &net->node[1];
	bool struck;
	unsigned before;

	know(net, 0, 1, true);
	know(net, 1, 0, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, NS_PER_S);
	before = a->nuse;
	fault_arm(kind_now, n);
	sess_rekey(a->m, a->used);
	for (unsigned i = 0; i < 40 && a->nuse == before; i++) {
		run_for(net, 25 * NS_PER_MS);
		if (!both_up(net, 0, 1))
			fail_msg("allocation %lu: the session in use was lost", n);
	}
	struck = fault_disarm();
	sess_rekey(a->m, a->used);
	if (!run_until(net, a->nuse > before && both_up(net, 0, 1), 60 * NS_PER_S))
		fail_msg("allocation %lu: no new keys afterwards", n);
	run_for(net, 40 * NS_PER_S);
	assert_true(both_up(net, 0, 1) && live_sessions(a) == 1 && live_sessions(b) == 1);
	net_free(net);
	return struck;
}

/* A bundle that one of them has: the other learns it, at the latest with the next keys. */
static bool new_bundle(uint64_t n)
{
	struct net *net = session_pair();
	struct test_node *a = &net->node[0], *b = &net->node[1];
	struct node_identity *self;
	struct err e = { 0 };
	bool struck;
	int rc;

	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	run_for(net, NS_PER_S);
	self = calloc(1, sizeof(*self));
	*self = *a->self;
	EVP_PKEY_up_ref(self->link_key);
	X509_up_ref(self->link);
	self->bundle = mint_bundle(&net->mint, 2);
	fault_arm(kind_now, n);
	rc = sess_identity(a->m, self, &e);
	if (!rc)
		run_for(net, NS_PER_S);
	struck = fault_disarm();
	assert_true(struck || b->nbundles == 1);
	assert_int_equal(rc, e.code);
	assert_true(both_up(net, 0, 1));
	if (rc && sess_identity(a->m, self, &e))
		fail_msg("allocation %lu: %s", n, e.what);
	sess_rekey(a->m, a->used);
	if (!run_until(net, b->nbundles >= 1 && both_up(net, 0, 1), 30 * NS_PER_S))
		fail_msg("allocation %lu: the bundle did not arrive", n);
	node_identity_free(a->self);
	a->self = self;
	net_free(net);
	return struck;
}

/* A peer that cannot be added for want of memory is no conflict, and can be added later. */
static void peer_without_memory(void **state)
{
	struct net *net = session_pair();
	struct test_node *a = &net->node[0], *b = &net->node[1];
	unsigned failed = 0;
	bool struck = true;

	(void)state;
	for (uint64_t n = 1; struck; n++) {
		struct err e = { 0 };
		int rc;

		fault_arm(FAULT_ALLOC, n);
		rc = sess_peer_add(a->m, &b->self->id, &b->at, 1, false, &e);
		struck = fault_disarm();
		assert_int_equal(rc, e.code);
		assert_true(rc == 0 || rc == ERR_NOMEM);
		failed += rc != 0;
	}
	assert_true(failed >= 2);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	net_free(net);
}

/*
 * Ours and ngtcp2's. Not OpenSSL's: SSL_set_quic_tls_cbs() of 3.5 uses the BIO it could not make, so that
 * there the process ends.
 */
static void sweep(bool (*attempt)(uint64_t n))
{
	unsigned points = 0;
	long long live;

	kind_now = FAULT_ALLOC;
	attempt(0);
	live = fault_live();
	for (uint64_t n = 1; attempt(n); n++, points++)
		if (fault_live() > live)
			fail_msg("allocation %lu: %lld blocks leaked", n, fault_live() - live);
	print_message("%u points\n", points);
	assert_true(points > 10);
}

static void handshake_without_memory(void **state)
{
	(void)state;
	sweep(handshake);
}

static void rekey_without_memory(void **state)
{
	(void)state;
	sweep(rekey);
}

static void bundle_without_memory(void **state)
{
	(void)state;
	sweep(new_bundle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_without_memory),	    cmocka_unit_test(peer_without_memory),
		cmocka_unit_test(handshake_without_memory), cmocka_unit_test(rekey_without_memory),
		cmocka_unit_test(bundle_without_memory),
	};

	if (!fault_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
