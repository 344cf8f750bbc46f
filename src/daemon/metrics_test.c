/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <ctype.h>

#include "daemon/metrics.h"

static char *render(const struct metrics *m)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	metrics_print(m, f);
	fclose(f);
	return text;
}

static void has(const char *text, const char *line)
{
	const char *p = strstr(text, line);

	if (!p || (p != text && p[-1] != '\n') || p[strlen(line)] != '\n')
		fail_msg("no line '%s'", line);
}

/* Each value lands under its own name, with its reason. */
static void samples(void **state)
{
	struct metrics m = { .version = "1.2.3" };
	char *t;

	(void)state;
	m.sess.handshakes_ok = 11;
	m.sess.drop_knock = 12;
	m.sess.refused_revoked = 13;
	m.dp.tx_bytes = 14;
	m.dp.drop_replay = 15;
	m.peers[SESS_UP] = 16;
	m.svid_not_after = 17;
	m.bundle_number = 18;
	t = render(&m);
	has(t, "x0_build_info{version=\"1.2.3\"} 1");
	has(t, "x0_session_handshakes_total 11");
	has(t, "x0_session_drops_total{reason=\"knock\"} 12");
	has(t, "x0_session_refused_total{reason=\"revoked\"} 13");
	has(t, "x0_tunnel_tx_bytes_total 14");
	has(t, "x0_tunnel_drops_total{reason=\"replay\"} 15");
	has(t, "x0_session_peers{state=\"up\"} 16");
	has(t, "x0_identity_svid_not_after_timestamp_seconds 17");
	has(t, "x0_identity_bundle_number 18");
	assert_null(strstr(t, "x0_identity_issuer_up"));
	assert_null(strstr(t, "x0_clock_offset_seconds"));
	free(t);
	m.issuer = m.clock_known = true;
	m.clock_offset = -0.5;
	t = render(&m);
	has(t, "x0_identity_issuer_up 0");
	has(t, "x0_clock_offset_seconds -0.5");
	free(t);
}

static void histogram(void **state)
{
	struct metrics m = { .version = "x" };
	char *t;

	(void)state;
	histogram_add(&m.handshakes, 0.003);
	histogram_add(&m.handshakes, 0.004); /* on a bound: inside */
	histogram_add(&m.handshakes, 100);
	t = render(&m);
	has(t, "x0_session_handshake_seconds_bucket{le=\"0.002\"} 0");
	has(t, "x0_session_handshake_seconds_bucket{le=\"0.004\"} 2");
	has(t, "x0_session_handshake_seconds_bucket{le=\"5\"} 2");
	has(t, "x0_session_handshake_seconds_bucket{le=\"+Inf\"} 3");
	has(t, "x0_session_handshake_seconds_count 3");
	has(t, "x0_session_handshake_seconds_sum 100.007");
	free(t);
}

/* Every family: HELP, TYPE, then its samples; good names; nothing twice; _total on counters only. */
static void form(void **state)
{
	struct metrics m = { .version = "x", .issuer = true, .clock_known = true };
	char *t = render(&m), *save = NULL, family[128] = "", *seen[256];
	size_t nseen = 0;

	(void)state;
	for (char *l = strtok_r(t, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char name[128], kind[16];

		if (sscanf(l, "# HELP %127s", name) == 1) {
			assert_true(strlen(l) > strlen("# HELP ") + strlen(name) + 1);
			snprintf(family, sizeof(family), "%s", name);
			for (size_t i = 0; i < nseen; i++)
				assert_string_not_equal(seen[i], family);
			seen[nseen++] = strdup(family);
			assert_true(nseen < 256);
			continue;
		}
		if (sscanf(l, "# TYPE %127s %15s", name, kind) == 2) {
			size_t n = strlen(name);
			bool total = n > 6 && !strcmp(name + n - 6, "_total");

			assert_string_equal(name, family);
			assert_int_equal(total, !strcmp(kind, "counter"));
			for (size_t i = 0; i < n; i++)
				assert_true(islower((unsigned char)name[i]) ||
					    isdigit((unsigned char)name[i]) || name[i] == '_');
			continue;
		}
		assert_int_equal(strncmp(l, family, strlen(family)), 0);
	}
	assert_true(nseen > 20);
	while (nseen)
		free(seen[--nseen]);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples),
		cmocka_unit_test(histogram),
		cmocka_unit_test(form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
