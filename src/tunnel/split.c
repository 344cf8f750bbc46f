/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/split.h"

#include <string.h>

uint8_t *split_add(struct split *s, uint64_t counter, bool second, const uint8_t *p, size_t n, size_t *ret_n,
		   unsigned *dropped)
{
	const size_t meet = SPLIT_HEADROOM + SPLIT_PART_MAX;
	uint64_t first = counter - second;
	size_t at;
	struct split_slot *t = &s->slot[first / 2 % SPLIT_SLOTS];
	bool taken = t->n[0] || t->n[1];

	if (n == 0 || n > SPLIT_PART_MAX || (second && counter == 0) || (taken && t->first > first)) {
		(*dropped)++;
		return NULL;
	}
	if (taken && (t->first != first || t->n[second])) {
		*dropped += (t->n[0] != 0) + (t->n[1] != 0);
		t->n[0] = t->n[1] = 0;
	}
	t->first = first;
	t->n[second] = (uint16_t)n;
	memcpy(t->buf + (second ? meet : meet - n), p, n);
	if (!t->n[0] || !t->n[1])
		return NULL;
	at = meet - t->n[0];
	*ret_n = (size_t)t->n[0] + t->n[1];
	t->n[0] = t->n[1] = 0;
	return t->buf + at;
}
