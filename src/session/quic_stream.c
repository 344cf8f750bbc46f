/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream 0: messages out, kept in chunks that do not move until they are acknowledged (ngtcp2 does not copy),
 * and bytes in, handed to the message reader only after ngtcp2 returned, so that a handler may do anything.
 */
#include <stdlib.h>

#include "session/quic.h"

enum { CHUNK = 2048, RX_MAX = 1 << 20 };

static int append(struct quic_conn *c, const uint8_t *p, size_t n)
{
	struct quic_chunk *k = c->tx_tail;
	size_t room = k ? k->cap - k->n : 0;

	if (room > n)
		room = n;
	if (n > room) {
		size_t rest = n - room, cap = rest > CHUNK ? rest : CHUNK;
		struct quic_chunk *x = malloc(sizeof(*x) + cap);

		if (!x)
			return ERR_NOMEM;
		*x = (struct quic_chunk){ .off = c->tx_end + room, .n = rest, .cap = cap };
		memcpy(x->p, p + room, rest);
		if (k)
			k->next = x;
		else
			c->tx = x;
		c->tx_tail = x;
	}
	if (room) {
		memcpy(k->p + k->n, p, room);
		k->n += room;
	}
	c->tx_end += n;
	return 0;
}

int quic_send(struct quic_conn *c, uint16_t type, const void *p, size_t n)
{
	uint8_t *m;
	int r;

	if (c->is_dead)
		return ERR_NOT_FOUND;
	if (n > CTL_MAX || c->tx_end - c->tx_acked + n + CTL_HEAD > QUIC_UNACKED_MAX)
		return ERR_LIMIT;
	m = malloc(CTL_HEAD + n);
	if (!m)
		return ERR_NOMEM;
	put_u16(m, type);
	put_u32(m + 2, (uint32_t)n);
	if (n)
		memcpy(m + CTL_HEAD, p, n);
	r = append(c, m, CTL_HEAD + n);
	free(m);
	if (!r)
		quic_wake(c);
	return r;
}

void quic_tx_acked(struct quic_conn *c, uint64_t upto)
{
	c->tx_acked = upto;
	while (c->tx && c->tx->off + c->tx->n <= upto && (c->tx->next || c->tx->n == c->tx->cap)) {
		struct quic_chunk *k = c->tx;

		c->tx = k->next;
		if (!c->tx)
			c->tx_tail = NULL;
		free(k);
	}
	/* An idle connection keeps no buffer. */
	if (c->tx && !c->tx->next && upto == c->tx_end) {
		free(c->tx);
		c->tx = c->tx_tail = NULL;
	}
}

size_t quic_tx_vec(struct quic_conn *c, ngtcp2_vec *v, size_t max)
{
	size_t n = 0;

	for (struct quic_chunk *k = c->tx; k && n < max; k = k->next) {
		size_t skip;

		if (k->off + k->n <= c->tx_next)
			continue;
		skip = c->tx_next > k->off ? (size_t)(c->tx_next - k->off) : 0;
		v[n++] = (ngtcp2_vec){ .base = k->p + skip, .len = k->n - skip };
	}
	return n;
}

int quic_rx_append(struct quic_conn *c, const uint8_t *p, size_t n)
{
	if (c->rx_n + n > c->rx_cap) {
		size_t cap = c->rx_n + n > 2048 ? c->rx_n + n : 2048;
		uint8_t *x;

		if (cap > RX_MAX)
			return ERR_LIMIT;
		x = realloc(c->rx, cap);
		if (!x)
			return ERR_NOMEM;
		c->rx = x;
		c->rx_cap = cap;
	}
	memcpy(c->rx + c->rx_n, p, n);
	c->rx_n += n;
	return 0;
}

static int on_message(void *arg, uint16_t type, const uint8_t *p, size_t n)
{
	struct quic_conn *c = arg;
	int r = c->q->ops->message(c->q->arg, c, type, p, n);

	return c->is_dead ? 1 : r;
}

void quic_rx_deliver(struct quic_conn *c)
{
	uint8_t *p = c->rx;
	size_t n = c->rx_n;
	int r;

	if (!n || c->delivering)
		return;
	c->rx = NULL;
	c->rx_n = c->rx_cap = 0;
	c->delivering = true;
	r = ctl_feed(&c->reader, p, n, on_message, c);
	c->delivering = false;
	secret_wipe(p, n);
	free(p);
	if (r && !c->is_dead) {
		struct err why = { 0 };

		err_set(&why, r, "it sent a control message that is too long");
		quic_close(c, 1, true);
		c->q->ops->closed(c->q->arg, c, &why);
	}
}

void quic_stream_fini(struct quic_conn *c)
{
	while (c->tx) {
		struct quic_chunk *k = c->tx;

		c->tx = k->next;
		secret_wipe(k->p, k->n);
		free(k);
	}
	c->tx_tail = NULL;
	free(c->rx);
	c->rx = NULL;
	ctl_reader_fini(&c->reader);
}
