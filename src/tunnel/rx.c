/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving: from a datagram's bytes to the coalescer. The order of the checks is the point: the hop tag
 * first (one SipHash), then the index, the replay window, the AEAD, and only then anything changes. See
 * pipeline.c.
 */
#include <stdlib.h>

#include "tunnel/dp.h"

/* Forgeries tolerated under one key (RFC 9001 section 6.6 and B.1: 2^52 for AES-GCM, 2^36 for
 * ChaCha20-Poly1305). */
#define FORGERIES_AES_GCM (1ull << 52)
#define FORGERIES_CHACHA  (1ull << 36)
#define PATH_REPORT_NS	  (100 * NS_PER_MS)

/* What is the same for all frames of one datagram. */
struct rx {
	const struct sockaddr_storage *from;
	uint8_t tos;
	bool path_checked;
	uint32_t link_index;
	struct link *link; /* of link_index; NULL: not looked up */
};

static struct link *link_of(struct worker *w, struct rx *r, uint32_t index)
{
	if (!r->link || r->link_index != index) {
		r->link = table_link(w->table, index);
		r->link_index = index;
	}
	return r->link;
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;

	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a6->sin6_port == b6->sin6_port && memcmp(&a6->sin6_addr, &b6->sin6_addr, 16) == 0 &&
	       a6->sin6_scope_id == b6->sin6_scope_id;
}

/* An authenticated newest frame: did the neighbour move? */
static void check_path(struct worker *w, struct rx *r)
{
	const struct path *path = atomic_load_explicit(&r->link->path, memory_order_acquire);
	uint64_t last = atomic_load_explicit(&r->link->seen_reported, memory_order_relaxed);
	struct endpoint ep;

	r->path_checked = true;
	if (same_address(r->from, &path->ss) || (last && w->now < last + PATH_REPORT_NS))
		return;
	endpoint_from_sockaddr(&ep, (const struct sockaddr *)r->from);
	if (worker_event(w, EV_PATH_SEEN, r->link->cfg.id, NULL, &ep))
		atomic_store_explicit(&r->link->seen_reported, w->now, memory_order_relaxed);
}

static void auth_failed(struct worker *w, struct lane_rx *lane)
{
	struct sess *s = lane->sess;
	uint64_t limit = s->rx_suite == AEAD_AES_256_GCM ? FORGERIES_AES_GCM : FORGERIES_CHACHA;

	count_add(&w->count.drop_auth, 1);
	count_add(&s->stat[w->id].auth_failures, 1);
	if (++lane->auth_failures >= limit && !atomic_load_explicit(&s->spent, memory_order_relaxed) &&
	    worker_event(w, EV_SPENT, s->id, NULL, NULL))
		atomic_store_explicit(&s->spent, true, memory_order_relaxed);
}

static bool source_ok(const struct sess *s, const uint8_t src[16])
{
	if (memcmp(s->peer, src, 16) == 0)
		return true;
	for (unsigned i = 0; i < s->nprovides; i++) {
		if (ip_prefix_has(&s->provides[i], src))
			return true;
	}
	return false;
}

static bool is_self(const struct dp *dp, const uint8_t dst[16])
{
	if (memcmp(dp->self, dst, 16) == 0)
		return true;
	for (unsigned i = 0; i < dp->nself_also; i++) {
		if (ip_prefix_has(&dp->self_also[i], dst))
			return true;
	}
	return false;
}

static void clamp_syn(struct sess *s, uint8_t *p, size_t n, const struct inner *in, bool partial)
{
	const struct link *l = atomic_load_explicit(&s->link, memory_order_acquire);

	if (l) {
		const struct path *path = atomic_load_explicit(&l->path, memory_order_acquire);

		inner_mss_clamp(p, n, in, partial, (uint16_t)(path->frame_max - DATA_OVERHEAD - in->l4 - 20));
	}
}

/* An opened inner packet, VNET_LEN writable bytes before it. Its first nibble is a code. */
static void rx_inner(struct worker *w, struct lane_rx *lane, uint8_t *p, size_t n, uint8_t outer_tos)
{
	struct sess_stat *st = &lane->sess->stat[w->id];
	uint8_t code = p[0] >> 4;
	bool partial = code & INNER_PARTIAL;
	struct inner in;

	p[0] = (uint8_t)((code & INNER_V6 ? 0x60 : 0x40) | (p[0] & 15));
	if (code > (INNER_V6 | INNER_PARTIAL) || inner_parse(p, n, w->dp->seed, &in) != 0 ||
	    (partial && !in.head)) {
		count_add(&w->count.drop_inner, 1);
		return;
	}
	if (!source_ok(lane->sess, in.src)) {
		count_add(&w->count.drop_source, 1);
		return;
	}
	if (!is_self(w->dp, in.dst)) {
		count_add(&w->count.drop_destination, 1);
		return;
	}
	if (!inner_ecn_in(p, &in, outer_tos)) {
		count_add(&w->count.drop_inner, 1);
		return;
	}
	if (in.head && in.proto == PROTO_TCP && p[in.l4 + 13] & TCP_SYN)
		clamp_syn(lane->sess, p, n, &in, partial);
	count_add(&w->count.rx_packets, 1);
	count_add(&w->count.rx_bytes, n);
	count_add(&st->rx_packets, 1);
	count_add(&st->rx_bytes, n);
	co_add(&w->co, p, n, &in, partial);
}

