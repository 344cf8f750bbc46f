/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/firstq.h"

#include <stdlib.h>
#include <string.h>

#include "tunnel/table.h"

struct firstq_dst {
	struct firstq_dst *next;
	uint8_t addr[16];
	uint64_t asked, since, refused_until; /* ns; 0: never */
	unsigned npkts;
	size_t bytes;
	struct firstq_pkt *head, **tail;
};

void firstq_init(struct firstq *q, uint64_t seed)
{
	memset(q, 0, sizeof(*q));
	pthread_mutex_init(&q->lock, NULL);
	q->seed = seed;
}

void firstq_list_free(struct firstq_pkt *list)
{
	while (list) {
		struct firstq_pkt *p = list;

		list = p->next;
		free(p);
	}
}

void firstq_fini(struct firstq *q)
{
	for (unsigned i = 0; i < FIRSTQ_BUCKETS; i++) {
		while (q->bucket[i]) {
			struct firstq_dst *d = q->bucket[i];

			q->bucket[i] = d->next;
			firstq_list_free(d->head);
			free(d);
		}
	}
	pthread_mutex_destroy(&q->lock);
}

static struct firstq_dst *find(struct firstq *q, const uint8_t dst[16], bool make)
{
	struct firstq_dst **b = &q->bucket[table_hash_addr(dst, q->seed) % FIRSTQ_BUCKETS], *d;

	for (d = *b; d; d = d->next) {
		if (memcmp(d->addr, dst, 16) == 0)
			return d;
	}
	if (!make || q->ndsts == FIRSTQ_DSTS)
		return NULL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	memcpy(d->addr, dst, 16);
	d->tail = &d->head;
	d->next = *b;
	*b = d;
	q->ndsts++;
	return d;
}

enum firstq_verdict firstq_add(struct firstq *q, const uint8_t dst[16], const struct virtio_net_hdr *v,
			       const void *p, size_t n, unsigned worker, uint64_t now)
{
	struct firstq_dst *d = find(q, dst, true);
	struct firstq_pkt *pkt;

	if (!d)
		return FIRSTQ_FULL;
	if (d->refused_until > now)
		return FIRSTQ_REFUSED;
	d->refused_until = 0;
	if (d->npkts == FIRSTQ_PACKETS || d->bytes + n > FIRSTQ_BYTES)
		return FIRSTQ_FULL;
	pkt = malloc(sizeof(*pkt) + VNET_LEN + n);
	if (!pkt)
		return FIRSTQ_FULL;
	pkt->next = NULL;
	pkt->worker = worker;
	pkt->refuse = false;
	pkt->n = VNET_LEN + n;
	memcpy(pkt->data, v, VNET_LEN);
	memcpy(pkt->data + VNET_LEN, p, n);
	*d->tail = pkt;
	d->tail = &pkt->next;
	d->npkts++;
	d->bytes += n;
	if (d->npkts == 1)
		d->since = now;
	if (d->asked && now - d->asked < NS_PER_S)
		return FIRSTQ_QUEUED;
	d->asked = now;
	return FIRSTQ_ASK;
}

void firstq_ask_again(struct firstq *q, const uint8_t dst[16])
{
	struct firstq_dst *d = find(q, dst, false);

	if (d)
		d->asked = 0;
}

static struct firstq_pkt *empty(struct firstq_dst *d)
{
	struct firstq_pkt *list = d->head;

	d->head = NULL;
	d->tail = &d->head;
	d->npkts = 0;
	d->bytes = 0;
	return list;
}

static void forget(struct firstq *q, struct firstq_dst **at)
{
	struct firstq_dst *d = *at;

	*at = d->next;
	q->ndsts--;
	free(d);
}

struct firstq_pkt *firstq_take(struct firstq *q, const struct ip_prefix *prefix)
{
	struct firstq_pkt *list = NULL, **tail = &list;

	pthread_mutex_lock(&q->lock);
	for (unsigned i = 0; i < FIRSTQ_BUCKETS; i++) {
		for (struct firstq_dst **at = &q->bucket[i]; *at;) {
			if (!ip_prefix_has(prefix, (*at)->addr)) {
				at = &(*at)->next;
				continue;
			}
			*tail = empty(*at);
			while (*tail)
				tail = &(*tail)->next;
			forget(q, at);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return list;
}

struct firstq_pkt *firstq_refuse(struct firstq *q, const uint8_t dst[16], uint64_t until)
{
	struct firstq_pkt *list = NULL;
	struct firstq_dst *d;

	pthread_mutex_lock(&q->lock);
	d = find(q, dst, true);
	if (d) {
		list = empty(d);
		d->refused_until = until;
		d->asked = 0;
	}
	pthread_mutex_unlock(&q->lock);
	for (struct firstq_pkt *p = list; p; p = p->next)
		p->refuse = true;
	return list;
}

unsigned firstq_age(struct firstq *q, uint64_t now, bool *ret_empty)
{
	unsigned dropped = 0;

	pthread_mutex_lock(&q->lock);
	for (unsigned i = 0; i < FIRSTQ_BUCKETS; i++) {
		for (struct firstq_dst **at = &q->bucket[i]; *at;) {
			struct firstq_dst *d = *at;

			if (d->npkts && now - d->since >= FIRSTQ_AGE) {
				dropped += d->npkts;
				firstq_list_free(empty(d));
			}
			if (d->npkts || d->refused_until > now)
				at = &d->next;
			else
				forget(q, at);
		}
	}
	*ret_empty = q->ndsts == 0;
	pthread_mutex_unlock(&q->lock);
	return dropped;
}
