/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "identity/testlib.h"

static char *ca;
static struct authority *a;

/* An identity of that name, as after a join; NULL-safe free by node_identity_free(). */
static struct node_identity *make(const char *name, int64_t now, int64_t ttl)
{
	struct node_identity *ni = calloc(1, sizeof(*ni));
	X509_REQ *csr[2];

	must(spiffe_id_node(TD, name, &ni->id, e));
	ni->link_key = test_key(KEY_MLDSA65);
	ni->spiffe_key = test_key(KEY_P256);
	csr[0] = test_csr(ni->link_key);
	csr[1] = test_csr(ni->spiffe_key);
	must(authority_issue(a, &ni->id, csr[0], csr[1], ttl, now, &ni->link, &ni->spiffe, e));
	must(bundle_decode(authority_bundle(a)->encoded, authority_bundle(a)->encoded_n, NULL, NULL,
			   &ni->bundle, e));
	overlay_addr(&ni->id, ni->addr);
	ni->not_after = now + ttl;
	X509_REQ_free(csr[0]);
	X509_REQ_free(csr[1]);
	return ni;
}

static struct node_identity *one, *two;

static int setup(void **state)
{
	(void)state;
	must(crypto_init(e));
	signal(SIGXFSZ, SIG_IGN);
	ca = test_path("ca");
	must(authority_init(ca, TD, NULL, NOW, e));
	must(authority_open(ca, NULL, &a, e));
	one = make("one", NOW, 3600);
	two = make("two", NOW, 7200);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	node_identity_free(one);
	node_identity_free(two);
	authority_free(a);
	test_path_free(ca);
	return 0;
}

static void expect(const char *dir, const struct node_identity *want)
{
	struct node_identity *got = NULL;

	must(node_identity_load(dir, &got, e));
	assert_string_equal(got->id.uri, want->id.uri);
	assert_memory_equal(got->addr, want->addr, 16);
	assert_int_equal(got->not_after, want->not_after);
	assert_int_equal(X509_cmp(got->link, want->link), 0);
	assert_int_equal(X509_cmp(got->spiffe, want->spiffe), 0);
	assert_int_equal(X509_check_private_key(got->link, got->link_key), 1);
	assert_int_equal(X509_check_private_key(got->spiffe, got->spiffe_key), 1);
	assert_int_equal(got->bundle->encoded_n, want->bundle->encoded_n);
	assert_memory_equal(got->bundle->encoded, want->bundle->encoded, want->bundle->encoded_n);
	node_identity_free(got);
}

