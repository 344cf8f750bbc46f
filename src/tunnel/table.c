/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: tables
 *
 * Open addressing, at most half full, keyed with a random seed (peers choose some of the keys).
 * Sessions in use are entered by dst; where two claim one address the one used last wins.
 */
#include "tunnel/table.h"

#include <stdlib.h>

struct sess *table_sess_free(struct sess *s)
{
	if (!s)
		return NULL;
	for (unsigned i = 0; s->rx && i < s->nrx; i++) {
		aead_fini(&s->rx[i].aead);
		if (s->rx[i].split)
			secret_wipe(s->rx[i].split, sizeof(*s->rx[i].split));
		free(s->rx[i].split);
		secret_wipe(&s->rx[i].cfg, sizeof(s->rx[i].cfg));
	}
	for (unsigned i = 0; s->tx_aead && i < s->nworkers * s->ntx; i++)
		aead_fini(&s->tx_aead[i]);
	if (s->tx)
		secret_wipe(s->tx, s->ntx * sizeof(*s->tx));
	free(s->rx);
	free(s->tx);
	free(s->tx_aead);
	free(s->stat);
	free(s);
	return NULL;
}

static void *zalloc_lines(size_t n, size_t size)
{
	void *p = aligned_alloc(64, (n * size + 63) / 64 * 64);

	if (p)
		memset(p, 0, n * size);
	return p;
}

struct sess *table_sess_new(const struct dp_session *cfg, struct link *link, unsigned nworkers)
{
	struct sess *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->id = cfg->id;
	s->link_id = cfg->link;
	atomic_init(&s->link, link);
	memcpy(s->peer, cfg->peer, 16);
	s->nprovides = cfg->nprovides;
	memcpy(s->provides, cfg->provides, sizeof(s->provides));
	s->nworkers = nworkers;
	s->nrx = cfg->nrx;
	s->ntx = cfg->ntx;
	s->rx_suite = cfg->rx_suite;
	s->tx_suite = cfg->tx_suite;
	s->rx = calloc(s->nrx, sizeof(*s->rx));
	s->tx = zalloc_lines(s->ntx, sizeof(*s->tx));
	s->tx_aead = calloc((size_t)nworkers * s->ntx, sizeof(*s->tx_aead));
	s->stat = zalloc_lines(nworkers, sizeof(*s->stat));
	if (!s->rx || !s->tx || !s->tx_aead || !s->stat)
		return table_sess_free(s);
	for (unsigned i = 0; i < s->nrx; i++) {
		s->rx[i].sess = s;
		s->rx[i].cfg = cfg->rx[i];
		replay_init(&s->rx[i].replay, REPLAY_WINDOW_MAX);
	}
	for (unsigned i = 0; i < s->ntx; i++)
		s->tx[i].cfg = cfg->tx[i];
	return s;
}

static uint32_t mask_for(size_t n)
{
	uint32_t size = 8;

	while (size < 2 * n)
		size *= 2;
	return size - 1;
}

static void enter_dst(struct table *t, const uint8_t addr[16], struct sess *s)
{
	for (uint32_t i = table_hash_addr(addr, t->seed);; i++) {
		struct dst_slot *slot = &t->dst[i & t->dst_mask];

		if (slot->sess && memcmp(slot->addr, addr, 16) != 0)
			continue;
		if (!slot->sess || slot->sess->order < s->order) {
			memcpy(slot->addr, addr, 16);
			slot->sess = s;
		}
		return;
	}
}

static void enter_lane(struct table *t, struct lane_rx *lane)
{
	uint32_t i = table_hash(lane->cfg.index, t->seed);

	while (t->lane[i & t->lane_mask].lane)
		i++;
	t->lane[i & t->lane_mask] = (struct lane_slot){ lane->cfg.index, lane };
}

static void enter_link(struct table *t, struct link *l)
{
	uint32_t i = table_hash(l->cfg.rx_index, t->seed);

	while (t->link[i & t->link_mask].link)
		i++;
	t->link[i & t->link_mask] = (struct link_slot){ l->cfg.rx_index, l };
}

static int longest_first(const void *a, const void *b)
{
	const struct prefix_slot *x = a, *y = b;

	if (x->prefix.len != y->prefix.len)
		return y->prefix.len - x->prefix.len;
	return (x->sess->order < y->sess->order) - (x->sess->order > y->sess->order);
}

static void fill(struct table *t, struct sess *sessions, struct link *links)
{
	for (struct sess *s = sessions; s; s = s->next) {
		if (atomic_load(&s->dead))
			continue;
		for (unsigned i = 0; i < s->nrx; i++)
			enter_lane(t, &s->rx[i]);
		if (!s->order)
			continue;
		enter_dst(t, s->peer, s);
		for (unsigned i = 0; i < s->nprovides; i++) {
			if (s->provides[i].len == 128)
				enter_dst(t, s->provides[i].addr, s);
			else
				t->prefix[t->nprefixes++] = (struct prefix_slot){ s->provides[i], s };
		}
	}
	for (struct link *l = links; l; l = l->next) {
		if (!atomic_load(&l->dead))
			enter_link(t, l);
	}
	if (t->nprefixes)
		qsort(t->prefix, t->nprefixes, sizeof(*t->prefix), longest_first);
}

struct table *table_new(struct sess *sessions, struct link *links, uint64_t seed)
{
	size_t nlanes = 0, ndst = 0, nlinks = 0, nprefixes = 0;
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	for (struct sess *s = sessions; s; s = s->next) {
		nlanes += s->nrx;
		ndst += 1 + s->nprovides;
		nprefixes += s->nprovides;
	}
	for (struct link *l = links; l; l = l->next)
		nlinks++;
	t->seed = seed;
	t->dst_mask = mask_for(ndst);
	t->lane_mask = mask_for(nlanes);
	t->link_mask = mask_for(nlinks);
	t->dst = calloc(t->dst_mask + 1, sizeof(*t->dst));
	t->lane = calloc(t->lane_mask + 1, sizeof(*t->lane));
	t->link = calloc(t->link_mask + 1, sizeof(*t->link));
	t->prefix = calloc(nprefixes + 1, sizeof(*t->prefix));
	if (!t->dst || !t->lane || !t->link || !t->prefix)
		return table_free(t);
	fill(t, sessions, links);
	return t;
}

struct table *table_free(struct table *t)
{
	if (t) {
		free(t->dst);
		free(t->lane);
		free(t->link);
		free(t->prefix);
	}
	free(t);
	return NULL;
}

struct sess *table_dst(const struct table *t, const uint8_t addr[16])
{
	for (uint32_t i = table_hash_addr(addr, t->seed);; i++) {
		const struct dst_slot *s = &t->dst[i & t->dst_mask];

		if (!s->sess)
			break;
		if (memcmp(s->addr, addr, 16) == 0)
			return s->sess;
	}
	for (unsigned i = 0; i < t->nprefixes; i++) {
		if (ip_prefix_has(&t->prefix[i].prefix, addr))
			return t->prefix[i].sess;
	}
	return NULL;
}
