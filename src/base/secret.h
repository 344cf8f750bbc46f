/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secret bytes: one type, kept out of core dumps where the kernel allows, wiped on free, never logged,
 * compared in constant time. The struct owns its bytes.
 */
#ifndef X0_BASE_SECRET_H
#define X0_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct secret {
	uint8_t *p; /* owned; NULL when empty */
	size_t n;
};

int secret_init(struct secret *s, size_t n);		   /* n zero bytes; 0 or ERR_NOMEM */
int secret_set(struct secret *s, const void *p, size_t n); /* init + copy */
void secret_fini(struct secret *s);			   /* wipes; fine on a zeroed struct */
bool secret_equal(const void *a, const void *b, size_t n); /* constant time in n */
void secret_wipe(void *p, size_t n);			   /* for arrays on the stack or inside structs */

#endif
