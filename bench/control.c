/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bench-control
 *
 * CPU per control datagram, both ends together, in a process with 10, 100 and 1,000 established sessions: one
 * node with so many peers, each a manager of its own. Small messages, 10,000 a second of virtual time, go
 * from the one node to peers in turn; acknowledgements, ticks and probes of all sessions are part of the
 * cost.
 *
 * us_N: ten peers spread over all sessions are sent to, so that the traffic is the same at each N and the
 * figure shows what the number of sessions costs. all_N: every peer is sent to in turn, so that at 1,000 each
 * datagram also finds the caches cold, at both ends because both live here. heap_kb_per_end: what one end of
 * an idle established session holds.
 *
 * usage: bench-control [MESSAGES [SESSIONS ACTIVE]]     so many messages at each size, or at the one given
 */
#include "memnet.h"

enum { MOST = 1000, ACTIVE = 10 };

struct hub {
	uint32_t session[MOST];
	unsigned n;
};

struct result {
	double us, datagrams, heap_kb;
};

static void collect(void *arg, const struct sess_peer_info *p)
{
	struct hub *h = arg;

	if (p->state == SESS_UP && h->n < MOST)
		h->session[h->n++] = p->session;
}

static size_t heap(void)
{
	struct mallinfo2 i = mallinfo2();

	return i.uordblks + i.hblkhd;
}

static unsigned received(const struct mem_net *net)
{
	unsigned n = 0;

	for (unsigned i = 1; i < net->nnodes; i++)
		n += net->node[i].nmsg;
	return n;
}

/* One message per step, to every `stride`-th session in turn. */
static void traffic(struct mem_net *net, const struct hub *h, unsigned stride, unsigned messages)
{
	for (unsigned i = 0, at = 0; i < messages; i++, at = (at + stride) % h->n) {
		assert_int_equal(sess_send(net->node[0].m, h->session[at], 64, "a small control message", 24),
				 0);
		mem_step(net, MEM_LATENCY);
	}
}

static struct result measure(unsigned sessions, unsigned active, unsigned messages)
{
	struct mem_net *net = mem_new(sessions + 1);
	const size_t empty = heap();
	struct hub h = { .n = 0 };
	struct result r;
	uint64_t sent;
	unsigned before;
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
	traffic(net, &h, sessions / active, 2 * sessions);
	mem_settle(net, NS_PER_S);
	before = received(net);
	sent = net->datagrams;
	t = cpu_us();
	traffic(net, &h, sessions / active, messages);
	t = cpu_us() - t;
	sent = net->datagrams - sent;
	mem_settle(net, NS_PER_S);
	assert_int_equal(received(net) - before, messages);
	r.us = t / (double)sent;
	r.datagrams = (double)sent / messages;
	mem_free(net);
	return r;
}

int main(int argc, char **argv)
{
	const unsigned messages = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100000;
	struct result a, b, c, all;

	if (argc > 3) {
		a = measure((unsigned)strtoul(argv[2], NULL, 10), (unsigned)strtoul(argv[3], NULL, 10),
			    messages);
		printf("{\"us\":%.2f,\"datagrams_per_message\":%.2f}\n", a.us, a.datagrams);
		return 0;
	}
	(void)measure(10, ACTIVE, 1000); /* first use of everything */
	a = measure(10, ACTIVE, messages);
	b = measure(100, ACTIVE, messages);
	c = measure(1000, ACTIVE, messages);
	all = measure(1000, 1000, messages);
	printf("{\"us_10\":%.2f,\"us_100\":%.2f,\"us_1000\":%.2f,\"ratio\":%.3f,\"datagrams_per_message\":%."
	       "2f,"
	       "\"all_1000\":%.2f,\"ratio_all\":%.3f,\"datagrams_per_message_all\":%.2f,"
	       "\"heap_kb_per_end\":%.1f}\n",
	       a.us, b.us, c.us, c.us / a.us, c.datagrams, all.us, all.us / a.us, all.datagrams, c.heap_kb);
	return 0;
}
