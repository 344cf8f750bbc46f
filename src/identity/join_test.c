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

static struct rng rng;
static struct endpoint at;
static EVP_PKEY *k1[2], *k2[2]; /* link and spiffe key of two hosts */
static const uint8_t exporter[32] = { 1, 2, 3 }, other_exporter[32] = { 1, 2, 4 };

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
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		EVP_PKEY_free(k1[i]);
		EVP_PKEY_free(k2[i]);
	}
	return 0;
}

struct mesh {
	char *dir;
	struct authority *a;
};

static int setup(void **state)
{
	struct mesh *m = calloc(1, sizeof(*m));

	m->dir = test_path("ca");
	must(authority_init(m->dir, TD, NULL, NOW, e));
	must(authority_open(m->dir, NULL, &m->a, e));
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct mesh *m = *state;

	authority_free(m->a);
	test_path_free(m->dir);
	free(m);
	return 0;
}

static void reopen(struct mesh *m)
{
	m->a = authority_free(m->a);
	must(authority_open(m->dir, NULL, &m->a, e));
}

static struct token token_for(struct authority *a, const char *name, int64_t ttl)
{
	struct token t;

	must(authority_token(a, name, ttl, false, &at, 1, NOW, &rng, &t, e));
	return t;
}

struct msg {
	uint8_t *p;
	size_t n;
};

static struct msg request(const struct token *t, const uint8_t ex[32], EVP_PKEY *const k[2])
{
	struct msg m = { 0 };

	must(join_request(t, ex, k[0], k[1], &m.p, &m.n, e));
	return m;
}

/* The issuer's answer to a request; the code, and the reply in *ret (always there). */
static int ask(struct authority *a, const uint8_t ex[32], struct msg q, int64_t now, struct msg *ret)
{
	struct svid_info who = { .not_after = -7 };
	struct err e = { 0 };
	int rc;

	*ret = (struct msg){ 0 };
	rc = authority_join(a, ex, q.p, q.n, now, &ret->p, &ret->n, &who, &e);
	assert_non_null(ret->p);
	if (rc) {
		assert_int_equal(who.not_after, -7); /* untouched */
		assert_int_equal(e.code, rc);
	} else {
		assert_int_equal(who.not_after, now + SVID_TTL_DEFAULT);
	}
	return rc;
}

/* A refusal: the issuer's code, and the client told the same (or only that the issuer cannot). */
static void refused_join(struct authority *a, const struct token *t, const uint8_t ex[32], struct msg q,
			 int64_t now, int code)
{
	struct joined j = { 0 };
	struct msg r;

	assert_int_equal(ask(a, ex, q, now, &r), code);
	if (code == ERR_SYS)
		code = ERR_FAILED;
	refused(code, join_reply(t, r.p, r.n, k1[0], k1[1], now, &j, e));
	assert_null(j.link);
	free(r.p);
}

static void test_join(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 3600);
	struct msg q = request(&t, exporter, k1), r;
	struct joined j;
	struct spiffe_id id;
	int64_t from, to;

	assert_int_equal(ask(m->a, exporter, q, NOW + 5, &r), 0);
	must(join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 5, &j, e));
	must(cert_id(j.link, &id, e));
	assert_string_equal(id.uri, "spiffe://" TD "/node/web");
	must(cert_id(j.spiffe, &id, e));
	assert_string_equal(id.uri, "spiffe://" TD "/node/web");
	assert_int_equal(cert_times(j.link, &from, &to), 0);
	assert_int_equal(from, NOW + 5 - 600);
	assert_int_equal(to, NOW + 5 + 86400);
	assert_int_equal(j.bundle->number, 1);
	joined_fini(&j);
	/* the client's own checks */
	refused(ERR_AUTH, join_reply(&t, r.p, r.n, k2[0], k1[1], NOW + 5, &j, e)); /* not our key */
	refused(ERR_AUTH, join_reply(&t, r.p, r.n, k1[0], k2[1], NOW + 5, &j, e));
	t.issuer[0] ^= 1;
	refused(ERR_AUTH, join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 5, &j, e)); /* wrong pin */
	t.issuer[0] ^= 1;
	strcpy(t.name, "db");
	refused(ERR_DENIED, join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 5, &j, e)); /* wrong name */
	strcpy(t.name, "web");
	strcpy(t.trust_domain, "mash.example");
	refused(ERR_DENIED, join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 5, &j, e));
	strcpy(t.trust_domain, TD);
	assert_true(join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 90000, &j, NULL) <
		    0); /* expired meanwhile */
	for (size_t n = 0; n < r.n; n++)
		assert_true(join_reply(&t, r.p, n, k1[0], k1[1], NOW + 5, &j, NULL) < 0);
	for (size_t i = 0; i < r.n; i += i < 16 ? 1 : 97) {
		r.p[i] ^= 4;
		assert_true(join_reply(&t, r.p, r.n, k1[0], k1[1], NOW + 5, &j, NULL) < 0);
		r.p[i] ^= 4;
	}
	free(q.p);
	free(r.p);
}

