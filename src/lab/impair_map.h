/* SPDX-License-Identifier: Apache-2.0 */
/* What the BPF program of an impaired link and the lab share: the value of its maps. */
#ifndef X0_LAB_IMPAIR_MAP_H
#define X0_LAB_IMPAIR_MAP_H

#include <linux/types.h>

struct impair_config {
	__u64 delay_ns;	   /* 0: none */
	__u64 rate_bps;	   /* a note only: a qdisc at the sender does it */
	__u32 loss_ppm;	   /* share of the frames that is dropped */
	__u32 reorder_ppm; /* share of the rest that leaves its place */
	__u32 ifindex;	   /* the impaired interface */
	__u32 hold;	   /* where frames to be held go, 0: nowhere */
};

struct impair_counters {
	__u64 seen, lost, held, overtook;
	__u64 merged; /* seen, and more than one frame: then the shares above are wrong */
};

#endif
