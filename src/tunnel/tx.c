/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending one read of the TUN device: session, cut, seal. See pipeline.c for the whole way.
 *
 * Counters are taken from the lane's atomic for all frames of a super-packet at once; one that is taken is
 * never used again, sent or not.
 */
#include <errno.h>

#include "tunnel/dp.h"

/* A key's hard end: far above the re-key at 2^31 packets, far below what AES-GCM allows (RFC 9001, B.1). */
#define COUNTER_END (1ull << 33)

enum { ICMP_BURST = 50, ICMP_PER_S = 100 };

struct tx {
	struct sess *sess;
	struct link *link;
	const struct path *path;
	struct lane_tx *lane;
	struct aead *aead;
	const struct inner *in;
	uint64_t counter; /* of the next frame */
	uint8_t code;	  /* first nibble */
};

static bool is_multicast(const struct inner *in)
{
	return in->v6 ? in->dst[0] == 0xff : in->dst[12] >= 224;
}

static void answer_icmp(struct worker *w, const uint8_t *p, size_t n, const struct inner *in,
			enum inner_icmp kind, unsigned mtu)
{
	uint8_t buf[VNET_LEN + INNER_ICMP_MAX] = { 0 };
	uint64_t earned = (w->now - w->icmp_at) / (NS_PER_S / ICMP_PER_S);
	struct iovec iov = { .iov_base = buf };
	size_t len;

	if (earned) {
		w->icmp_tokens = earned + w->icmp_tokens > ICMP_BURST ? ICMP_BURST
								      : w->icmp_tokens + (unsigned)earned;
		w->icmp_at = w->now;
	}
	if (!w->icmp_tokens)
		return;
	len = inner_icmp_error(p, n, in, kind, mtu, buf + VNET_LEN);
	if (!len)
		return;
	w->icmp_tokens--;
	iov.iov_len = VNET_LEN + len;
	tun_write(w, &iov, 1, 1);
}

/* The AEAD context of this worker for this lane; made on first use. */
static struct aead *lane_aead(struct worker *w, struct sess *s, unsigned lane)
{
	struct aead *a = &s->tx_aead[w->id * s->ntx + lane];

	if (!a->ctx && aead_init(a, s->tx_suite, s->tx[lane].cfg.key, s->tx[lane].cfg.iv, true, NULL) != 0)
		return NULL;
	return a;
}

static void seal(struct worker *w, struct tx *t, const uint8_t *head, size_t head_n, const uint8_t *body,
		 size_t n)
{
	size_t len = DATA_OVERHEAD + head_n + n;
	uint8_t *f = txb_room(&w->txb, t->path, t->link->cfg.id, t->lane->cfg.index, t->in->tos, len);

	hop_put(f, FRAME_DATA, HOP_TTL, (uint16_t)t->in->hash, t->link->cfg.tx_index, t->link->cfg.peer_label,
		w->dp->self_label);
	put_u32(f + 32, t->lane->cfg.index);
	put_u64(f + 36, t->counter);
	if (aead_seal(t->aead, t->counter, f + HOP_LEN, 12, head, head_n, body, n, f + DATA_HEAD) != 0) {
		memset(f, 0, len); /* its place in the batch is taken: nothing is sent that could pass for a
				      frame */
		count_add(&w->count.drop_send, 1);
	} else {
		hop_seal(&t->link->cfg.tx_key, f, len);
	}
	t->counter++;
}

static void seal_whole(struct worker *w, struct tx *t, uint8_t *p, size_t n)
{
	p[0] = (uint8_t)(t->code << 4 | (p[0] & 15));
	seal(w, t, NULL, 0, p, n);
}

static void seal_split(struct worker *w, struct tx *t, uint8_t *p, size_t n)
{
	static const uint8_t first = INNER_FIRST << 4, second = INNER_SECOND << 4;
	size_t half = (n + 1) / 2;

	p[0] = (uint8_t)(t->code << 4 | (p[0] & 15));
	seal(w, t, &first, 1, p, half);
	seal(w, t, &second, 1, p + half, n - half);
}

static bool take_counters(struct worker *w, struct tx *t, unsigned frames)
{
	t->counter = atomic_fetch_add_explicit(&t->lane->counter, frames, memory_order_relaxed);
	if (t->counter < COUNTER_END - UINT16_MAX)
		return true;
	if (!atomic_load_explicit(&t->sess->spent, memory_order_relaxed) &&
	    worker_event(w, EV_SPENT, t->sess->id, NULL, NULL))
		atomic_store_explicit(&t->sess->spent, true, memory_order_relaxed);
	return false;
}

static void count_tx(struct worker *w, struct sess *s, unsigned packets, size_t bytes)
{
	struct sess_stat *st = &s->stat[w->id];

	count_add(&w->count.tx_packets, packets);
	count_add(&w->count.tx_bytes, bytes);
	count_add(&st->tx_packets, packets);
	count_add(&st->tx_bytes, bytes);
	__atomic_store_n(&st->last_tx, w->now, __ATOMIC_RELAXED);
}

