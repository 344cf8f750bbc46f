/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "identity/testlib.h"

struct seen {
	char text[256];
	unsigned n;
};

static int note(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct seen *s = arg;

	(void)e;
	s->n++;
	strncat(s->text, (const char *)p, n);
	strcat(s->text, ",");
	return 0;
}

static int refuse(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	(void)arg;
	(void)p;
	(void)n;
	return err_set(e, ERR_DENIED, "no");
}

static char *journal_new(void)
{
	char *path = test_path("log");

	must(file_write(path, "x0jl", 4, 0600, e));
	return path;
}

static void test_append_and_read(void **state)
{
	char *path = journal_new();
	struct seen s = { 0 };
	struct journal j;

	(void)state;
	must(journal_open(&j, path, note, &s, e));
	assert_int_equal(s.n, 0);
	must(journal_append(&j, "one", 3, e));
	must(journal_append(&j, "two", 3, e));
	must(journal_append(&j, "", 0, e));
	journal_close(&j);
	must(journal_open(&j, path, note, &s, e));
	assert_string_equal(s.text, "one,two,,");
	must(journal_append(&j, "four", 4, e));
	journal_close(&j);
	s = (struct seen){ 0 };
	must(journal_open(&j, path, note, &s, e));
	assert_string_equal(s.text, "one,two,,four,");
	journal_close(&j);
	refused(ERR_DENIED, journal_open(&j, path, refuse, &s, e));
	refused(ERR_FAILED, journal_append(&j, "x", 1, e)); /* closed */
	test_path_free(path);
}

static void test_every_cut(void **state)
{
	char *path = journal_new();
	struct seen s = { 0 };
	struct journal j;
	uint8_t *p;
	size_t n;

	(void)state;
	must(journal_open(&j, path, note, &s, e));
	must(journal_append(&j, "one", 3, e));
	must(journal_append(&j, "twotwo", 6, e));
	journal_close(&j);
	must(file_read(path, 1000, &p, &n, e));
	for (size_t cut = 4; cut <= n; cut++) {
		/* Cut short, or left as zeros by the file system: what was whole stays, and appending goes
		 * on. */
		for (int zeros = 0; zeros < 2; zeros++) {
			uint8_t *q = calloc(1, n + 64);

			memcpy(q, p, cut);
			must(file_write(path, q, zeros && cut == 23 ? n + 64 : cut, 0600, e));
			free(q);
			s = (struct seen){ 0 };
			must(journal_open(&j, path, note, &s, e));
			assert_string_equal(s.text, cut == n ? "one,twotwo," : cut >= 23 ? "one," : "");
			must(journal_append(&j, "new", 3, e));
			journal_close(&j);
			s = (struct seen){ 0 };
			must(journal_open(&j, path, note, &s, e));
			assert_string_equal(s.text, cut == n	? "one,twotwo,new,"
						    : cut >= 23 ? "one,new,"
								: "new,");
			journal_close(&j);
		}
	}
	for (size_t cut = 0; cut < 4; cut++) {
		must(file_write(path, p, cut, 0600, e));
		refused(ERR_PARSE, journal_open(&j, path, note, &s, e));
	}
	free(p);
	test_path_free(path);
}

static void test_damage_is_told(void **state)
{
	char *path = journal_new();
	struct seen s = { 0 };
	struct journal j;
	uint8_t *p;
	size_t n;

	(void)state;
	must(journal_open(&j, path, note, &s, e));
	must(journal_append(&j, "one", 3, e));
	must(journal_append(&j, "two", 3, e));
	journal_close(&j);
	must(file_read(path, 1000, &p, &n, e));
	for (size_t i = 0; i < 23; i++) /* any bit of the first record: never silently fewer records */
		for (int bit = 0; bit < 8; bit++) {
			p[i] ^= (uint8_t)(1 << bit);
			must(file_write(path, p, n, 0600, e));
			refused(ERR_PARSE, journal_open(&j, path, note, &s, e));
			p[i] ^= (uint8_t)(1 << bit);
		}
	free(p);
	unlink(path);
	refused(ERR_NOT_FOUND, journal_open(&j, path, note, &s, e));
	test_path_free(path);
}

static void test_full_disk(void **state)
{
	char *path = journal_new(), big[100] = { 0 }, *huge = calloc(1, 70000);
	struct rlimit old, l;
	struct seen s = { 0 };
	struct journal j;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	must(journal_open(&j, path, note, &s, e));
	must(journal_append(&j, "one", 3, e));
	refused(ERR_LIMIT, journal_append(&j, huge, 70000, e));
	getrlimit(RLIMIT_FSIZE, &old);
	l = old;
	l.rlim_cur = 60;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
	refused(ERR_SYS, journal_append(&j, big, sizeof(big), e));
	must(journal_append(&j, "two", 3, e)); /* what fits still goes in, after the last whole record */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	must(journal_append(&j, "three", 5, e));
	journal_close(&j);
	must(journal_open(&j, path, note, &s, e));
	assert_string_equal(s.text, "one,two,three,");
	journal_close(&j);
	free(huge);
	test_path_free(path);
}

static void test_replace(void **state)
{
	char *path = journal_new();
	struct journal_image im = { 0 };
	struct seen s = { 0 };
	struct journal j;

	(void)state;
	must(journal_open(&j, path, note, &s, e));
	must(journal_append(&j, "dead", 4, e));
	assert_int_equal(journal_image_add(&im, NULL, 0), 0);
	assert_int_equal(journal_image_add(&im, "live", 4), 0);
	must(journal_replace(&j, &im, e));
	must(journal_append(&j, "more", 4, e)); /* goes into the new file */
	journal_close(&j);
	must(journal_open(&j, path, note, &s, e));
	assert_string_equal(s.text, "live,more,");
	/* Where nothing can be written the old one stays in use. */
	free(j.path);
	j.path = strdup("/nonexistent/log");
	assert_true(journal_replace(&j, &im, NULL) < 0);
	must(journal_append(&j, "still", 5, e));
	journal_close(&j);
	s = (struct seen){ 0 };
	must(journal_open(&j, path, note, &s, e));
	assert_string_equal(s.text, "live,more,still,");
	journal_close(&j);
	free(im.p);
	test_path_free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append_and_read), cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_damage_is_told),	cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_replace),
	};

	return cmocka_run_group_tests_name("identity/journal", tests, NULL, NULL);
}
