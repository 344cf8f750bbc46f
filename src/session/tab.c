/* SPDX-License-Identifier: Apache-2.0 */
#include "session/tab.h"

#include <stdlib.h>

#include "base/base.h"

int tab_init(struct tab *t)
{
	t->nbuckets = 64;
	t->count = 0;
	t->bucket = calloc(t->nbuckets, sizeof(*t->bucket));
	return t->bucket ? 0 : ERR_NOMEM;
}

void tab_fini(struct tab *t)
{
	for (size_t i = 0; t->bucket && i < t->nbuckets; i++)
		for (struct tab_node *n = t->bucket[i]; n; n = n->next)
			n->in = NULL;
	free(t->bucket);
	t->bucket = NULL;
	t->nbuckets = t->count = 0;
}

static size_t place(uint64_t key, size_t nbuckets)
{
	return (size_t)((key ^ key >> 32) & (nbuckets - 1));
}

static void grow(struct tab *t)
{
	size_t n = t->nbuckets * 2;
	struct tab_node **b = calloc(n, sizeof(*b));

	if (!b)
		return;
	for (size_t i = 0; i < t->nbuckets; i++) {
		struct tab_node *x, *next;

		for (x = t->bucket[i]; x; x = next) {
			size_t k = place(x->key, n);

			next = x->next;
			x->next = b[k];
			b[k] = x;
		}
	}
	free(t->bucket);
	t->bucket = b;
	t->nbuckets = n;
}

void tab_add(struct tab *t, struct tab_node *n, uint64_t key)
{
	size_t k;

	if (t->count >= t->nbuckets)
		grow(t);
	k = place(key, t->nbuckets);
	n->key = key;
	n->in = t;
	n->next = t->bucket[k];
	t->bucket[k] = n;
	t->count++;
}

void tab_del(struct tab_node *n)
{
	struct tab_node **p;

	if (!n->in)
		return;
	for (p = &n->in->bucket[place(n->key, n->in->nbuckets)]; *p != n;)
		p = &(*p)->next;
	*p = n->next;
	n->in->count--;
	n->in = NULL;
}

struct tab_node *tab_first(const struct tab *t, uint64_t key)
{
	struct tab_node *n = t->bucket[place(key, t->nbuckets)];

	while (n && n->key != key)
		n = n->next;
	return n;
}

struct tab_node *tab_next(const struct tab_node *n)
{
	const uint64_t key = n->key;
	struct tab_node *x = n->next;

	while (x && x->key != key)
		x = x->next;
	return x;
}
