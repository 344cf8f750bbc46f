/* SPDX-License-Identifier: Apache-2.0 */
/* Two pure cores in virtual time; what lies between them is a model: dials take time, messages get lost,
 * closes too. */
#include "session/testlib.h"

#include "session/session_core.h"

struct half { /* one end's view of a session */
	struct core_session core;
	bool open, ended;
	enum sess_end why;
};

struct pairing {
	struct world *w;
	struct loop_timer timer;
	unsigned step;
	int dialer;
	bool aborted;
	struct half half[2];
};

struct world {
	struct loop *loop;
	struct rng rng;
	struct core core[2];
	struct core_peer peer[2]; /* peer[i]: what i knows of the other */
	struct pairing *dial[2];
	struct pairing *all[4096];
	unsigned n;
	unsigned loss; /* per cent of dials and closes */
	bool down;     /* nothing gets through */
	unsigned ndial[2], nuse[2], nend[2], nunreachable[2];
	bool busy;
	struct loop_timer tick[2];
};

struct note { /* a message under way */
	struct world *w;
	struct loop_timer timer;
	struct pairing *p;
	int to;
	bool replaced;
};

static void run(struct world *w, int i);

static bool lost(struct world *w)
{
	return w->down || rng_below(&w->rng, 100) < w->loss;
}

static void after(struct world *w, struct loop_timer *t, uint64_t ns)
{
	loop_timer_set(w->loop, t, loop_now(w->loop) + ns);
}

static void on_note(void *arg, uint64_t now)
{
	struct note *n = arg;
	struct half *h = &n->p->half[n->to];

	if (h->open && !h->ended) {
		if (n->replaced)
			core_session_replaced(&n->w->core[n->to], &h->core, now);
		else
			core_session_end(&n->w->core[n->to], &h->core, SESS_CLOSED, now);
		run(n->w, n->to);
	}
	free(n);
}

static void tell(struct world *w, struct pairing *p, int to, bool replaced)
{
	struct note *n;

	if (replaced ? w->down : lost(w)) /* REPLACED travels on a reliable stream, a close does not */
		return;
	n = calloc(1, sizeof(*n));
	*n = (struct note){ .w = w, .p = p, .to = to, .replaced = replaced };
	loop_timer_init(&n->timer, on_note, n);
	after(w, &n->timer, 5 * NS_PER_MS + rng_below(&w->rng, 20 * NS_PER_MS));
}

static void open_half(struct world *w, struct pairing *p, int i, uint64_t now)
{
	struct half *h = &p->half[i];

	h->open = true;
	assert_int_equal(core_session_open(&w->core[i], &w->peer[i], &h->core, i == p->dialer, NS_NEVER, now),
			 0);
	if (i == p->dialer)
		w->dial[i] = NULL;
	run(w, i);
}

static void ready_half(struct world *w, struct pairing *p, int i, uint64_t now)
{
	if (p->half[i].ended)
		return;
	core_session_ready(&w->core[i], &p->half[i].core, now);
	run(w, i);
}

/* A dial's life: 0 sent; 1 the dialer's handshake is complete; 2 the other's; 3, 4 READY at one end, then the
 * other. */
static void on_step(void *arg, uint64_t now)
{
	struct pairing *p = arg;
	struct world *w = p->w;
	int d = p->dialer;

	if (p->aborted || p->half[0].ended || p->half[1].ended)
		return;
	if (p->step == 0 && lost(w)) {
		w->dial[d] = NULL;
		core_dial_failed(&w->core[d], &w->peer[d], now);
		run(w, d);
		return;
	}
	if (w->down) {
		after(w, &p->timer, NS_PER_S); /* it waits for retransmissions */
		return;
	}
	switch (p->step++) {
	case 0:
		open_half(w, p, d, now);
		break;
	case 1:
		open_half(w, p, !d, now);
		break;
	case 2:
		ready_half(w, p, rng_below(&w->rng, 2) ? d : !d, now);
		break;
	case 3:
		ready_half(w, p, p->half[d].core.ready ? !d : d, now);
		return;
	}
	after(w, &p->timer, NS_PER_MS + rng_below(&w->rng, 30 * NS_PER_MS));
}

static struct pairing *pairing_of(struct world *w, int i, struct core_session *s)
{
	for (unsigned k = 0; k < w->n; k++)
		if (&w->all[k]->half[i].core == s)
			return w->all[k];
	fail();
	return NULL;
}

