/* SPDX-License-Identifier: Apache-2.0 */
/* What loop.c shares with the two drivers. Nobody else includes this. */
#ifndef X0_BASE_LOOP_INT_H
#define X0_BASE_LOOP_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/loop.h"
#include "base/rng.h"

struct loop_driver {
	void (*run)(struct loop *l);
	void (*run_until)(struct loop *l, uint64_t at); /* NULL: not with this driver */
	void (*wake)(struct loop *l); /* any thread: the loop looks at its tasks and its stop flag */
	uint64_t (*clock)(struct loop *l);
	int (*io_add)(struct loop *l, struct loop_io *io, unsigned events, struct err *e);
	int (*io_mod)(struct loop *l, struct loop_io *io, unsigned events);
	void (*io_del)(struct loop *l, struct loop_io *io);
	void (*free)(struct loop *l); /* the driver's struct and all it holds */
};

/* First member of each driver's own struct. */
struct loop {
	const struct loop_driver *driver;
	uint64_t now;
	struct rng rng;
	struct event_base *base; /* owned by the event driver; NULL else */

	struct loop_timer *heap;
	uint64_t order;
	struct loop_timer *due, *due_last; /* taken off the heap this turn, not yet fired */

	pthread_mutex_t lock; /* of the tasks */
	struct loop_task *tasks, **tasks_tail;
	_Atomic bool stop;
};

void loop_init(struct loop *l, const struct loop_driver *driver, uint64_t now);
void loop_fini(struct loop *l);
uint64_t loop_next_timer(const struct loop *l); /* NS_NEVER if none */
bool loop_has_tasks(struct loop *l);
/* One turn's work: the timers due at l->now, then the tasks posted so far. What these add waits for the next
 * turn. */
void loop_turn(struct loop *l);
/* Whether to leave run(); a stop counts once. */
bool loop_stopping(struct loop *l);

#endif
