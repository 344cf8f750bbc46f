/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining: ALPN x0-join/1. The newcomer knocks with the key of the pinned root, checks the pin in the
 * handshake, and only then says anything; the issuer hands request and exporter to its owner and waits for
 * the answer.
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "session/mgr.h"

#define JOIN_EXPORTER "EXPORTER-x0-join-v1"
#define JOIN_WITHIN   (30 * NS_PER_S)

static void join_free(struct sess_mgr *m, struct join_out *j)
{
	struct join_out **q = &m->joins;

	while (*q && *q != j)
		q = &(*q)->next;
	if (*q)
		*q = j->next;
	token_wipe(&j->token);
	free(j);
}

void join_fini(struct sess_mgr *m)
{
	while (m->joins)
		join_free(m, m->joins);
}

static void finish(struct epoch *e, const uint8_t *reply, size_t n, const struct err *why)
{
	struct join_out *j = e->join;
	const struct sess_join_ops *ops = j->ops;
	void *arg = j->arg;
	struct sess_mgr *m = e->m;

	e->join = NULL;
	e->who.join = NULL;
	epoch_kill(e, CLOSE_BYE);
	ops->done(arg, reply, n, why);
	join_free(m, j);
}

static int try_next(struct sess_mgr *m, struct join_out *j, struct err *er)
{
	struct knock_key key;
	struct epoch *e;
	int r;

	if (knock_key_from(j->token.issuer, &key))
		return err_set(er, ERR_FAILED, "cannot derive the knock key");
	e = epoch_new(m, false);
	if (!e)
		return err_set(er, ERR_NOMEM, "out of memory");
	e->join = j;
	e->who.join = &j->token;
	r = dial_knock(e, &j->token.addr[j->next_addr++], &key, true);
	secret_wipe(&key, sizeof(key));
	if (r) {
		e->join = NULL;
		epoch_kill(e, 0);
		return err_set(er, r, "cannot make the knock");
	}
	return 0;
}

void join_failed(struct epoch *e, const struct err *why)
{
	struct join_out *j = e->join;
	struct sess_mgr *m = e->m;
	struct err er = *why;
	char text[ENDPOINT_TEXT];

	err_prefix(&er, "issuer at %s", endpoint_text(&e->path, text));
	if (j->next_addr < j->token.naddrs && e->who.refusal == TLS_OK) {
		struct err next = { 0 };

		j->last = er;
		if (!try_next(m, j, &next)) {
			e->join = NULL;
			epoch_kill(e, 0);
			return;
		}
	}
	finish(e, NULL, 0, &er);
}

int sess_join(struct sess_mgr *m, const struct token *t, const struct sess_join_ops *ops, void *arg,
	      struct err *e)
{
	struct join_out *j;
	int r;

	if (!t->naddrs)
		return err_set(e, ERR_USAGE, "the token names no issuer address");
	if (!m->join_ctx) {
		r = tls_join_client(&m->join_ctx, e);
		if (r)
			return r;
	}
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_set(e, ERR_NOMEM, "out of memory");
	j->token = *t;
	j->ops = ops;
	j->arg = arg;
	j->next = m->joins;
	m->joins = j;
	r = try_next(m, j, e);
	if (r)
		join_free(m, j);
	return r;
}

static int exporter(const struct epoch *e, uint8_t ret[32])
{
	int ok = SSL_export_keying_material(e->conn->ssl, ret, 32, JOIN_EXPORTER, sizeof(JOIN_EXPORTER) - 1,
					    (const unsigned char *)"", 0, 1);

	ERR_clear_error();
	return ok == 1 ? 0 : ERR_FAILED;
}

void join_up(struct epoch *e)
{
	struct sess_mgr *m = e->m;
	struct err er = { 0 };
	uint8_t x[32], *p = NULL;
	size_t n = 0;
	int r;

	loop_timer_set(m->cfg.loop, &e->timer, mgr_now(m) + JOIN_WITHIN);
	if (e->server) {
		e->join_server = true;
		return;
	}
	r = exporter(e, x);
	if (!r)
		r = e->join->ops->request(e->join->arg, x, &p, &n, &er);
	else
		err_set(&er, r, "the TLS exporter failed");
	secret_wipe(x, sizeof(x));
	if (!r) {
		r = quic_send(e->conn, JOIN_REQUEST, p, n);
		if (r)
			err_set(&er, r, "the join request is too long");
	}
	free(p);
	if (r)
		finish(e, NULL, 0, &er);
}

int join_message(struct epoch *e, uint16_t type, const uint8_t *p, size_t n)
{
	struct sess_mgr *m = e->m;
	uint8_t x[32];

	if (e->join && type == JOIN_REPLY) {
		finish(e, p, n, NULL);
		return 1;
	}
	if (!e->join_server || type != JOIN_REQUEST || e->hello_in || !m->cfg.ops->join || exporter(e, x)) {
		m->n.unknown_messages++;
		return 0;
	}
	e->hello_in = true; /* one request per connection */
	m->n.joins++;
	m->cfg.ops->join(m->cfg.arg, e->id, &e->path, x, p, n);
	secret_wipe(x, sizeof(x));
	return e->dead;
}

void sess_join_answer(struct sess_mgr *m, uint64_t ticket, const void *reply, size_t n)
{
	struct epoch *e = ticket <= UINT32_MAX ? epoch_by_id(m, (uint32_t)ticket) : NULL;

	if (e && e->join_server && e->conn)
		quic_send(e->conn, JOIN_REPLY, reply, n);
}
