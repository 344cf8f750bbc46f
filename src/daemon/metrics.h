/* SPDX-License-Identifier: Apache-2.0 */
/* /metrics: the Prometheus text format, from the tables of counters. */
#ifndef X0_DAEMON_METRICS_H
#define X0_DAEMON_METRICS_H

#include <stdio.h>

#include "session/session.h"
#include "tunnel/tunnel.h"

enum { HISTOGRAM_BUCKETS = 10 };
struct histogram {
	uint64_t count[HISTOGRAM_BUCKETS + 1]; /* the last: above all bounds */
	double sum;
};
extern const double histogram_bounds[HISTOGRAM_BUCKETS]; /* seconds */
void histogram_add(struct histogram *h, double seconds);

/* One value at a point in time; all plain, so that rendering needs nothing else. */
struct metrics {
	struct sess_counters sess;
	struct dp_counters dp;
	struct histogram handshakes;
	unsigned peers[SESS_FAILED + 1]; /* by state */
	int64_t svid_not_after;		 /* Unix seconds */
	uint64_t bundle_number;
	double uptime, cpu_seconds, clock_offset;
	bool clock_known, issuer, issuer_up;
	uint64_t rss, open_fds;
	const char *version;
};
void metrics_print(const struct metrics *m, FILE *f);

#endif
