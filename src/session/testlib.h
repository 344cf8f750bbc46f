/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of session/ share: certificates of any kind, and managers on a virtual, faulty network. */
#ifndef X0_SESSION_TESTLIB_H
#define X0_SESSION_TESTLIB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "session/session.h"

#define TD   "mesh.example"
#define WALL 1800000000ll /* Unix seconds at the loop's zero */

/* ---- certificates ---- */
struct mint {
	EVP_PKEY *key;
	X509 *root;
};

static inline void mint_ext(X509 *x, X509 *issuer, int nid, const char *text)
{
	X509V3_CTX c;
	X509_EXTENSION *e;

	X509V3_set_ctx(&c, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &c, nid, text);
	assert_non_null(e);
	assert_int_equal(X509_add_ext(x, e, -1), 1);
	X509_EXTENSION_free(e);
}

static inline X509 *mint_cert(EVP_PKEY *pub, const struct mint *by, const char *uri, int64_t from, int64_t to)
{
	static long serial;
	X509 *x = X509_new();
	char san[2200], cn[32];

	snprintf(san, sizeof(san), "URI:%s", uri);
	snprintf(cn, sizeof(cn), "test %ld", ++serial);
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
	ASN1_TIME_set(X509_getm_notBefore(x), (time_t)from);
	ASN1_TIME_set(X509_getm_notAfter(x), (time_t)to);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)cn,
				   -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(by->root ? by->root : x));
	X509_set_pubkey(x, pub);
	mint_ext(x, by->root ? by->root : x, NID_basic_constraints,
		 by->root ? "critical,CA:FALSE" : "critical,CA:TRUE");
	mint_ext(x, by->root ? by->root : x, NID_key_usage,
		 by->root ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign");
	mint_ext(x, by->root ? by->root : x, NID_subject_alt_name, san);
	mint_ext(x, by->root ? by->root : x, NID_subject_key_identifier, "hash");
	if (by->root)
		mint_ext(x, by->root, NID_authority_key_identifier, "keyid");
	assert_true(X509_sign(x, by->key, EVP_PKEY_is_a(by->key, "EC") ? EVP_sha256() : NULL) > 0);
	return x;
}

static inline struct mint mint_new(enum key_type type, const char *td)
{
	struct mint m = { 0 };
	char uri[300];

	assert_int_equal(key_new(type, &m.key, NULL), 0);
	snprintf(uri, sizeof(uri), "spiffe://%s", td);
	m.root = mint_cert(m.key, &m, uri, WALL - 86400, WALL + 10 * 365 * 86400ll);
	return m;
}

static inline void mint_fini(struct mint *m)
{
	EVP_PKEY_free(m->key);
	X509_free(m->root);
}

static inline struct bundle *mint_bundle(const struct mint *m, uint64_t number)
{
	struct bundle *b = bundle_new(TD);

	b->number = number;
	assert_int_equal(bundle_add_root(b, SVID_LINK, m->root, NULL), 0);
	assert_int_equal(bundle_sign(b, m->root, m->key, NULL), 0);
	return b;
}

static inline struct node_identity *mint_node(const struct mint *m, const struct bundle *b, const char *uri,
					      enum key_type type, int64_t from, int64_t to)
{
	struct node_identity *ni = calloc(1, sizeof(*ni));
	struct err e = { 0 };

	assert_int_equal(spiffe_id_parse(uri, strlen(uri), &ni->id, &e), 0);
	overlay_addr(&ni->id, ni->addr);
	assert_int_equal(key_new(type, &ni->link_key, NULL), 0);
	ni->link = mint_cert(ni->link_key, m, uri, from, to);
	if (b->encoded)
		assert_int_equal(bundle_decode(b->encoded, b->encoded_n, NULL, NULL, &ni->bundle, &e), 0);
	else
		ni->bundle = bundle_clone(b);
	ni->not_after = to;
	return ni;
}

/* ---- the network ---- */
enum { NODES = 8 };

struct dgram {
	struct net *net;
	struct loop_timer timer;
	struct endpoint from, to;
	size_t n;
	struct dgram *next, **prev;
	uint8_t p[2100];
};

