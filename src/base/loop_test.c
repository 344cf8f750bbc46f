/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/rng.h"

/* Both drivers must pass what is tested through make(). */
typedef struct loop *(*make_fn)(void);

static struct loop *make_event(void)
{
	struct err e = { 0 };
	struct loop *l = loop_new_event(&e);

	if (!l)
		fail_msg("%s", e.what);
	return l;
}

static struct loop *make_virtual(void)
{
	return loop_new_virtual(1000, 1);
}

static char trace[200];
static struct loop *the_loop;

struct named {
	struct loop_timer t;
	const char *name;
	struct loop_timer *cancels;
	uint64_t fired_at;
};

static void note(void *arg, uint64_t now)
{
	struct named *n = arg;

	strcat(trace, n->name);
	n->fired_at = now;
	if (n->cancels)
		loop_timer_cancel(the_loop, n->cancels);
	if (strcmp(n->name, "!") == 0)
		loop_stop(the_loop);
}

static void named_set(struct named *n, const char *name, uint64_t at)
{
	*n = (struct named){ .name = name };
	loop_timer_init(&n->t, note, n);
	loop_timer_set(the_loop, &n->t, at);
}

static void timers_fire_in_order(make_fn make)
{
	struct named n[8];
	uint64_t t0;

	the_loop = make();
	trace[0] = '\0';
	t0 = loop_now(the_loop);
	named_set(&n[0], "d", t0 + 4 * NS_PER_MS);
	named_set(&n[1], "a", t0); /* due already */
	named_set(&n[2], "c", t0 + 3 * NS_PER_MS);
	named_set(&n[3], "x", t0 + 2 * NS_PER_MS);
	named_set(&n[4], "c", t0 + 3 * NS_PER_MS);
	named_set(&n[5], "!", t0 + 6 * NS_PER_MS);
	named_set(&n[6], "e", t0 + 1);
	named_set(&n[7], "y", NS_NEVER);
	loop_timer_set(the_loop, &n[6].t, t0 + 5 * NS_PER_MS); /* moved */
	loop_timer_cancel(the_loop, &n[3].t);
	loop_timer_cancel(the_loop, &n[3].t);
	assert_true(n[3].t.at == NS_NEVER);
	loop_run(the_loop);
	assert_string_equal(trace, "accde!");
	assert_true(n[5].fired_at >= t0 + 6 * NS_PER_MS);
	assert_true(n[5].t.at == NS_NEVER);
	loop_free(the_loop);
}

/* Two timers due in one turn: the first cancels the second, which then must not fire. */
static void cancel_of_one_that_is_due(make_fn make)
{
	struct named a, b, c, d, end;
	uint64_t t0;

	the_loop = make();
	trace[0] = '\0';
	t0 = loop_now(the_loop);
	named_set(&a, "a", t0);
	named_set(&b, "b", t0);
	named_set(&c, "c", t0);
	named_set(&d, "d", t0);
	a.cancels = &b.t;
	c.cancels = &d.t; /* the last one of the turn */
	named_set(&end, "!", t0 + 1);
	loop_run(the_loop);
	assert_string_equal(trace, "ac!");
	/* From the middle and from the end of what is due. */
	trace[0] = '\0';
	named_set(&a, "a", t0);
	named_set(&b, "b", t0);
	named_set(&c, "c", t0);
	named_set(&d, "d", t0);
	a.cancels = &c.t;
	named_set(&end, "!", t0 + 1);
	loop_run(the_loop);
	assert_string_equal(trace, "abd!");
	trace[0] = '\0';
	named_set(&a, "a", t0);
	named_set(&b, "b", t0);
	named_set(&c, "c", t0);
	a.cancels = &c.t;
	named_set(&end, "!", t0 + 1);
	loop_run(the_loop);
	assert_string_equal(trace, "ab!");
	loop_free(the_loop);
}

