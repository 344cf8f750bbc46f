/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "wire/wire.h"

/*
 * Typed messages on reliable streams: type u16 | length u32 | value. The reader holds at most one message and
 * checks the length before it takes memory for it.
 */

size_t ctl_hello_encode(const struct ctl_hello *h, uint8_t *to, size_t cap)
{
	struct wr w = wr_init(to, cap);

	wr_u16(&w, h->version);
	wr_u16(&w, h->version_min);
	wr_u64(&w, h->caps);
	wr_u8(&w, h->suite);
	wr_u16(&w, h->mtu);
	wr_u32(&w, h->link);
	wr_u8(&w, h->nlanes);
	for (unsigned i = 0; i < h->nlanes; i++)
		wr_u32(&w, h->lane[i]);
	return wr_ok(&w) ? wr_len(&w) : 0;
}

int ctl_hello_decode(const uint8_t *p, size_t n, struct ctl_hello *ret)
{
	struct rd r = rd_init(p, n);
	struct ctl_hello h = { .version = rd_u16(&r), .version_min = rd_u16(&r) };

	h.caps = rd_u64(&r);
	h.suite = rd_u8(&r);
	h.mtu = rd_u16(&r);
	h.link = rd_u32(&r);
	h.nlanes = rd_u8(&r);
	if (!rd_ok(&r) || h.nlanes == 0 || h.nlanes > LANES_MAX)
		return ERR_PARSE;
	for (unsigned i = 0; i < h.nlanes; i++)
		h.lane[i] = rd_u32(&r);
	if (!rd_ok(&r) || h.version_min > h.version || h.version_min == 0)
		return ERR_PARSE;
	*ret = h;
	return 0;
}

static int reader_grow(struct ctl_reader *r, size_t want)
{
	size_t cap = r->cap ? r->cap : 256;
	uint8_t *p;

	while (cap < want)
		cap *= 2;
	if (cap == r->cap)
		return 0;
	p = realloc(r->buf, cap);
	if (!p)
		return ERR_NOMEM;
	r->buf = p;
	r->cap = cap;
	return 0;
}

int ctl_feed(struct ctl_reader *r, const void *p, size_t n,
	     int (*fn)(void *arg, uint16_t type, const uint8_t *value, size_t len), void *arg)
{
	struct rd in = rd_init(p, n);

	while (rd_left(&in) > 0 || (r->n >= CTL_HEAD && r->n == CTL_HEAD + get_u32(r->buf + 2))) {
		size_t want = CTL_HEAD;

		if (r->n >= CTL_HEAD) {
			size_t len = get_u32(r->buf + 2);

			if (len > r->max)
				return ERR_LIMIT;
			want += len;
		}
		size_t take = want - r->n < rd_left(&in) ? want - r->n : rd_left(&in);
		/* Memory follows the bytes that came, not the length that was claimed. */
		int rc = reader_grow(r, r->n + take);

		if (rc != 0)
			return rc;
		rd_copy(&in, r->buf + r->n, take);
		r->n += take;
		if (r->n < CTL_HEAD || r->n < CTL_HEAD + (size_t)get_u32(r->buf + 2))
			continue;
		if (get_u32(r->buf + 2) > r->max)
			return ERR_LIMIT;
		r->n = 0;
		rc = fn(arg, get_u16(r->buf), r->buf + CTL_HEAD, get_u32(r->buf + 2));
		if (rc != 0)
			return rc;
	}
	return 0;
}

void ctl_reader_fini(struct ctl_reader *r)
{
	if (r->buf)
		secret_wipe(r->buf, r->cap);
	free(r->buf);
	r->buf = NULL;
	r->n = r->cap = 0;
}