static void test_token_once(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 3600);
	struct msg q = request(&t, exporter, k1), again, q2, r1, r2;
	struct joined j1, j2;

	assert_int_equal(ask(m->a, exporter, q, NOW, &r1), 0);
	/* Lost reply: another connection, the same keys. The same certificates come again, also after a
	 * restart. */
	reopen(m);
	again = request(&t, other_exporter, k1);
	{
		struct svid_info who;

		must(authority_join(m->a, other_exporter, again.p, again.n, NOW + 60, &r2.p, &r2.n, &who, e));
		assert_string_equal(who.id.uri, "spiffe://" TD "/node/web");
	}
	must(join_reply(&t, r1.p, r1.n, k1[0], k1[1], NOW + 60, &j1, e));
	must(join_reply(&t, r2.p, r2.n, k1[0], k1[1], NOW + 60, &j2, e));
	assert_int_equal(X509_cmp(j1.link, j2.link), 0);
	assert_int_equal(X509_cmp(j1.spiffe, j2.spiffe), 0);
	joined_fini(&j1);
	joined_fini(&j2);
	/* Other keys, or one other key: never. */
	q2 = request(&t, exporter, k2);
	refused_join(m->a, &t, exporter, q2, NOW, ERR_REPLAY);
	free(q2.p);
	q2 = request(&t, exporter, (EVP_PKEY *const[]){ k1[0], k2[1] });
	refused_join(m->a, &t, exporter, q2, NOW, ERR_REPLAY);
	free(q2.p);
	/* Not after it expired, not even with the same keys. */
	refused_join(m->a, &t, other_exporter, again, NOW + 3601, ERR_EXPIRED);
	/* Not once the node was removed. */
	must(authority_remove(m->a, "web", false, NOW + 70, e));
	refused_join(m->a, &t, other_exporter, again, NOW + 80, ERR_REVOKED);
	free(again.p);
	free(q.p);
	free(r1.p);
	free(r2.p);
}

static void test_proofs(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 100), wrong = t;
	struct msg q = request(&t, exporter, k1), r;
	uint8_t mac[SHA256_LEN], key[SHA256_LEN];

	refused_join(m->a, &t, other_exporter, q, NOW, ERR_AUTH); /* replayed on another TLS session */
	wrong.secret[15] ^= 1;
	r = request(&wrong, exporter, k1);
	refused_join(m->a, &t, exporter, r, NOW, ERR_AUTH); /* unknown token */
	memcpy(r.p + 5, q.p + 5, TOKEN_ID);
	refused_join(m->a, &t, exporter, r, NOW, ERR_AUTH); /* known id, wrong secret */
	free(r.p);
	refused_join(m->a, &t, exporter, q, NOW + 101, ERR_EXPIRED);
	/* Tampered anywhere: the MAC or the form. */
	for (size_t i = 0; i < q.n; i += i < 20 || i + 40 > q.n ? 1 : 53) {
		struct svid_info who;

		q.p[i] ^= 2;
		r.p = NULL;
		assert_true(authority_join(m->a, exporter, q.p, q.n, NOW, &r.p, &r.n, &who, NULL) < 0);
		free(r.p);
		q.p[i] ^= 2;
	}
	for (size_t n = 0; n < q.n; n++) {
		struct svid_info who;
		uint8_t *cut = malloc(n ? n : 1);

		memcpy(cut, q.p, n);
		r.p = NULL;
		assert_true(authority_join(m->a, exporter, cut, n, NOW, &r.p, &r.n, &who, NULL) < 0);
		free(r.p);
		free(cut);
	}
	/* The holder of the token, but not of the key: a CSR altered under a right MAC. */
	assert_int_equal(token_key(t.secret, key), 0);
	q.p[5 + TOKEN_ID + 2 + 200] ^= 1;
	assert_int_equal(join_mac(key, exporter, q.p, q.n - SHA256_LEN, mac), 0);
	memcpy(q.p + q.n - SHA256_LEN, mac, SHA256_LEN);
	assert_true(ask(m->a, exporter, q, NOW, &r) < 0);
	free(r.p);
	q.p[5 + TOKEN_ID + 2 + 200] ^= 1;
	q.p[q.n - SHA256_LEN - 5] ^= 1; /* in the ECDSA signature */
	assert_int_equal(join_mac(key, exporter, q.p, q.n - SHA256_LEN, mac), 0);
	memcpy(q.p + q.n - SHA256_LEN, mac, SHA256_LEN);
	assert_true(ask(m->a, exporter, q, NOW, &r) < 0);
	free(r.p);
	free(q.p);
	/* None of that used the token up. */
	assert_int_equal(token_find(m->a, (token_id(key, mac), mac))->state, TOKEN_ISSUED);
	q = request(&t, exporter, k2);
	assert_int_equal(ask(m->a, exporter, q, NOW, &r), 0);
	free(r.p);
	free(q.p);
}

