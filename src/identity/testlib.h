/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of identity/ share. Included after cmocka's headers. */
#ifndef X0_IDENTITY_TESTLIB_H
#define X0_IDENTITY_TESTLIB_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/internal.h"

#define TD  "mesh.example"
#define NOW 1800000000ll /* a fixed "now" */

/* A call that must succeed; the error's sentence is shown if it does not. */
#define must(call)                                                                                           \
	do {                                                                                                 \
		struct err e_ = { 0 };                                                                       \
		struct err *const e = &e_;                                                                   \
		int rc_ = (call);                                                                            \
		(void)e;                                                                                     \
		if (rc_)                                                                                     \
			fail_msg("%s: %d %s", #call, rc_, e_.what);                                          \
	} while (0)
/* A call that must fail with this code and a sentence. */
#define refused(code_, call)                                                                                 \
	do {                                                                                                 \
		struct err e_ = { 0 };                                                                       \
		struct err *const e = &e_;                                                                   \
		int rc_ = (call);                                                                            \
		(void)e;                                                                                     \
		if (rc_ != (code_))                                                                          \
			fail_msg("%s: %d (%s) instead of %d", #call, rc_, e_.what, code_);                   \
		assert_int_equal(e_.code, code_);                                                            \
		assert_true(e_.what[0]);                                                                     \
	} while (0)

static inline EVP_PKEY *test_key(enum key_type type)
{
	EVP_PKEY *k = NULL;

	must(key_new(type, &k, e));
	return k;
}

static inline int test_rm(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
	(void)sb;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void test_dir_remove(const char *dir)
{
	nftw(dir, test_rm, 16, FTW_DEPTH | FTW_PHYS);
}

/* "<new temporary directory>/<name>"; free with test_path_free(), which removes the directory. */
static inline char *test_path(const char *name)
{
	char dir[] = "/tmp/x0-identity.XXXXXX", *p = malloc(128);

	assert_non_null(p);
	assert_non_null(mkdtemp(dir));
	assert_true(str_fmt(p, 128, "%s/%s", dir, name) == 0);
	return p;
}

static inline void test_path_free(char *p)
{
	*strrchr(p, '/') = 0;
	test_dir_remove(p);
	free(p);
}

static inline char *test_in(const char *dir, const char *name)
{
	char *p = NULL;

	must(authority_path(dir, name, &p, e));
	return p;
}

static inline X509_REQ *test_csr(EVP_PKEY *key)
{
	uint8_t *p = NULL;
	size_t n = 0;
	X509_REQ *req = NULL;

	must(csr_new(key, &p, &n, e));
	must(csr_from_der(p, n, &req, e));
	free(p);
	return req;
}

#endif
