/* SPDX-License-Identifier: Apache-2.0 */
/* Traffic of the demo's own: a TCP stream and pings between two hosts of the lab, measured where they end. */
#ifndef X0_LAB_FLOW_H
#define X0_LAB_FLOW_H

#include "lab/lab.h"

/* One TCP stream from `from` to `to` (address, either family) for `ms`; Gbit/s that arrived, checked byte by
 * byte. */
int flow_tcp(const char *from, const char *to, const char *addr, unsigned ms, double *ret_gbps,
	     struct err *e);

struct flow_pings {
	unsigned sent, received;
	double rtt_ms; /* median of those that came back */
	double gap_ms; /* longest time without an answer */
};
/* UDP echoes of 64 bytes from `from` to the overlay or underlay address of `to`, every `interval_us`, for
 * `ms`. The payload starts with `needle` (16 bytes). Blocking; call `between` (may be NULL) once after half
 * the time. */
int flow_ping(const char *from, const char *to, const char *addr, unsigned interval_us, unsigned ms,
	      const uint8_t needle[16], void (*between)(void *arg), void *arg, struct flow_pings *ret,
	      struct err *e);

#endif
