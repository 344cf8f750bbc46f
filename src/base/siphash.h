/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 (Aumasson, Bernstein 2012): keyed hash for tables an attacker can fill, cookies and hop tags.
 */
#ifndef X0_BASE_SIPHASH_H
#define X0_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct sipkey {
	uint64_t k0, k1; /* little-endian halves of the 16-byte key, as in the paper */
};

struct sipkey sipkey_from(const uint8_t key[16]);
uint64_t siphash24(const struct sipkey *key, const void *p, size_t n);

#endif