static void test_save_and_load(void **state)
{
	char *dir = test_path("identity"), *f, *left;
	struct node_identity *ni = NULL;
	struct err err = { 0 };
	struct stat st;

	(void)state;
	assert_int_equal(node_identity_load(dir, &ni, &err), ERR_NOT_FOUND);
	assert_non_null(strstr(err.todo, "x0 join"));
	must(node_identity_save(dir, one, e));
	expect(dir, one);
	must(node_identity_save(dir, two, e));
	expect(dir, two);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	f = test_in(dir, "link.key");
	assert_int_equal(stat(f, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	free(f);
	assert_true(asprintf(&left, "%s.new", dir) > 0);
	assert_int_equal(access(left, F_OK), -1);
	free(left);
	assert_null(node_identity_free(NULL));
	test_path_free(dir);
}

/* What each moment of a killed save leaves behind. */
static void test_left_overs(void **state)
{
	static const char *const files[] = { "link.key", "link.crt", "spiffe.key", "spiffe.crt", "bundle" };
	char *dir = test_path("identity"), *fresh, *aside;

	(void)state;
	assert_true(asprintf(&fresh, "%s.new", dir) > 0 && asprintf(&aside, "%s.aside", dir) > 0);
	for (size_t step = 0; step <= ARRAY_SIZE(files) + 1; step++) {
		/* The new directory with the first `step` files; at the end of the list with the last one
		 * half written. */
		test_dir_remove(dir);
		must(node_identity_save(dir, two, e));
		assert_int_equal(rename(dir, fresh), 0);
		for (size_t i = step; i < ARRAY_SIZE(files); i++) {
			char *f = test_in(fresh, files[i]);

			unlink(f);
			free(f);
		}
		if (step < ARRAY_SIZE(files)) {
			char *f = test_in(fresh, ".link.key.ab12cd"); /* file_write()'s temporary one */

			must(file_write(f, "half", 4, 0600, e));
			free(f);
		}
		assert_int_equal(rename(fresh, aside), 0);
		must(node_identity_save(dir, one, e));
		assert_int_equal(rename(aside, fresh), 0);
		expect(dir, one); /* the old one is in force, whole */
		must(node_identity_save(dir, two, e));
		expect(dir, two);
		assert_int_equal(access(fresh, F_OK), -1);
		/* Killed before the very first save was done: not joined yet, and the next save works. */
		assert_int_equal(rename(dir, fresh), 0);
		refused(ERR_NOT_FOUND, node_identity_load(dir, &(struct node_identity *){ NULL }, e));
		must(node_identity_save(dir, one, e));
		expect(dir, one);
	}
	free(aside);
	free(fresh);
	test_path_free(dir);
}

static void test_kill_at_any_moment(void **state)
{
	char *dir = test_path("identity");
	struct rng r;

	(void)state;
	rng_init_system(&r);
	must(node_identity_save(dir, one, e));
	for (int i = 0; i < 40; i++) {
		pid_t pid = fork();
		struct node_identity *ni = NULL;

		assert_true(pid >= 0);
		if (!pid)
			for (bool flip = false;; flip = !flip)
				node_identity_save(dir, flip ? one : two, NULL);
		usleep((useconds_t)rng_below(&r, 20000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		must(node_identity_load(dir, &ni, e));
		expect(dir, ni->not_after == one->not_after ? one : two);
		node_identity_free(ni);
	}
	test_path_free(dir);
}

static void test_failures(void **state)
{
	char *dir = test_path("identity"), *f;
	struct node_identity bad = *one, *ni = NULL;
	struct rlimit old, l;
	struct err err = { 0 };

	(void)state;
	must(node_identity_save(dir, one, e));
	getrlimit(RLIMIT_FSIZE, &old);
	for (rlim_t n = 0; n < 9000; n += 300) { /* the disk is full after n bytes of some file */
		l = old;
		l.rlim_cur = n;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
		assert_int_equal(node_identity_save(dir, two, &err), ERR_SYS);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_true(err.todo[0]);
		expect(dir, one);
	}
	bad.spiffe_key = two->spiffe_key;
	refused(ERR_USAGE, node_identity_save(dir, &bad, e));
	bad = *one;
	bad.bundle = bundle_clone(one->bundle); /* unsigned */
	refused(ERR_USAGE, node_identity_save(dir, &bad, e));
	bundle_free(bad.bundle);
	expect(dir, one);
	refused(ERR_SYS, node_identity_save("/proc/x0/identity", one, e));
	f = test_in(dir, "link.key");
	refused(ERR_SYS, node_identity_load(f, &ni, e)); /* not a directory */
	free(f);
	test_path_free(dir);
}

/* Files of one identity among those of another, or damaged: told, never used. */
static void test_mixed_and_damaged(void **state)
{
	static const char *const files[] = { "link.key", "link.crt", "spiffe.key", "spiffe.crt", "bundle" };
	char *dir = test_path("identity"), *other = test_path("identity");
	struct node_identity *ni = NULL;

	(void)state;
	must(node_identity_save(dir, one, e));
	must(node_identity_save(other, two, e));
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *f = test_in(dir, files[i]), *g = test_in(other, files[i]);
		uint8_t *p, *q;
		size_t n, m;

		must(file_read(f, 1 << 20, &p, &n, e));
		must(file_read(g, 1 << 20, &q, &m, e));
		if (strcmp(files[i], "bundle")) { /* both have the same bundle */
			must(file_write(f, q, m, 0600, e));
			refused(ERR_PARSE, node_identity_load(dir, &ni, e));
		}
		must(file_write(f, p, n / 2, 0600, e));
		assert_true(node_identity_load(dir, &ni, NULL) < 0);
		must(file_write(f, "", 0, 0600, e));
		assert_true(node_identity_load(dir, &ni, NULL) < 0);
		unlink(f);
		refused(ERR_SYS, node_identity_load(dir, &ni, e)); /* not "not joined": something is wrong */
		must(file_write(f, p, n, 0600, e));
		free(p);
		free(q);
		free(f);
		free(g);
	}
	expect(dir, one);
	/* Whole pairs swapped: each key fits its certificate, but they are two identities. */
	for (size_t i = 2; i < 4; i++) {
		char *f = test_in(dir, files[i]), *g = test_in(other, files[i]);
		uint8_t *p;
		size_t n;

		must(file_read(g, 1 << 20, &p, &n, e));
		must(file_write(f, p, n, 0600, e));
		free(p);
		free(f);
		free(g);
	}
	refused(ERR_PARSE, node_identity_load(dir, &ni, e));
	assert_null(ni);
	test_path_free(dir);
	test_path_free(other);
}

static void test_renew_at(void **state)
{
	int64_t lo = INT64_MAX, hi = 0;

	(void)state;
	for (int i = 0; i < 40; i++) {
		char name[16];
		struct node_identity *ni;
		int64_t t;

		str_fmt(name, sizeof(name), "n%d", i);
		ni = make(name, NOW, 10000);
		t = node_identity_renew_at(ni);
		assert_int_equal(t, node_identity_renew_at(ni));
		assert_in_range(t - NOW, 4000, 6000);
		lo = t < lo ? t : lo;
		hi = t > hi ? t : hi;
		node_identity_free(ni);
	}
	assert_true(hi - lo > 1000); /* a fleet spreads out */
	{
		struct node_identity *ni = make("short", NOW,
						20); /* seconds, not swallowed by the backdating */

		assert_in_range(node_identity_renew_at(ni) - NOW, 8, 12);
		node_identity_free(ni);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_save_and_load),	   cmocka_unit_test(test_left_overs),
		cmocka_unit_test(test_kill_at_any_moment), cmocka_unit_test(test_failures),
		cmocka_unit_test(test_mixed_and_damaged),  cmocka_unit_test(test_renew_at),
	};

	return cmocka_run_group_tests_name("identity/node_identity", tests, setup, teardown);
}