static void test_key_types(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 100);
	uint8_t key[SHA256_LEN], mac[SHA256_LEN], *p, *ec, *pq, buf[JOIN_REQUEST_MAX];
	size_t ec_n, pq_n;
	struct msg r, q;
	struct wr w;

	refused(ERR_USAGE, join_request(&t, exporter, k1[1], k1[1], &p, &ec_n, e));
	refused(ERR_USAGE, join_request(&t, exporter, k1[0], k1[0], &p, &ec_n, e));
	must(csr_new(k1[0], &pq, &pq_n, e));
	must(csr_new(k1[1], &ec, &ec_n, e));
	assert_int_equal(token_key(t.secret, key), 0);
	/* A P-256 key asks for a link SVID; a link key for the other: a weaker link must not come in by the
	 * wrong door. */
	for (int i = 0; i < 2; i++) {
		w = wr_init(buf, sizeof(buf));
		wr_bytes(&w, "x0jq\1", 5);
		token_id(key, mac);
		wr_bytes(&w, mac, TOKEN_ID);
		wr_u16(&w, (uint16_t)(i ? pq_n : ec_n));
		wr_bytes(&w, i ? pq : ec, i ? pq_n : ec_n);
		wr_u16(&w, (uint16_t)(i ? pq_n : ec_n));
		wr_bytes(&w, i ? pq : ec, i ? pq_n : ec_n);
		assert_int_equal(join_mac(key, exporter, buf, wr_len(&w), mac), 0);
		wr_bytes(&w, mac, SHA256_LEN);
		q = (struct msg){ .p = buf, .n = wr_len(&w) };
		assert_int_equal(ask(m->a, exporter, q, NOW, &r), ERR_UNSUPPORTED);
		free(r.p);
	}
	free(pq);
	free(ec);
}

static void test_names(void **state)
{
	struct mesh *m = *state;
	struct token t1 = token_for(m->a, "web", 3600), t2 = token_for(m->a, "web", 3600), t3;
	struct msg q = request(&t1, exporter, k1), r;

	assert_int_equal(ask(m->a, exporter, q, NOW, &r), 0);
	free(r.p);
	free(q.p);
	/* A second token for the name: only the host that has it already. */
	q = request(&t2, exporter, k2);
	refused_join(m->a, &t2, exporter, q, NOW, ERR_CONFLICT);
	free(q.p);
	q = request(&t2, exporter, k1);
	assert_int_equal(ask(m->a, exporter, q, NOW + 1, &r), 0);
	free(r.p);
	free(q.p);
	refused(ERR_CONFLICT, authority_token(m->a, "web", 60, false, &at, 1, NOW + 1, &rng, &t3, e));
	/* Once revoked, the name may be given to a host with new keys; the old keys never come back. */
	must(authority_revoke(m->a, "spiffe://" TD "/node/web", NULL, NOW + 10, e));
	must(authority_token(m->a, "web", 60, false, &at, 1, NOW + 10, &rng, &t3, e));
	q = request(&t3, exporter, k2);
	refused_join(m->a, &t3, exporter, q, NOW + 10, ERR_CLOCK); /* within the very second */
	assert_int_equal(ask(m->a, exporter, q, NOW + 11, &r), 0);
	{
		struct joined j;
		int64_t from, to;

		must(join_reply(&t3, r.p, r.n, k2[0], k2[1], NOW + 11, &j, e));
		assert_int_equal(cert_times(j.link, &from, &to), 0);
		assert_int_equal(from, NOW + 11); /* not backdated into the revocation */
		assert_int_equal(j.bundle->number, 2);
		joined_fini(&j);
	}
	free(r.p);
	free(q.p);
	/* Expired long ago: nobody can hold a valid one, so a token may give the name again. */
	must(authority_token(m->a, "web", 60, false, &at, 1, NOW + 200000, &rng, &t3, e));
}

