// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * DOC: impair.bpf
 *
 * A bad link. It works where frames arrive: what leaves a host is one buffer for up to 64 frames (UDP GSO),
 * and is cut only behind the sender's qdisc and BPF hooks; a loss there would be a burst.
 *
 * Nothing in BPF can hold a frame, so those to be delayed are redirected to a TAP device. A process of the
 * lab (hold.c) reads them, waits, writes them back, and release() puts them where they came from.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "lab/impair_map.h"

#define RELEASED 0x78306c62 /* mark of a frame that was held: it is not judged twice */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct impair_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct impair_counters);
} counters SEC(".maps");

static __always_inline int chance(__u32 ppm)
{
	/* 64 bits of product: no rounding that the counters could show. */
	return ppm && (((__u64)bpf_get_prandom_u32() * 1000000) >> 32) < ppm;
}

SEC("tc")
int impair(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct impair_config *c = bpf_map_lookup_elem(&config, &zero);
	struct impair_counters *n = bpf_map_lookup_elem(&counters, &zero);

	if (!c || !n)
		return TC_ACT_SHOT;
	if (skb->mark == RELEASED) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	__sync_fetch_and_add(&n->seen, 1);
	if (skb->gso_segs > 1)
		__sync_fetch_and_add(&n->merged, 1);
	if (chance(c->loss_ppm)) {
		__sync_fetch_and_add(&n->lost, 1);
		return TC_ACT_SHOT;
	}
	/* With a delay, a frame leaves its place by going at once; without, by waiting. */
	if (chance(c->reorder_ppm) == !c->delay_ns) {
		__sync_fetch_and_add(&n->held, 1);
		return bpf_redirect(c->hold, 0);
	}
	if (c->delay_ns)
		__sync_fetch_and_add(&n->overtook, 1);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int release(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct impair_config *c = bpf_map_lookup_elem(&config, &zero);

	if (!c)
		return TC_ACT_SHOT;
	skb->mark = RELEASED;
	return bpf_redirect(c->ifindex, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