static void run(struct world *w, int i)
{
	struct core_act a;

	while (core_next(&w->core[i], &a)) {
		struct pairing *p = a.session ? pairing_of(w, i, a.session) : NULL;

		switch (a.kind) {
		case CORE_DIAL:
			assert_null(w->dial[i]);
			w->ndial[i]++;
			p = calloc(1, sizeof(*p));
			assert_true(w->n < ARRAY_SIZE(w->all));
			w->all[w->n++] = w->dial[i] = p;
			p->w = w;
			p->dialer = i;
			loop_timer_init(&p->timer, on_step, p);
			after(w, &p->timer,
			      w->down ? 2 * NS_PER_S : 5 * NS_PER_MS + rng_below(&w->rng, 50 * NS_PER_MS));
			break;
		case CORE_ABORT:
			assert_non_null(w->dial[i]);
			w->dial[i]->aborted = true;
			w->dial[i] = NULL;
			break;
		case CORE_USE:
			assert_false(p->half[i].ended);
			w->nuse[i]++;
			break;
		case CORE_REPLACED:
			tell(w, p, !i, true);
			break;
		case CORE_END:
			assert_false(p->half[i].ended);
			p->half[i].ended = true;
			p->half[i].why = a.why;
			w->nend[i]++;
			tell(w, p, !i, false);
			break;
		case CORE_UNREACHABLE:
			w->nunreachable[i]++;
			break;
		}
	}
}

static void tick_one(struct world *w, int i, uint64_t now)
{
	for (struct core_session *s = w->peer[i].sessions; s; s = s->next) {
		struct core_session *theirs = w->peer[!i].current;
		bool heard = theirs && pairing_of(w, !i, theirs) == pairing_of(w, i, s);

		core_usage(&w->core[i], s, s->packets + (w->busy && s == w->peer[i].current ? 5 : 0),
			   heard ? now : s->last_rx);
	}
	core_tick(&w->core[i], now);
	run(w, i);
}

static void tick0(void *arg, uint64_t now)
{
	struct world *w = arg;

	tick_one(w, 0, now);
	after(w, &w->tick[0], core_tick_every(&w->core[0]));
}

static void tick1(void *arg, uint64_t now)
{
	struct world *w = arg;

	tick_one(w, 1, now);
	after(w, &w->tick[1], core_tick_every(&w->core[1]));
}

static struct world *world(uint64_t seed, const struct sess_params *params)
{
	static const uint8_t addr[2][16] = { { 0xfd, 1 }, { 0xfd, 2 } };
	struct world *w = calloc(1, sizeof(*w));

	w->loop = loop_new_virtual(NS_PER_S, seed);
	rng_init_seeded(&w->rng, seed);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(core_init(&w->core[i], params, addr[i], &w->rng), 0);
		assert_int_equal(core_peer_add(&w->core[i], &w->peer[i], addr[!i], loop_now(w->loop)), 0);
		loop_timer_init(&w->tick[i], i ? tick1 : tick0, w);
		after(w, &w->tick[i], rng_below(&w->rng, core_tick_every(&w->core[i])));
	}
	assert_true(w->peer[0].lower && !w->peer[1].lower);
	return w;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		loop_timer_cancel(w->loop, &w->tick[i]);
		core_peer_remove(&w->core[i], &w->peer[i], SESS_CLOSED);
		core_fini(&w->core[i]);
	}
	for (unsigned k = 0; k < w->n; k++) {
		loop_timer_cancel(w->loop, &w->all[k]->timer);
		w->all[k]->half[0].ended = w->all[k]->half[1].ended = true;
	}
	loop_run_until(w->loop, loop_now(w->loop) + NS_PER_S); /* notes under way free themselves */
	for (unsigned k = 0; k < w->n; k++)
		free(w->all[k]);
	loop_free(w->loop);
	free(w);
}

/* Whatever i sends with, the other can receive. */
static bool receivable(struct world *w, int i)
{
	struct core_session *s = w->peer[i].current;
	struct pairing *p = s ? pairing_of(w, i, s) : NULL;

	return p && p->half[!i].open && !p->half[!i].ended;
}

static unsigned count(struct world *w, int i)
{
	unsigned n = 0;

	for (struct core_session *s = w->peer[i].sessions; s; s = s->next)
		n++;
	return n;
}

static void begin_both(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		core_peer_dial(&w->core[i], &w->peer[i], 2, true, loop_now(w->loop));
		run(w, i);
	}
}

static void simultaneous(void **state)
{
	struct sess_params p;

	(void)state;
	sess_params_default(&p);
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct world *w = world(seed, &p);
		bool up = false;

		w->loss = seed % 3 ? (unsigned)(seed % 40) : 0;
		begin_both(w);
		for (unsigned t = 0; t < 9000; t++) {
			loop_run_until(w->loop, loop_now(w->loop) + 10 * NS_PER_MS);
			up |= w->peer[0].current && w->peer[1].current;
			if (up && !(receivable(w, 0) && receivable(w, 1)))
				fail_msg("seed %lu: a gap at %u ms", (unsigned long)seed, t * 10);
		}
		assert_true(up);
		if (count(w, 0) != 1 || count(w, 1) != 1)
			fail_msg("seed %lu: %u and %u sessions left", (unsigned long)seed, count(w, 0),
				 count(w, 1));
		assert_ptr_equal(pairing_of(w, 0, w->peer[0].current), pairing_of(w, 1, w->peer[1].current));
		world_free(w);
	}
}