struct again {
	struct loop_timer t;
	unsigned left, turns;
	struct loop_task task;
};

static void again_fn(void *arg, uint64_t now)
{
	struct again *a = arg;

	(void)now;
	if (--a->left)
		loop_timer_set(the_loop, &a->t, 0); /* long past */
	else
		loop_stop(the_loop);
}

static void again_task(void *arg)
{
	struct again *a = arg;

	a->turns++;
	if (a->left)
		loop_post(the_loop, &a->task);
}

/* Timers armed in the past do not starve the rest: tasks get every other turn. */
static void past_timers_wait_for_the_next_turn(make_fn make)
{
	struct again a = { .left = 50 };

	the_loop = make();
	loop_timer_init(&a.t, again_fn, &a);
	a.task = (struct loop_task){ .fn = again_task, .arg = &a };
	loop_timer_set(the_loop, &a.t, 0);
	loop_post(the_loop, &a.task);
	loop_run(the_loop);
	assert_int_equal(a.left, 0);
	assert_true(a.turns >= 49);
	loop_free(the_loop);
}

struct heavy {
	struct loop_timer t;
	bool armed, fired;
	uint64_t want;
};

static uint64_t last_fired;
static unsigned fired;

static void heavy_fn(void *arg, uint64_t now)
{
	struct heavy *h = arg;

	assert_true(h->armed);
	assert_false(h->fired);
	assert_true(h->want == now);
	assert_true(now >= last_fired);
	last_fired = now;
	h->fired = true;
	fired++;
}

/* Random arming, moving and cancelling against what each timer itself knows. */
static void heap_against_model(void **state)
{
	enum { N = 2000 };
	struct heavy *h = calloc(N, sizeof(*h));
	unsigned armed = 0;
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 42);
	the_loop = loop_new_virtual(0, 1);
	for (unsigned i = 0; i < N; i++)
		loop_timer_init(&h[i].t, heavy_fn, &h[i]);
	last_fired = 0;
	fired = 0;
	for (unsigned i = 0; i < 20 * N; i++) {
		struct heavy *x = &h[rng_below(&r, N)];

		x->armed = rng_below(&r, 3) != 0;
		x->want = 1 + rng_below(&r, 500);
		if (x->armed)
			loop_timer_set(the_loop, &x->t, x->want);
		else
			loop_timer_cancel(the_loop, &x->t);
	}
	for (unsigned i = 0; i < N; i++)
		armed += h[i].armed;
	loop_run_until(the_loop, 250);
	assert_true(loop_now(the_loop) == 250);
	assert_true(last_fired <= 250);
	/* Cancelling inside of a heap that has been restructured. */
	for (unsigned i = 0; i < N; i += 3)
		if (h[i].armed && !h[i].fired) {
			loop_timer_cancel(the_loop, &h[i].t);
			h[i].armed = false;
			armed--;
		}
	loop_run(the_loop);
	assert_int_equal(fired, armed);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(h[i].fired, h[i].armed);
	loop_free(the_loop);
	free(h);
}

