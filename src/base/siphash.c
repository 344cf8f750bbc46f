/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: SipHash-2-4
 *
 * Source: Aumasson, Bernstein: "SipHash: a fast short-input PRF" (2012). Two rounds a word, four at the end;
 * 64-bit output. A pseudo-random function: without the key an attacker can neither predict hashes nor build
 * collisions.
 */
#include "base/siphash.h"

#include <string.h>

static inline uint64_t load_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

static inline uint64_t rotl(uint64_t x, unsigned b)
{
	return x << b | x >> (64 - b);
}

#define SIPROUND                                                                                             \
	do {                                                                                                 \
		v0 += v1;                                                                                    \
		v1 = rotl(v1, 13) ^ v0;                                                                      \
		v0 = rotl(v0, 32);                                                                           \
		v2 += v3;                                                                                    \
		v3 = rotl(v3, 16) ^ v2;                                                                      \
		v0 += v3;                                                                                    \
		v3 = rotl(v3, 21) ^ v0;                                                                      \
		v2 += v1;                                                                                    \
		v1 = rotl(v1, 17) ^ v2;                                                                      \
		v2 = rotl(v2, 32);                                                                           \
	} while (0)

struct sipkey sipkey_from(const uint8_t key[16])
{
	return (struct sipkey){ load_le64(key), load_le64(key + 8) };
}

uint64_t siphash24(const struct sipkey *key, const void *p, size_t n)
{
	uint64_t v0 = key->k0 ^ 0x736f6d6570736575ull, v1 = key->k1 ^ 0x646f72616e646f6dull;
	uint64_t v2 = key->k0 ^ 0x6c7967656e657261ull, v3 = key->k1 ^ 0x7465646279746573ull;
	uint64_t last = (uint64_t)n << 56;
	const uint8_t *in = p;

	for (size_t words = n / 8; words; words--, in += 8) {
		uint64_t m = load_le64(in);

		v3 ^= m;
		SIPROUND;
		SIPROUND;
		v0 ^= m;
	}
	for (size_t i = 0; i < n % 8; i++)
		last |= (uint64_t)in[i] << (8 * i);
	v3 ^= last;
	SIPROUND;
	SIPROUND;
	v0 ^= last;
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}
