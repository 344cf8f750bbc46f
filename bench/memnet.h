/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session managers of any number on a network in memory: what is sent arrives unchanged in the next step, all
 * of a step in one burst, as the daemon's socket gives it. Virtual time, so that only our code is measured.
 */
#ifndef X0_BENCH_MEMNET_H
#define X0_BENCH_MEMNET_H

#include <malloc.h>
#include <time.h>

#include "session/testlib.h"

#define MEM_LATENCY (100 * NS_PER_US)
enum { MEM_MTU = 1452 };

struct mem_node {
	struct mem_net *net;
	struct sess_mgr *m;
	struct node_identity *self;
	struct endpoint at;
	uint32_t used;
	unsigned uses, nmsg;
};

struct mem_dgram {
	struct endpoint from, to;
	size_t n;
	uint8_t p[MEM_MTU];
};

struct mem_net {
	struct loop *loop;
	struct rng rng;
	struct mint mint;
	struct bundle *bundle;
	struct mem_node *node; /* owned */
	unsigned nnodes;
	struct mem_dgram *queue[2]; /* owned; one is filled while the other is delivered */
	size_t n[2], cap[2];
	unsigned filling;
	uint64_t datagrams;
};

static inline double cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static inline void mem_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	struct mem_node *t = arg;
	struct mem_net *net = t->net;
	const unsigned q = net->filling;
	struct mem_dgram *d;

	if (net->n[q] == net->cap[q]) {
		net->cap[q] = net->cap[q] ? 2 * net->cap[q] : 64;
		net->queue[q] = realloc(net->queue[q], net->cap[q] * sizeof(*net->queue[q]));
		assert_non_null(net->queue[q]);
	}
	assert_true(n <= MEM_MTU);
	d = &net->queue[q][net->n[q]++];
	d->from = t->at;
	d->to = *to;
	d->n = n;
	memcpy(d->p, p, n);
}

static inline uint32_t mem_index(void *arg, unsigned lane)
{
	struct mem_node *t = arg;

	return (uint32_t)rng_u64(&t->net->rng) << 8 | lane;
}

static inline int mem_keys(void *arg, struct sess_keys *k, struct err *e)
{
	(void)arg;
	(void)k;
	(void)e;
	return 0;
}

static inline void mem_use(void *arg, uint32_t session)
{
	struct mem_node *t = arg;

	t->used = session;
	t->uses++;
}

static inline void mem_message(void *arg, uint32_t session, const struct svid_info *peer, uint16_t type,
			       const uint8_t *p, size_t n)
{
	(void)session;
	(void)peer;
	(void)type;
	(void)p;
	(void)n;
	((struct mem_node *)arg)->nmsg++;
}

static const struct sess_ops mem_ops = {
	.send = mem_send, .index_new = mem_index, .keys = mem_keys, .use = mem_use, .message = mem_message
};

/* Delivers what was sent before, then lets `ns` pass. */
static inline void mem_step(struct mem_net *net, uint64_t ns)
{
	const unsigned q = net->filling;

	net->filling = !q;
	for (size_t i = 0; i < net->n[q]; i++) {
		const struct mem_dgram *d = &net->queue[q][i];
		const unsigned host = (unsigned)d->to.addr[14] << 8 | d->to.addr[15];

		assert_true(host >= 1 && host <= net->nnodes);
		sess_input(net->node[host - 1].m, &d->from, d->p, d->n);
	}
	net->datagrams += net->n[q];
	net->n[q] = 0;
	loop_run_until(net->loop, loop_now(net->loop) + ns);
}

/* Steps until nothing is under way any more, at least `ns`. */
static inline void mem_settle(struct mem_net *net, uint64_t ns)
{
	const uint64_t end = loop_now(net->loop) + ns;

	while (loop_now(net->loop) < end)
		mem_step(net, net->n[net->filling] ? MEM_LATENCY : 10 * MEM_LATENCY);
}

static inline struct mem_net *mem_new(unsigned nnodes)
{
	struct mem_net *net = calloc(1, sizeof(*net));

	assert_non_null(net);
	assert_int_equal(crypto_init(NULL), 0);
	log_set_level(LOG_ERROR);
	net->loop = loop_new_virtual(NS_PER_S, 1);
	rng_init_seeded(&net->rng, 1);
	net->mint = mint_new(KEY_MLDSA65, TD);
	net->bundle = mint_bundle(&net->mint, 1);
	net->nnodes = nnodes;
	net->node = calloc(nnodes, sizeof(*net->node));
	assert_non_null(net->node);
	for (unsigned i = 0; i < nnodes; i++) {
		struct mem_node *t = &net->node[i];
		struct sess_config c = { .loop = net->loop,
					 .rng = &net->rng,
					 .nlanes = 2,
					 .suite = AEAD_AES_256_GCM,
					 .mtu = MEM_MTU,
					 .wall_offset = WALL * (int64_t)NS_PER_S,
					 .ops = &mem_ops,
					 .arg = t };
		struct err e = { 0 };
		char uri[64];

		snprintf(uri, sizeof(uri), "spiffe://" TD "/node/n%u", i);
		t->net = net;
		t->at = ep_at(i + 1, X0_PORT);
		t->self = mint_node(&net->mint, net->bundle, uri, KEY_MLDSA65, WALL - 600, WALL + 10 * 86400);
		c.self = t->self;
		sess_params_default(&c.params);
		if (sess_new(&c, &t->m, &e))
			fail_msg("sess_new: %s", e.what);
	}
	return net;
}

static inline void mem_know(struct mem_net *net, unsigned i, unsigned j)
{
	struct err e = { 0 };

	if (sess_peer_add(net->node[i].m, &net->node[j].self->id, &net->node[j].at, 1, true, &e))
		fail_msg("sess_peer_add: %s", e.what);
}

static inline void mem_free(struct mem_net *net)
{
	for (unsigned i = 0; i < net->nnodes; i++) {
		sess_free(net->node[i].m);
		node_identity_free(net->node[i].self);
	}
	free(net->node);
	free(net->queue[0]);
	free(net->queue[1]);
	bundle_free(net->bundle);
	mint_fini(&net->mint);
	loop_free(net->loop);
	free(net);
}

#endif
