/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet in two frames: where the path takes less than a whole inner packet. The parts have consecutive
 * counters of one lane and come in any order; a ring of slots keyed by the first one's counter holds what
 * waits, newer ones push older ones out. Only authenticated parts get here.
 */
#ifndef X0_TUNNEL_SPLIT_H
#define X0_TUNNEL_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPLIT_SLOTS = 16, SPLIT_PART_MAX = 1500, SPLIT_HEADROOM = 64 };

struct split_slot {
	uint64_t first;					  /* counter of the first part */
	uint16_t n[2];					  /* bytes of each part, 0: not here yet */
	uint8_t buf[SPLIT_HEADROOM + 2 * SPLIT_PART_MAX]; /* both parts meet at one fixed point */
};

struct split {
	struct split_slot slot[SPLIT_SLOTS]; /* zeroed: empty */
};

/*
 * Takes a part (without its code byte). Returns the whole packet when it is the missing one: valid until the
 * next call, SPLIT_HEADROOM writable bytes before it. Else NULL; *dropped grows by the parts that were given
 * up.
 */
uint8_t *split_add(struct split *s, uint64_t counter, bool second, const uint8_t *p, size_t n, size_t *ret_n,
		   unsigned *dropped);

#endif
