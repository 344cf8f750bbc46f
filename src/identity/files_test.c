/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th file operation (open, write, fsync, rename, ...) fails, for every n: what was acknowledged is on
 * disk, what is on disk is whole, the error names the file, and the next attempt works.
 */
#undef _FORTIFY_SOURCE
#include "base/faultlib.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "identity/testlib.h"

static bool holds(const char *path, const char *text)
{
	uint8_t *p = NULL;
	size_t n = 0;
	bool same;

	must(file_read(path, 4096, &p, &n, e));
	same = n == strlen(text) && !memcmp(p, text, n);
	free(p);
	return same;
}

static void one_file(void **state)
{
	char *path = test_path("file");
	struct err why = { 0 };
	bool struck = true;
	unsigned failed = 0;

	(void)state;
	for (uint64_t n = 1; struck; n++) {
		int rc;

		must(file_write(path, "old", 3, 0600, e));
		fault_arm(FAULT_FILE, n);
		rc = file_write(path, "new!", 4, 0600, &why);
		struck = fault_disarm();
		if (rc) {
			assert_non_null(strstr(why.what, "/tmp/x0-identity."));
			assert_true(holds(path, "old") || holds(path, "new!"));
			failed++;
		} else {
			assert_true(holds(path, "new!"));
		}
	}
	assert_true(failed >= 5);
	test_path_free(path);
}

static void authority_files(void **state)
{
	struct endpoint at = { .port = 7430 };
	bool struck = true;
	unsigned failed = 0;
	char *dir = test_path("authority");
	struct rng rng;

	(void)state;
	rng_init_seeded(&rng, 1);
	must(authority_init(dir, TD, NULL, NOW, e));
	for (uint64_t n = 1; struck; n++) {
		struct authority *a = NULL;
		struct token t;
		struct err why = { 0 };
		uint64_t number;
		char name[16], uri[64];
		int rc;

		must(authority_open(dir, NULL, &a, e));
		number = authority_bundle(a)->number;
		str_fmt(name, sizeof(name), "n%u", (unsigned)n);
		str_fmt(uri, sizeof(uri), "spiffe://" TD "/node/x%u", (unsigned)n);
		fault_arm(FAULT_FILE, n);
		rc = authority_token(a, name, 3600, false, &at, 1, NOW, &rng, &t, &why);
		rc = rc ? rc : authority_revoke(a, uri, NULL, NOW, &why);
		struck = fault_disarm();
		assert_int_equal(rc, why.code);
		assert_true(!rc || why.what[0]);
		failed += rc != 0;
		authority_free(a);
		/* Whatever happened: it opens, and what was acknowledged is there. */
		must(authority_open(dir, NULL, &a, e));
		assert_true(authority_bundle(a)->number >= number + (rc == 0));
		assert_true(rc || bundle_revokes(authority_bundle(a), uri, (uint8_t[SHA256_LEN]){ 1 }, NOW));
		must(authority_revoke(a, uri, NULL, NOW + 1, e));
		authority_free(a);
	}
	assert_true(failed >= 5);
	test_path_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_file),
		cmocka_unit_test(authority_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
