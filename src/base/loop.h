/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: fds, timers, now, random, and tasks posted from other threads. Two drivers behind one interface:
 * libevent with the real clock, and virtual time for tests and the simulator. Cores see only this (or just
 * `now` and `rng`).
 *
 * Times are nanoseconds of CLOCK_MONOTONIC (or virtual). All functions but loop_post() and loop_stop() belong
 * to the loop's own thread. Timers and ios are embedded in their owner's struct and must be cancelled before
 * it goes away.
 */
#ifndef X0_BASE_LOOP_H
#define X0_BASE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define NS_NEVER  UINT64_MAX

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop_timer {
	void (*fn)(void *arg, uint64_t now);
	void *arg;
	uint64_t at; /* NS_NEVER when not armed */
	/* private: ties fire in the order they were armed; the heap is made of the timers, so arming cannot
	 * fail */
	uint64_t order;
	struct loop_timer *child, *next, *prev;
	int where;
};

struct loop_io {
	void (*fn)(void *arg, int fd, unsigned events);
	void *arg;
	int fd;
	void *ev; /* private */
};

struct loop_task {
	void (*fn)(void *arg);
	void *arg;
	struct loop_task
		*next; /* private; a task is posted once and owned by the poster's struct until it ran */
};

struct loop *loop_new_event(struct err *e);
struct loop *loop_new_virtual(uint64_t start,
			      uint64_t seed); /* no fds; runs as fast as it can; NULL if out of memory */
struct loop *
loop_free(struct loop *l); /* returns NULL; ios are deleted by then, timers and tasks left are forgotten */

/* Until loop_stop(), which counts even before this call; virtual: until no timer and no task is left. */
void loop_run(struct loop *l);
void loop_run_until(struct loop *l, uint64_t at);    /* virtual only: now() is `at` afterwards */
void loop_stop(struct loop *l);			     /* any thread */
uint64_t loop_now(const struct loop *l);	     /* cached once per wake-up */
uint64_t loop_now_fresh(struct loop *l);	     /* reads the clock again */
void loop_random(struct loop *l, void *p, size_t n); /* getrandom(), or the seeded generator */

void loop_timer_init(struct loop_timer *t, void (*fn)(void *arg, uint64_t now), void *arg);
void loop_timer_set(struct loop *l, struct loop_timer *t,
		    uint64_t at);			      /* re-arms; `at` in the past fires next turn */
void loop_timer_cancel(struct loop *l, struct loop_timer *t); /* fine when not armed */

int loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		void (*fn)(void *, int, unsigned), void *arg, struct err *e);
int loop_io_mod(struct loop *l, struct loop_io *io, unsigned events);
void loop_io_del(struct loop *l, struct loop_io *io); /* fine when not added (zeroed struct) */

void loop_post(struct loop *l, struct loop_task *t); /* any thread: runs fn on the loop's thread, in order */

/* The event driver's struct event_base, for libevent's own HTTP and DNS on this thread; NULL for virtual
 * time. */
struct event_base *loop_event_base(struct loop *l);

uint64_t clock_mono_ns(void);
uint64_t clock_wall_ns(void); /* CLOCK_REALTIME, nanoseconds since 1970 */

#endif
