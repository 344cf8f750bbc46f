/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: links
 *
 * Either end may move. The first authenticated fresh frame from another address makes that address a
 * candidate; a CHALLENGE goes there, and only the RESPONSE, tagged with the link key and coming from there,
 * moves the path. One candidate at a time and at most one new one per 50 ms: a replayed or spoofed frame
 * costs one probe.
 *
 * The path MTU is searched with padded probes upwards from 1232 (IPv6's 1280), the largest value first
 * because that is what most paths take. It is confirmed every 5 s while traffic flows and again after a
 * change of path; three losses in a row while small probes pass mean a black hole: back to the base.
 *
 * Source: RFC 9000 section 8.2 (validation), RFC 8899 (DPLPMTUD), RFC 6298 (round-trip time).
 */
#include "session/link.h"

#define CHALLENGE_RATE	(50 * NS_PER_MS)
#define PING_FAST	NS_PER_S
#define ANSWER_PATIENCE (2 * NS_PER_S) /* traffic without an answer for so long: ask */
#define SILENCE		(NS_PER_S / 4) /* unanswered for so long: QUIC has begun to back off */
#define MTU_CONFIRM	(5 * NS_PER_S) /* how long a black hole may last */
#define MTU_RAISE	(600 * NS_PER_S)
enum { CHALLENGE_TRIES = 5, MTU_TRIES = 3, MTU_STEP = 8 };

static uint64_t patience(const struct link *l)
{
	uint64_t t = l->srtt ? l->srtt * 2 + 4 * l->rttvar : 300 * NS_PER_MS;

	return t < 20 * NS_PER_MS ? 20 * NS_PER_MS : t > NS_PER_S ? NS_PER_S : t;
}

static void emit(struct link *l, struct link_result *r, const struct endpoint *to, struct probe p,
		 size_t size)
{
	if (r->n == LINK_OUT_MAX)
		return;
	r->out[r->n++] = (struct link_out){ .to = *to, .probe = p, .size = size };
	(void)l;
}

void link_init(struct link *l, const struct link_params *p)
{
	*l = (struct link){ .p = *p, .mtu = p->mtu, .frame_max = LINK_MTU_BASE };
}

void link_down(struct link *l)
{
	l->up = l->has_candidate = l->probing = false;
	l->unanswered = l->ping_at = l->ping_soon = 0;
}

/* Starts the search anew; `first` (if above the base) is tried before the largest. */
static void search(struct link *l, unsigned first, uint64_t now, struct link_result *r)
{
	if (l->frame_max != LINK_MTU_BASE)
		r->mtu_changed = true;
	l->frame_max = l->lo = LINK_MTU_BASE;
	l->hi = l->mtu;
	l->trying = l->hi > l->lo ? (first > l->lo && first < l->hi ? first : l->hi) : 0;
	l->tries = 0;
	l->mtu_at = l->trying ? now : now + MTU_CONFIRM;
	l->raise_at = now + MTU_RAISE;
}

static void ping(struct link *l, uint64_t now, struct link_result *r)
{
	l->ping_at = now;
	l->ping_soon = 0;
	if (!l->unanswered)
		l->unanswered = now;
	emit(l, r, &l->path, (struct probe){ .kind = PROBE_PING, .seq = ++l->seq, .data = now }, PROBE_LEN);
}

void link_ping(struct link *l, uint64_t now, struct link_result *r)
{
	if (l->up)
		ping(l, now, r);
}

static void moved(struct link *l, const struct endpoint *to, uint64_t now, struct link_result *r)
{
	unsigned before = l->frame_max;

	l->path = *to;
	l->has_candidate = false;
	l->srtt = l->rttvar = 0;
	r->path_changed = r->back = true;
	search(l, before, now, r);
}

void link_keys(struct link *l, const struct endpoint *path, unsigned mtu, uint64_t now, struct link_result *r)
{
	const bool first = !l->up;
	const unsigned both = mtu >= LINK_MTU_BASE && mtu < l->p.mtu ? mtu : l->p.mtu;
	const bool other = both != l->mtu;

	l->mtu = both;
	l->up = true;
	l->last_rx = l->last_tx = now;
	l->unanswered = 0;
	l->probing = false;
	if (first || !endpoint_equal(path, &l->path)) {
		moved(l, path, now, r);
		/* Not at once: what tells the peer to take these keys into use is just being written. */
		l->ping_soon = l->mtu_at = now + NS_PER_MS;
	} else if (other) {
		search(l, 0, now, r); /* the peer has another interface now */
	} else if (l->trying) {
		l->mtu_at = now;
	}
	if (first)
		r->path_changed = false; /* the owner knows: it brought the path */
}

void link_seen(struct link *l, const struct endpoint *from, struct rng *rng, uint64_t now,
	       struct link_result *r)
{
	if (!l->up)
		return;
	r->back = l->unanswered && now - l->unanswered > SILENCE;
	l->last_rx = now;
	l->unanswered = 0;
	l->probing = false;
	if (endpoint_equal(from, &l->path))
		return;
	if (now < l->challenge_again || (l->has_candidate && endpoint_equal(from, &l->candidate)))
		return;
	l->candidate = *from;
	l->has_candidate = true;
	l->challenge = rng_u64(rng);
	l->challenge_tries = 1;
	l->challenge_at = now;
	l->challenge_again = now + CHALLENGE_RATE;
	emit(l, r, from, (struct probe){ .kind = PROBE_CHALLENGE, .seq = ++l->seq, .data = l->challenge },
	     PROBE_LEN);
}

void link_usage(struct link *l, uint64_t last_rx, uint64_t last_tx)
{
	if (last_rx > l->last_rx) {
		l->last_rx = last_rx;
		if (last_rx > l->unanswered) {
			l->unanswered = 0;
			l->probing = false;
		}
	}
	if (last_tx > l->last_tx)
		l->last_tx = last_tx;
}

void link_sent(struct link *l, uint64_t now)
{
	l->last_tx = now;
}

static void measured(struct link *l, uint64_t rtt)
{
	uint64_t d;

	if (!l->srtt) {
		l->srtt = rtt ? rtt : 1;
		l->rttvar = rtt / 2;
		return;
	}
	d = l->srtt > rtt ? l->srtt - rtt : rtt - l->srtt;
	l->rttvar = (3 * l->rttvar + d) / 4;
	l->srtt = (7 * l->srtt + rtt) / 8;
	if (!l->srtt)
		l->srtt = 1;
}

/* `size` got through: take it, go on above it. */
static void mtu_works(struct link *l, unsigned size, uint64_t now, struct link_result *r)
{
	if (size <= l->lo || size > l->hi) {
		if (size == l->trying) { /* a confirmation of what is in use */
			l->trying = 0;
			l->tries = 0;
			l->mtu_at = now + MTU_CONFIRM;
		}
		return;
	}
	l->lo = size;
	l->tries = 0;
	if (size > l->frame_max) {
		l->frame_max = size;
		r->mtu_changed = true;
	}
	if (l->hi - l->lo < MTU_STEP) {
		l->trying = 0;
		l->mtu_at = now + MTU_CONFIRM;
	} else {
		l->trying = l->lo + (l->hi - l->lo + 1) / 2;
		l->mtu_at = now;
	}
}

bool link_probe(struct link *l, const struct endpoint *from, const struct probe *p, uint64_t now,
		struct link_result *r)
{
	if (!l->up)
		return false;
	switch (p->kind) {
	case PROBE_PING:
		emit(l, r, from, (struct probe){ .kind = PROBE_PONG, .seq = p->seq, .data = p->data },
		     PROBE_LEN);
		return true;
	case PROBE_PONG:
		if (p->data > now || p->seq > l->seq || now - p->data > 60 * NS_PER_S)
			return false;
		measured(l, now - p->data);
		return true;
	case PROBE_CHALLENGE:
		emit(l, r, from, (struct probe){ .kind = PROBE_RESPONSE, .seq = p->seq, .data = p->data },
		     PROBE_LEN);
		return true;
	case PROBE_RESPONSE:
		if (!l->has_candidate || p->data != l->challenge || !endpoint_equal(from, &l->candidate))
			return false;
		moved(l, from, now, r);
		measured(l, now - l->challenge_at);
		ping(l, now, r);
		return true;
	case PROBE_MTU:
		emit(l, r, from, (struct probe){ .kind = PROBE_MTU_ACK, .size = p->size, .seq = p->seq },
		     PROBE_LEN);
		return true;
	case PROBE_MTU_ACK:
		if (!l->trying || p->size != l->trying)
			return false;
		mtu_works(l, p->size, now, r);
		return true;
	default:
		return false;
	}
}

void link_too_big(struct link *l, uint64_t now, struct link_result *r)
{
	if (l->up && l->frame_max > LINK_MTU_BASE)
		search(l, 0, now, r);
}

static void mtu_lost(struct link *l, uint64_t now, struct link_result *r)
{
	const unsigned size = l->trying;

	l->trying = 0;
	l->tries = 0;
	l->mtu_at = now + MTU_CONFIRM;
	if (size <= l->frame_max) {
		/* What is in use no longer gets through. If nothing does, that is the pings' affair, not the
		 * MTU's. */
		if (l->last_rx + 4 * patience(l) >= now)
			search(l, 0, now, r);
		return;
	}
	l->hi = size - 1;
	if (l->hi - l->lo >= MTU_STEP) {
		l->trying = l->lo + (l->hi - l->lo + 1) / 2;
		l->mtu_at = now;
	}
}

static void mtu_tick(struct link *l, uint64_t now, struct link_result *r)
{
	if (now < l->mtu_at)
		return;
	if (!l->trying) {
		if (now >= l->raise_at && l->frame_max + MTU_STEP <= l->mtu) {
			l->raise_at = now + MTU_RAISE;
			l->lo = l->frame_max;
			l->hi = l->mtu;
			l->trying = l->hi;
		} else if (l->frame_max > LINK_MTU_BASE && l->last_tx + MTU_CONFIRM > now) {
			l->trying = l->frame_max; /* confirm, with the answer to a small one beside it */
		} else {
			l->mtu_at = now + MTU_CONFIRM;
			return;
		}
		l->tries = 0;
	}
	if (l->tries == MTU_TRIES) {
		mtu_lost(l, now, r);
		if (!l->trying || now < l->mtu_at)
			return;
	}
	l->tries++;
	l->mtu_at = now + patience(l);
	if (l->trying <= l->frame_max)
		ping(l, now, r);
	emit(l, r, &l->path,
	     (struct probe){ .kind = PROBE_MTU, .size = (uint16_t)l->trying, .seq = ++l->seq }, l->trying);
}

static void challenge_tick(struct link *l, uint64_t now, struct link_result *r)
{
	if (!l->has_candidate || now < l->challenge_at + patience(l))
		return;
	if (l->challenge_tries++ == CHALLENGE_TRIES) {
		l->has_candidate = false;
		return;
	}
	l->challenge_at = now;
	emit(l, r, &l->candidate,
	     (struct probe){ .kind = PROBE_CHALLENGE, .seq = ++l->seq, .data = l->challenge }, PROBE_LEN);
}

static uint64_t ping_due(const struct link *l)
{
	uint64_t quiet = l->last_rx < l->last_tx ? l->last_rx : l->last_tx, due;

	due = (quiet > l->ping_at ? quiet : l->ping_at) + l->p.keepalive;

	if (l->ping_soon)
		due = l->ping_soon;
	else if (l->unanswered)
		due = l->ping_at + (l->srtt ? PING_FAST : patience(l));
	else if (l->last_tx > l->last_rx && l->last_rx + ANSWER_PATIENCE < due)
		due = l->last_rx + ANSWER_PATIENCE;
	return due;
}

void link_tick(struct link *l, struct rng *rng, uint64_t now, struct link_result *r)
{
	(void)rng;
	if (!l->up)
		return;
	if (l->unanswered && now >= l->unanswered + l->p.dead_after) {
		r->dead = true;
		return;
	}
	if (now >= ping_due(l)) {
		l->probing = l->unanswered != 0;
		ping(l, now, r);
	}
	challenge_tick(l, now, r);
	mtu_tick(l, now, r);
}

uint64_t link_next(const struct link *l, uint64_t now)
{
	uint64_t t, x;

	if (!l->up)
		return NS_NEVER;
	t = ping_due(l);
	x = l->mtu_at;
	t = x < t ? x : t;
	if (l->unanswered && (x = l->unanswered + l->p.dead_after) < t)
		t = x;
	if (l->has_candidate && (x = l->challenge_at + patience(l)) < t)
		t = x;
	return t > now ? t : now + NS_PER_MS;
}
