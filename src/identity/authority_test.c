/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "identity/testlib.h"

static struct rng rng;
static struct endpoint at;
static EVP_PKEY *k1[2], *k2[2];
static X509_REQ *csr1[2], *csr2[2];

static int group_setup(void **state)
{
	(void)state;
	must(crypto_init(e));
	signal(SIGXFSZ, SIG_IGN);
	rng_init_system(&rng);
	must(endpoint_parse("192.0.2.1:7430", 0, &at, e));
	for (int i = 0; i < 2; i++) {
		k1[i] = test_key(i ? KEY_P256 : KEY_MLDSA65);
		k2[i] = test_key(i ? KEY_P256 : KEY_MLDSA65);
		csr1[i] = test_csr(k1[i]);
		csr2[i] = test_csr(k2[i]);
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		EVP_PKEY_free(k1[i]);
		EVP_PKEY_free(k2[i]);
		X509_REQ_free(csr1[i]);
		X509_REQ_free(csr2[i]);
	}
	return 0;
}

static struct authority *new_authority(char **ret_dir)
{
	struct authority *a = NULL;

	*ret_dir = test_path("ca");
	must(authority_init(*ret_dir, TD, NULL, NOW, e));
	must(authority_open(*ret_dir, NULL, &a, e));
	return a;
}

static int issue(struct authority *a, const char *uri, X509_REQ *const csr[2], int64_t ttl, int64_t now,
		 X509 *ret[2], struct err *e)
{
	struct spiffe_id id;
	int rc = spiffe_id_parse(uri, strlen(uri), &id, e);

	return rc ? rc : authority_issue(a, &id, csr[0], csr[1], ttl, now, &ret[0], &ret[1], e);
}

static void issue_ok(struct authority *a, const char *uri, X509_REQ *const csr[2], int64_t now)
{
	X509 *x[2];

	must(issue(a, uri, csr, 3600, now, x, e));
	X509_free(x[0]);
	X509_free(x[1]);
}

static void check_ext(X509 *x, int nid, bool critical)
{
	int i = X509_get_ext_by_NID(x, nid, -1);

	assert_true(i >= 0);
	assert_int_equal(X509_get_ext_by_NID(x, nid, i), -1); /* once */
	assert_int_equal(X509_EXTENSION_get_critical(X509_get_ext(x, i)), critical);
}