struct test_node {
	struct net *net;
	struct sess_mgr *m;
	struct node_identity *self;
	struct endpoint at;
	uint32_t used; /* session in use */
	unsigned nkeys, nuse, ngone, nbundles, nunreachable, npath, nmsg;
	struct sess_keys keys[256]; /* ring of installed keys, copied */
	bool live[256];
	enum sess_end last_end;
	uint8_t msg[64];
	uint16_t msg_type;
	uint64_t msg_at;
	uint64_t packets; /* what usage() reports for the session in use */
	uint64_t last_use, last_rx;
	bool busy; /* packets flow all the time */
	bool fail_keys;
	uint16_t proto;
	int64_t skew; /* s, of its wall clock */
	struct endpoint path;
	unsigned frame_max;
	struct bundle *got;
};

struct net {
	struct loop *loop;
	struct rng rng, node_rng;
	unsigned loss, dup, reorder, damage; /* per cent */
	uint64_t delay;
	size_t mtu; /* larger ones vanish; 0: none do */
	bool cut;
	struct dgram *flying;
	uint64_t sent, bytes;
	struct test_node node[NODES];
	struct mint mint;
	struct bundle *bundle;
	void (*tap)(struct net *net, const struct endpoint *from, const struct endpoint *to, const uint8_t *p,
		    size_t n);
	struct sess_params params;
};

static inline struct endpoint ep_at(unsigned host, uint16_t port)
{
	struct endpoint e = { .port = port };

	e.addr[10] = e.addr[11] = 0xff;
	e.addr[12] = 10;
	e.addr[14] = (uint8_t)(host >> 8);
	e.addr[15] = (uint8_t)host;
	return e;
}

static inline void dgram_free(struct dgram *d)
{
	loop_timer_cancel(d->net->loop, &d->timer);
	if (d->next)
		d->next->prev = d->prev;
	*d->prev = d->next;
	free(d);
}

static inline void dgram_arrive(void *arg, uint64_t now)
{
	struct dgram *d = arg;
	struct net *net = d->net;

	(void)now;
	for (unsigned i = 0; i < NODES; i++)
		if (net->node[i].m && endpoint_equal(&net->node[i].at, &d->to)) {
			sess_input(net->node[i].m, &d->from, d->p, d->n);
			break;
		}
	dgram_free(d);
}

static inline bool chance(struct net *net, unsigned percent)
{
	return percent && rng_below(&net->rng, 100) < percent;
}

static inline void net_put(struct net *net, const struct endpoint *from, const struct endpoint *to,
			   const void *p, size_t n)
{
	struct dgram *d;

	net->sent++;
	net->bytes += n;
	if (net->tap)
		net->tap(net, from, to, p, n);
	if (net->cut || chance(net, net->loss) || (net->mtu && n > net->mtu))
		return;
	for (unsigned copies = chance(net, net->dup) ? 2 : 1; copies; copies--) {
		d = calloc(1, sizeof(*d));
		assert_true(n <= sizeof(d->p));
		d->net = net;
		d->from = *from;
		d->to = *to;
		d->n = n;
		memcpy(d->p, p, n);
		if (chance(net, net->damage))
			d->p[rng_below(&net->rng, n)] ^= (uint8_t)(1 << rng_below(&net->rng, 8));
		d->next = net->flying;
		if (d->next)
			d->next->prev = &d->next;
		d->prev = &net->flying;
		net->flying = d;
		loop_timer_init(&d->timer, dgram_arrive, d);
		loop_timer_set(net->loop, &d->timer,
			       loop_now(net->loop) + net->delay +
				       (chance(net, net->reorder) ? net->delay : 0) +
				       (copies == 2 ? net->delay / 2 : 0));
	}
}

static inline void op_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	struct test_node *t = arg;

	net_put(t->net, &t->at, to, p, n);
}

static inline uint32_t op_index(void *arg, unsigned lane)
{
	struct test_node *t = arg;

	return (uint32_t)rng_u64(&t->net->node_rng) << 8 | lane;
}

static inline int op_keys(void *arg, struct sess_keys *k, struct err *e)
{
	struct test_node *t = arg;

	if (t->fail_keys)
		return err_set(e, ERR_LIMIT, "too many sessions");
	assert_true(k->peer->id.uri[0]);
	t->keys[t->nkeys % 256] = *k;
	t->live[t->nkeys++ % 256] = true;
	return 0;
}

static inline struct sess_keys *keys_of(struct test_node *t, uint32_t session)
{
	for (unsigned i = 0; i < 256; i++)
		if (t->live[i] && t->keys[i].session == session)
			return &t->keys[i];
	return NULL;
}

static inline void op_use(void *arg, uint32_t session)
{
	struct test_node *t = arg;

	assert_non_null(keys_of(t, session));
	t->used = session;
	t->nuse++;
}