/* Largest inner packet of one frame, and of two. */
static size_t whole_max(const struct path *path)
{
	return path->frame_max - DATA_OVERHEAD;
}

static size_t split_max(const struct path *path)
{
	size_t part = whole_max(path) - 1;

	return 2 * (part < SPLIT_PART_MAX ? part : SPLIT_PART_MAX);
}

static void tx_sealed(struct worker *w, struct tx *t, const struct virtio_net_hdr *v, uint8_t *p, size_t n)
{
	size_t max = whole_max(t->path), piece_n, largest;
	const struct inner *in = t->in;
	unsigned pieces;
	uint8_t *piece;
	struct cut c;

	if (in->head && in->proto == PROTO_TCP && p[in->l4 + 13] & TCP_SYN)
		inner_mss_clamp(p, n, in, v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
				(uint16_t)(max - in->l4 - 20));
	if (cut_init(&c, v, p, n, in, max) != 0) {
		count_add(&w->count.drop_inner, 1);
		return;
	}
	pieces = cut_pieces(&c);
	largest = c.size ? c.head + c.size : n;
	if (largest > split_max(t->path)) {
		size_t mtu = max > INNER_MTU_MIN_V6 ? max : INNER_MTU_MIN_V6;

		count_add(&w->count.drop_too_big, pieces);
		answer_icmp(w, p, n, in, INNER_TOO_BIG, (unsigned)mtu);
		return;
	}
	if (!take_counters(w, t, largest > max ? 2 * pieces : pieces)) {
		count_add(&w->count.drop_no_session, pieces);
		return;
	}
	t->code = (uint8_t)((in->v6 ? INNER_V6 : 0) | (c.partial ? INNER_PARTIAL : 0));
	count_tx(w, t->sess, pieces, n);
	while ((piece = cut_next(&c, &piece_n))) {
		if (piece_n > max)
			seal_split(w, t, piece, piece_n);
		else
			seal_whole(w, t, piece, piece_n);
	}
}

static struct sess *session_for(struct worker *w, const uint8_t dst[16])
{
	if (!w->last_sess || memcmp(w->last_dst, dst, 16) != 0) {
		w->last_sess = table_dst(w->table, dst);
		memcpy(w->last_dst, dst, 16);
	}
	return w->last_sess;
}

/* No session: wait for one. Returns it if it came up in between. */
static struct sess *wait_for_session(struct worker *w, const struct virtio_net_hdr *v, const uint8_t *p,
				     size_t n, const struct inner *in)
{
	struct firstq *q = &w->dp->firstq;
	enum firstq_verdict verdict;
	struct sess *s;

	pthread_mutex_lock(&q->lock);
	/* The control thread publishes, then empties the queue under this lock: look again, or the packet may
	 * stay. */
	w->table = atomic_load_explicit(&w->dp->table, memory_order_acquire);
	s = table_dst(w->table, in->dst);
	if (s) {
		pthread_mutex_unlock(&q->lock);
		return s;
	}
	verdict = firstq_add(q, in->dst, v, p, n, w->id, w->now);
	if (verdict == FIRSTQ_ASK && !worker_event(w, EV_NEED_SESSION, 0, in->dst, NULL))
		firstq_ask_again(q, in->dst);
	pthread_mutex_unlock(&q->lock);
	if (verdict == FIRSTQ_FULL) {
		count_add(&w->count.drop_no_session, 1);
	} else if (verdict == FIRSTQ_REFUSED) {
		count_add(&w->count.drop_unreachable, 1);
		answer_icmp(w, p, n, in, INNER_UNREACHABLE, 0);
	}
	return NULL;
}

void tx_packet(struct worker *w, const struct virtio_net_hdr *v, uint8_t *p, size_t n, bool refuse)
{
	struct inner in;
	struct tx t = { .in = &in };
	unsigned lane;

	if (inner_parse(p, n, w->dp->seed, &in) != 0) {
		count_add(&w->count.drop_inner, 1);
		return;
	}
	if (refuse || is_multicast(&in)) {
		count_add(&w->count.drop_unreachable, 1);
		answer_icmp(w, p, n, &in, INNER_UNREACHABLE, 0);
		return;
	}
	t.sess = session_for(w, in.dst);
	if (!t.sess)
		t.sess = wait_for_session(w, v, p, n, &in);
	if (!t.sess)
		return;
	t.link = atomic_load_explicit(&t.sess->link, memory_order_acquire);
	lane = (in.hash >> 16) % t.sess->ntx;
	t.lane = &t.sess->tx[lane];
	t.aead = lane_aead(w, t.sess, lane);
	if (!t.link || !t.aead) {
		count_add(&w->count.drop_no_session, 1);
		return;
	}
	t.path = atomic_load_explicit(&t.link->path, memory_order_acquire);
	tx_sealed(w, &t, v, p, n);
}