static void test_certificates(void **state)
{
	char *dir, name[80];
	struct authority *a = new_authority(&dir);
	X509 *x[2], *y[2];
	struct spiffe_id id;
	int64_t from, to;

	(void)state;
	for (int i = 0; i < 2; i++) {
		X509 *r = authority_root(a, i ? SVID_SPIFFE : SVID_LINK);

		check_ext(r, NID_basic_constraints, true);
		check_ext(r, NID_key_usage, true);
		check_ext(r, NID_subject_key_identifier, false);
		check_ext(r, NID_subject_alt_name, false);
		assert_int_equal(X509_check_ca(r), 1);
		assert_int_equal(X509_get_key_usage(r), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
		must(cert_id(r, &id, e));
		assert_string_equal(id.uri, "spiffe://" TD);
		assert_int_equal(cert_times(r, &from, &to), 0);
		assert_int_equal(to - NOW, 3653ll * 86400);
		assert_int_equal(X509_verify(r, X509_get0_pubkey(r)), 1);
	}
	must(issue(a, "spiffe://" TD "/node/web", csr1, 3600, NOW, x, e));
	must(issue(a, "spiffe://" TD "/svc/db", csr1, 3600, NOW, y, e)); /* a workload */
	for (int i = 0; i < 2; i++) {
		X509 *r = authority_root(a, i ? SVID_SPIFFE : SVID_LINK);

		check_ext(x[i], NID_basic_constraints, true);
		check_ext(x[i], NID_key_usage, true);
		check_ext(x[i], NID_ext_key_usage, false);
		check_ext(x[i], NID_subject_alt_name, false);
		check_ext(x[i], NID_subject_key_identifier, false);
		check_ext(x[i], NID_authority_key_identifier, false);
		assert_int_equal(X509_check_ca(x[i]), 0);
		assert_int_equal(X509_get_key_usage(x[i]), KU_DIGITAL_SIGNATURE);
		assert_int_equal(X509_get_extended_key_usage(x[i]), XKU_SSL_SERVER | XKU_SSL_CLIENT);
		assert_int_equal(
			ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(x[i]), X509_get0_subject_key_id(r)),
			0);
		assert_int_equal(X509_verify(x[i], X509_get0_pubkey(r)), 1);
		assert_int_equal(ASN1_STRING_length(X509_get0_serialNumber(x[i])), 16);
		assert_int_equal(cert_times(x[i], &from, &to), 0);
		assert_int_equal(from, NOW - 600);
		assert_int_equal(to, NOW + 3600);
		assert_int_equal(
			X509_NAME_get_text_by_NID(X509_get_subject_name(x[i]), NID_commonName, name, 80), 3);
		assert_string_equal(name, "web");
		assert_int_equal(
			X509_NAME_get_text_by_NID(X509_get_subject_name(y[i]), NID_commonName, name, 80), -1);
		assert_int_not_equal(
			ASN1_INTEGER_cmp(X509_get0_serialNumber(x[i]), X509_get0_serialNumber(y[i])), 0);
	}
	assert_int_equal(X509_check_private_key(x[0], k1[0]), 1);
	assert_int_equal(X509_check_private_key(x[1], k1[1]), 1);
	for (int i = 0; i < 2; i++) {
		X509_free(x[i]);
		X509_free(y[i]);
	}
	/* What is not issued. */
	refused(ERR_DENIED, issue(a, "spiffe://other.example/node/web", csr1, 3600, NOW, x, e));
	refused(ERR_CONFLICT, issue(a, "spiffe://" TD "/node/web", csr2, 3600, NOW, x, e));
	refused(ERR_USAGE, issue(a, "spiffe://" TD "/node/web", csr1, 0, NOW, x, e));
	refused(ERR_USAGE, issue(a, "spiffe://" TD "/node/web", csr1, SVID_TTL_MAX + 1, NOW, x, e));
	refused(ERR_EXPIRED,
		issue(a, "spiffe://" TD "/node/web", csr1, 3600, NOW + 3653ll * 86400 - 3599, x, e));
	refused(ERR_EXPIRED,
		issue(a, "spiffe://" TD "/node/web", csr1, 3600, NOW - 86400, x, e)); /* clock behind */
	refused(ERR_UNSUPPORTED,
		issue(a, "spiffe://" TD "/node/db", (X509_REQ *[]){ csr1[1], csr1[1] }, 60, NOW, x, e));
	refused(ERR_UNSUPPORTED,
		issue(a, "spiffe://" TD "/node/db", (X509_REQ *[]){ csr1[0], csr1[0] }, 60, NOW, x, e));
	issue_ok(a, "spiffe://" TD "/node/web", csr2, NOW + 3601); /* expired: free for a new host */
	authority_free(a);
	test_path_free(dir);
}

