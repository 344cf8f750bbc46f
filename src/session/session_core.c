/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the core of sessions
 *
 * A peer has at most one session in use and any number beside it: one coming up (make before break), old ones
 * whose receive keys live on for what is still under way. Two ends that dial at the same moment get two
 * sessions; nothing is lost since both can be received on; the end with the lower overlay address decides and
 * tells the other which one was replaced. It prefers the one it dialled itself if both came up together, else
 * the newer one. Only the decider closes, so the two ends can never close each other's choice.
 *
 * Seconds of use are counted in ticks in which packets flowed: a session that slept for an hour is not spent.
 */
#include "session/session_core.h"

#include <stdlib.h>

enum { ACTS_PER_OBJECT = 6, SESSIONS_PER_PEER = 40 };
#define TOGETHER                                                                                             \
	(NS_PER_S / 2) /* a handshake that ended so soon after ours is its rival, not its successor */
#define WANT_LIVES   (30 * NS_PER_S)
#define READY_WITHIN (15 * NS_PER_S) /* a handshake whose other half never came */
#define REKEY_EACH   (5 * NS_PER_MS)
#define HIGHER_WAITS (30 * NS_PER_MS) /* head start for the lower address when both begin at once */

int core_init(struct core *c, const struct sess_params *p, const uint8_t self[16], struct rng *rng)
{
	*c = (struct core){ .p = *p, .rng = rng, .cap = 16, .next_dial = NS_NEVER };
	memcpy(c->self, self, 16);
	c->act = calloc(c->cap, sizeof(*c->act));
	return c->act ? 0 : ERR_NOMEM;
}

void core_fini(struct core *c)
{
	free(c->act);
	*c = (struct core){ 0 };
}

void core_self(struct core *c, const uint8_t self[16])
{
	memcpy(c->self, self, 16);
}

static void act(struct core *c, enum core_kind kind, struct core_peer *p, struct core_session *s,
		struct core_act a)
{
	a.kind = kind;
	a.peer = p;
	a.session = s;
	if (c->nact == c->cap && c->next_act) {
		memmove(c->act, c->act + c->next_act, (c->nact - c->next_act) * sizeof(*c->act));
		c->nact -= c->next_act;
		c->next_act = 0;
	}
	if (c->nact < c->cap) /* always: see reserve() */
		c->act[c->nact++] = a;
}

bool core_next(struct core *c, struct core_act *ret)
{
	if (c->next_act == c->nact) {
		c->next_act = c->nact = 0;
		return false;
	}
	*ret = c->act[c->next_act++];
	return true;
}

/* Room for everything all objects can ask between two rounds of core_next(). */
static int reserve(struct core *c)
{
	size_t want = (c->nobjects + 1) * ACTS_PER_OBJECT + 16;

	if (c->cap < want + c->nact) {
		struct core_act *a = realloc(c->act, 2 * (want + c->nact) * sizeof(*a));

		if (!a)
			return ERR_NOMEM;
		c->act = a;
		c->cap = 2 * (want + c->nact);
	}
	c->nobjects++;
	return 0;
}

int core_peer_add(struct core *c, struct core_peer *p, const uint8_t addr[16], uint64_t now)
{
	int r = reserve(c);

	if (r)
		return r;
	memcpy(p->addr, addr, 16);
	p->lower = memcmp(c->self, addr, 16) < 0;
	p->rekey_at = NS_NEVER;
	p->dial_at = now;
	p->next = c->peers;
	if (p->next)
		p->next->prev = &p->next;
	p->prev = &c->peers;
	c->peers = p;
	return 0;
}

/* False: it ended before, and its CORE_END is still to be taken. */
static bool unlink_session(struct core *c, struct core_session *s)
{
	struct core_session **q = &s->peer->sessions;

	while (*q && *q != s)
		q = &(*q)->next;
	if (!*q)
		return false;
	*q = s->next;
	c->nobjects--;
	return true;
}

