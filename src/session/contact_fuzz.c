/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any datagram into a manager with an identity. To get behind the cookie and the hop tag, the first byte
 * chooses what is repaired: 0 nothing, 1 the knock's MAC is left as it is but the key ID is ours, 2 the
 * cookie is made valid.
 */
#include "session/testlib.h"

#include "session/mgr.h"

static void no_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	(void)arg;
	(void)to;
	(void)p;
	(void)n;
}

static uint32_t index_new(void *arg, unsigned lane)
{
	static uint32_t next;

	(void)arg;
	return ++next << 8 | lane;
}

static int no_keys(void *arg, struct sess_keys *k, struct err *e)
{
	(void)arg;
	(void)k;
	return err_set(e, ERR_LIMIT, "none here");
}

static const struct sess_ops ops = { .send = no_send, .index_new = index_new, .keys = no_keys };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct net *net;
	static struct sess_mgr *m;
	static unsigned round;
	uint8_t b[2048];
	struct endpoint from;
	size_t n = size - 1;

	if (size < 2 || n > sizeof(b))
		return 0;
	if (!m) {
		net = net_new(1);
		node_up(net, 0, node_id(net, 0), &ops, NULL);
		m = net->node[0].m;
	}
	from = ep_at(++round % 60000, 7);
	memcpy(b, data + 1, n);
	if (data[0] % 3 == 1 && n >= KNOCK_LEN)
		memcpy(b + 12, m->contact.keys[0].id, 8);
	if (data[0] % 3 == 2 && n > HELLO_HEAD) {
		struct hello h = { .cookie = { .epoch = m->contact.epoch, .nonce = get_u64(b + 4) } };

		h.cookie.value = cookie_value(&m->contact.secret[h.cookie.epoch & 1], h.cookie.epoch, &from,
					      h.cookie.nonce);
		hello_encode_head(&h, b);
		/* An Initial's token must be the cookie, too. */
		if (n > HELLO_HEAD + 40 && b[HELLO_HEAD + 5] <= 20)
			put_u64(b + HELLO_HEAD + 26, h.cookie.value);
	}
	sess_input(m, &from, b, n);
	run_for(net, 20 * NS_PER_MS);
	return 0;
}
