/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes as an argument: getrandom() in the daemon, a seeded generator (xoshiro256**) in tests and
 * simulator. */
#ifndef X0_BASE_RNG_H
#define X0_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	void (*fill)(struct rng *r, void *p, size_t n);
	uint64_t s[4]; /* state of the seeded one */
};

void rng_init_system(struct rng *r);		    /* getrandom(2); never fails after boot */
void rng_init_seeded(struct rng *r, uint64_t seed); /* same seed, same bytes, on every machine */
void rng_fill(struct rng *r, void *p, size_t n);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0 */

#endif
