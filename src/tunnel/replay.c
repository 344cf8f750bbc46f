/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: replay window
 *
 * The ring has the smallest power of two of bits that holds the window, so that counters n and n - ring share
 * a bit and the older one is always outside. When the maximum moves from m to n, the bits of m+1 ... n are
 * cleared first: no ghost of an older round survives, however large the jump.
 */
#include "tunnel/replay.h"

#include <string.h>

#include "base/err.h"

int replay_init(struct replay *r, uint32_t window)
{
	uint32_t ring = 64;

	if (window == 0 || window > REPLAY_WINDOW_MAX)
		return ERR_LIMIT;
	while (ring < window)
		ring *= 2;
	memset(r, 0, sizeof(*r));
	r->window = window;
	r->mask = ring - 1;
	r->limit = REPLAY_LIMIT;
	return 0;
}

/* Clears the bits of counters from ... to, at most one round of them. */
static void clear_range(struct replay *r, uint64_t from, uint64_t to)
{
	if (to - from >= r->mask) {
		memset(r->bits, 0, (r->mask + 1) / 8);
		return;
	}
	while (from <= to) {
		uint64_t word_end = from | 63, last = to < word_end ? to : word_end;
		uint64_t n = last - from + 1;

		r->bits[(from & r->mask) >> 6] &= ~((n == 64 ? UINT64_MAX : (1ull << n) - 1) << (from & 63));
		from = last + 1;
	}
}

bool replay_take(struct replay *r, uint64_t n)
{
	if (!replay_ok(r, n))
		return false;
	if (n > r->max) {
		clear_range(r, r->max + 1, n);
		r->max = n;
	}
	r->bits[(n & r->mask) >> 6] |= 1ull << (n & 63);
	return true;
}
