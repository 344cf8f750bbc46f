/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the loop over libevent and the real clock
 *
 * libevent watches the fds; timers stay in our heap and reach libevent as one event for the earliest of them,
 * so both drivers fire timers by the same code. Other threads wake the loop through an eventfd.
 *
 * `now` is read once per wake-up, by whatever comes first: an io callback or the turn.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop_int.h"
#include "base/util.h"

struct event_loop {
	struct loop l;
	struct event *timer;   /* owned: the earliest timer of the heap */
	uint64_t timer_at;     /* what it is set to, NS_NEVER if to nothing */
	struct event *wake_ev; /* owned */
	int wake_fd;	       /* owned */
	bool awake;	       /* `now` belongs to this wake-up */
};

/* What loop_io.ev points to: callbacks need the loop too. */
struct event_io {
	struct event *ev; /* owned */
	struct event_loop *el;
	struct loop_io *io;
};

static struct event_loop *event_loop_of(struct loop *l)
{
	return container_of(l, struct event_loop, l);
}

static void wake_up(struct event_loop *el)
{
	if (!el->awake) {
		el->l.now = clock_mono_ns();
		el->awake = true;
	}
}

static void on_log(int severity, const char *msg)
{
	log_debug("loop", "libevent", LI("severity", severity), LS("text", msg));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct event_loop *el = arg;

	(void)fd;
	(void)what;
	el->timer_at = NS_NEVER; /* the turn after this fires what is due */
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	uint64_t count;

	(void)what;
	(void)arg;
	/* Nothing to do about failure: EAGAIN means that somebody read it already. */
	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
	struct event_io *eio = arg;
	struct loop_io *io = eio->io;

	wake_up(eio->el);
	io->fn(io->arg, fd, (what & EV_READ ? LOOP_READ : 0u) | (what & EV_WRITE ? LOOP_WRITE : 0u));
}

/* Sets libevent's one timer to the heap's earliest; rounded up, since a microsecond early is a turn for
 * nothing. */
static void timer_arm(struct event_loop *el)
{
	uint64_t at = loop_next_timer(&el->l), now, us;
	struct timeval tv;

	if (at == el->timer_at)
		return;
	el->timer_at = at;
	if (at == NS_NEVER) {
		event_del(el->timer);
		return;
	}
	now = clock_mono_ns();
	us = at > now ? (at - now + NS_PER_US - 1) / NS_PER_US : 0;
	tv = (struct timeval){ .tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000) };
	if (event_add(el->timer, &tv) < 0)
		el->timer_at = NS_NEVER; /* tried again next turn, which then does not block */
}

static void event_run(struct loop *l)
{
	struct event_loop *el = event_loop_of(l);

	while (!loop_stopping(l)) {
		int flags = EVLOOP_ONCE;

		wake_up(el);
		loop_turn(l);
		timer_arm(el);
		if (loop_next_timer(l) <= l->now || loop_has_tasks(l) || el->timer_at != loop_next_timer(l))
			flags |= EVLOOP_NONBLOCK;
		el->awake = false;
		if (atomic_load(&l->stop))
			continue;
		event_base_loop(l->base, flags);
	}
	el->awake = false;
}

