/* SPDX-License-Identifier: Apache-2.0 */
/* The issuer's answers, and the client that asks for them over a socket, with everything that can go wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/issuer.h"
#include "wire/wire.h"

static char dir[] = "/tmp/x0-issuer-test-XXXXXX", ca[64], backup[64];
static struct authority *a;
static struct rng rng;
static const int64_t now = 1800000000;

static int setup(void **state)
{
	struct err e = { 0 };

	(void)state;
	rng_init_seeded(&rng, 1);
	assert_non_null(mkdtemp(dir));
	snprintf(ca, sizeof(ca), "%s/ca", dir);
	snprintf(backup, sizeof(backup), "%s/backup", dir);
	assert_int_equal(crypto_init(&e), 0);
	assert_int_equal(authority_init(ca, "t.example", NULL, now, &e), 0);
	assert_int_equal(authority_open(ca, NULL, &a, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	authority_free(a);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static uint8_t *reply;
static size_t reply_n;

/* Code of the answer (0 or ERR_*); its body is at reply + 8. */
static int ask(uint16_t type, const struct wr *w, bool root)
{
	struct issuer_context ctx = { .a = a, .rng = &rng, .now = now, .backup_path = root ? backup : NULL };
	uint8_t *p = malloc(4 + (w ? wr_len(w) : 0));
	size_t n = 4 + (w ? wr_len(w) : 0);

	put_u32(p, 77);
	if (w)
		memcpy(p + 4, w->start, wr_len(w));
	free(reply);
	reply = NULL;
	assert_int_equal(issuer_answer(&ctx, type, p, n, &reply, &reply_n), 0);
	free(p);
	assert_true(reply_n >= 8);
	assert_int_equal(get_u32(reply), 77);
	if (get_u32(reply + 4)) { /* sentence and remedy, NUL-terminated */
		assert_true(reply_n >= 10);
		assert_int_equal(reply[reply_n - 1], 0);
		assert_true(reply[8] != 0);
	}
	return -(int)get_u32(reply + 4);
}

static void put_token(struct wr *w, const char *name, uint64_t ttl, unsigned n)
{
	struct endpoint ep;

	assert_int_equal(endpoint_parse("192.0.2.1:7430", 0, &ep, NULL), 0);
	iss_put_text(w, name);
	wr_u64(w, ttl);
	wr_u8(w, 1);
	wr_u8(w, (uint8_t)n);
	for (unsigned i = 0; i < n; i++) {
		wr_bytes(w, ep.addr, 16);
		wr_u16(w, ep.port);
		wr_u32(w, 0);
	}
}

static void token(void **state)
{
	uint8_t buf[512];
	struct wr w = wr_init(buf, sizeof(buf));
	struct token t;
	struct err e = { 0 };
	char text[TOKEN_TEXT + 1];

	(void)state;
	put_token(&w, "node-x", 60, 2);
	assert_int_equal(ask(ISS_TOKEN, &w, false), 0);
	memcpy(text, reply + 8, reply_n - 8);
	text[reply_n - 8] = 0;
	assert_int_equal(token_decode(text, &t, &e), 0);
	assert_string_equal(t.name, "node-x");
	assert_int_equal(t.not_after, now + 60);
	assert_true(t.ephemeral);
	assert_int_equal(t.naddrs, 2);
	assert_int_equal(t.addr[1].port, 7430);
	w = wr_init(buf, sizeof(buf));
	put_token(&w, "Bad Name", 60, 1);
	assert_true(ask(ISS_TOKEN, &w, false) < 0);
	w = wr_init(buf, sizeof(buf));
	put_token(&w, "node-x", 60, TOKEN_ADDRS + 1);
	assert_int_equal(ask(ISS_TOKEN, &w, false), ERR_PARSE);
}

static void bundles(void **state)
{
	uint8_t buf[512], *old;
	struct wr w = wr_init(buf, sizeof(buf));
	struct bundle *b = NULL;
	struct err e = { 0 };
	uint64_t number = authority_bundle(a)->number;
	size_t old_n;

	(void)state;
	assert_int_equal(ask(ISS_BUNDLE, NULL, false), 0);
	old_n = reply_n - 8;
	old = malloc(old_n);
	memcpy(old, reply + 8, old_n);
	iss_put_text(&w, "spiffe://t.example/node/gone");
	assert_int_equal(ask(ISS_REVOKE, &w, false), 0);
	assert_int_equal(bundle_decode(reply + 8, reply_n - 8, authority_bundle(a), NULL, &b, &e), 0);
	assert_int_equal(b->number, number + 1);
	assert_int_equal(b->nrevoked, 1);
	bundle_free(b);
	/* The daemon's older bundle is answered with the newer one. */
	w = (struct wr){ .start = old, .p = old + old_n, .end = old + old_n };
	assert_int_equal(ask(ISS_ADOPT, &w, false), 0);
	assert_int_equal(reply_n - 8, authority_bundle(a)->encoded_n);
	old[old_n / 2] ^= 1;
	assert_true(ask(ISS_ADOPT, &w, false) < 0);
	free(old);
	w = wr_init(buf, sizeof(buf));
	iss_put_text(&w, "spiffe://other.example/node/x");
	assert_true(ask(ISS_REVOKE, &w, false) < 0);
	w = wr_init(buf, sizeof(buf));
	iss_put_text(&w, "never-seen");
	wr_u8(&w, 0);
	assert_int_equal(ask(ISS_REMOVE, &w, false), ERR_NOT_FOUND);
	w = wr_init(buf, sizeof(buf));
	iss_put_text(&w, "never-seen");
	wr_u8(&w, 1);
	assert_int_equal(ask(ISS_REMOVE, &w, false), 0);
	assert_int_equal(authority_bundle(a)->number, number + 2);
}

