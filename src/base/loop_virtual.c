/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the loop in virtual time
 *
 * Time jumps from timer to timer; randomness comes from a seed. The same seed and the same calls give the
 * same run on every machine, as fast as it computes. There are no fds: what a simulation sends goes through
 * timers and tasks.
 */
#include <stdlib.h>

#include "base/loop_int.h"

/* Advances to the next timer, not beyond `until`; false if there is nothing left to do. */
static bool step(struct loop *l, uint64_t until)
{
	uint64_t next = loop_next_timer(l);

	if (!loop_has_tasks(l)) {
		if (next == NS_NEVER || next > until)
			return false;
		if (next > l->now)
			l->now = next;
	}
	loop_turn(l);
	return true;
}

static void virtual_run(struct loop *l)
{
	while (!loop_stopping(l) && step(l, NS_NEVER))
		;
}

static void virtual_run_until(struct loop *l, uint64_t at)
{
	while (step(l, at))
		if (loop_stopping(l))
			return;
	if (at > l->now)
		l->now = at;
}

static void virtual_wake(struct loop *l)
{
	(void)l; /* it never sleeps */
}

static uint64_t virtual_clock(struct loop *l)
{
	return l->now;
}

static int virtual_io_add(struct loop *l, struct loop_io *io, unsigned events, struct err *e)
{
	(void)l;
	(void)events;
	return err_set(e, ERR_UNSUPPORTED, "virtual time has no files (fd %d)", io->fd);
}

static void virtual_free(struct loop *l)
{
	loop_fini(l);
	free(l);
}

/* io_mod and io_del are never reached: no io is ever added. */
static const struct loop_driver virtual_driver = {
	.run = virtual_run,
	.run_until = virtual_run_until,
	.wake = virtual_wake,
	.clock = virtual_clock,
	.io_add = virtual_io_add,
	.free = virtual_free,
};

struct loop *loop_new_virtual(uint64_t start, uint64_t seed)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	loop_init(l, &virtual_driver, start);
	rng_init_seeded(&l->rng, seed);
	return l;
}
