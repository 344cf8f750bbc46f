/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: workers
 *
 * One thread per core: turns of receiving and sending while there is anything, then offline (base/qsbr.h) and
 * asleep in poll(). Between two turns it holds no pointer into a snapshot.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tunnel/dp.h"

enum { BUFS = RX_MSGS * RX_BYTES + TXB_MSGS * TXB_BYTES + TUN_BYTES };

static void report_too_big(void *arg, uint32_t link)
{
	struct worker *w = arg;

	/* Every batch until the search ends would say so: ten times a second is enough. */
	if (w->too_big_at && w->now < w->too_big_at + 100 * NS_PER_MS)
		return;
	if (worker_event(w, EV_TOO_BIG, link, NULL, NULL))
		w->too_big_at = w->now;
}

int worker_init(struct worker *w, struct dp *dp, unsigned id, const struct dp_config *cfg, struct err *e)
{
	w->dp = dp;
	w->id = id;
	w->tun = cfg->tun_fd[id];
	w->udp = cfg->udp_fd[id];
	w->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->wake < 0)
		return err_sys(e, "cannot make an eventfd for worker %u", id);
	w->bufs = mmap(NULL, BUFS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->bufs == MAP_FAILED) {
		w->bufs = NULL;
		return err_sys(e, "cannot map the buffers of worker %u", id);
	}
	w->rx_buf = w->bufs;
	/* The IP header behind the vnet header lies on a 16-byte boundary. */
	w->tun_buf = w->bufs + RX_MSGS * RX_BYTES + TXB_MSGS * TXB_BYTES + (16 - VNET_LEN);
	txb_init(&w->txb, w->udp, w->bufs + RX_MSGS * RX_BYTES, &w->count, report_too_big, w);
	co_init(&w->co, cfg->tun_uso, tun_write, w);
	return 0;
}

void worker_fini(struct worker *w)
{
	struct handover *h = atomic_load(&w->handed);

	firstq_list_free(atomic_load(&w->inbox));
	while (h) {
		struct handover *next = h->next;

		free(h);
		h = next;
	}
	if (w->bufs)
		munmap(w->bufs, BUFS);
	if (w->wake >= 0)
		close(w->wake);
}

void worker_wake(struct worker *w)
{
	uint64_t one = 1;

	/* Full means it is about to wake anyway. */
	if (write(w->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_debug("tunnel", "cannot wake a worker", LU("worker", w->id));
}

/* ---- events ---- */

static void event_run(void *arg)
{
	struct event *v = arg;
	struct event_pool *pool = v->pool;
	struct dp *dp = pool->dp;
	enum event_kind kind = v->kind;
	struct endpoint from = v->from;
	uint32_t id = v->id;
	uint8_t dst[16];

	memcpy(dst, v->dst, 16);
	atomic_store_explicit(&v->busy, false, memory_order_release);
	if (atomic_fetch_sub(&pool->posted, 1) == 1 && !dp)
		free(pool);
	if (!dp)
		return;
	if (kind == EV_NEED_SESSION)
		dp_tick_within(dp, NS_PER_S); /* what waits now may grow old */
	if (kind == EV_NEED_SESSION && dp->ops.need_session)
		dp->ops.need_session(dp->arg, dst);
	else if (kind == EV_PATH_SEEN && dp->ops.path_seen)
		dp->ops.path_seen(dp->arg, id, &from);
	else if (kind == EV_SPENT && dp->ops.session_spent)
		dp->ops.session_spent(dp->arg, id);
	else if (kind == EV_TOO_BIG && dp->ops.path_too_big)
		dp->ops.path_too_big(dp->arg, id);
}

bool worker_event(struct worker *w, enum event_kind kind, uint32_t id, const uint8_t *dst,
		  const struct endpoint *from)
{
	struct event_pool *pool = w->dp->events;

	for (unsigned i = 0; i < EVENTS; i++) {
		struct event *v = &pool->event[i];
		bool idle = false;

		if (!atomic_compare_exchange_strong_explicit(&v->busy, &idle, true, memory_order_acquire,
							     memory_order_relaxed))
			continue;
		v->kind = kind;
		v->id = id;
		if (dst)
			memcpy(v->dst, dst, 16);
		if (from)
			v->from = *from;
		v->pool = pool;
		v->task = (struct loop_task){ .fn = event_run, .arg = v };
		atomic_fetch_add(&pool->posted, 1);
		loop_post(w->dp->control, &v->task);
		return true;
	}
	return false;
}

/* ---- the thread ---- */

unsigned worker_turn(struct worker *w)
{
	w->now = clock_mono_ns();
	w->table = atomic_load_explicit(&w->dp->table, memory_order_acquire);
	w->last_sess = NULL;
	return pipeline_rx(w) + pipeline_tx(w) +
	       (atomic_load_explicit(&w->inbox, memory_order_relaxed) ? pipeline_inbox(w) : 0) +
	       (atomic_load_explicit(&w->handed, memory_order_relaxed) ? pipeline_handed(w) : 0);
}

static void sleep_until_work(struct worker *w)
{
	struct pollfd p[3] = { { .fd = w->udp, .events = POLLIN },
			       { .fd = w->tun, .events = POLLIN },
			       { .fd = w->wake, .events = POLLIN } };
	uint64_t n;

	if (poll(p, 3, -1) < 0)
		return;
	if (p[2].revents && read(w->wake, &n, sizeof(n)) < 0)
		return;
	/* The device is gone: only frames and the end of this thread can still come. */
	if (p[1].revents & (POLLERR | POLLNVAL) && !(p[1].revents & POLLIN))
		w->tun = -1;
}

static void *run(void *arg)
{
	struct worker *w = arg;
	struct dp *dp = w->dp;
	char name[16];

	snprintf(name, sizeof(name), "x0-worker-%u", w->id);
	pthread_setname_np(pthread_self(), name);
	while (!atomic_load_explicit(&dp->stop, memory_order_relaxed)) {
		qsbr_online(&dp->qsbr, w->id);
		while (worker_turn(w) && !atomic_load_explicit(&dp->stop, memory_order_relaxed))
			qsbr_quiescent(&dp->qsbr, w->id);
		qsbr_offline(&dp->qsbr, w->id);
		sleep_until_work(w);
	}
	return NULL;
}

int worker_start(struct worker *w, struct err *e)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the control thread's */
	error = pthread_create(&w->thread, NULL, run, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error) {
		errno = error;
		return err_sys(e, "cannot start worker %u", w->id);
	}
	return 0;
}