static void roots(void **state)
{
	struct rd r;
	uint32_t n;

	(void)state;
	assert_int_equal(ask(ISS_ROOTS, NULL, false), 0);
	r = rd_init(reply + 8, reply_n - 8);
	n = rd_u32(&r);
	assert_true(n > 1000 && n < rd_left(&r));
	/* Its own roots again are no new issuer. */
	uint8_t *own = malloc(reply_n - 8);
	struct wr w = { .start = own, .p = own + reply_n - 8, .end = own + reply_n - 8 };

	memcpy(own, reply + 8, reply_n - 8);
	ask(ISS_ADD_ISSUER, &w, false);
	put_u32(own, 0xffffff);
	assert_int_equal(ask(ISS_ADD_ISSUER, &w, false), ERR_PARSE);
	free(own);
}

static void nodes(void **state)
{
	(void)state;
	assert_int_equal(ask(ISS_NODES, NULL, false), 0);
}

/* The keys leave in a backup only, for root only, encrypted; nothing stays behind. */
static void backups(void **state)
{
	uint8_t buf[128];
	struct wr w = wr_init(buf, sizeof(buf));
	struct err e = { 0 };
	char to[80], file[80];

	(void)state;
	iss_put_text(&w, "password");
	assert_int_equal(ask(ISS_BACKUP, &w, false), ERR_DENIED);
	assert_int_equal(ask(ISS_BACKUP, &w, true), 0);
	assert_int_equal(access(backup, F_OK), -1);
	snprintf(file, sizeof(file), "%s/kept", dir);
	snprintf(to, sizeof(to), "%s/restored", dir);
	assert_int_equal(file_write(file, reply + 8, reply_n - 8, 0600, &e), 0);
	assert_int_equal(authority_restore(file, "wrong", to, &e), ERR_AUTH);
	assert_int_equal(authority_restore(file, "password", to, &e), 0);
	w = wr_init(buf, sizeof(buf));
	iss_put_text(&w, "");
	assert_int_equal(ask(ISS_BACKUP, &w, true), ERR_PARSE);
}

/* Hostile requests of every type and length are answered with an error, never with a crash. */
static void hostile(void **state)
{
	struct rng r;
	uint8_t buf[600];

	(void)state;
	rng_init_seeded(&r, 7);
	for (uint16_t type = 0; type < 16; type++)
		for (unsigned i = 0; i < 300; i++) {
			struct wr w = wr_init(buf, sizeof(buf));

			rng_fill(&r, buf, sizeof(buf));
			if (i & 1)
				put_u16(buf, (uint16_t)(i / 2)); /* plausible length of a text */
			w.p += i < 64 ? i : rng_below(&r, sizeof(buf));
			ask(type, &w, false);
		}
	assert_int_equal(ask(99, NULL, false), ERR_UNSUPPORTED);
	/* Not even a number. */
	struct issuer_context ctx = { .a = a, .rng = &rng, .now = now };
	uint8_t *p = NULL;
	size_t n;

	assert_int_equal(issuer_answer(&ctx, ISS_BUNDLE, buf, 3, &p, &n), 0);
	assert_int_equal(get_u32(p + 4), -ERR_PARSE);
	free(p);
}

/* ---- the client ---- */

struct got {
	struct loop *loop;
	int calls, code;
	char body[64];
	size_t n;
	unsigned stop_after;
};

static void on_got(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct got *g = arg;

	g->calls++;
	g->code = e ? e->code : 0;
	g->n = n;
	if (body && n < sizeof(g->body)) {
		memcpy(g->body, body, n);
		g->body[n] = 0;
	}
	if ((unsigned)g->calls == g->stop_after)
		loop_stop(g->loop);
}

static int listening(char path[64])
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, 64, "%s/sock", dir);
	unlink(path);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

struct server {
	struct loop *loop;
	struct loop_io l, c;
	const uint8_t *say; /* what it answers to the first bytes; NULL: hangs up */
	size_t n;
};

static void on_server_read(void *arg, int fd, unsigned events)
{
	struct server *s = arg;
	uint8_t buf[4096];

	(void)events;
	if (recv(fd, buf, sizeof(buf), 0) > 0 && s->say) {
		assert_int_equal(send(fd, s->say, s->n, MSG_NOSIGNAL), s->n);
		s->say = NULL;
		return;
	}
	loop_io_del(s->loop, &s->c);
	close(fd);
}