static void event_wake(struct loop *l)
{
	uint64_t one = 1;

	/* A full counter (EAGAIN) wakes as well. */
	while (write(event_loop_of(l)->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static uint64_t event_clock(struct loop *l)
{
	(void)l;
	return clock_mono_ns();
}

static short event_flags(unsigned events)
{
	return (short)((events & LOOP_READ ? EV_READ : 0) | (events & LOOP_WRITE ? EV_WRITE : 0) |
		       EV_PERSIST);
}

static int event_io_mod(struct loop *l, struct loop_io *io, unsigned events)
{
	struct event_io *eio = io->ev;

	event_del(eio->ev);
	if (!(events & (LOOP_READ | LOOP_WRITE)))
		return 0;
	if (event_assign(eio->ev, l->base, io->fd, event_flags(events), on_io, eio) < 0 ||
	    event_add(eio->ev, NULL) < 0)
		return ERR_SYS;
	return 0;
}

static void event_io_del(struct loop *l, struct loop_io *io)
{
	struct event_io *eio = io->ev;

	(void)l;
	event_free(eio->ev);
	free(eio);
}

static int event_io_add(struct loop *l, struct loop_io *io, unsigned events, struct err *e)
{
	struct event_io *eio = malloc(sizeof(*eio));
	int rc;

	if (!eio)
		return err_set(e, ERR_NOMEM, "out of memory watching fd %d", io->fd);
	*eio = (struct event_io){ .el = event_loop_of(l), .io = io };
	eio->ev = event_new(l->base, io->fd, event_flags(events), on_io, eio);
	if (!eio->ev) {
		free(eio);
		return err_set(e, ERR_NOMEM, "out of memory watching fd %d", io->fd);
	}
	io->ev = eio;
	rc = event_io_mod(l, io, events);
	if (rc < 0) {
		rc = err_sys(e, "cannot watch fd %d", io->fd);
		event_io_del(l, io);
		io->ev = NULL;
	}
	return rc;
}

static void event_loop_free(struct loop *l)
{
	struct event_loop *el = event_loop_of(l);

	if (el->timer)
		event_free(el->timer);
	if (el->wake_ev)
		event_free(el->wake_ev);
	if (l->base)
		event_base_free(l->base);
	if (el->wake_fd >= 0)
		close(el->wake_fd);
	loop_fini(l);
	free(el);
}

static const struct loop_driver event_driver = {
	.run = event_run,
	.wake = event_wake,
	.clock = event_clock,
	.io_add = event_io_add,
	.io_mod = event_io_mod,
	.io_del = event_io_del,
	.free = event_loop_free,
};

/*
 * libevent ends the process when it cannot make its signal pipe, so ask first: epoll, timerfd and the two
 * ends of the pipe. A thread that takes them in between meets libevent's exit; loops are made before there
 * are many.
 */
static bool fds_available(int fd)
{
	int probe[4];
	size_t n = 0;

	while (n < ARRAY_SIZE(probe) && (probe[n] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0)
		n++;
	int saved = errno;

	for (size_t i = 0; i < n; i++)
		close(probe[i]);
	errno = saved;
	return n == ARRAY_SIZE(probe);
}

/* A base for one thread, with timers finer than the tick of the coarse clock. */
static struct event_base *base_new(void)
{
	struct event_config *cfg = event_config_new();
	struct event_base *base = NULL;

	if (!cfg)
		return NULL;
	if (event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV |
					       EVENT_BASE_FLAG_PRECISE_TIMER) == 0)
		base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	return base;
}

struct loop *loop_new_event(struct err *e)
{
	struct event_loop *el = calloc(1, sizeof(*el));

	if (!el) {
		err_set(e, ERR_NOMEM, "out of memory making an event loop");
		return NULL;
	}
	loop_init(&el->l, &event_driver, clock_mono_ns());
	rng_init_system(&el->l.rng);
	el->timer_at = NS_NEVER;
	event_set_log_callback(on_log);
	el->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (el->wake_fd < 0 || !fds_available(el->wake_fd)) {
		err_sys(e, "cannot make an event loop");
		err_todo(e, "raise the limit of open files (ulimit -n, LimitNOFILE= of the unit)");
		goto fail;
	}
	el->l.base = base_new();
	if (!el->l.base) {
		err_set(e, ERR_SYS, "libevent cannot make an event base (memory or files are exhausted)");
		goto fail;
	}
	el->timer = event_new(el->l.base, -1, 0, on_timer, el);
	el->wake_ev = event_new(el->l.base, el->wake_fd, EV_READ | EV_PERSIST, on_wake, el);
	if (!el->timer || !el->wake_ev || event_add(el->wake_ev, NULL) < 0) {
		err_set(e, ERR_NOMEM, "out of memory making an event loop");
		goto fail;
	}
	return &el->l;
fail:
	event_loop_free(&el->l);
	return NULL;
}