static void test_directory(void **state)
{
	char *dir = test_path("state/ca"), *f;
	struct authority *a = NULL, *b = NULL;
	char longtd[300];
	struct stat st;
	uint8_t *p;
	size_t n;

	(void)state;
	refused(ERR_NOT_FOUND, authority_open(dir, NULL, &a, e));
	refused(ERR_PARSE, authority_init(dir, "Mesh.Example", NULL, NOW, e));
	assert_true(authority_init(dir, "", NULL, NOW, NULL) < 0);
	assert_true(authority_init(dir, "a/b", NULL, NOW, NULL) < 0);
	memset(longtd, 'a', sizeof(longtd));
	longtd[sizeof(longtd) - 1] = 0;
	refused(ERR_USAGE, authority_init(dir, longtd, NULL, NOW, e));
	refused(ERR_USAGE, authority_init(dir, TD, "", NOW, e));
	must(authority_init(dir, TD, NULL, NOW, e));
	refused(ERR_CONFLICT, authority_init(dir, TD, NULL, NOW, e)); /* keys are never overwritten */
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	for (const char *const *name =
		     (const char *const[]){ "authority.key", "seal.key", "tokens.log", NULL };
	     *name; name++) {
		f = test_in(dir, *name);
		assert_int_equal(stat(f, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		free(f);
	}
	must(authority_open(dir, NULL, &a, e));
	refused(ERR_CONFLICT, authority_open(dir, NULL, &b, e)); /* one writer */
	authority_free(a);
	assert_null(authority_free(NULL));
	refused(ERR_AUTH, authority_open(dir, "a password", &a, e)); /* it has none */
	/* Without its seal.key a copy of the directory opens nothing. */
	f = test_in(dir, "seal.key");
	must(file_read(f, 100, &p, &n, e));
	p[0] ^= 1;
	must(file_write(f, p, n, 0600, e));
	refused(ERR_AUTH, authority_open(dir, NULL, &a, e));
	must(file_write(f, p, n - 1, 0600, e));
	refused(ERR_PARSE, authority_open(dir, NULL, &a, e));
	unlink(f);
	refused(ERR_NOT_FOUND, authority_open(dir, NULL, &a, e));
	p[0] ^= 1;
	must(file_write(f, p, n, 0600, e));
	free(f);
	free(p);
	/* Damage of each file is told, none is repaired by guessing. */
	for (const char *const *name = (const char *const[]){ "authority.key", "bundle", NULL }; *name;
	     name++) {
		f = test_in(dir, *name);
		must(file_read(f, 1 << 20, &p, &n, e));
		for (size_t i = 0; i < n; i += 1 + n / 40) {
			p[i] ^= 1;
			must(file_write(f, p, n, 0600, e));
			assert_true(authority_open(dir, NULL, &a, NULL) < 0);
			p[i] ^= 1;
			must(file_write(f, p, i, 0600, e));
			assert_true(authority_open(dir, NULL, &a, NULL) < 0);
		}
		unlink(f);
		assert_true(authority_open(dir, NULL, &a, NULL) < 0);
		must(file_write(f, p, n, 0600, e));
		free(p);
		free(f);
	}
	must(authority_open(dir, NULL, &a, e));
	authority_free(a);
	*strrchr(dir, '/') = 0;
	test_path_free(dir);
}

static void test_password(void **state)
{
	char *dir = test_path("ca"), *f;
	struct authority *a = NULL;
	uint8_t *p, *der;
	size_t n;
	struct secret s;

	(void)state;
	must(authority_init(dir, TD, "correct horse", NOW, e));
	refused(ERR_AUTH, authority_open(dir, NULL, &a, e));
	refused(ERR_AUTH, authority_open(dir, "correct house", &a, e));
	must(authority_open(dir, "correct horse", &a, e));
	f = test_in(dir, "seal.key");
	assert_int_equal(access(f, F_OK), -1);
	free(f);
	/* The private key is not in the file. */
	must(key_to_der(a->spiffe_key, &s, e));
	f = test_in(dir, "authority.key");
	must(file_read(f, 1 << 20, &p, &n, e));
	der = s.p + s.n - 40;
	assert_null(memmem(p, n, der, 32));
	assert_null(memmem(p, n, s.p + 30, 32));
	secret_fini(&s);
	free(f);
	free(p);
	authority_free(a);
	test_path_free(dir);
}

struct listing {
	char text[512];
};

static void list(void *arg, const struct authority_node *n)
{
	struct listing *l = arg;
	size_t used = strlen(l->text);

	snprintf(l->text + used, sizeof(l->text) - used, "%s:%d%s ", n->name ? n->name : n->uri,
		 (int)n->state, n->ephemeral ? "e" : "");
}

static void expect_nodes(const struct authority *a, int64_t now, const char *want)
{
	struct listing l = { "" };

	authority_nodes(a, now, list, &l);
	assert_string_equal(l.text, want);
}

static void test_revocation(void **state)
{
	char *dir;
	struct authority *a = new_authority(&dir);
	const char *web = "spiffe://" TD "/node/web", *db = "spiffe://" TD "/node/db";
	uint8_t zero[SHA256_LEN] = { 0 }, h[SHA256_LEN];
	X509 *x[2];
	struct token t;

	(void)state;
	issue_ok(a, web, csr1, NOW);
	issue_ok(a, db, csr2, NOW);
	issue_ok(a, "spiffe://" TD "/svc/x", csr2, NOW);
	expect_nodes(a, NOW, "db:0 web:0 spiffe://" TD "/svc/x:0 ");
	expect_nodes(a, NOW + 3601, "db:1 web:1 spiffe://" TD "/svc/x:1 ");
	refused(ERR_USAGE, authority_revoke(a, "spiffe://other.example/x", NULL, NOW, e));
	refused(ERR_USAGE, authority_revoke(a, web, zero, NOW, e));
	assert_true(authority_revoke(a, "web", NULL, NOW, NULL) < 0);
	assert_int_equal(authority_bundle(a)->number, 1);

	assert_int_equal(key_pub_hash(k1[0], h), 0);
	must(authority_revoke(a, web, h, NOW + 5, e));
	assert_int_equal(authority_bundle(a)->number, 2);
	assert_true(bundle_revokes(authority_bundle(a), web, h, NOW - 600));
	expect_nodes(a, NOW + 6, "db:0 web:2 spiffe://" TD "/svc/x:0 ");
	refused(ERR_REVOKED, issue(a, web, csr1, 60, NOW + 6, x, e));
	must(authority_revoke(a, db, NULL, NOW + 7, e));
	expect_nodes(a, NOW + 8, "db:2 web:2 spiffe://" TD "/svc/x:0 ");
	issue_ok(a, db, csr1, NOW + 8); /* the whole identity, but given anew */
	expect_nodes(a, NOW + 8, "db:0 web:2 spiffe://" TD "/svc/x:0 ");

	/* Remove: for ever. */
	refused(ERR_NOT_FOUND, authority_remove(a, "wbe", false, NOW + 9, e));
	assert_true(authority_remove(a, "W", true, NOW + 9, NULL) < 0);
	must(authority_remove(a, "db", false, NOW + 9, e));
	assert_int_equal(authority_bundle(a)->number, 4);
	must(authority_remove(a, "db", false, NOW + 10, e));
	assert_int_equal(authority_bundle(a)->number, 4);
	must(authority_remove(a, "elsewhere", true, NOW + 10, e));
	expect_nodes(a, NOW + 10, "db:3 web:2 spiffe://" TD "/svc/x:0 ");
	refused(ERR_REVOKED, issue(a, db, csr1, 60, NOW + 11, x, e));
	refused(ERR_REVOKED, issue(a, db, csr1, 60, NOW + 90000000, x, e));
	refused(ERR_REVOKED, authority_token(a, "db", 60, false, &at, 1, NOW + 11, &rng, &t, e));

	/* It is all there after a restart; expired revocations go with the next change, removals never. */
	authority_free(a);
	must(authority_open(dir, NULL, &a, e));
	assert_int_equal(authority_bundle(a)->number, 5);
	assert_int_equal(authority_bundle(a)->nrevoked, 3);
	must(authority_add_policy_signer(a, web, NOW + SVID_TTL_MAX + 700, e));
	refused(ERR_CONFLICT, authority_add_policy_signer(a, web, NOW, e));
	refused(ERR_USAGE, authority_add_policy_signer(a, "spiffe://other.example/x", NOW, e));
	assert_int_equal(authority_bundle(a)->nrevoked, 2);
	assert_true(bundle_removed(authority_bundle(a), db));
	authority_free(a);
	test_path_free(dir);
}

static void test_nothing_in_force_that_is_not_stored(void **state)
{
	char *dir;
	struct authority *a = new_authority(&dir);
	struct rlimit old, l;
	X509 *x[2] = { NULL };
	struct err err = { 0 };

	(void)state;
	getrlimit(RLIMIT_FSIZE, &old);
	l = old;
	l.rlim_cur = 10;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
	assert_int_equal(authority_revoke(a, "spiffe://" TD "/node/web", NULL, NOW, &err), ERR_SYS);
	assert_true(err.todo[0]);
	assert_int_equal(authority_bundle(a)->number, 1);
	refused(ERR_SYS, issue(a, "spiffe://" TD "/node/web", csr1, 60, NOW, x, e));
	assert_null(x[0]);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	expect_nodes(a, NOW, "");
	issue_ok(a, "spiffe://" TD "/node/web", csr1, NOW);
	/* The directory gone under it. */
	test_dir_remove(dir);
	refused(ERR_SYS, authority_revoke(a, "spiffe://" TD "/node/web", NULL, NOW, e));
	assert_int_equal(authority_bundle(a)->number, 1);
	authority_free(a);
	test_path_free(dir);
}

static void test_two_issuers(void **state)
{
	char *d1, *d2 = test_path("ca");
	struct authority *a = new_authority(&d1), *b = NULL;
	struct bundle *x = NULL, *node;
	X509 *leaf[2], *stray = NULL;
	struct token t;

	(void)state;
	x = bundle_clone(authority_bundle(a));
	refused(ERR_USAGE, authority_init_joining(d2, x, NULL, NOW, e)); /* unsigned */
	bundle_free(x);
	refused(ERR_USAGE, authority_init_joining(d2, authority_bundle(a), "", NOW, e));
	must(authority_init_joining(d2, authority_bundle(a), NULL, NOW, e));
	must(authority_open(d2, NULL, &b, e));
	/* Until A took its roots B can do nothing. */
	refused(ERR_DENIED, issue(b, "spiffe://" TD "/node/web", csr1, 60, NOW, leaf, e));
	refused(ERR_DENIED, authority_token(b, "web", 60, false, &at, 1, NOW, &rng, &t, e));
	refused(ERR_DENIED, authority_revoke(b, "spiffe://" TD "/node/web", NULL, NOW, e));
	must(bundle_decode(authority_bundle(a)->encoded, authority_bundle(a)->encoded_n, NULL, NULL, &node,
			   e));

	must(authority_add_issuer(a, authority_root(b, SVID_LINK), authority_root(b, SVID_SPIFFE), NOW, e));
	refused(ERR_CONFLICT, authority_add_issuer(a, authority_root(b, SVID_LINK),
						   authority_root(b, SVID_SPIFFE), NOW, e));
	assert_int_equal(authority_bundle(a)->number, 2);
	must(authority_adopt(b, authority_bundle(a), NOW, e));
	assert_memory_equal(authority_bundle(b)->hash, authority_bundle(a)->hash, SHA256_LEN);
	must(authority_adopt(b, authority_bundle(a), NOW, e)); /* again: nothing */
	issue_ok(b, "spiffe://" TD "/node/web", csr1, NOW);

	/* Both make number 3 at once. */
	must(authority_revoke(a, "spiffe://" TD "/node/p", NULL, NOW + 1, e));
	must(authority_revoke(b, "spiffe://" TD "/node/q", NULL, NOW + 2, e));
	refused(ERR_CONFLICT, bundle_decode(authority_bundle(b)->encoded, authority_bundle(b)->encoded_n,
					    authority_bundle(a), NULL, &x, e));
	must(bundle_decode_any_number(authority_bundle(b)->encoded, authority_bundle(b)->encoded_n,
				      authority_bundle(a), &x, e));
	must(authority_adopt(b, authority_bundle(a), NOW + 3, e)); /* and both unite them at once */
	must(authority_adopt(a, x, NOW + 3, e));
	bundle_free(x);
	assert_int_equal(authority_bundle(a)->number, 4);
	assert_int_equal(authority_bundle(a)->nrevoked, 2);
	assert_memory_equal(authority_bundle(b)->hash, authority_bundle(a)->hash, SHA256_LEN);

	/* A is ahead by two; B's number 5 with its own revocation is older, but not lost. */
	must(authority_revoke(a, "spiffe://" TD "/node/r", NULL, NOW + 4, e));
	must(authority_revoke(a, "spiffe://" TD "/node/s", NULL, NOW + 5, e));
	must(authority_revoke(b, "spiffe://" TD "/node/t", NULL, NOW + 6, e));
	must(authority_adopt(a, authority_bundle(b), NOW + 7, e));
	assert_int_equal(authority_bundle(a)->number, 7);
	assert_int_equal(authority_bundle(a)->nrevoked, 5);
	must(authority_adopt(b, authority_bundle(a), NOW + 8, e));
	assert_memory_equal(authority_bundle(b)->hash, authority_bundle(a)->hash, SHA256_LEN);
	must(authority_adopt(a, authority_bundle(b), NOW + 8, e));
	assert_int_equal(authority_bundle(a)->number, 7); /* it ends */

	/* A node that knows only number 1, with A's root, follows what B signed, because A signed it too, or
	 * B adopted it. */
	must(bundle_decode(authority_bundle(b)->encoded, authority_bundle(b)->encoded_n, node, NULL, &x, e));
	bundle_free(x);

	/* Not from strangers, not other domains, not leaves, nor roots of others. */
	{
		char *d3;
		struct authority *c = new_authority(&d3);

		refused(ERR_AUTH, authority_adopt(a, authority_bundle(c), NOW, e));
		must(issue(c, "spiffe://" TD "/node/x", csr1, 60, NOW, leaf, e));
		refused(ERR_DENIED, authority_add_issuer(a, leaf[0], authority_root(c, SVID_SPIFFE), NOW, e));
		refused(ERR_DENIED, authority_add_issuer(a, authority_root(c, SVID_LINK), leaf[1], NOW, e));
		refused(ERR_UNSUPPORTED, authority_add_issuer(a, authority_root(c, SVID_SPIFFE),
							      authority_root(c, SVID_SPIFFE), NOW, e));
		must(cert_root("other.example", k1[0], NOW, &stray, e));
		refused(ERR_DENIED, authority_add_issuer(a, stray, authority_root(c, SVID_SPIFFE), NOW, e));
		x = bundle_clone(authority_bundle(c));
		refused(ERR_AUTH, authority_adopt(a, x, NOW, e)); /* not signed at all */
		bundle_free(x);
		X509_free(stray);
		X509_free(leaf[0]);
		X509_free(leaf[1]);
		authority_free(c);
		test_path_free(d3);
	}
	assert_int_equal(authority_bundle(a)->number, 7);
	authority_free(b);
	must(authority_open(d2, NULL, &b, e));
	assert_int_equal(authority_bundle(b)->number, 7);
	bundle_free(node);
	authority_free(a);
	authority_free(b);
	test_path_free(d1);
	test_path_free(d2);
}

static void test_backup(void **state)
{
	char *dir, *other = test_path("ca"), *file = test_path("backup");
	struct authority *a = new_authority(&dir), *b = NULL;
	struct token t;
	uint8_t *p;
	size_t n;
	struct err err = { 0 };

	(void)state;
	issue_ok(a, "spiffe://" TD "/node/web", csr1, NOW);
	must(authority_remove(a, "web", false, NOW, e));
	must(authority_token(a, "db", 60, false, &at, 1, NOW, &rng, &t, e));
	refused(ERR_USAGE, authority_backup(a, file, "", e));
	must(authority_backup(a, file, "rescue", e));
	refused(ERR_SYS, authority_backup(a, "/nonexistent/backup", "rescue", e));
	assert_int_equal(authority_restore(file, "rescued", other, &err), ERR_AUTH);
	assert_non_null(strstr(err.what, "wrong password"));
	refused(ERR_AUTH, authority_restore(file, NULL, other, e));
	refused(ERR_CONFLICT, authority_restore(file, "rescue", dir, e));
	refused(ERR_NOT_FOUND, authority_restore("/nonexistent/backup", "rescue", other, e));
	must(authority_restore(file, "rescue", other, e));
	refused(ERR_CONFLICT, authority_restore(file, "rescue", other, e));
	must(authority_open(other, NULL, &b, e));
	assert_memory_equal(authority_bundle(b)->hash, authority_bundle(a)->hash, SHA256_LEN);
	assert_int_equal(X509_cmp(authority_root(a, SVID_LINK), authority_root(b, SVID_LINK)), 0);
	expect_nodes(b, NOW, "web:3 ");
	assert_int_equal(b->ntokens, 0);
	issue_ok(b, "spiffe://" TD "/node/db", csr2, NOW);
	authority_free(b);
	test_dir_remove(other);
	/* Damage: told, and nothing half restored. */
	must(file_read(file, 1 << 20, &p, &n, e));
	for (size_t i = 0; i < n; i += 1 + n / 8) {
		p[i] ^= 1;
		must(file_write(file, p, n, 0600, e));
		assert_true(authority_restore(file, "rescue", other, NULL) < 0);
		p[i] ^= 1;
		must(file_write(file, p, i, 0600, e));
		assert_true(authority_restore(file, "rescue", other, NULL) < 0);
	}
	assert_int_equal(access(other, F_OK), -1);
	free(p);
	authority_free(a);
	test_path_free(dir);
	test_path_free(other);
	test_path_free(file);
}

static void test_backup_contents(void **state)
{
	static const struct {
		const char *what;
		uint8_t p[12];
		size_t n;
	} bad[] = {
		{ "nothing", { 0 }, 0 },
		{ "cut head", { 0, 0, 0 }, 3 },
		{ "cut body", { 0, 0, 0, 0, 9, 1 }, 6 },
		{ "unknown part", { 9, 0, 0, 0, 0 }, 5 },
		{ "twice", { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 10 },
		{ "incomplete", { 0, 0, 0, 0, 0, 2, 0, 0, 0, 0 }, 10 },
	};
	char *file = test_path("backup"), *dir = test_path("ca");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t *p;
		size_t n;

		must(seal_password("x0bk", "pw", bad[i].p, bad[i].n, &p, &n, e));
		must(file_write(file, p, n, 0600, e));
		refused(ERR_PARSE, authority_restore(file, "pw", dir, e));
		free(p);
	}
	assert_int_equal(access(dir, F_OK), -1);
	test_path_free(file);
	test_path_free(dir);
}

/* Renewed for an hour at most at a time; once it stops it is gone, and its name is free. */
static void test_ephemeral(void **state)
{
	char *dir;
	struct authority *a = new_authority(&dir);
	struct csr_pair csr = { .link = csr1[0], .spiffe = csr1[1] };
	struct spiffe_id id;
	X509 *x[2];
	int64_t from, to;
	struct token t;

	(void)state;
	must(spiffe_id_node(TD, "job", &id, e));
	must(csr_pair_check(&csr, e));
	must(authority_make(a, &id, &csr, 86400, NOW, true, &x[0], &x[1], e));
	assert_int_equal(cert_times(x[0], &from, &to), 0);
	assert_int_equal(to, NOW + 3600);
	X509_free(x[0]);
	X509_free(x[1]);
	issue_ok(a, "spiffe://" TD "/node/web", csr2, NOW);
	expect_nodes(a, NOW + 3600, "job:0e web:0 ");
	refused(ERR_CONFLICT, authority_token(a, "job", 60, true, &at, 1, NOW + 3600, &rng, &t, e));
	expect_nodes(a, NOW + 3601, "web:1 ");
	must(authority_token(a, "job", 60, true, &at, 1, NOW + 3601, &rng, &t, e));
	must(authority_remove(a, "job", false, NOW + 3602, e));
	expect_nodes(a, NOW + 3602, "job:3e web:1 ");
	authority_free(a);
	test_path_free(dir);
}

static void test_tokens(void **state)
{
	char *dir;
	struct authority *a = new_authority(&dir);
	struct endpoint five[5] = { at, at, at, at, at };
	struct token t = { .naddrs = 99 };
	char text[TOKEN_TEXT];
	uint8_t *p, key[SHA256_LEN];
	size_t n;
	char *f = test_in(dir, "tokens.log");

	(void)state;
	refused(ERR_USAGE, authority_token(a, "web", 0, false, &at, 1, NOW, &rng, &t, e));
	refused(ERR_USAGE, authority_token(a, "web", SVID_TTL_MAX + 1, false, &at, 1, NOW, &rng, &t, e));
	refused(ERR_USAGE, authority_token(a, "web", 60, false, &at, 0, NOW, &rng, &t, e));
	refused(ERR_USAGE, authority_token(a, "web", 60, false, five, 5, NOW, &rng, &t, e));
	assert_true(authority_token(a, "-web", 60, false, &at, 1, NOW, &rng, &t, NULL) < 0);
	five[0].port = 0;
	refused(ERR_USAGE, authority_token(a, "web", 60, false, five, 1, NOW, &rng, &t, e));
	assert_int_equal(t.naddrs, 99);
	assert_int_equal(a->ntokens, 0); /* what could not be handed over is not stored */
	must(authority_token(a, "web", 60, true, &at, 1, NOW, &rng, &t, e));
	must(token_encode(&t, text, e));
	assert_int_equal(t.not_after, NOW + 60);
	assert_int_equal(key_pub_hash(a->link_key, key), 0);
	assert_memory_equal(t.issuer, key, SHA256_LEN);
	/* On disk: the hash of the secret, not the secret. */
	must(file_read(f, 1 << 20, &p, &n, e));
	assert_null(memmem(p, n, t.secret, sizeof(t.secret)));
	assert_int_equal(token_key(t.secret, key), 0);
	assert_non_null(memmem(p, n, key, sizeof(key)));
	free(p);
	must(authority_token(a, "db", 10, false, &at, 1, NOW + 61, &rng, &t, e));
	assert_int_equal(a->ntokens, 1); /* the expired one is forgotten */
	authority_free(a);
	must(authority_open(dir, NULL, &a, e));
	assert_int_equal(a->ntokens, 2); /* its record is still in the journal, and does no harm */
	authority_free(a);
	/* A generator that repeats itself must not make one token for two nodes. */
	must(authority_open(dir, NULL, &a, e));
	for (int i = 0; i < 2; i++) {
		struct rng bad;

		rng_init_seeded(&bad, 7);
		assert_int_equal(authority_token(a, i ? "n1" : "n0", 60, false, &at, 1, NOW, &bad, &t, NULL),
				 i ? ERR_FAILED : 0);
	}
	authority_free(a);
	free(f);
	test_path_free(dir);
}

static void test_journals_stay_small(void **state)
{
	char *dir, uri[] = "spiffe://" TD "/node/web";
	struct authority *a = new_authority(&dir);
	struct issued rec = { .uri = uri, .at = NOW, .not_after = NOW + 10, .ephemeral = true };
	uint64_t top = 0;
	uint8_t *big = calloc(1, 20000);
	struct token t;

	(void)state;
	for (int i = 0; i < 9000; i++) {
		rec.at++;
		rec.not_after = i == 5 ? NOW + 999999 : rec.at + 10;
		must(issued_add(a, &rec, e));
		top = a->issued_log.size > top ? a->issued_log.size : top;
	}
	assert_in_range(top, (1 << 20) - 4096, (1 << 20) + 4096);
	assert_true(a->issued_log.size < top);
	for (int i = 0; i < 80; i++) {
		must(authority_token(a, "db", 10, true, &at, 1, NOW + i * 20, &rng, &t, e));
		must(token_store_leaves(a, a->tokens, big, 20000, e));
	}
	assert_true(a->token_log.size < 1200000);
	authority_free(a);
	must(authority_open(dir, NULL, &a, e));
	assert_int_equal(a->nissued, 1);
	assert_int_equal(a->issued[0].at, NOW + 9000);
	assert_int_equal(a->issued[0].not_after, NOW + 999999); /* the latest ever given out */
	assert_true(a->issued[0].ephemeral);
	authority_free(a);
	free(big);
	test_path_free(dir);
}

static void test_malformed_records(void **state)
{
	static const struct {
		const char *file;
		uint8_t p[64];
		size_t n;
	} bad[] = {
		{ "issued.log", { 1, 0, 0, 1, 'x' }, 5 }, /* cut short */
		{ "issued.log", { 2 }, 64 },
		{ "tokens.log", { 1, 1 }, 2 },
		{ "tokens.log", { 2, 1, 2, 3, 4, 5, 6, 7, 8 }, 41 }, /* consumed, but never made */
		{ "tokens.log", { 3, 1, 2, 3, 4, 5, 6, 7, 8 }, 20 },
		{ "tokens.log", { 7, 1, 2, 3, 4, 5, 6, 7, 8 }, 20 },
		{ "tokens.log", { 0 }, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *dir;
		struct authority *a = new_authority(&dir);
		struct journal *j = strcmp(bad[i].file, "issued.log") ? &a->token_log : &a->issued_log;

		must(journal_append(j, bad[i].p, bad[i].n, e));
		authority_free(a);
		refused(ERR_PARSE, authority_open(dir, NULL, &a, e));
		test_path_free(dir);
	}
}

/* A bundle that no session could carry is not made; what has expired makes room. */
static void test_bundle_size(void **state)
{
	char *dir = NULL, uri[64];
	struct authority *a = new_authority(&dir);
	struct bundle *b = bundle_clone(authority_bundle(a));
	const size_t each = SHA256_LEN + 8 + 8 + 2 + strlen("spiffe://" TD "/node/n00000");
	const size_t room = (BUNDLE_SENT_MAX - authority_bundle(a)->encoded_n) / each;
	uint64_t number;

	(void)state;
	b->number++;
	for (size_t i = 0; i < room; i++) {
		str_fmt(uri, sizeof(uri), "spiffe://" TD "/node/n%05zu", i);
		assert_int_equal(bundle_add_revocation(b, uri, NULL, NOW, NOW + 100, NULL), 0);
	}
	must(bundle_sign(b, a->link_root, a->link_key, e));
	must(authority_adopt(a, b, NOW, e));
	number = authority_bundle(a)->number;
	refused(ERR_LIMIT, authority_revoke(a, "spiffe://" TD "/node/one-more", NULL, NOW + 100, e));
	refused(ERR_LIMIT, authority_remove(a, "one-more", true, NOW + 100, e));
	assert_int_equal(authority_bundle(a)->number, number);
	assert_int_equal(authority_bundle(a)->nrevoked, room);
	must(authority_revoke(a, "spiffe://" TD "/node/one-more", NULL, NOW + 101, e));
	assert_int_equal(authority_bundle(a)->number, number + 1);
	assert_int_equal(authority_bundle(a)->nrevoked, 1);
	bundle_free(b);
	authority_free(a);
	test_path_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_password),
		cmocka_unit_test(test_revocation),
		cmocka_unit_test(test_nothing_in_force_that_is_not_stored),
		cmocka_unit_test(test_two_issuers),
		cmocka_unit_test(test_bundle_size),
		cmocka_unit_test(test_backup),
		cmocka_unit_test(test_backup_contents),
		cmocka_unit_test(test_ephemeral),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_journals_stay_small),
		cmocka_unit_test(test_malformed_records),
	};

	return cmocka_run_group_tests_name("identity/authority", tests, group_setup, group_teardown);
}