static void on_accept(void *arg, int fd, unsigned events)
{
	struct server *s = arg;

	(void)events;
	assert_int_equal(
		loop_io_add(s->loop, &s->c, accept(fd, NULL, NULL), LOOP_READ, on_server_read, s, NULL), 0);
}

/* Two calls, one answer of the server, then it hangs up at the next bytes. */
static void client_case(const void *say, size_t n, int code0, const char *body)
{
	struct err e = { 0 };
	struct loop *loop = loop_new_event(&e);
	struct server s = { .loop = loop, .say = say, .n = n };
	struct got g = { .loop = loop, .stop_after = 1 };
	struct issuer_client *ic;
	char path[64];
	int fd = listening(path);

	assert_int_equal(loop_io_add(loop, &s.l, fd, LOOP_READ, on_accept, &s, &e), 0);
	ic = issuer_client_new(loop, path);
	assert_int_equal(issuer_call(ic, ISS_BUNDLE, "abc", 3, on_got, &g, &e), 0);
	assert_int_equal(g.calls, 0);
	loop_run(loop);
	assert_int_equal(g.calls, 1);
	assert_int_equal(g.code, code0);
	if (body)
		assert_string_equal(g.body, body);
	assert_int_equal(issuer_client_up(ic), code0 != ERR_UNREACHABLE);
	issuer_client_free(ic);
	loop_io_del(loop, &s.l);
	if (s.c.ev)
		loop_io_del(loop, &s.c);
	loop_free(loop);
	close(fd);
}

static void client(void **state)
{
	static const uint8_t fine[] = { 0, ISS_REPLY, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 'o', 'k' };
	static const uint8_t refused[] = {
		0, ISS_REPLY, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 5, 'n', 0, 't', 0
	};
	static const uint8_t other[] = { 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0 };
	static const uint8_t huge[] = { 0, ISS_REPLY, 0xff, 0xff, 0xff, 0xff, 0 };
	static const uint8_t brief[] = { 0, ISS_REPLY, 0, 0, 0, 2, 0, 0 };

	(void)state;
	client_case(fine, sizeof(fine), 0, "ok");
	client_case(refused, sizeof(refused), ERR_DENIED, NULL);
	client_case(other, sizeof(other), ERR_UNREACHABLE, NULL);
	client_case(huge, sizeof(huge), ERR_UNREACHABLE, NULL);
	client_case(brief, sizeof(brief), ERR_UNREACHABLE, NULL);
	client_case(NULL, 0, ERR_UNREACHABLE, NULL);
}

static void client_limits(void **state)
{
	struct err e = { 0 };
	struct loop *loop = loop_new_event(&e);
	struct got g = { .loop = loop };
	struct issuer_client *ic;
	char path[64];
	int fd;

	(void)state;
	ic = issuer_client_new(loop, "/nonexistent/issuer.sock");
	assert_int_equal(issuer_call(ic, ISS_BUNDLE, NULL, 0, on_got, &g, &e), ERR_UNREACHABLE);
	assert_false(issuer_client_up(ic));
	issuer_client_free(ic);
	fd = listening(path);
	ic = issuer_client_new(loop, path);
	for (int i = 0; i < 128; i++)
		assert_int_equal(issuer_call(ic, ISS_BUNDLE, NULL, 0, on_got, &g, &e), 0);
	assert_int_equal(issuer_call(ic, ISS_BUNDLE, NULL, 0, on_got, &g, &e), ERR_LIMIT);
	issuer_client_free(ic);
	assert_int_equal(g.calls, 0); /* nobody is called after it is gone */
	close(fd);
	loop_free(loop);
}

static void texts(void **state)
{
	uint8_t buf[16];
	char to[8];
	struct wr w = wr_init(buf, sizeof(buf));
	struct rd r;

	(void)state;
	iss_put_text(&w, "1234567");
	r = rd_init(buf, wr_len(&w));
	iss_get_text(&r, to, sizeof(to));
	assert_true(rd_done(&r));
	assert_string_equal(to, "1234567");
	r = rd_init(buf, wr_len(&w));
	iss_get_text(&r, to, 7); /* no room for the NUL */
	assert_false(rd_ok(&r));
	assert_string_equal(to, "");
	buf[4] = 0;
	r = rd_init(buf, wr_len(&w));
	iss_get_text(&r, to, sizeof(to));
	assert_false(rd_ok(&r));
	iss_put_text(&w, "123456789");
	assert_false(wr_ok(&w));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(token),  cmocka_unit_test(bundles),	   cmocka_unit_test(roots),
		cmocka_unit_test(nodes),  cmocka_unit_test(backups),	   cmocka_unit_test(hostile),
		cmocka_unit_test(client), cmocka_unit_test(client_limits), cmocka_unit_test(texts),
	};
	int rc = cmocka_run_group_tests(tests, setup, teardown);

	free(reply);
	return rc;
}