static void renewals(void **state)
{
	struct sess_params p;

	(void)state;
	sess_params_default(&p);
	p.rekey_after = NS_PER_S;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world *w = world(seed, &p);

		w->loss = 20;
		begin_both(w);
		while (!(w->peer[0].current && w->peer[1].current))
			loop_run_until(w->loop, loop_now(w->loop) + NS_PER_MS);
		w->busy = true;
		for (unsigned t = 0; t < 10000; t++) {
			loop_run_until(w->loop, loop_now(w->loop) + 10 * NS_PER_MS);
			if (!receivable(w, 0) || !receivable(w, 1))
				fail_msg("seed %lu: a gap at %u ms", (unsigned long)seed, t * 10);
		}
		assert_true(w->nuse[0] > 60 && w->nuse[1] > 60);
		assert_true(count(w, 0) <= 41 && count(w, 1) <= 41);
		world_free(w);
	}
}

static void hard_stop(void **state)
{
	struct sess_params p;
	struct world *w;

	(void)state;
	sess_params_default(&p);
	w = world(5, &p);
	begin_both(w);
	loop_run_until(w->loop, loop_now(w->loop) + 5 * NS_PER_S);
	assert_true(w->peer[0].current && w->peer[1].current);
	w->busy = true;
	w->down = true; /* no new handshake gets through: 180 s of use, then nothing at all */
	loop_run_until(w->loop, loop_now(w->loop) + 174 * NS_PER_S);
	assert_true(w->peer[0].current && w->peer[1].current);
	loop_run_until(w->loop, loop_now(w->loop) + 8 * NS_PER_S);
	assert_null(w->peer[0].current);
	assert_null(w->peer[1].current);
	assert_true(w->nunreachable[0] > 0);
	w->down = false;
	loop_run_until(w->loop, loop_now(w->loop) + 60 * NS_PER_S);
	assert_true(receivable(w, 0) && receivable(w, 1));
	world_free(w);
}

static void packets_and_expiry(void **state)
{
	struct sess_params p;
	struct world *w;

	(void)state;
	sess_params_default(&p);
	w = world(6, &p);
	begin_both(w);
	loop_run_until(w->loop, loop_now(w->loop) + 40 * NS_PER_S);
	unsigned before = w->nuse[0];
	w->peer[0].current->packets = p.rekey_packets;
	loop_run_until(w->loop, loop_now(w->loop) + 2 * NS_PER_S);
	assert_int_equal(w->nuse[0], before + 1);
	/* The peer's SVID ends: both the session in use and the old one go. */
	for (struct core_session *s = w->peer[0].sessions; s; s = s->next)
		s->expires = loop_now(w->loop) + NS_PER_S;
	w->down = true;
	loop_run_until(w->loop, loop_now(w->loop) + 2 * NS_PER_S);
	assert_int_equal(count(w, 0), 0);
	world_free(w);
}

static void back_off(void **state)
{
	struct sess_params p;
	struct world *w;
	unsigned first, later;

	(void)state;
	sess_params_default(&p);
	w = world(7, &p);
	w->down = true;
	begin_both(w);
	loop_run_until(w->loop, loop_now(w->loop) + 30 * NS_PER_S);
	first = w->ndial[0];
	assert_true(first >= 6 && first <= 20);
	assert_true(w->peer[0].next_ep == first || w->peer[0].next_ep + 1 == first); /* in turn */
	loop_run_until(w->loop, loop_now(w->loop) + 1000 * NS_PER_S);
	later = w->ndial[0];
	loop_run_until(w->loop, loop_now(w->loop) + 300 * NS_PER_S);
	/* Two endpoints per round, a round every 30 s and what it takes itself, with jitter. */
	assert_true(w->ndial[0] - later >= 12 && w->ndial[0] - later <= 32);
	assert_true(w->nunreachable[0] > 5);
	world_free(w);
}

static void not_wanted_not_dialled(void **state)
{
	struct sess_params p;
	struct world *w;

	(void)state;
	sess_params_default(&p);
	w = world(8, &p);
	core_peer_dial(&w->core[0], &w->peer[0], 1, false, loop_now(w->loop));
	run(w, 0);
	loop_run_until(w->loop, loop_now(w->loop) + 10 * NS_PER_S);
	assert_int_equal(w->ndial[0], 0);
	core_want(&w->core[0], &w->peer[0], loop_now(w->loop));
	run(w, 0);
	assert_int_equal(w->ndial[0], 1);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(simultaneous), cmocka_unit_test(renewals),
		cmocka_unit_test(hard_stop),	cmocka_unit_test(packets_and_expiry),
		cmocka_unit_test(back_off),	cmocka_unit_test(not_wanted_not_dialled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
