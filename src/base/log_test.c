/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static int fds[2];
static char line[2 * PIPE_BUF];

/* What one write(2) put into the pipe. */
static const char *got(void)
{
	ssize_t n = read(fds[0], line, sizeof(line) - 1);

	line[n > 0 ? n : 0] = '\0';
	return line;
}

static int setup(void **state)
{
	(void)state;
	return pipe2(fds, O_CLOEXEC | O_NONBLOCK);
}

static int teardown(void **state)
{
	(void)state;
	log_init(STDERR_FILENO, LOG_TEXT, LOG_INFO);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static void assert_tail(const char *s, const char *tail)
{
	size_t n = strlen(s), m = strlen(tail);

	if (n < m || strcmp(s + n - m, tail) != 0)
		fail_msg("%s does not end in %s", s, tail);
}

static void text_lines(void **state)
{
	(void)state;
	log_init(fds[1], LOG_TEXT, LOG_INFO);
	log_info("session", "session up", LS("peer", "spiffe://x/node/a"), LU("ms", 12), LI("d", -3),
		 LB("ok", true), LF("r", 0.25), LS("none", NULL), LS("empty", ""), LS("sp", "a b"),
		 LF("nan", NAN), LF("inf", -INFINITY));
	got();
	/* 2025-01-02T03:04:05.678Z info  ... */
	assert_int_equal(strspn(line, "0123456789-T:.Z"), 24);
	assert_string_equal(line + 24,
			    " info  session: session up peer=spiffe://x/node/a ms=12 d=-3 ok=true r=0.25 "
			    "none=- empty=\"\" sp=\"a b\" nan=nan inf=-inf\n");
	log_error("a", "no fields");
	assert_tail(got(), " error a: no fields\n");
}

static void json_lines(void **state)
{
	(void)state;
	log_init(fds[1], LOG_JSON, LOG_DEBUG);
	log_debug("session", "up", LS("peer", "a"), LU("ms", UINT64_MAX), LI("d", INT64_MIN), LB("ok", false),
		  LF("r", 0.5), LS("none", NULL), LF("nan", NAN));
	got();
	assert_memory_equal(line, "{\"ts\":\"2", 8);
	assert_tail(
		line,
		"Z\",\"level\":\"debug\",\"module\":\"session\",\"msg\":\"up\",\"peer\":\"a\","
		"\"ms\":18446744073709551615,\"d\":-9223372036854775808,\"ok\":false,\"r\":0.5,\"none\":null,"
		"\"nan\":null}\n");
}

static void hostile_strings(void **state)
{
	static const struct {
		const char *in, *json, *text;
	} v[] = {
		{ "a\"b\\c", "a\\\"b\\\\c", "a\\\"b\\\\c" },
		{ "\n\r\t\x01\x1b[2J", "\\n\\r\\t\\u0001\\u001b[2J", "\\n\\r\\t\\u0001\\u001b[2J" },
		{ "\x7f\xc2\x9b", "\\u007f\\u009b", "\\u007f\\u009b" }, /* DEL, 8-bit CSI */
		{ "\xe2\x80\xae\xe2\x80\xa8", "\\u202e\\u2028",
		  "\\u202e\\u2028" }, /* override, line separator */
		{ "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
		  "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "\xff", "\xef\xbf\xbd", "\\xff" },
		{ "\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd", "\\xc0\\x80" }, /* overlong NUL */
		{ "\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "\\xe0\\x80\\xaf" },
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "\\xed\\xa0\\x80" }, /* surrogate */
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		  "\\xf4\\x90\\x80\\x80" },
		{ "\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd", "\\xe2\\x82" }, /* cut off */
		{ "\xe2\"", "\xef\xbf\xbd\\\"", "\\xe2\\\"" },
	};
	char want[200];

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		log_init(fds[1], LOG_JSON, LOG_INFO);
		log_write(NULL, LOG_INFO, "m", v[i].in,
			  (struct log_field[]){ LS("k", v[i].in), { .key = NULL } });
		snprintf(want, sizeof(want), "\"msg\":\"%s\",\"k\":\"%s\"}\n", v[i].json, v[i].json);
		assert_tail(got(), want);
		log_init(fds[1], LOG_TEXT, LOG_INFO);
		log_write(NULL, LOG_INFO, "m", v[i].in,
			  (struct log_field[]){ LS("k", v[i].in), { .key = NULL } });
		snprintf(want, sizeof(want), "m: %s k=\"%s\"\n", v[i].text, v[i].text);
		assert_tail(got(), want);
	}
	/* Keys are ours, but one wrong byte in them must not spoil the line either. */
	log_init(fds[1], LOG_JSON, LOG_INFO);
	log_write(NULL, LOG_INFO, "m", "x", (struct log_field[]){ LS("a\"b", "1"), { .key = NULL } });
	assert_tail(got(), ",\"a\\\"b\":\"1\"}\n");
	/* A text value with a '=' in it cannot look like two fields. */
	log_init(fds[1], LOG_TEXT, LOG_INFO);
	log_write(NULL, LOG_INFO, "m", "x", (struct log_field[]){ LS("k", "1 admin=true"), { .key = NULL } });
	assert_tail(got(), " k=\"1 admin=true\"\n");
}

