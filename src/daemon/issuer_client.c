/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's side of the issuer socket: calls under way in a table, one connection, made when needed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/issuer.h"
#include "wire/wire.h"

enum { CALLS = 128 };
#define CALL_TIMEOUT (10 * NS_PER_S)

struct call {
	uint32_t number; /* 0: free */
	issuer_fn *fn;
	void *arg;
	uint64_t until;
};

struct issuer_client {
	struct loop *loop;
	char path[108];
	int fd; /* -1: not connected */
	bool up;
	struct loop_io io;
	struct loop_timer timer;
	struct ctl_reader in;
	uint8_t *out; /* owned */
	size_t out_n;
	uint32_t next;
	struct call call[CALLS];
};

static void finish(struct call *k, const uint8_t *body, size_t n, const struct err *e)
{
	issuer_fn *fn = k->fn;
	void *arg = k->arg;

	k->number = 0;
	fn(arg, body, n, e);
}

static void hang_up(struct issuer_client *ic)
{
	loop_io_del(ic->loop, &ic->io);
	if (ic->fd >= 0)
		close(ic->fd);
	ic->fd = -1;
	ctl_reader_fini(&ic->in);
	ic->in = (struct ctl_reader){ .max = ISS_MAX };
	free(ic->out);
	ic->out = NULL;
	ic->out_n = 0;
}

/* Connection lost: what was asked will not be answered. */
static void fail_all(struct issuer_client *ic)
{
	struct err e = { 0 };
	uint32_t last = ic->next; /* a callback may call again, over a new connection */

	err_set(&e, ERR_UNREACHABLE, "the issuer process does not answer on %s", ic->path);
	err_todo(&e, "x0 up starts it; its log says why it ended");
	ic->up = false;
	hang_up(ic);
	for (unsigned i = 0; i < CALLS; i++)
		if (ic->call[i].number && (int32_t)(ic->call[i].number - last) <= 0)
			finish(&ic->call[i], NULL, 0, &e);
}

static int on_reply(void *arg, uint16_t type, const uint8_t *value, size_t len)
{
	struct issuer_client *ic = arg;
	struct rd r = rd_init(value, len);
	uint32_t number = rd_u32(&r), code = rd_u32(&r);
	struct err e = { 0 };

	if (type != ISS_REPLY || !rd_ok(&r) || !number)
		return ERR_PARSE;
	ic->up = true;
	for (unsigned i = 0; i < CALLS; i++) {
		struct call *k = &ic->call[i];

		if (k->number != number)
			continue;
		if (!code) {
			finish(k, r.p, rd_left(&r), NULL);
			return 0;
		}
		/* Two NUL-terminated sentences. */
		size_t n = rd_left(&r), what = strnlen((const char *)r.p, n);
		bool whole = what < n && r.p[n - 1] == 0;

		err_set(&e, -(int)code, "%s", whole ? (const char *)r.p : "the issuer refused");
		if (whole && what + 1 < n)
			err_todo(&e, "%s", (const char *)r.p + what + 1);
		finish(k, NULL, 0, &e);
		return 0;
	}
	return 0; /* timed out before */
}

static int flush(struct issuer_client *ic)
{
	while (ic->out_n) {
		ssize_t n = send(ic->fd, ic->out, ic->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0)
			return ERR_SYS;
		memmove(ic->out, ic->out + n, ic->out_n - (size_t)n);
		ic->out_n -= (size_t)n;
	}
	return loop_io_mod(ic->loop, &ic->io, ic->out_n ? LOOP_READ | LOOP_WRITE : LOOP_READ);
}

static void on_io(void *arg, int fd, unsigned events)
{
	struct issuer_client *ic = arg;
	uint8_t buf[16384];

	if (events & LOOP_READ) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
		    (n > 0 && ctl_feed(&ic->in, buf, (size_t)n, on_reply, ic) != 0)) {
			fail_all(ic);
			return;
		}
	}
	if (ic->fd >= 0 && flush(ic) < 0)
		fail_all(ic);
}

static void on_timer(void *arg, uint64_t now)
{
	struct issuer_client *ic = arg;
	uint64_t next = NS_NEVER;
	struct err e = { 0 };

	err_set(&e, ERR_TIMEOUT, "the issuer process did not answer in time");
	for (unsigned i = 0; i < CALLS; i++) {
		struct call *k = &ic->call[i];

		if (k->number && k->until <= now)
			finish(k, NULL, 0, &e);
		if (k->number && k->until < next)
			next = k->until;
	}
	if (next != NS_NEVER)
		loop_timer_set(ic->loop, &ic->timer, next);
}

/* A Unix socket connects at once or fails at once. */
static int dial(struct issuer_client *ic, struct err *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, rc;

	if (ic->fd >= 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	memcpy(sun.sun_path, ic->path, sizeof(sun.sun_path));
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		err_set(e, ERR_UNREACHABLE, "the issuer process does not listen on %s: %s", ic->path,
			strerror(errno));
		close(fd);
		ic->up = false;
		return err_todo(e, "x0 up starts it; its log says why it ended");
	}
	rc = loop_io_add(ic->loop, &ic->io, fd, LOOP_READ, on_io, ic, e);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	ic->fd = fd;
	ic->up = true;
	return 0;
}

int issuer_call(struct issuer_client *ic, uint16_t type, const void *p, size_t n, issuer_fn *fn, void *arg,
		struct err *e)
{
	struct call *k = NULL;
	uint8_t *grown;
	int rc = dial(ic, e);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < CALLS && !k; i++)
		if (!ic->call[i].number)
			k = &ic->call[i];
	if (!k || n > ISS_MAX - 4)
		return err_set(e, ERR_LIMIT, "too many requests to the issuer are under way");
	grown = realloc(ic->out, ic->out_n + CTL_HEAD + 4 + n);
	if (!grown)
		return err_set(e, ERR_NOMEM, "no memory for a request to the issuer");
	ic->out = grown;
	grown += ic->out_n;
	ic->next = ic->next + 1 ? ic->next + 1 : 1;
	put_u16(grown, type);
	put_u32(grown + 2, (uint32_t)n + 4);
	put_u32(grown + CTL_HEAD, ic->next);
	if (n)
		memcpy(grown + CTL_HEAD + 4, p, n);
	ic->out_n += CTL_HEAD + 4 + n;
	*k = (struct call){ ic->next, fn, arg, loop_now(ic->loop) + CALL_TIMEOUT };
	if (ic->timer.at == NS_NEVER)
		loop_timer_set(ic->loop, &ic->timer, k->until);
	/* Written by on_io when the socket says so: fn is never called from inside this call. */
	return loop_io_mod(ic->loop, &ic->io, LOOP_READ | LOOP_WRITE);
}

bool issuer_client_up(const struct issuer_client *ic)
{
	return ic->up;
}

struct issuer_client *issuer_client_new(struct loop *loop, const char *path)
{
	struct issuer_client *ic = calloc(1, sizeof(*ic));

	if (!ic || strlen(path) >= sizeof(ic->path)) {
		free(ic);
		return NULL;
	}
	ic->loop = loop;
	strcpy(ic->path, path);
	ic->fd = -1;
	ic->in.max = ISS_MAX;
	loop_timer_init(&ic->timer, on_timer, ic);
	return ic;
}

struct issuer_client *issuer_client_free(struct issuer_client *ic)
{
	if (!ic)
		return NULL;
	loop_timer_cancel(ic->loop, &ic->timer);
	hang_up(ic);
	free(ic);
	return NULL;
}