static void test_second_id_with_one_address(void **state)
{
	struct mesh *m = *state;
	char uri[] = "spiffe://" TD "/node/twin";
	struct issued twin = { .uri = uri, .at = NOW, .not_after = NOW + 10 };
	struct token t;
	struct spiffe_id id;
	struct msg q;

	/* No two names with one 80-bit hash are known, so the record of another one gets it. */
	must(spiffe_id_node(TD, "web", &id, e));
	overlay_addr(&id, twin.addr);
	must(issued_add(m->a, &twin, e));
	t = token_for(m->a, "web", 60);
	q = request(&t, exporter, k1);
	refused_join(m->a, &t, exporter, q, NOW, ERR_CONFLICT);
	free(q.p);
}

/* Makes every write of a file beyond `n` bytes fail, as a full disk does. */
static void file_limit(rlim_t n)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = n == RLIM_INFINITY ? l.rlim_max : n;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static void test_disk_full(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 60), t2;
	struct msg q = request(&t, exporter, k1), q2 = request(&t, exporter, k2), r;
	struct err e2 = { 0 };
	uint64_t size = m->a->token_log.size;

	file_limit(size + 20); /* not even the consumption fits */
	assert_int_equal(ask(m->a, exporter, q, NOW, &r), ERR_SYS);
	assert_int_equal(authority_token(m->a, "db", 60, false, &at, 1, NOW, &rng, &t2, &e2), ERR_SYS);
	assert_true(e2.todo[0]);
	file_limit(RLIM_INFINITY);
	assert_null(memmem(r.p, r.n, m->dir, strlen(m->dir))); /* paths are not for strangers */
	free(r.p);
	reopen(m); /* the half record is gone, the token is still good for anybody who holds it */
	assert_int_equal(m->a->token_log.size, size);

	file_limit(size + 16 + 41 + 30); /* the consumption fits, the answer does not */
	refused_join(m->a, &t, exporter, q, NOW, ERR_SYS);
	file_limit(RLIM_INFINITY);
	reopen(m);
	refused_join(m->a, &t, exporter, q2, NOW, ERR_REPLAY); /* consumed: only by the same keys */
	assert_int_equal(ask(m->a, exporter, q, NOW + 1, &r), 0);
	free(r.p);
	free(q.p);
	free(q2.p);
}

