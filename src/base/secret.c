/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: secret bytes
 *
 * Secrets live in arenas of their own pages, which the kernel is asked to leave out of core dumps and out of
 * forked children's dumps alike (MADV_DONTDUMP). A page for each secret would cost 4 kB a key; arenas are cut
 * into units of 64 bytes, so that 1,000 sessions' keys fit into a few pages and no two secrets share a cache
 * line.
 *
 * Invariants: free units are zero; a unit belongs to one secret; freeing wipes everything that was handed
 * out, even if the owner shortened `n`. Arenas are kept for reuse until the process ends. Thread-safe.
 */
#include "base/secret.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"

enum { UNIT = 64, UNITS = 256, ARENA = UNIT * UNITS };

struct arena {
	struct arena *next;
	uint8_t *base;	     /* owned: ARENA bytes of their own pages */
	uint16_t run[UNITS]; /* at the first unit of a secret: how many units it has; else 0 */
	bool used[UNITS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct arena *arenas;

/* n is a multiple of UNIT; big secrets get pages of their own, with their size in a unit before them. */
static void *pages_new(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, n, MADV_DONTDUMP); /* a kernel that can't leaves them in the dump: nothing better to do */
	return p;
}

static uint8_t *arena_take(struct arena *a, size_t units)
{
	size_t free_run = 0;

	for (size_t i = 0; i < UNITS; i++) {
		free_run = a->used[i] ? 0 : free_run + 1;
		if (free_run == units) {
			size_t first = i + 1 - units;

			memset(a->used + first, true, units);
			a->run[first] = (uint16_t)units;
			return a->base + first * UNIT;
		}
	}
	return NULL;
}

static uint8_t *small_new(size_t units)
{
	struct arena *a;
	uint8_t *p = NULL;

	pthread_mutex_lock(&lock);
	for (a = arenas; a && !p; a = a->next)
		p = arena_take(a, units);
	if (!p && (a = calloc(1, sizeof(*a)))) {
		a->base = pages_new(ARENA);
		if (a->base) {
			a->next = arenas;
			arenas = a;
			p = arena_take(a, units);
		} else {
			free(a);
		}
	}
	pthread_mutex_unlock(&lock);
	return p;
}

/* Whether p was in an arena: then it is wiped and free. */
static bool small_free(uint8_t *p)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (struct arena *a = arenas; a && !found; a = a->next) {
		if ((uintptr_t)p < (uintptr_t)a->base || (uintptr_t)p >= (uintptr_t)a->base + ARENA)
			continue;
		size_t first = (size_t)(p - a->base) / UNIT;

		found = true;
		explicit_bzero(a->base + first * UNIT, (size_t)a->run[first] * UNIT);
		memset(a->used + first, false, a->run[first]);
		a->run[first] = 0;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

int secret_init(struct secret *s, size_t n)
{
	uint8_t *p = NULL;

	if (n > SIZE_MAX - 2 * UNIT)
		return ERR_NOMEM;
	if (n > ARENA / 4) {
		size_t whole = n + UNIT;

		p = pages_new(whole);
		if (!p)
			return ERR_NOMEM;
		memcpy(p, &whole, sizeof(whole));
		p += UNIT;
	} else if (n) {
		p = small_new((n + UNIT - 1) / UNIT);
		if (!p)
			return ERR_NOMEM;
	}
	s->p = p;
	s->n = n;
	return 0;
}

int secret_set(struct secret *s, const void *p, size_t n)
{
	int rc = secret_init(s, n);

	if (rc == 0 && n)
		memcpy(s->p, p, n);
	return rc;
}

void secret_fini(struct secret *s)
{
	if (s->p && !small_free(s->p)) {
		uint8_t *start = s->p - UNIT;
		size_t whole;

		memcpy(&whole, start, sizeof(whole));
		explicit_bzero(start, whole);
		munmap(start, whole);
	}
	s->p = NULL;
	s->n = 0;
}

bool secret_equal(const void *a, const void *b, size_t n)
{
	const volatile uint8_t *x = a, *y = b;
	unsigned diff = 0;

	for (size_t i = 0; i < n; i++)
		diff |= x[i] ^ y[i];
	return diff == 0;
}

void secret_wipe(void *p, size_t n)
{
	if (n)
		explicit_bzero(p, n);
}