static void virtual_time_jumps(void **state)
{
	struct named a, b;
	uint8_t x[32], y[32];

	(void)state;
	the_loop = loop_new_virtual(5, 9);
	trace[0] = '\0';
	assert_true(loop_now(the_loop) == 5);
	named_set(&a, "a", 3600 * NS_PER_S);
	named_set(&b, "b", 7200 * NS_PER_S);
	loop_run_until(the_loop, 3600 * NS_PER_S - 1);
	assert_string_equal(trace, "");
	loop_run_until(the_loop, 3600 * NS_PER_S);
	assert_string_equal(trace, "a");
	assert_true(loop_now_fresh(the_loop) == 3600 * NS_PER_S);
	loop_run_until(the_loop, 10); /* never backwards */
	assert_true(loop_now(the_loop) == 3600 * NS_PER_S);
	loop_run(the_loop);
	assert_string_equal(trace, "ab");
	assert_true(a.fired_at == 3600 * NS_PER_S && b.fired_at == 7200 * NS_PER_S);
	/* Stopped: time stays where it was. */
	named_set(&a, "!", 8000 * NS_PER_S);
	named_set(&b, "b", 8001 * NS_PER_S);
	loop_run_until(the_loop, 9000 * NS_PER_S);
	assert_true(loop_now(the_loop) == 8000 * NS_PER_S);
	assert_string_equal(trace, "ab!");

	loop_random(the_loop, x, sizeof(x));
	loop_free(the_loop);
	the_loop = loop_new_virtual(0, 9);
	loop_random(the_loop, y, sizeof(y));
	assert_memory_equal(x, y, sizeof(x));
	assert_null(loop_event_base(the_loop));
	struct loop_io io = { 0 };
	struct err e = { 0 };

	assert_int_equal(loop_io_add(the_loop, &io, 0, LOOP_READ, NULL, NULL, &e), ERR_UNSUPPORTED);
	assert_int_equal(loop_io_mod(the_loop, &io, LOOP_READ), ERR_USAGE);
	loop_io_del(the_loop, &io);
	assert_null(loop_free(the_loop));
	assert_null(loop_free(NULL));
}

/* ios of the event driver */

struct pipe_end {
	struct loop_io io;
	int fd[2];
	unsigned calls, events;
	char got[16];
	uint64_t now;
	struct pipe_end *deletes;
	int then;
};

enum { THEN_NOTHING, THEN_STOP, THEN_DELETE_SELF_AND_STOP };

static void on_readable(void *arg, int fd, unsigned events)
{
	struct pipe_end *p = arg;
	ssize_t n = read(fd, p->got, sizeof(p->got) - 1);

	p->got[n > 0 ? n : 0] = '\0';
	p->calls++;
	p->events = events;
	p->now = loop_now(the_loop);
	if (p->deletes)
		loop_io_del(the_loop, &p->deletes->io);
	if (p->then == THEN_DELETE_SELF_AND_STOP)
		loop_io_del(the_loop, &p->io);
	if (p->then != THEN_NOTHING)
		loop_stop(the_loop);
}

