/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the loop, what both drivers share
 *
 * Timers: an intrusive pairing heap (Fredman, Sedgewick, Sleator, Tarjan: "The pairing heap", 1986) ordered
 * by (time, order of arming). Arming is O(1) and never allocates, firing and cancelling are O(log n)
 * amortised, so 10,000 sessions with a handful of timers each cost nothing while they wait.
 *
 * A turn takes what is due off the heap first and then fires it: a callback that arms a timer in the past is
 * served next turn, after the ios, and cannot starve them. Callbacks may arm or cancel any timer, themselves
 * included, and free their own struct.
 *
 * Tasks: a list under a mutex; the poster wakes the driver when the list was empty.
 */
#include "base/loop.h"

#include <stdlib.h>
#include <time.h>

#include "base/loop_int.h"

enum { TIMER_IDLE, TIMER_HEAP, TIMER_DUE };

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

/* Two roots become one: the later is the first child of the earlier. prev is the left sibling, or the parent.
 */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
	if (!a || !b)
		return a ? a : b;
	if (before(b, a)) {
		struct loop_timer *t = a;

		a = b;
		b = t;
	}
	b->prev = a;
	b->next = a->child;
	if (b->next)
		b->next->prev = b;
	a->child = b;
	a->next = a->prev = NULL;
	return a;
}

/* The two passes over a removed root's children: left to right in pairs, then right to left into one. */
static struct loop_timer *meld_all(struct loop_timer *first)
{
	struct loop_timer *pairs = NULL, *root = NULL;

	while (first) {
		struct loop_timer *a = first, *b = a->next;

		first = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		a = meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct loop_timer *next = pairs->next;

		pairs->next = NULL;
		root = meld(root, pairs);
		pairs = next;
	}
	return root;
}

static void heap_remove(struct loop *l, struct loop_timer *t)
{
	struct loop_timer *rest = meld_all(t->child);

	t->child = NULL;
	if (t == l->heap) {
		l->heap = rest;
	} else {
		if (t->prev->child == t)
			t->prev->child = t->next;
		else
			t->prev->next = t->next;
		if (t->next)
			t->next->prev = t->prev;
		l->heap = meld(l->heap, rest);
	}
	t->next = t->prev = NULL;
	t->where = TIMER_IDLE;
}

static void due_remove(struct loop *l, struct loop_timer *t)
{
	if (t->prev)
		t->prev->next = t->next;
	else
		l->due = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		l->due_last = t->prev;
	t->next = t->prev = NULL;
	t->where = TIMER_IDLE;
}

void loop_timer_init(struct loop_timer *t, void (*fn)(void *arg, uint64_t now), void *arg)
{
	*t = (struct loop_timer){ .fn = fn, .arg = arg, .at = NS_NEVER };
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	if (t->where == TIMER_HEAP)
		heap_remove(l, t);
	else if (t->where == TIMER_DUE)
		due_remove(l, t);
	t->at = NS_NEVER;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at)
{
	loop_timer_cancel(l, t);
	if (at == NS_NEVER)
		return;
	t->at = at;
	t->order = l->order++;
	t->where = TIMER_HEAP;
	l->heap = meld(l->heap, t);
}

uint64_t loop_next_timer(const struct loop *l)
{
	return l->heap ? l->heap->at : NS_NEVER;
}

static void timers_run(struct loop *l)
{
	while (l->heap && l->heap->at <= l->now) {
		struct loop_timer *t = l->heap;

		heap_remove(l, t);
		t->where = TIMER_DUE;
		t->prev = l->due_last;
		if (t->prev)
			t->prev->next = t;
		else
			l->due = t;
		l->due_last = t;
	}
	while (l->due) {
		struct loop_timer *t = l->due;

		due_remove(l, t);
		t->at = NS_NEVER;
		t->fn(t->arg, l->now);
	}
}

void loop_init(struct loop *l, const struct loop_driver *driver, uint64_t now)
{
	l->driver = driver;
	l->now = now;
	pthread_mutex_init(&l->lock, NULL);
	l->tasks_tail = &l->tasks;
}

void loop_fini(struct loop *l)
{
	pthread_mutex_destroy(&l->lock);
}

struct loop *loop_free(struct loop *l)
{
	if (l)
		l->driver->free(l);
	return NULL;
}

void loop_post(struct loop *l, struct loop_task *t)
{
	bool first;

	t->next = NULL;
	pthread_mutex_lock(&l->lock);
	first = !l->tasks;
	*l->tasks_tail = t;
	l->tasks_tail = &t->next;
	/* Inside the lock: once a task can run, its poster may be told to free the loop. */
	if (first)
		l->driver->wake(l);
	pthread_mutex_unlock(&l->lock);
}

bool loop_has_tasks(struct loop *l)
{
	bool some;

	pthread_mutex_lock(&l->lock);
	some = l->tasks;
	pthread_mutex_unlock(&l->lock);
	return some;
}

static void tasks_run(struct loop *l)
{
	struct loop_task *t;

	pthread_mutex_lock(&l->lock);
	t = l->tasks;
	l->tasks = NULL;
	l->tasks_tail = &l->tasks;
	pthread_mutex_unlock(&l->lock);
	while (t) {
		struct loop_task *next =
			t->next; /* the task may be freed or posted again by its own function */

		t->fn(t->arg);
		t = next;
	}
}

void loop_turn(struct loop *l)
{
	timers_run(l);
	tasks_run(l);
}

void loop_stop(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->stop, true);
	l->driver->wake(l);
	pthread_mutex_unlock(&l->lock);
}

bool loop_stopping(struct loop *l)
{
	/* The lock waits for a loop_stop() that is still waking us: after run() the loop may be freed. */
	if (!atomic_load(&l->stop))
		return false;
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->stop, false);
	pthread_mutex_unlock(&l->lock);
	return true;
}

void loop_run(struct loop *l)
{
	l->driver->run(l);
}

void loop_run_until(struct loop *l, uint64_t at)
{
	if (!l->driver->run_until)
		abort(); /* a program that confuses its drivers is wrong in every run */
	l->driver->run_until(l, at);
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

uint64_t loop_now_fresh(struct loop *l)
{
	l->now = l->driver->clock(l);
	return l->now;
}

void loop_random(struct loop *l, void *p, size_t n)
{
	rng_fill(&l->rng, p, n);
}

struct event_base *loop_event_base(struct loop *l)
{
	return l->base;
}

int loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		void (*fn)(void *, int, unsigned), void *arg, struct err *e)
{
	io->fn = fn;
	io->arg = arg;
	io->fd = fd;
	io->ev = NULL;
	return l->driver->io_add(l, io, events, e);
}

int loop_io_mod(struct loop *l, struct loop_io *io, unsigned events)
{
	return io->ev ? l->driver->io_mod(l, io, events) : ERR_USAGE;
}

void loop_io_del(struct loop *l, struct loop_io *io)
{
	if (io->ev)
		l->driver->io_del(l, io);
	io->ev = NULL;
}
