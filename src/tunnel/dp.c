/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of the data path: it alone changes links and sessions, publishes tables, and
 * answers for packets that wait. tunnel.h documents the calls.
 *
 * Order in dp_session_use(): publish the table, then empty the queue under its lock. A worker that finds no
 * session looks again under that lock before it queues (tx.c), so nothing stays behind.
 */
#include <stdlib.h>

#include "tunnel/dp.h"

enum { TICK_MS = 20, AGE_MS = 1000, FRAME_LEAST = 1220 };

/* ---- publishing ---- */

static void table_retired(struct qsbr_retired *r)
{
	table_free(container_of(r, struct table, retired));
}

static void path_retired(struct qsbr_retired *r)
{
	free(container_of(r, struct path, retired));
}

static void link_free(struct link *l)
{
	free(atomic_load(&l->path));
	secret_wipe(&l->cfg, sizeof(l->cfg));
	free(l);
}

static void link_retired(struct qsbr_retired *r)
{
	link_free(container_of(r, struct link, retired));
}

static void sess_retired(struct qsbr_retired *r)
{
	table_sess_free(container_of(r, struct sess, retired));
}

/* Reclaims what it can, ages the queue, and comes again while there is something to do. */
static void tick(void *arg, uint64_t now)
{
	struct dp *dp = arg;
	bool empty;

	qsbr_poll(&dp->qsbr);
	count_add(&dp->gone.drop_no_session, firstq_age(&dp->firstq, now, &empty));
	if (dp->qsbr.head)
		loop_timer_set(dp->control, &dp->timer, now + TICK_MS * NS_PER_MS);
	else if (!empty)
		loop_timer_set(dp->control, &dp->timer, now + AGE_MS * NS_PER_MS);
}

void dp_tick_within(struct dp *dp, uint64_t ns)
{
	uint64_t at = loop_now(dp->control) + ns;

	if (dp->timer.at > at)
		loop_timer_set(dp->control, &dp->timer, at);
}

static void retire(struct dp *dp, struct qsbr_retired *r, void (*fn)(struct qsbr_retired *))
{
	qsbr_retire(&dp->qsbr, r, fn);
	dp_tick_within(dp, TICK_MS * NS_PER_MS);
}

