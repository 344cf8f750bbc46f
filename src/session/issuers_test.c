/* SPDX-License-Identifier: Apache-2.0 */
/* Two real authorities and a mesh over a day of virtual time: what a dead issuer costs. */
#include <ftw.h>
#include <unistd.h>

#include "session/testlib.h"

#define HOUR (3600 * NS_PER_S)

static unsigned lost; /* sessions that ended for any reason but a new key epoch */

static void count_lost(void *arg, uint32_t session, enum sess_end why, const char *detail)
{
	lost += why != SESS_REKEYED;
	op_gone(arg, session, why, detail);
}

static int64_t wall(const struct net *net)
{
	return WALL + (int64_t)(loop_now(net->loop) / NS_PER_S);
}

static int rm(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
	(void)sb;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static X509_REQ *csr(EVP_PKEY *key)
{
	X509_REQ *req = NULL;
	uint8_t *p = NULL;
	size_t n = 0;

	assert_int_equal(csr_new(key, &p, &n, NULL), 0);
	assert_int_equal(csr_from_der(p, n, &req, NULL), 0);
	free(p);
	return req;
}

static int64_t not_after(const X509 *x)
{
	struct tm tm;

	assert_int_equal(ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm), 1);
	return (int64_t)timegm(&tm);
}

static struct node_identity *identity(const char *name)
{
	struct node_identity *ni = calloc(1, sizeof(*ni));

	assert_int_equal(spiffe_id_node(TD, name, &ni->id, NULL), 0);
	overlay_addr(&ni->id, ni->addr);
	assert_int_equal(key_new(KEY_MLDSA65, &ni->link_key, NULL), 0);
	assert_int_equal(key_new(KEY_P256, &ni->spiffe_key, NULL), 0);
	return ni;
}

static struct node_identity *issued(struct authority *a, const char *name, int64_t now)
{
	struct node_identity *ni = identity(name);
	X509_REQ *l = csr(ni->link_key), *s = csr(ni->spiffe_key);
	struct err e = { 0 };

	if (authority_issue(a, &ni->id, l, s, SVID_TTL_DEFAULT, now, &ni->link, &ni->spiffe, &e))
		fail_msg("%s", e.what);
	X509_REQ_free(l);
	X509_REQ_free(s);
	ni->bundle = bundle_copy(authority_bundle(a));
	ni->not_after = not_after(ni->link);
	return ni;
}

/* As the daemon does over a session: new keys, the old SVID's word for them. */
static void renew(struct net *net, unsigned i, struct authority *a)
{
	struct test_node *t = &net->node[i];
	const struct bundle *b = t->self->bundle;
	struct node_identity *next = identity(spiffe_id_node_name(&t->self->id));
	uint8_t *p = NULL, *reply = NULL;
	struct joined got = { 0 };
	size_t n = 0, reply_n = 0;
	struct svid_info me;
	struct err e = { 0 };

	if (svid_verify(&b, 1, SVID_LINK, &t->self->link, 1, wall(net), &me, &e) ||
	    renew_request(&next->id, next->link_key, next->spiffe_key, &p, &n, &e) ||
	    authority_renew(a, &me, p, n, wall(net), &reply, &reply_n, &e) ||
	    renew_reply(&next->id, b, reply, reply_n, next->link_key, next->spiffe_key, wall(net), &got, &e))
		fail_msg("node %u: %s", i, e.what);
	next->link = got.link;
	next->spiffe = got.spiffe;
	next->bundle = bundle_copy(b);
	next->not_after = not_after(next->link);
	bundle_free(got.bundle);
	assert_int_equal(sess_identity(t->m, next, &e), 0);
	node_identity_free(t->self);
	t->self = next;
	free(p);
	free(reply);
}

/*
 * Nodes 0 and 1 have their SVIDs from A, 2 from B. A dies; 25 h later the last SVID that A made is an hour
 * past. With `all` everyone renews at B at its half life; else node 1 does not, and must be lost.
 */
static void a_day_without(bool all)
{
	char dir[] = "/tmp/x0-session-ca-XXXXXX", da[64], db[64];
	struct sess_ops ops = test_ops;
	struct authority *a = NULL, *b = NULL;
	struct net *net = net_new(20);
	unsigned renewals = 0;
	int64_t last_of_a;

	ops.gone = count_lost;
	lost = 0;
	assert_non_null(mkdtemp(dir));
	snprintf(da, sizeof(da), "%s/a", dir);
	snprintf(db, sizeof(db), "%s/b", dir);
	assert_int_equal(authority_init(da, TD, NULL, WALL, NULL), 0);
	assert_int_equal(authority_open(da, NULL, &a, NULL), 0);
	assert_int_equal(authority_init_joining(db, authority_bundle(a), NULL, WALL, NULL), 0);
	assert_int_equal(authority_open(db, NULL, &b, NULL), 0);
	assert_int_equal(authority_add_issuer(a, authority_root(b, SVID_LINK), authority_root(b, SVID_SPIFFE),
					      WALL, NULL),
			 0);
	assert_int_equal(authority_adopt(b, authority_bundle(a), WALL, NULL), 0);
	node_up(net, 0, issued(a, "n0", WALL), &ops, NULL);
	node_up(net, 1, issued(a, "n1", WALL), &ops, NULL);
	node_up(net, 2, issued(b, "n2", WALL), &ops, NULL);
	/* B never met 0 and 1: what they show is enough, the bundle holds A's root. */
	last_of_a = net->node[0].self->not_after;
	a = authority_free(a);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned j = i + 1; j < 3; j++)
			know(net, i, j, true);
	run_for(net, 3 * NS_PER_S);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(live_sessions(&net->node[i]), 2);
	for (unsigned minute = 0; minute < 25 * 60; minute += 10) {
		run_for(net, 10 * 60 * NS_PER_S);
		for (unsigned i = 0; i < 3; i++)
			if ((all || i != 1) && wall(net) >= node_identity_renew_at(net->node[i].self)) {
				renew(net, i, b);
				renewals++;
			}
	}
	run_for(net, 60 * NS_PER_S);
	assert_true(wall(net) > last_of_a + 3600 - 600);
	if (all) {
		assert_int_equal(lost, 0);
		assert_true(renewals >= 3);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(live_sessions(&net->node[i]), 2);
	} else {
		assert_true(lost >= 2); /* at 0 and at 2 */
		assert_true(counters(&net->node[0]).closed_expired > 0);
		assert_int_equal(live_sessions(&net->node[1]), 0);
		assert_int_equal(live_sessions(&net->node[0]), 1);
	}
	net_free(net);
	authority_free(b);
	nftw(dir, rm, 16, FTW_DEPTH | FTW_PHYS);
}

static void dead_issuer_costs_nothing(void **state)
{
	(void)state;
	a_day_without(true);
}

static void without_renewal_it_would(void **state)
{
	(void)state;
	a_day_without(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dead_issuer_costs_nothing),
		cmocka_unit_test(without_renewal_it_would),
	};

	return cmocka_run_group_tests_name("session/issuers", tests, NULL, NULL);
}