void core_peer_remove(struct core *c, struct core_peer *p, enum sess_end why)
{
	if (p->dialing)
		act(c, CORE_ABORT, p, NULL, (struct core_act){ 0 });
	p->dialing = p->keep = false;
	while (p->sessions) {
		struct core_session *s = p->sessions;

		unlink_session(c, s);
		act(c, CORE_END, p, s, (struct core_act){ .why = why });
	}
	p->current = NULL;
	if (p->next)
		p->next->prev = p->prev;
	*p->prev = p->next;
	c->nobjects--;
}

static uint64_t jitter(struct core *c, uint64_t d)
{
	return d / 2 + rng_below(c->rng, d / 2 + 1) + d / 4;
}

static bool wants_dial(const struct core_peer *p, uint64_t now)
{
	if (p->dialing || (!p->nep && !p->current))
		return false;
	if (now >= p->rekey_at && p->current)
		return true;
	if (p->current)
		return false;
	for (const struct core_session *s = p->sessions; s; s = s->next)
		if (!s->old) /* one is coming up */
			return false;
	return p->nep && (p->keep || now < p->wanted_until);
}

static void consider_dial(struct core *c, struct core_peer *p, uint64_t now)
{
	struct core_act a = { .ep = p->next_ep, .rekey = p->current != NULL };

	if (!wants_dial(p, now))
		return;
	if (now < p->dial_at) {
		if (p->dial_at < c->next_dial)
			c->next_dial = p->dial_at;
		return;
	}
	p->dialing = true;
	act(c, CORE_DIAL, p, NULL, a);
}

void core_peer_dial(struct core *c, struct core_peer *p, unsigned nep, bool keep, uint64_t now)
{
	if (p->nep != nep)
		p->next_ep = 0;
	p->nep = nep;
	p->keep = keep;
	if (!p->failures && !p->dialing)
		p->dial_at = now + (p->lower ? 0 : HIGHER_WAITS);
	consider_dial(c, p, now);
}

void core_want(struct core *c, struct core_peer *p, uint64_t now)
{
	p->wanted_until = now + WANT_LIVES;
	consider_dial(c, p, now);
}

void core_dial_failed(struct core *c, struct core_peer *p, uint64_t now)
{
	uint64_t wait = c->p.dial_retry_min;

	if (!p->dialing)
		return;
	p->dialing = false;
	p->next_ep++;
	p->round++;
	p->failures++;
	/* Endpoints in turn without a pause, then a pause that grows with each round. */
	if (p->current) {
		wait = p->failures < 3 ? wait : wait * 4;
	} else if (p->nep && p->round < p->nep) {
		wait = 0;
	} else {
		unsigned rounds = p->nep ? p->failures / p->nep : p->failures;

		p->round = 0;
		for (unsigned i = 1; i < rounds && wait < c->p.dial_retry_max; i++)
			wait *= 2;
		if (wait > c->p.dial_retry_max)
			wait = c->p.dial_retry_max;
		act(c, CORE_UNREACHABLE, p, NULL, (struct core_act){ 0 });
	}
	p->dial_at = now + (wait ? jitter(c, wait) : 0);
	consider_dial(c, p, now);
}

int core_session_open(struct core *c, struct core_peer *p, struct core_session *s, bool ours,
		      uint64_t expires, uint64_t now)
{
	unsigned n = 0;
	struct core_session *victim = NULL;
	int r;

	for (struct core_session *x = p->sessions; x; x = x->next, n++)
		if (x != p->current && (!victim || x->born < victim->born))
			victim = x;
	if (n >= SESSIONS_PER_PEER && victim)
		core_session_end(c, victim, SESS_CLOSED, now);
	r = reserve(c);
	if (r)
		return r;
	s->peer = p;
	s->ours = ours;
	s->born = now;
	s->expires = expires;
	s->next = p->sessions;
	p->sessions = s;
	if (ours) {
		p->dialing = false;
	} else if (p->dialing && !p->lower) {
		p->dialing = false; /* both dialled: the lower address's dial wins */
		act(c, CORE_ABORT, p, NULL, (struct core_act){ 0 });
	}
	return 0;
}