/* Every length around the limit: whole lines, closed strings, and the mark. */
static void long_lines_are_cut_and_closed(void **state)
{
	char *big = malloc(9000);

	(void)state;
	for (size_t n = PIPE_BUF - 400; n < PIPE_BUF + 200; n++) {
		bool cut;

		memset(big, 'x', n);
		big[n] = '\0';
		log_init(fds[1], LOG_JSON, LOG_INFO);
		log_write(NULL, LOG_INFO, "m", "x",
			  (struct log_field[]){
				  LS("big", big), LS("key-after", "v"), LU("n", 123456), { .key = NULL } });
		got();
		cut = strstr(line, "truncated") != NULL;
		assert_true(strlen(line) <= PIPE_BUF);
		assert_memory_equal(line, "{\"ts\"", 5);
		assert_tail(line,
			    cut ? "\",\"truncated\":true}\n" : "x\",\"key-after\":\"v\",\"n\":123456}\n");
		log_init(fds[1], LOG_TEXT, LOG_INFO);
		log_write(NULL, LOG_INFO, "m", big, (struct log_field[]){ LU("n", 123456), { .key = NULL } });
		got();
		cut = strstr(line, "truncated") != NULL;
		assert_true(strlen(line) <= PIPE_BUF);
		assert_tail(line, cut ? "x truncated=true\n" : "x n=123456\n");
	}
	/* Cut inside of escapes: never half of one. */
	for (size_t shift = 0; shift < 6; shift++) {
		memset(big, 'x', shift);
		memset(big + shift, 1, 4000);
		big[shift + 4000] = '\0';
		log_init(fds[1], LOG_JSON, LOG_INFO);
		log_write(NULL, LOG_INFO, "m", "x", (struct log_field[]){ LS("big", big), { .key = NULL } });
		assert_tail(got(), "\\u0001\",\"truncated\":true}\n");
	}
	free(big);
}

static void levels(void **state)
{
	(void)state;
	log_init(fds[1], LOG_TEXT, LOG_WARN);
	log_info("m", "not wanted");
	assert_string_equal(got(), "");
	log_write(NULL, LOG_INFO, "m", "not wanted", NULL);
	assert_string_equal(got(), "");
	log_warn("m", "wanted");
	assert_tail(got(), " warn  m: wanted\n");
	log_set_level(LOG_DEBUG);
	assert_true(log_wants(LOG_DEBUG));
	log_set_level(LOG_ERROR);
	assert_false(log_wants(LOG_WARN));
	assert_true(log_wants(LOG_ERROR));
}

static void colour_only_on_a_tty(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), tty;
	char seen[300];
	ssize_t n;

	(void)state;
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
	    (tty = open(ptsname(master), O_RDWR | O_NOCTTY)) < 0)
		skip();
	log_init(tty, LOG_TEXT, LOG_INFO);
	log_warn("m", "x");
	n = read(master, seen, sizeof(seen) - 1);
	assert_true(n > 0);
	seen[n] = '\0';
	assert_non_null(strstr(seen, "Z \033[33mwarn \033[0m m: x"));
	log_init(tty, LOG_JSON, LOG_INFO);
	log_warn("m", "x");
	n = read(master, seen, sizeof(seen) - 1);
	assert_true(n > 0);
	seen[n] = '\0';
	assert_null(strchr(seen, '\033'));
	close(tty);
	close(master);
}