static void test_renewal(void **state)
{
	struct mesh *m = *state;
	struct token t = token_for(m->a, "web", 60);
	struct msg q = request(&t, exporter, k1), r;
	struct svid_info who;
	struct joined j, n;
	struct bundle *old;

	must(authority_join(m->a, exporter, q.p, q.n, NOW, &r.p, &r.n, &who, e));
	must(join_reply(&t, r.p, r.n, k1[0], k1[1], NOW, &j, e));
	free(q.p);
	free(r.p);
	/* Half-way, with new keys; the name comes from the session whatever the request says. */
	must(authority_set_ttl(m->a, 7200, e));
	refused(ERR_USAGE, authority_set_ttl(m->a, 0, e));
	refused(ERR_USAGE, authority_set_ttl(m->a, SVID_TTL_MAX + 1, e));
	must(renew_request(&who.id, k2[0], k2[1], &q.p, &q.n, e));
	must(authority_renew(m->a, &who, q.p, q.n, NOW + 40000, &r.p, &r.n, e));
	must(renew_reply(&who.id, j.bundle, r.p, r.n, k2[0], k2[1], NOW + 40000, &n, e));
	assert_non_null(n.bundle);
	{
		int64_t from, to;
		struct spiffe_id id;

		must(cert_id(n.link, &id, e));
		assert_string_equal(id.uri, who.id.uri);
		assert_int_equal(cert_times(n.link, &from, &to), 0);
		assert_int_equal(to, NOW + 40000 + 7200);
	}
	joined_fini(&n);
	/* Somebody else's name in the reply, or somebody else's bundle. */
	{
		struct spiffe_id id;

		must(spiffe_id_node(TD, "db", &id, e));
		refused(ERR_DENIED, renew_reply(&id, j.bundle, r.p, r.n, k2[0], k2[1], NOW + 40000, &n, e));
	}
	/* An issuer that lags behind: its older bundle is not taken, its SVIDs are. */
	old = bundle_clone(j.bundle);
	old->number = 9;
	must(bundle_sign(old, authority_root(m->a, SVID_LINK), m->a->link_key, e));
	must(renew_reply(&who.id, old, r.p, r.n, k2[0], k2[1], NOW + 40000, &n, e));
	assert_null(n.bundle);
	joined_fini(&n);
	bundle_free(old);
	free(r.p);
	/* Malformed at every length. */
	for (size_t i = 0; i < q.n; i += 7) {
		r.p = NULL;
		assert_true(authority_renew(m->a, &who, q.p, i, NOW + 1, &r.p, &r.n, NULL) < 0);
		assert_non_null(r.p);
		free(r.p);
	}
	/* Expired, revoked, removed: no. */
	refused(ERR_EXPIRED, authority_renew(m->a, &who, q.p, q.n, NOW + 86401, &r.p, &r.n, e));
	refused(ERR_EXPIRED, renew_reply(&who.id, j.bundle, r.p, r.n, k2[0], k2[1], NOW, &n, e));
	free(r.p);
	must(authority_revoke(m->a, who.id.uri, who.key_hash, NOW + 5, e));
	refused(ERR_REVOKED, authority_renew(m->a, &who, q.p, q.n, NOW + 6, &r.p, &r.n, e));
	free(r.p);
	memset(who.key_hash, 1, SHA256_LEN); /* a session with other keys asks for the revoked one */
	free(q.p);
	must(renew_request(&who.id, k1[0], k1[1], &q.p, &q.n, e));
	refused(ERR_REVOKED, authority_renew(m->a, &who, q.p, q.n, NOW + 6, &r.p, &r.n, e));
	free(r.p);
	must(authority_remove(m->a, "web", false, NOW + 7, e));
	refused(ERR_REVOKED, authority_renew(m->a, &who, q.p, q.n, NOW + 8, &r.p, &r.n, e));
	free(r.p);
	free(q.p);
	joined_fini(&j);
}

static void test_refusal_is_plain_text(void **state)
{
	static const char bell[] = "no\x1b[2Jno";
	struct token t = { .trust_domain = TD, .name = "web" };
	struct err e = { 0 };
	struct joined j;
	uint8_t *p;
	size_t n;

	(void)state;
	assert_int_equal(reply_error(ERR_DENIED, bell, &p, &n), 0);
	assert_int_equal(join_reply(&t, p, n, k1[0], k1[1], NOW, &j, &e), ERR_DENIED);
	assert_null(strchr(e.what, '\x1b'));
	put_u16(p + 6, 999); /* a code of a later version */
	assert_int_equal(join_reply(&t, p, n, k1[0], k1[1], NOW, &j, &e), ERR_FAILED);
	put_u16(p + 6, 0); /* a refusal must not read as success */
	assert_int_equal(join_reply(&t, p, n, k1[0], k1[1], NOW, &j, &e), ERR_PARSE);
	free(p);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_join),	   T(test_token_once), T(test_proofs),
		T(test_key_types), T(test_names),      T(test_second_id_with_one_address),
		T(test_disk_full), T(test_renewal),    T(test_refusal_is_plain_text),
	};

	return cmocka_run_group_tests_name("identity/join", tests, group_setup, group_teardown);
}