/* One of two parts; both together go on as one packet. */
static void rx_part(struct worker *w, struct lane_rx *lane, uint64_t counter, uint8_t *p, size_t n,
		    uint8_t outer_tos)
{
	unsigned dropped = 0;
	uint8_t *whole;
	size_t whole_n;

	if (!lane->split)
		lane->split = calloc(1, sizeof(*lane->split));
	if (!lane->split) {
		count_add(&w->count.drop_split, 1);
		return;
	}
	whole = split_add(lane->split, counter, p[0] >> 4 == INNER_SECOND, p + 1, n - 1, &whole_n, &dropped);
	count_add(&w->count.drop_split, dropped);
	if (!whole)
		return;
	rx_inner(w, lane, whole, whole_n, outer_tos);
	co_flush(&w->co); /* the slot's memory is used again by the next part */
}

/*
 * Frames of two lanes came in one batch: the rest goes to its worker. Only frames with a valid hop tag get
 * here, and only a bounded number waits.
 */
static void hand_over(struct worker *w, struct worker *to, const struct rx *r, const uint8_t *p, size_t n)
{
	struct handover *h = NULL, *head;

	if (atomic_fetch_add_explicit(&to->nhanded, 1, memory_order_relaxed) < HANDED_MAX)
		h = malloc(sizeof(*h) + n);
	if (!h) {
		atomic_fetch_sub_explicit(&to->nhanded, 1, memory_order_relaxed);
		count_add(&w->count.drop_index, 1);
		return;
	}
	h->from = *r->from;
	h->tos = r->tos;
	h->n = n;
	memcpy(h->frame, p, n);
	head = atomic_load_explicit(&to->handed, memory_order_relaxed);
	do
		h->next = head;
	while (!atomic_compare_exchange_weak_explicit(&to->handed, &head, h, memory_order_acq_rel,
						      memory_order_relaxed));
	if (!head)
		worker_wake(to);
}

static void rx_frame(struct worker *w, struct rx *r, uint8_t *p, size_t n)
{
	struct lane_rx *lane;
	struct link *link;
	uint64_t counter;
	bool newest;

	if (n < DATA_OVERHEAD || p[0] != FRAME_DATA) {
		count_add(&w->count.drop_malformed, 1);
		return;
	}
	link = link_of(w, r, get_u32(p + 4));
	if (!link || atomic_load_explicit(&link->dead, memory_order_relaxed) ||
	    hop_check(&link->cfg.rx_key, p, n) != 0 || get_u64(p + 8) != w->dp->self_label) {
		count_add(&w->count.drop_link, 1);
		return;
	}
	lane = table_lane(w->table, get_u32(p + HOP_LEN));
	if (lane && index_worker(lane->cfg.index) != w->id) {
		hand_over(w, &w->dp->worker[index_worker(lane->cfg.index)], r, p, n);
		return;
	}
	if (!lane || atomic_load_explicit(&lane->sess->dead, memory_order_relaxed) ||
	    (!lane->aead.ctx &&
	     aead_init(&lane->aead, lane->sess->rx_suite, lane->cfg.key, lane->cfg.iv, false, NULL) != 0)) {
		count_add(&w->count.drop_index, 1);
		return;
	}
	counter = get_u64(p + HOP_LEN + 4);
	if (!replay_ok(&lane->replay, counter)) {
		count_add(&w->count.drop_replay, 1);
		count_add(&lane->sess->stat[w->id].replays, 1);
		return;
	}
	if (aead_open(&lane->aead, counter, p + HOP_LEN, 12, p + DATA_HEAD, n - DATA_HEAD) != 0) {
		auth_failed(w, lane);
		return;
	}
	newest = counter >= lane->replay.max;
	replay_take(&lane->replay, counter);
	__atomic_store_n(&lane->sess->stat[w->id].last_rx, w->now, __ATOMIC_RELAXED);
	if (newest && !r->path_checked)
		check_path(w, r);
	p += DATA_HEAD;
	n -= DATA_OVERHEAD;
	if (n > 1 && (p[0] >> 4 == INNER_FIRST || p[0] >> 4 == INNER_SECOND))
		rx_part(w, lane, counter, p, n, r->tos);
	else if (n > 0)
		rx_inner(w, lane, p, n, r->tos); /* no plaintext: a keepalive */
}

void rx_datagram(struct worker *w, uint8_t *p, size_t n, size_t frame, uint8_t tos,
		 const struct sockaddr_storage *from)
{
	struct rx r = { .from = from, .tos = tos };

	if (n == 0)
		count_add(&w->count.drop_malformed, 1);
	while (n > 0) {
		size_t len = n < frame ? n : frame;

		rx_frame(w, &r, p, len);
		p += len;
		n -= len;
	}
}