static void retire(struct core *c, struct core_session *s, uint64_t now)
{
	s->old = true;
	s->old_until = now + c->p.old_keys_live;
	if (s->peer->lower)
		act(c, CORE_REPLACED, s->peer, s, (struct core_act){ 0 });
}

void core_session_ready(struct core *c, struct core_session *s, uint64_t now)
{
	struct core_peer *p = s->peer;
	struct core_session *cur = p->current;

	s->ready = true;
	s->ready_at = now;
	p->failures = p->round = 0;
	p->rekey_at = NS_NEVER;
	p->dial_at = now;
	if (p->dialing) { /* what it was for is there */
		p->dialing = false;
		act(c, CORE_ABORT, p, NULL, (struct core_act){ 0 });
	}
	if (cur && p->lower && cur->ours && !s->ours && !cur->old && s->born < cur->ready_at + TOGETHER) {
		retire(c, s, now); /* the rival of a simultaneous dial */
		return;
	}
	p->current = s;
	act(c, CORE_USE, p, s, (struct core_act){ 0 });
	if (cur)
		retire(c, cur, now);
}

/* The newest session that can carry traffic, old or not; NULL: none. */
static struct core_session *fallback(const struct core_peer *p)
{
	struct core_session *best = NULL;

	for (struct core_session *s = p->sessions; s; s = s->next)
		if (s->ready && (!best || (best->old && !s->old) ||
				 (best->old == s->old && s->ready_at > best->ready_at)))
			best = s;
	return best;
}

static void lost_current(struct core *c, struct core_peer *p, bool spent, uint64_t now)
{
	struct core_session *s = fallback(p);

	/* What ran out of packets or time is not followed by something older still. */
	if (spent && s && s->old)
		s = NULL;
	p->current = s;
	if (s) {
		s->old = false;
		act(c, CORE_USE, p, s, (struct core_act){ 0 });
		return;
	}
	p->rekey_at = NS_NEVER;
	if (!p->dialing) {
		p->next_ep = 0;
		p->dial_at = now + (p->lower ? 0 : HIGHER_WAITS);
	}
	consider_dial(c, p, now);
}

void core_session_end(struct core *c, struct core_session *s, enum sess_end why, uint64_t now)
{
	struct core_peer *p = s->peer;

	if (!unlink_session(c, s))
		return;
	act(c, CORE_END, p, s, (struct core_act){ .why = why });
	if (p->current == s) {
		/* The whole identity is the matter, not this session: nothing to fall back to. */
		if (why == SESS_REVOKED || why == SESS_EXPIRED || why == SESS_TIMEOUT)
			for (struct core_session *x = p->sessions, *next; x; x = next) {
				next = x->next;
				if (why == SESS_TIMEOUT && !x->old)
					continue;
				if (why == SESS_EXPIRED && x->expires > now) /* renewed meanwhile */
					continue;
				unlink_session(c, x);
				act(c, CORE_END, p, x, (struct core_act){ .why = why });
			}
		lost_current(c, p, why == SESS_SPENT, now);
	} else if (!s->ready && !p->current) {
		p->failures++;
		p->dial_at = now + jitter(c, c->p.dial_retry_min << (p->failures < 7 ? p->failures : 7));
		consider_dial(c, p, now);
	}
}

void core_session_replaced(struct core *c, struct core_session *s, uint64_t now)
{
	struct core_peer *p = s->peer;
	struct core_session *best = NULL;

	if (!s->ready)
		return;
	s->old = true;
	s->old_until = now + c->p.old_keys_live;
	if (p->current != s)
		return;
	for (struct core_session *x = p->sessions; x; x = x->next)
		if (x != s && x->ready && (!best || x->ready_at > best->ready_at))
			best = x;
	/* Without another one it stays in use: the new one's READY is still under way, and we can be received
	 * on this. */
	if (!best)
		return;
	best->old = false;
	p->current = best;
	act(c, CORE_USE, p, best, (struct core_act){ 0 });
}

