/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bench-control
 *
 * CPU of one small control message from sess_send() until the peer has it and its acknowledgement is back, in
 * a process with 10, 100 and 1,000 established sessions: one node with so many peers, each a manager of its
 * own, all of them sent to in turn. Time that passes on its own (ticks, probes) is part of it. Also the heap
 * that one end of an established session holds.
 *
 * usage: bench-control [MESSAGES [SESSIONS]]     so many messages at each size, or at the one size
 */
#include "memnet.h"

struct hub {
	uint32_t session[1000];
	unsigned n;
};

struct result {
	double us, us_datagram, datagrams, heap_kb;
};

static void collect(void *arg, const struct sess_peer_info *p)
{
	struct hub *h = arg;

	if (p->state == SESS_UP && h->n < ARRAY_SIZE(h->session))
		h->session[h->n++] = p->session;
}

static size_t heap(void)
{
	struct mallinfo2 i = mallinfo2();

	return i.uordblks + i.hblkhd;
}

/* One message to every peer, then time for the acknowledgements. */
static void round_of(struct mem_net *net, const struct hub *h)
{
	for (unsigned i = 0; i < h->n; i++)
		assert_int_equal(sess_send(net->node[0].m, h->session[i], 64, "a small control message", 24),
				 0);
	mem_settle(net, 30 * NS_PER_MS);
}

static struct result measure(unsigned sessions, unsigned messages)
{
	struct mem_net *net = mem_new(sessions + 1);
	const unsigned rounds = messages / sessions + 1;
	struct hub h = { .n = 0 };
	struct result r;
	unsigned before = 0, after = 0;
	size_t empty = heap();
	uint64_t sent;
	double t;

	for (unsigned i = 1; i <= sessions; i++) {
		mem_know(net, 0, i);
		if (i % 20 == 0)
			mem_settle(net, 50 * NS_PER_MS);
	}
	mem_settle(net, 3 * NS_PER_S);
	sess_peers(net->node[0].m, collect, &h);
	assert_int_equal(h.n, sessions);
	r.heap_kb = ((double)heap() - (double)empty) / 2 / sessions / 1024;
	round_of(net, &h);
	for (unsigned i = 1; i <= sessions; i++)
		before += net->node[i].nmsg;
	sent = net->datagrams;
	t = cpu_us();
	for (unsigned i = 0; i < rounds; i++)
		round_of(net, &h);
	t = cpu_us() - t;
	sent = net->datagrams - sent;
	for (unsigned i = 1; i <= sessions; i++)
		after += net->node[i].nmsg;
	assert_int_equal(after - before, rounds * sessions);
	r.us = t / rounds / sessions;
	r.us_datagram = t / (double)sent;
	r.datagrams = (double)sent / rounds / sessions;
	mem_free(net);
	return r;
}

int main(int argc, char **argv)
{
	const unsigned messages = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100000;
	struct result a, b, c;

	if (argc > 2) { /* one size only, to profile */
		a = measure((unsigned)strtoul(argv[2], NULL, 10), messages);
		printf("{\"us\":%.2f,\"datagrams_per_message\":%.2f}\n", a.us, a.datagrams);
		return 0;
	}

	(void)measure(10, 1000); /* first use of everything */
	a = measure(10, messages);
	b = measure(100, messages);
	c = measure(1000, messages);
	printf("{\"us_10\":%.2f,\"us_100\":%.2f,\"us_1000\":%.2f,\"ratio\":%.3f,\"datagrams_per_message\":%."
	       "2f,"
	       "\"us_per_datagram_1000\":%.2f,\"heap_kb_per_end\":%.1f}\n",
	       a.us, b.us, c.us, c.us / a.us, c.datagrams, c.us_datagram, c.heap_kb);
	return 0;
}
