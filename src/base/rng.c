/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: random bytes as an argument
 *
 * Cores take a struct rng, so that the simulator repeats a run from its seed while the daemon uses the
 * kernel.
 *
 * Source of the seeded generator: xoshiro256** 1.0, seeded through splitmix64 (Blackman, Vigna). Not
 * cryptographic: only tests and the simulator make one. The system generator never returns less than asked: a
 * kernel without randomness ends the process, because every key made afterwards would be worthless.
 */
#include "base/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

static void fill_system(struct rng *r, void *p, size_t n)
{
	uint8_t *to = p;

	(void)r;
	while (n) {
		ssize_t got = getrandom(to, n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			abort();
		}
		to += got;
		n -= (size_t)got;
	}
}

static uint64_t rotl(uint64_t x, unsigned b)
{
	return x << b | x >> (64 - b);
}

static uint64_t xoshiro(uint64_t s[4])
{
	uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

/* Little-endian on every machine; a partial word costs a whole step. */
static void fill_seeded(struct rng *r, void *p, size_t n)
{
	uint8_t *to = p;

	while (n) {
		uint64_t v = xoshiro(r->s);
		size_t step = n < 8 ? n : 8;

		for (size_t i = 0; i < step; i++)
			to[i] = (uint8_t)(v >> (8 * i));
		to += step;
		n -= step;
	}
}

void rng_init_system(struct rng *r)
{
	*r = (struct rng){ .fill = fill_system };
}

void rng_init_seeded(struct rng *r, uint64_t seed)
{
	r->fill = fill_seeded;
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		r->s[i] = z ^ z >> 31;
	}
}

void rng_fill(struct rng *r, void *p, size_t n)
{
	r->fill(r, p, n);
}

uint64_t rng_u64(struct rng *r)
{
	uint8_t b[8];
	uint64_t v = 0;

	r->fill(r, b, sizeof(b));
	for (int i = 7; i >= 0; i--)
		v = v << 8 | b[i];
	return v;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	uint64_t skip = -n % n; /* 2^64 mod n: the values below it would make small results likelier */
	uint64_t v;

	do {
		v = rng_u64(r);
	} while (v < skip);
	return v % n;
}
