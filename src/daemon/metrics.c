/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names are x0_<part>_<what>_<unit>; _total belongs to counters only. A family's lines stand together, after
 * its HELP and TYPE, as the text format 0.0.4 wants.
 */
#include <inttypes.h>

#include "daemon/metrics.h"

const double histogram_bounds[HISTOGRAM_BUCKETS] = { 0.002, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5 };

void histogram_add(struct histogram *h, double seconds)
{
	unsigned i = 0;

	while (i < HISTOGRAM_BUCKETS && seconds > histogram_bounds[i])
		i++;
	h->count[i]++;
	h->sum += seconds;
}

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(FILE *f, const char *name, const char *help, double v)
{
	head(f, name, "gauge", help);
	fprintf(f, "%s %.17g\n", name, v);
}

static void counter(FILE *f, const char *name, const char *help, uint64_t v)
{
	head(f, name, "counter", help);
	fprintf(f, "%s %" PRIu64 "\n", name, v);
}

/* Fields whose names start with `prefix` are values of one family, labelled by reason. */
struct row {
	const char *field, *name, *help;
	uint64_t v;
};

static void table(FILE *f, const struct row *r, size_t n, const char *prefix, const char *family,
		  const char *help)
{
	size_t k = strlen(prefix);

	head(f, family, "counter", help);
	for (size_t i = 0; i < n; i++)
		if (!strncmp(r[i].field, prefix, k))
			fprintf(f, "%s{reason=\"%s\"} %" PRIu64 "\n", family, r[i].name, r[i].v);
}

static void counters(FILE *f, const struct row *r, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(r[i].name, "x0_", 3))
			counter(f, r[i].name, r[i].help, r[i].v);
}

static void session_metrics(const struct metrics *m, FILE *f)
{
	const struct row r[] = {
#define X(field, name, help) { #field, name, help, m->sess.field },
#include "session/counters.def"
#undef X
	};
	static const char *const state[] = { "idle", "dialing", "handshake", "up", "failed" };
	uint64_t sum = 0;

	counters(f, r, ARRAY_SIZE(r));
	table(f, r, ARRAY_SIZE(r), "drop_", "x0_session_drops_total",
	      "Datagrams dropped by the control socket, by reason");
	table(f, r, ARRAY_SIZE(r), "refused_", "x0_session_refused_total", "Handshakes refused, by reason");
	head(f, "x0_session_peers", "gauge", "Known peers, by state of their session");
	for (unsigned i = 0; i < ARRAY_SIZE(state); i++)
		fprintf(f, "x0_session_peers{state=\"%s\"} %u\n", state[i], m->peers[i]);
	head(f, "x0_session_handshake_seconds", "histogram", "Time of completed handshakes");
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		sum += m->handshakes.count[i];
		fprintf(f, "x0_session_handshake_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
			histogram_bounds[i], sum);
	}
	sum += m->handshakes.count[HISTOGRAM_BUCKETS];
	fprintf(f, "x0_session_handshake_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", sum);
	fprintf(f, "x0_session_handshake_seconds_sum %.9g\nx0_session_handshake_seconds_count %" PRIu64 "\n",
		m->handshakes.sum, sum);
}

static void tunnel_metrics(const struct metrics *m, FILE *f)
{
	const struct row r[] = {
#define X(field, name, help) { #field, name, help, m->dp.field },
#include "tunnel/counters.def"
#undef X
	};

	counters(f, r, ARRAY_SIZE(r));
	table(f, r, ARRAY_SIZE(r), "drop_", "x0_tunnel_drops_total",
	      "Packets and frames dropped by the data path, by reason");
}

void metrics_print(const struct metrics *m, FILE *f)
{
	head(f, "x0_build_info", "gauge", "Version of the running daemon");
	fprintf(f, "x0_build_info{version=\"%s\"} 1\n", m->version);
	session_metrics(m, f);
	tunnel_metrics(m, f);
	gauge(f, "x0_identity_svid_not_after_timestamp_seconds",
	      "When this node's link SVID expires, Unix time", (double)m->svid_not_after);
	gauge(f, "x0_identity_bundle_number", "Number of the bundle in force", (double)m->bundle_number);
	if (m->issuer)
		gauge(f, "x0_identity_issuer_up", "1 if the local issuer process answers", m->issuer_up);
	if (m->clock_known)
		gauge(f, "x0_clock_offset_seconds", "The peer whose clock differs most: its clock minus ours",
		      m->clock_offset);
	gauge(f, "x0_process_uptime_seconds", "Time since the daemon started", m->uptime);
	gauge(f, "process_resident_memory_bytes", "Resident memory", (double)m->rss);
	gauge(f, "process_open_fds", "Open file descriptors", (double)m->open_fds);
	head(f, "process_cpu_seconds_total", "counter", "User and system CPU time");
	fprintf(f, "process_cpu_seconds_total %.6f\n", m->cpu_seconds);
}