static inline void op_gone(void *arg, uint32_t session, enum sess_end why, const char *detail)
{
	struct test_node *t = arg;
	struct sess_keys *k = keys_of(t, session);

	assert_non_null(k);
	assert_non_null(detail);
	t->live[k - t->keys] = false;
	t->ngone++;
	t->last_end = why;
	if (t->used == session)
		t->used = 0;
}

static inline void op_path(void *arg, uint32_t link, const struct endpoint *to, unsigned frame_max)
{
	struct test_node *t = arg;

	assert_true(link != 0);
	t->path = *to;
	t->frame_max = frame_max;
	t->npath++;
}

static inline void op_bundle(void *arg, struct bundle *newer)
{
	struct test_node *t = arg;

	bundle_free(t->got);
	t->got = newer;
	t->nbundles++;
}

static inline void op_message(void *arg, uint32_t session, const struct svid_info *peer, uint16_t type,
			      const uint8_t *p, size_t n)
{
	struct test_node *t = arg;

	assert_true(session != 0 && peer->id.uri[0]);
	t->nmsg++;
	t->msg_type = type;
	t->msg_at = loop_now(t->net->loop);
	memcpy(t->msg, p, n < sizeof(t->msg) ? n : sizeof(t->msg));
}

static inline void op_unreachable(void *arg, const struct spiffe_id *peer, const char *why)
{
	(void)peer;
	assert_true(why[0]);
	((struct test_node *)arg)->nunreachable++;
}

static inline void op_usage(void *arg, uint32_t session, uint64_t *packets, uint64_t *last_use,
			    uint64_t *last_rx)
{
	struct test_node *t = arg;

	if (session != t->used) { /* old keys hear nothing */
		*packets = *last_use = *last_rx = 0;
		return;
	}
	if (t->busy) {
		t->packets += 10;
		t->last_use = t->last_rx = loop_now(t->net->loop);
	}
	if (session != t->used) /* nothing flows under the others; 0 is "never" */
		return;
	*packets = t->packets;
	*last_use = t->last_use;
	*last_rx = t->last_rx;
}

static const struct sess_ops test_ops = { .send = op_send,
					  .index_new = op_index,
					  .keys = op_keys,
					  .use = op_use,
					  .gone = op_gone,
					  .path = op_path,
					  .bundle = op_bundle,
					  .message = op_message,
					  .unreachable = op_unreachable,
					  .usage = op_usage };

static inline struct net *net_new(uint64_t seed)
{
	struct net *net = calloc(1, sizeof(*net));

	assert_int_equal(crypto_init(NULL), 0);
	log_set_level(LOG_ERROR);
	net->loop = loop_new_virtual(NS_PER_S, seed);
	rng_init_seeded(&net->rng, seed);
	rng_init_seeded(&net->node_rng, seed + 1000);
	net->delay = 5 * NS_PER_MS;
	net->mint = mint_new(KEY_MLDSA65, TD);
	net->bundle = mint_bundle(&net->mint, 1);
	sess_params_default(&net->params);
	return net;
}

static inline void node_up(struct net *net, unsigned i, struct node_identity *self,
			   const struct sess_ops *ops, X509 *join_root)
{
	struct test_node *t = &net->node[i];
	struct err e = { 0 };
	struct sess_config c = { .loop = net->loop,
				 .rng = &net->node_rng,
				 .self = self,
				 .nlanes = 2,
				 .suite = i & 1 ? AEAD_CHACHA20_POLY1305 : AEAD_AES_256_GCM,
				 .mtu = 1452,
				 .wall_offset = (WALL + t->skew) * (int64_t)NS_PER_S,
				 .params = net->params,
				 .join_root = join_root,
				 .proto = t->proto,
				 .ops = ops ? ops : &test_ops,
				 .arg = t };

	t->net = net;
	t->self = self;
	t->at = ep_at(i + 1, X0_PORT);
	t->used = 0;
	memset(t->live, 0, sizeof(t->live));
	if (sess_new(&c, &t->m, &e))
		fail_msg("sess_new: %s", e.what);
}

static inline struct node_identity *node_id(struct net *net, unsigned i)
{
	char uri[64];

	snprintf(uri, sizeof(uri), "spiffe://" TD "/node/n%u", i);
	return mint_node(&net->mint, net->bundle, uri, KEY_MLDSA65, WALL - 600, WALL + 10 * 86400);
}