/* What was removed and is in no table any more goes to its grace period. */
static void sweep(struct dp *dp)
{
	for (struct sess **at = &dp->sessions; *at;) {
		struct sess *s = *at;

		if (!atomic_load(&s->dead)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		retire(dp, &s->retired, sess_retired);
	}
	for (struct link **at = &dp->links; *at;) {
		struct link *l = *at;

		if (!atomic_load(&l->dead)) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		retire(dp, &l->retired, link_retired);
	}
}

/*
 * A new table from the lists. Without memory the old one stays: additions fail, while removals work all the
 * same, as workers heed `dead`, and are swept by the next table.
 */
static int publish(struct dp *dp)
{
	struct table *t = table_new(dp->sessions, dp->links, dp->seed), *old;

	if (!t)
		return ERR_NOMEM;
	old = atomic_exchange_explicit(&dp->table, t, memory_order_acq_rel);
	if (old)
		retire(dp, &old->retired, table_retired);
	sweep(dp);
	return 0;
}

static struct link **link_at(struct dp *dp, uint32_t id)
{
	struct link **at = &dp->links;

	while (*at && ((*at)->cfg.id != id || atomic_load(&(*at)->dead)))
		at = &(*at)->next;
	return at;
}

static struct sess **sess_at(struct dp *dp, uint32_t id)
{
	struct sess **at = &dp->sessions;

	while (*at && ((*at)->id != id || atomic_load(&(*at)->dead)))
		at = &(*at)->next;
	return at;
}

/* ---- start and end ---- */

static int check_config(const struct dp_config *cfg, struct err *e)
{
	if (cfg->nworkers < 1 || cfg->nworkers > 16)
		return err_set(e, ERR_CONFIG, "the data path runs 1 to 16 workers, not %u", cfg->nworkers);
	if (cfg->nself_also > DP_SELF_ALSO)
		return err_set(e, ERR_LIMIT, "at most %d further own addresses", DP_SELF_ALSO);
	return 0;
}

static void set_config(struct dp *dp, const struct dp_config *cfg)
{
	dp->ops = *cfg->ops;
	dp->arg = cfg->arg;
	dp->control = cfg->control;
	dp->nworkers = cfg->nworkers;
	dp->udp_family = cfg->udp_family;
	memcpy(dp->self, cfg->self, 16);
	dp->self_label = get_u64(cfg->self + 8);
	dp->nself_also = cfg->nself_also;
	memcpy(dp->self_also, cfg->self_also, sizeof(dp->self_also));
	loop_timer_init(&dp->timer, tick, dp);
	loop_random(dp->control, &dp->seed, sizeof(dp->seed));
	firstq_init(&dp->firstq, dp->seed);
	qsbr_init(&dp->qsbr, dp->nworkers);
}

int dp_make(const struct dp_config *cfg, struct dp **ret, struct err *e)
{
	struct dp *dp;
	int r = check_config(cfg, e);

	if (r)
		return r;
	dp = aligned_alloc(64, (sizeof(*dp) + 63) / 64 * 64);
	if (!dp)
		return err_set(e, ERR_NOMEM, "out of memory for the data path");
	memset(dp, 0, sizeof(*dp));
	set_config(dp, cfg);
	dp->events = calloc(1, sizeof(*dp->events));
	dp->worker = aligned_alloc(64, (dp->nworkers * sizeof(*dp->worker) + 63) / 64 * 64);
	if (dp->worker) {
		memset(dp->worker, 0, dp->nworkers * sizeof(*dp->worker));
		for (unsigned i = 0; i < dp->nworkers; i++)
			dp->worker[i].wake = -1;
	}
	if (!dp->events || !dp->worker || publish(dp) != 0) {
		dp_free(dp);
		return err_set(e, ERR_NOMEM, "out of memory for the data path");
	}
	dp->events->dp = dp;
	for (unsigned i = 0; !r && i < dp->nworkers; i++)
		r = worker_init(&dp->worker[i], dp, i, cfg, e);
	if (r) {
		dp_free(dp);
		return r;
	}
	*ret = dp;
	return 0;
}

int dp_new(const struct dp_config *cfg, struct dp **ret, struct err *e)
{
	struct dp *dp;
	int r = dp_make(cfg, &dp, e);

	if (r)
		return r;
	for (unsigned i = 0; !r && i < dp->nworkers; i++) {
		r = worker_start(&dp->worker[i], e);
		dp->nstarted += r == 0;
	}
	if (r) {
		dp_free(dp);
		return r;
	}
	*ret = dp;
	return 0;
}

struct dp *dp_free(struct dp *dp)
{
	if (!dp)
		return NULL;
	atomic_store(&dp->stop, true);
	for (unsigned i = 0; i < dp->nstarted; i++)
		worker_wake(&dp->worker[i]);
	for (unsigned i = 0; i < dp->nstarted; i++)
		pthread_join(dp->worker[i].thread, NULL);
	for (unsigned i = 0; dp->worker && i < dp->nworkers; i++)
		worker_fini(&dp->worker[i]);
	loop_timer_cancel(dp->control, &dp->timer);
	if (dp->events) {
		dp->events->dp =
			NULL; /* events still on their way find nobody; the last one frees the pool */
		if (atomic_load(&dp->events->posted) == 0)
			free(dp->events);
	}
	qsbr_fini(&dp->qsbr);
	table_free(atomic_load(&dp->table));
	while (dp->sessions) {
		struct sess *s = dp->sessions;

		dp->sessions = s->next;
		table_sess_free(s);
	}
	while (dp->links) {
		struct link *l = dp->links;

		dp->links = l->next;
		link_free(l);
	}
	firstq_fini(&dp->firstq);
	free(dp->worker);
	free(dp);
	return NULL;
}

/* ---- links ---- */

static struct path *path_new(struct dp *dp, const struct endpoint *to, unsigned frame_max)
{
	struct path *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->to = *to;
	p->frame_max = frame_max < FRAME_LEAST ? FRAME_LEAST : frame_max > FRAME_MAX ? FRAME_MAX : frame_max;
	p->ss_len = endpoint_to_sockaddr(to, dp->udp_family, &p->ss);
	return p;
}

int dp_link_add(struct dp *dp, const struct dp_link *cfg, struct err *e)
{
	struct link *l;

	for (l = dp->links; l; l = l->next) {
		if (!atomic_load(&l->dead) && (l->cfg.id == cfg->id || l->cfg.rx_index == cfg->rx_index))
			return err_set(e, ERR_CONFLICT, "link %u or its index is in use", cfg->id);
	}
	l = calloc(1, sizeof(*l));
	if (l)
		atomic_init(&l->path, path_new(dp, &cfg->to, cfg->frame_max));
	if (!l || !atomic_load(&l->path)) {
		free(l);
		return err_set(e, ERR_NOMEM, "out of memory for a link");
	}
	l->cfg = *cfg;
	l->next = dp->links;
	dp->links = l;
	if (publish(dp) != 0) {
		dp->links = l->next;
		link_free(l);
		return err_set(e, ERR_NOMEM, "out of memory for a link");
	}
	return 0;
}

int dp_link_path(struct dp *dp, uint32_t id, const struct endpoint *to, unsigned frame_max)
{
	struct link *l = *link_at(dp, id);
	struct path *p, *old;

	if (!l)
		return ERR_NOT_FOUND;
	p = path_new(dp, to, frame_max);
	if (!p)
		return ERR_NOMEM;
	old = atomic_exchange_explicit(&l->path, p, memory_order_acq_rel);
	retire(dp, &old->retired, path_retired);
	return 0;
}

void dp_link_remove(struct dp *dp, uint32_t id)
{
	struct link *l = *link_at(dp, id);

	if (!l)
		return;
	for (struct sess *s = dp->sessions; s; s = s->next) {
		if (atomic_load(&s->link) == l)
			atomic_store_explicit(&s->link, NULL, memory_order_release);
	}
	atomic_store(&l->dead, true);
	publish(dp);
}

/* ---- sessions ---- */

uint32_t dp_index_new(struct dp *dp, unsigned worker, struct rng *rng)
{
	const struct table *t = atomic_load(
		&dp->table); /* the control thread's own: nobody else retires it */
	uint32_t index;

	do
		index = (uint32_t)rng_u64(rng) << 8 | (worker & 0xff);
	while (index >> 8 == 0 || table_lane(t, index));
	return index;
}

static int check_session(struct dp *dp, const struct dp_session *s, struct err *e)
{
	if (s->nrx < 1 || s->nrx > LANES_MAX || s->ntx < 1 || s->ntx > LANES_MAX ||
	    s->nprovides > ARRAY_SIZE(s->provides))
		return err_set(e, ERR_LIMIT, "a session has 1 to %d lanes each way and at most %zu prefixes",
			       LANES_MAX, ARRAY_SIZE(s->provides));
	if (*sess_at(dp, s->id))
		return err_set(e, ERR_CONFLICT, "session %u exists", s->id);
	for (unsigned i = 0; i < s->nrx; i++) {
		if (index_worker(s->rx[i].index) >= dp->nworkers ||
		    table_lane(atomic_load(&dp->table), s->rx[i].index))
			return err_set(e, ERR_CONFLICT, "session index %08x is in use or names no worker",
				       s->rx[i].index);
	}
	if (!*link_at(dp, s->link))
		return err_set(e, ERR_NOT_FOUND, "session %u: no link %u", s->id, s->link);
	return 0;
}

int dp_session_add(struct dp *dp, struct dp_session *cfg, struct err *e)
{
	struct sess *s = NULL;
	int r = check_session(dp, cfg, e);

	if (!r) {
		s = table_sess_new(cfg, *link_at(dp, cfg->link), dp->nworkers);
		if (!s)
			r = err_set(e, ERR_NOMEM, "out of memory for a session");
	}
	secret_wipe(cfg->rx, sizeof(cfg->rx));
	secret_wipe(cfg->tx, sizeof(cfg->tx));
	if (r)
		return r;
	s->next = dp->sessions;
	dp->sessions = s;
	if (publish(dp) != 0) {
		dp->sessions = s->next;
		table_sess_free(s);
		return err_set(e, ERR_NOMEM, "out of memory for a session");
	}
	return 0;
}

/* Gives a list of waiting packets back to the workers that read them. */
static void hand_back(struct dp *dp, struct firstq_pkt *list)
{
	while (list) {
		struct firstq_pkt *p = list;
		struct worker *w = &dp->worker[p->worker];

		list = p->next;
		p->next = atomic_load(&w->inbox);
		while (!atomic_compare_exchange_weak(&w->inbox, &p->next, p))
			;
		worker_wake(w);
	}
}

int dp_session_use(struct dp *dp, uint32_t id)
{
	struct sess *s = *sess_at(dp, id);
	struct ip_prefix host = { .len = 128 };
	uint64_t before;

	if (!s)
		return ERR_NOT_FOUND;
	before = s->order;
	s->order = ++dp->orders;
	if (publish(dp) != 0) {
		s->order = before;
		return ERR_NOMEM;
	}
	memcpy(host.addr, s->peer, 16);
	hand_back(dp, firstq_take(&dp->firstq, &host));
	for (unsigned i = 0; i < s->nprovides; i++)
		hand_back(dp, firstq_take(&dp->firstq, &s->provides[i]));
	return 0;
}

void dp_session_remove(struct dp *dp, uint32_t id)
{
	struct sess *s = *sess_at(dp, id);

	if (!s)
		return;
	atomic_store(&s->dead, true);
	publish(dp);
}

void dp_unreachable(struct dp *dp, const uint8_t dst[16], uint64_t hold_ns)
{
	hand_back(dp, firstq_refuse(&dp->firstq, dst, loop_now(dp->control) + hold_ns));
	dp_tick_within(dp, AGE_MS * NS_PER_MS);
}

/* ---- numbers ---- */

static uint64_t peek(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int dp_session_stats(struct dp *dp, uint32_t id, struct dp_session_stats *ret)
{
	const struct sess *s = *sess_at(dp, id);
	struct dp_session_stats sum = { 0 };

	if (!s)
		return ERR_NOT_FOUND;
	for (unsigned i = 0; i < s->nworkers; i++) {
		const struct sess_stat *t = &s->stat[i];

		sum.tx_packets += peek(&t->tx_packets);
		sum.tx_bytes += peek(&t->tx_bytes);
		sum.rx_packets += peek(&t->rx_packets);
		sum.rx_bytes += peek(&t->rx_bytes);
		sum.auth_failures += peek(&t->auth_failures);
		sum.replays += peek(&t->replays);
		sum.last_rx = later(sum.last_rx, peek(&t->last_rx));
		sum.last_tx = later(sum.last_tx, peek(&t->last_tx));
	}
	for (unsigned i = 0; i < s->ntx; i++)
		sum.tx_counter_max = later(sum.tx_counter_max, atomic_load(&s->tx[i].counter));
	*ret = sum;
	return 0;
}

void dp_counters(struct dp *dp, struct dp_counters *ret)
{
#define X(name, metric, help) ret->name = peek(&dp->gone.name);
#include "tunnel/counters.def"
#undef X
	for (unsigned i = 0; i < dp->nworkers; i++) {
#define X(name, metric, help) ret->name += peek(&dp->worker[i].count.name);
#include "tunnel/counters.def"
#undef X
	}
}