static void pipe_watch(struct pipe_end *p, int then)
{
	*p = (struct pipe_end){ .then = then };
	assert_int_equal(pipe2(p->fd, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(loop_io_add(the_loop, &p->io, p->fd[0], LOOP_READ, on_readable, p, NULL), 0);
}

static void pipe_close(struct pipe_end *p)
{
	loop_io_del(the_loop, &p->io);
	loop_io_del(the_loop, &p->io);
	close(p->fd[0]);
	close(p->fd[1]);
}

static void ios_report(void **state)
{
	struct pipe_end p, q;
	struct named end;
	uint64_t t0;

	(void)state;
	the_loop = make_event();
	assert_non_null(loop_event_base(the_loop));
	t0 = loop_now(the_loop);
	pipe_watch(&p, THEN_STOP);
	usleep(2000);
	assert_int_equal(write(p.fd[1], "hello", 5), 5);
	loop_run(the_loop);
	assert_int_equal(p.calls, 1);
	assert_int_equal(p.events, LOOP_READ);
	assert_string_equal(p.got, "hello");
	assert_true(p.now >=
		    t0 + 2 * NS_PER_MS); /* the callback sees this wake-up's time, not the last one's */

	/* Paused: data waits. */
	assert_int_equal(loop_io_mod(the_loop, &p.io, 0), 0);
	assert_int_equal(write(p.fd[1], "x", 1), 1);
	trace[0] = '\0';
	named_set(&end, "!", loop_now_fresh(the_loop) + 3 * NS_PER_MS);
	loop_run(the_loop);
	assert_int_equal(p.calls, 1);
	assert_int_equal(loop_io_mod(the_loop, &p.io, LOOP_READ), 0);
	p.then = THEN_DELETE_SELF_AND_STOP;
	loop_run(the_loop);
	assert_int_equal(p.calls, 2);
	assert_int_equal(loop_io_mod(the_loop, &p.io, LOOP_READ), ERR_USAGE);

	/* Two ready at once, each deleting the other: the one that comes second was not called. */
	pipe_close(&p);
	pipe_watch(&p, THEN_STOP);
	pipe_watch(&q, THEN_STOP);
	p.deletes = &q;
	q.deletes = &p;
	assert_int_equal(write(p.fd[1], "x", 1), 1);
	assert_int_equal(write(q.fd[1], "x", 1), 1);
	loop_run(the_loop);
	assert_int_equal(p.calls + q.calls, 1);
	pipe_close(&p);
	pipe_close(&q);
	loop_free(the_loop);
}

static void on_writable(void *arg, int fd, unsigned events)
{
	(void)fd;
	*(unsigned *)arg = events;
	loop_stop(the_loop);
}

static void ios_write_and_refuse(void **state)
{
	struct loop_io io = { 0 };
	struct err e = { 0 };
	unsigned events = 0;
	int fd[2], file;

	(void)state;
	the_loop = make_event();
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	assert_int_equal(loop_io_add(the_loop, &io, fd[1], LOOP_WRITE, on_writable, &events, &e), 0);
	loop_run(the_loop);
	assert_int_equal(events, LOOP_WRITE);
	loop_io_del(the_loop, &io);
	close(fd[0]);
	close(fd[1]);
	/* epoll does not take regular files: the caller hears of it, nothing is left half added. */
	file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_int_equal(loop_io_add(the_loop, &io, file, LOOP_READ, on_writable, &events, &e), ERR_SYS);
	assert_true(e.what[0]);
	assert_null(io.ev);
	loop_io_del(the_loop, &io);
	close(file);
	loop_free(the_loop);
}

static void timers_are_punctual(void **state)
{
	struct named a;
	uint64_t best = NS_NEVER;

	(void)state;
	the_loop = make_event();
	/* The best of some: how late one is says more about the machine's load than about the loop. */
	for (int i = 0; i < 10; i++) {
		uint64_t at = loop_now_fresh(the_loop) + 2500 * NS_PER_US;

		trace[0] = '\0';
		named_set(&a, "!", at);
		loop_run(the_loop);
		assert_true(a.fired_at >= at);
		if (a.fired_at - at < best)
			best = a.fired_at - at;
	}
	assert_true(best < 1 * NS_PER_MS);
	uint8_t x[16], y[16];

	loop_random(the_loop, x, sizeof(x));
	loop_random(the_loop, y, sizeof(y));
	assert_memory_not_equal(x, y, sizeof(x));
	loop_free(the_loop);
}

/* tasks from other threads */

enum { POSTERS = 4, POSTS = 5000 };

struct job {
	struct loop_task t;
	unsigned poster, seq;
};
static unsigned next_seq[POSTERS], ran;
static pthread_t loop_thread;

static void job_run(void *arg)
{
	struct job *j = arg;

	assert_true(pthread_equal(pthread_self(), loop_thread));
	assert_int_equal(j->seq, next_seq[j->poster]); /* in the poster's order */
	next_seq[j->poster]++;
	free(j);
	if (++ran == POSTERS * POSTS)
		loop_stop(the_loop);
}

static void *poster(void *arg)
{
	for (unsigned i = 0; i < POSTS; i++) {
		struct job *j = malloc(sizeof(*j));

		*j = (struct job){ .t = { .fn = job_run, .arg = j },
				   .poster = (unsigned)(uintptr_t)arg,
				   .seq = i };
		loop_post(the_loop, &j->t);
		if (i % 500 == 0)
			usleep(500); /* so that the loop sleeps now and then */
	}
	return NULL;
}

static void tasks_from_threads(void **state)
{
	pthread_t t[POSTERS];

	(void)state;
	the_loop = make_event();
	loop_thread = pthread_self();
	ran = 0;
	memset(next_seq, 0, sizeof(next_seq));
	for (uintptr_t i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, poster, (void *)i), 0);
	loop_run(the_loop);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(ran, POSTERS * POSTS);
	loop_free(the_loop);
}

static void *stopper(void *arg)
{
	usleep(3000);
	loop_stop(arg);
	return NULL;
}

static void cancel_task(void *arg)
{
	loop_timer_cancel(the_loop, arg);
}

static void *canceller(void *arg)
{
	usleep(2000);
	loop_post(the_loop, arg);
	usleep(20000);
	loop_stop(the_loop);
	return NULL;
}

/* The only timer is cancelled while the loop sleeps until it. */
static void cancel_while_asleep(void **state)
{
	struct named a;
	struct loop_task t = { .fn = cancel_task, .arg = &a.t };
	pthread_t th;

	(void)state;
	the_loop = make_event();
	trace[0] = '\0';
	named_set(&a, "a", loop_now(the_loop) + 15 * NS_PER_MS);
	assert_int_equal(pthread_create(&th, NULL, canceller, &t), 0);
	loop_run(the_loop);
	pthread_join(th, NULL);
	assert_string_equal(trace, "");
	loop_free(the_loop);
}

static void stop_from_a_thread_and_before_run(void **state)
{
	pthread_t t;

	(void)state;
	the_loop = make_event();
	assert_int_equal(pthread_create(&t, NULL, stopper, the_loop), 0);
	loop_run(the_loop); /* no timer, no io: only the stop ends it */
	pthread_join(t, NULL);
	loop_stop(the_loop);
	loop_run(the_loop); /* a stop that came first counts */
	loop_free(the_loop);
}

/* Out of fds at each point of the construction: an error that says so, and nothing leaks. */
static void no_fds_left(void **state)
{
	struct rlimit old, tight;
	struct err e;
	struct loop *l = NULL;
	int lowest = dup(0);
	unsigned failures = 0;

	(void)state;
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (rlim_t room = 0; !l && room < 16; room++) {
		tight = (struct rlimit){ (rlim_t)lowest + room, old.rlim_max };
		e = (struct err){ 0 };
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
		l = loop_new_event(&e);
		setrlimit(RLIMIT_NOFILE, &old);
		if (!l) {
			failures++;
			assert_true(e.code < 0 && e.what[0]);
		}
		int again = dup(0);

		close(again);
		if (!l)
			assert_int_equal(again, lowest);
	}
	assert_non_null(l);
	assert_true(failures >= 2); /* the eventfd, then epoll */
	loop_free(l);
}

static void clocks(void **state)
{
	uint64_t a = clock_mono_ns();

	(void)state;
	assert_true(clock_mono_ns() >= a);
	assert_true(clock_wall_ns() > 1600000000ull * NS_PER_S);
}

static void order_event(void **state)
{
	(void)state;
	timers_fire_in_order(make_event);
	cancel_of_one_that_is_due(make_event);
	past_timers_wait_for_the_next_turn(make_event);
}

static void order_virtual(void **state)
{
	(void)state;
	timers_fire_in_order(make_virtual);
	cancel_of_one_that_is_due(make_virtual);
	past_timers_wait_for_the_next_turn(make_virtual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_event),	       cmocka_unit_test(order_virtual),
		cmocka_unit_test(heap_against_model),  cmocka_unit_test(virtual_time_jumps),
		cmocka_unit_test(ios_report),	       cmocka_unit_test(ios_write_and_refuse),
		cmocka_unit_test(timers_are_punctual), cmocka_unit_test(tasks_from_threads),
		cmocka_unit_test(cancel_while_asleep), cmocka_unit_test(stop_from_a_thread_and_before_run),
		cmocka_unit_test(no_fds_left),	       cmocka_unit_test(clocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