void core_usage(struct core *c, struct core_session *s, uint64_t packets, uint64_t last_rx)
{
	(void)c;
	s->in_use_now = packets > s->packets;
	s->packets = packets;
	s->last_rx = last_rx;
}

void core_rekey(struct core *c, struct core_peer *p, uint64_t now)
{
	if (!p->current)
		return;
	if (p->rekey_at > now)
		p->rekey_at = now;
	consider_dial(c, p, now);
}

/* Not all at once: a node has hundreds of neighbours, and each handshake is milliseconds of CPU at both ends.
 */
void core_rekey_all(struct core *c, uint64_t now)
{
	const uint64_t spread = 2 * NS_PER_S + c->nobjects * REKEY_EACH;

	for (struct core_peer *p = c->peers; p; p = p->next)
		if (p->current && p->rekey_at == NS_NEVER)
			p->rekey_at = now + rng_below(c->rng, spread);
}

uint64_t core_tick_every(const struct core *c)
{
	uint64_t t = c->p.rekey_after / 16;

	return t < 20 * NS_PER_MS ? 20 * NS_PER_MS : t > NS_PER_S / 2 ? NS_PER_S / 2 : t;
}

/* Whether the session in use needs new keys. The lower address goes first; the other waits a little longer.
 */
static bool needs_rekey(const struct core *c, const struct core_session *s, uint64_t now)
{
	const bool lower = s->peer->lower;
	const uint64_t use = c->p.rekey_after + (lower ? 0 : c->p.rekey_after / 8);
	const uint64_t idle = c->p.rekey_idle + (lower ? 0 : c->p.rekey_idle / 8);

	return s->used >= use || s->packets >= c->p.rekey_packets || now - s->ready_at >= idle;
}

static void session_tick(struct core *c, struct core_session *s, uint64_t now, uint64_t dt)
{
	struct core_peer *p = s->peer;

	if (now >= s->expires) {
		core_session_end(c, s, SESS_EXPIRED, now);
		return;
	}
	if (!s->ready) {
		if (now - s->born >= READY_WITHIN)
			core_session_end(c, s, SESS_CLOSED, now);
		return;
	}
	if (s->in_use_now)
		s->used += dt;
	if (s->old && s != p->current) {
		/* The other end decides; while it still sends on this one, it has not heard of the new one.
		 */
		uint64_t until = s->old_until;

		if (!p->lower && s->last_rx && s->last_rx + c->p.old_keys_live > until && p->current)
			until = s->last_rx + c->p.old_keys_live;
		if (now >= until)
			core_session_end(c, s, SESS_REKEYED, now);
		return;
	}
	if (s->used >= c->p.hard_stop || now - s->ready_at >= c->p.rekey_idle + c->p.hard_stop) {
		core_session_end(c, s, SESS_SPENT, now);
		return;
	}
	if (s == p->current && p->rekey_at == NS_NEVER && needs_rekey(c, s, now))
		p->rekey_at = now;
}

uint64_t core_tick(struct core *c, uint64_t now)
{
	uint64_t dt = c->last_tick && now > c->last_tick ? now - c->last_tick : 0;

	c->last_tick = now;
	c->next_dial = NS_NEVER;
	for (struct core_peer *p = c->peers; p; p = p->next) {
		unsigned n = 0;
		struct core_session *all[2 * SESSIONS_PER_PEER];

		for (struct core_session *s = p->sessions; s && n < ARRAY_SIZE(all); s = s->next)
			all[n++] = s;
		/* Ending one may end others: go on only with those still there. */
		for (unsigned i = 0; i < n; i++)
			for (struct core_session *s = p->sessions; s; s = s->next)
				if (s == all[i]) {
					session_tick(c, s, now, dt);
					break;
				}
		consider_dial(c, p, now);
	}
	return now + core_tick_every(c);
}
