/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive hash table from u64 keys to objects of ours. Keys must be unpredictable to an attacker: random
 * numbers we chose, or a keyed hash (siphash24) of what he chose. Several nodes may have one key; the caller
 * compares further.
 */
#ifndef X0_SESSION_TAB_H
#define X0_SESSION_TAB_H

#include <stddef.h>
#include <stdint.h>

struct tab_node {
	uint64_t key;
	struct tab_node *next;
	struct tab *in; /* NULL: in no table */
};

struct tab {
	struct tab_node **bucket; /* owned */
	size_t nbuckets, count;	  /* a power of two */
};

int tab_init(struct tab *t);				       /* 0 or ERR_NOMEM */
void tab_fini(struct tab *t);				       /* forgets the nodes, frees the buckets */
void tab_add(struct tab *t, struct tab_node *n, uint64_t key); /* a failed growth only makes it slower */
void tab_del(struct tab_node *n);			       /* fine when in no table */
struct tab_node *tab_first(const struct tab *t, uint64_t key); /* NULL: none */
struct tab_node *tab_next(const struct tab_node *n);	       /* the next one with the same key */

#endif