static unsigned burst(struct log_site *site, unsigned n)
{
	unsigned out = 0;

	for (unsigned i = 0; i < n; i++) {
		log_write(site, LOG_INFO, "m", "flood", NULL);
		out += got()[0] != '\0';
	}
	return out;
}

static void floods_are_limited_per_site(void **state)
{
	struct log_site a = { 0 }, b = { 0 };

	(void)state;
	log_init(fds[1], LOG_TEXT, LOG_INFO);
	assert_int_equal(burst(&a, 1000), 10);
	assert_int_equal(burst(&b, 5), 5);
	a.window -= 1000000000; /* a second later */
	log_write(&a, LOG_INFO, "m", "flood", NULL);
	assert_tail(got(), " m: flood suppressed=990\n");
	assert_int_equal(burst(&a, 10), 0);
	a.window -= 3000000000u;
	log_init(fds[1], LOG_JSON, LOG_INFO);
	log_write(&a, LOG_INFO, "m", "flood", NULL);
	assert_tail(got(), "\"msg\":\"flood\",\"suppressed\":10}\n");
	assert_int_equal(burst(&a, 10), 2);
	a.window = 1; /* long ago: the burst is whole again, not larger */
	assert_int_equal(burst(&a, 30), 10);
	assert_int_equal(burst(NULL, 30), 30);
	/* The macro has a site of its own for each call. */
	unsigned out = 0;

	for (int i = 0; i < 30; i++) {
		log_info("m", "x");
		out += got()[0] != '\0';
	}
	assert_int_equal(out, 10);
}

static void errno_survives_and_losses_are_told(void **state)
{
	int full;

	(void)state;
	log_init(-1, LOG_TEXT, LOG_INFO);
	errno = ENOTTY;
	log_write(NULL, LOG_INFO, "m", "lost", NULL);
	log_write(NULL, LOG_INFO, "m", "lost", NULL);
	assert_int_equal(errno, ENOTTY);
	log_init(fds[1], LOG_TEXT, LOG_INFO);
	log_write(NULL, LOG_INFO, "m", "x", NULL);
	assert_tail(got(), " m: x lost=2\n");
	log_write(NULL, LOG_INFO, "m", "x", NULL);
	assert_tail(got(), " m: x\n");
	full = open("/dev/full", O_WRONLY);
	log_init(full, LOG_TEXT, LOG_INFO);
	log_write(NULL, LOG_INFO, "m", "x", NULL); /* a full disk is no reason to stop */
	close(full);
	log_init(fds[1], LOG_JSON, LOG_INFO);
	log_write(NULL, LOG_INFO, "m", "x", NULL);
	assert_tail(got(), ",\"lost\":1}\n");
}

enum { THREADS = 4, EACH = 500 };

static void *writer(void *arg)
{
	char text[700];

	memset(text, 'a' + *(int *)arg, sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < EACH; i++)
		log_write(NULL, LOG_INFO, "m", text, NULL);
	return NULL;
}

static void lines_of_threads_stay_whole(void **state)
{
	pthread_t t[THREADS];
	int id[THREADS];
	unsigned lines = 0;
	FILE *f = fdopen(dup(fds[0]), "r");

	(void)state;
	fcntl(fds[0], F_SETFL, 0);
	fcntl(fds[1], F_SETFL, 0);
	log_init(fds[1], LOG_TEXT, LOG_INFO);
	for (int i = 0; i < THREADS; i++) {
		id[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, writer, &id[i]), 0);
	}
	while (lines < THREADS * EACH && fgets(line, sizeof(line), f)) {
		const char *msg = strstr(line, "m: ");

		assert_non_null(msg);
		for (size_t i = 0; i < 699; i++)
			assert_int_equal(msg[3 + i], msg[3]);
		assert_string_equal(msg + 3 + 699, "\n");
		lines++;
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(lines, THREADS * EACH);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(text_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(json_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_strings, setup, teardown),
		cmocka_unit_test_setup_teardown(long_lines_are_cut_and_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(levels, setup, teardown),
		cmocka_unit_test_setup_teardown(colour_only_on_a_tty, setup, teardown),
		cmocka_unit_test_setup_teardown(floods_are_limited_per_site, setup, teardown),
		cmocka_unit_test_setup_teardown(errno_survives_and_losses_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(lines_of_threads_stay_whole, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
