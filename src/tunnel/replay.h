/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anti-replay window: a ring of bits over the last `window` counters (RFC 6479 in spirit, exact to the bit).
 * One writer. A counter is accepted once, if it is new and n > max - window, and below the limit; never
 * before its tag was checked: replay_ok() comes before the AEAD and changes nothing, replay_take() after it.
 */
#ifndef X0_TUNNEL_REPLAY_H
#define X0_TUNNEL_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPLAY_WINDOW_MAX = 8192 };
#define REPLAY_LIMIT (UINT64_MAX - REPLAY_WINDOW_MAX) /* first counter refused for ever */

struct replay {
	uint64_t max;	 /* largest counter taken; 0 before any */
	uint64_t limit;	 /* first counter refused; REPLAY_LIMIT unless the caller lowers it */
	uint32_t window; /* counters remembered */
	uint32_t mask;	 /* ring bits - 1 */
	uint64_t bits[REPLAY_WINDOW_MAX / 64];
};

/* window 1-8192, else ERR_LIMIT. */
int replay_init(struct replay *r, uint32_t window);

static inline bool replay_ok(const struct replay *r, uint64_t n)
{
	if (n >= r->limit)
		return false;
	if (n > r->max)
		return true;
	if (r->max - n >= r->window)
		return false;
	return !(r->bits[(n & r->mask) >> 6] >> (n & 63) & 1);
}

/* Marks n as seen. False, and nothing changed, if replay_ok() is false. */
bool replay_take(struct replay *r, uint64_t n);

#endif