static inline void node_down(struct net *net, unsigned i)
{
	struct test_node *t = &net->node[i];

	t->m = sess_free(t->m);
	bundle_free(t->got);
	t->got = NULL;
	node_identity_free(t->self);
	t->self = NULL;
}

static inline void net_free(struct net *net)
{
	for (unsigned i = 0; i < NODES; i++)
		if (net->node[i].m)
			node_down(net, i);
	while (net->flying)
		dgram_free(net->flying);
	bundle_free(net->bundle);
	mint_fini(&net->mint);
	loop_free(net->loop);
	free(net);
}

static inline void know(struct net *net, unsigned i, unsigned j, bool keep)
{
	struct err e = { 0 };

	if (sess_peer_add(net->node[i].m, &net->node[j].self->id, &net->node[j].at, 1, keep, &e))
		fail_msg("sess_peer_add: %s", e.what);
}

static inline void run_for(struct net *net, uint64_t ns)
{
	loop_run_until(net->loop, loop_now(net->loop) + ns);
}

/* Runs until cond or `ns` have passed; whether it came true. */
#define run_until(net, cond, ns)                                                                             \
	({                                                                                                   \
		uint64_t end_ = loop_now((net)->loop) + (ns);                                                \
		while (!(cond) && loop_now((net)->loop) < end_)                                              \
			run_for(net, NS_PER_MS);                                                             \
		!!(cond);                                                                                    \
	})

/* Both send with one and the same session's keys: A's transmit keys are B's receive keys, and back. */
static inline bool paired(struct test_node *a, struct test_node *b)
{
	struct sess_keys *x = keys_of(a, a->used), *best = NULL;

	for (unsigned i = 0; x && i < 256; i++)
		if (b->live[i] && b->keys[i].link_rx_index == x->link_tx_index)
			best = &b->keys[i];
	if (!best || best->nrx != x->ntx || best->rx_suite != x->tx_suite)
		return false;
	for (unsigned l = 0; l < x->ntx; l++)
		if (memcmp(&x->tx[l], &best->rx[l], sizeof(x->tx[l])) != 0)
			return false;
	for (unsigned l = 0; l < x->nrx; l++)
		if (memcmp(&x->rx[l], &best->tx[l], sizeof(x->rx[l])) != 0)
			return false;
	return x->link_tx_key.k0 == best->link_rx_key.k0 && x->link_rx_key.k1 == best->link_tx_key.k1;
}

static inline bool both_up(struct net *net, unsigned i, unsigned j)
{
	struct test_node *a = &net->node[i], *b = &net->node[j];

	return a->used && b->used && paired(a, b) && paired(b, a);
}

static inline unsigned live_sessions(const struct test_node *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 256; i++)
		n += t->live[i];
	return n;
}

static inline struct sess_counters counters(struct test_node *t)
{
	struct sess_counters c;

	sess_counters(t->m, &c);
	return c;
}

/* Nodes 0 and 1 linked with each other; 1's SVID ends after 60 s. */
static inline void pair_for_a_minute(struct net *net)
{
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1,
		mint_node(&net->mint, net->bundle, "spiffe://" TD "/node/n1", KEY_MLDSA65, WALL - 600,
			  WALL + 60),
		NULL, NULL);
	know(net, 0, 1, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
}

/* The next bundle by the net's own root, which revokes an identity for ever. */
static inline struct bundle *next_bundle(struct net *net, const char *revoke)
{
	struct bundle *b = bundle_clone(net->bundle);

	b->number = net->bundle->number + 1;
	assert_int_equal(bundle_add_revocation(b, revoke, NULL, WALL + 1, INT64_MAX, NULL), 0);
	assert_int_equal(bundle_sign(b, net->mint.root, net->mint.key, NULL), 0);
	return b;
}

static inline void set_bundle_of(struct net *net, unsigned i, const struct bundle *b)
{
	struct test_node *t = &net->node[i];

	bundle_free(t->self->bundle);
	assert_int_equal(bundle_decode(b->encoded, b->encoded_n, NULL, NULL, &t->self->bundle, NULL), 0);
	assert_int_equal(sess_identity(t->m, t->self, NULL), 0);
}

static inline void copy_info(void *arg, const struct sess_peer_info *p)
{
	*(struct sess_peer_info *)arg = *p;
}

static inline struct sess_peer_info info_of(struct test_node *t)
{
	struct sess_peer_info i = { 0 };

	sess_peers(t->m, copy_info, &i);
	return i;
}

#endif
