/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts: knock, cookie, and the QUIC connection behind them; both sides of it. */
#include <stdlib.h>

#include "session/mgr.h"

enum { KNOCKS = 8 };
#define KNOCK_FIRST                                                                                          \
	(10 * NS_PER_MS) /* 48 bytes each, 2.5 s in all; the first may meet a peer just starting */
#define CONTROL_WITHIN (10 * NS_PER_S)
#define EVICT_AFTER    (NS_PER_S)

static void on_timer(void *arg, uint64_t now);

struct epoch *epoch_new(struct sess_mgr *m, bool server)
{
	struct epoch *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->m = m;
	e->server = server;
	do
		e->id = ++m->next_id;
	while (!e->id || epoch_by_id(m, e->id));
	e->started = mgr_now(m);
	e->who.env = &m->env;
	loop_timer_init(&e->timer, on_timer, e);
	loop_timer_init(&e->bundle_timer, ctl_on_bundle_timer, e);
	tab_add(&m->ids, &e->by_id, e->id);
	e->next = m->epochs;
	if (e->next)
		e->next->prev = &e->next;
	e->prev = &m->epochs;
	m->epochs = e;
	return e;
}

struct epoch *epoch_by_id(struct sess_mgr *m, uint32_t id)
{
	struct tab_node *t = tab_first(&m->ids, id);

	return t ? container_of(t, struct epoch, by_id) : NULL;
}

void not_half_open(struct epoch *e)
{
	if (!e->half_open)
		return;
	e->half_open = false;
	e->m->half_open--;
	if (!e->known)
		e->m->half_open_unknown--;
}

void epoch_kill(struct epoch *e, enum close_code code)
{
	struct sess_mgr *m = e->m;

	if (e->dead)
		return;
	e->dead = true;
	not_half_open(e);
	if (e->peer && e->peer->dial == e)
		e->peer->dial = NULL;
	if (e->peer && e->peer->current == e)
		e->peer->current = NULL;
	if (e->conn) {
		quic_close(e->conn, code, code != 0);
		e->conn->user = NULL;
		e->conn = NULL;
	}
	loop_timer_cancel(m->cfg.loop, &e->timer);
	loop_timer_cancel(m->cfg.loop, &e->bundle_timer);
	tab_del(&e->by_id);
	tab_del(&e->by_link);
	tab_del(&e->by_nonce);
	if (e->next)
		e->next->prev = e->prev;
	*e->prev = e->next;
	if (e->keys) {
		secret_wipe(e->keys, sizeof(*e->keys));
		free(e->keys);
		e->keys = NULL;
	}
	secret_wipe(&e->rx_key, sizeof(e->rx_key));
	secret_wipe(&e->tx_key, sizeof(e->tx_key));
	ctl_pings_failed(m, e->id);
	e->next = m->graves;
	m->graves = e;
	loop_timer_set(m->cfg.loop, &m->reap, mgr_now(m));
}

void dial_failed(struct epoch *e, const char *why)
{
	struct sess_mgr *m = e->m;
	struct peer *p = e->peer;
	const bool dialing = p && p->dial == e;

	if (e->dead)
		return;
	if (e->join) {
		struct err er = { 0 };

		err_set(&er, ERR_UNREACHABLE, "%s", why);
		join_failed(e, &er);
		return;
	}
	epoch_kill(e, 0);
	if (!dialing)
		return;
	peer_error(p, why);
	log_debug("session", "dial failed", LS("peer", p->id.uri), LS("why", why));
	core_dial_failed(&m->core, &p->core, mgr_now(m));
	mgr_run(m);
}

static void on_timer(void *arg, uint64_t now)
{
	struct epoch *e = arg;
	char text[ENDPOINT_TEXT], why[160];

	if (e->conn) {
		if (!e->core.ready) {
			struct err er = { 0 };

			err_set(&er, ERR_TIMEOUT, "the control exchange did not finish in 10 s");
			if (e->in_core || e->join_server)
				ctl_refuse(e, CLOSE_REFUSED, &er);
			else
				dial_failed(e, er.what);
		}
		return;
	}
	if (e->tries >= KNOCKS) {
		snprintf(why, sizeof(why),
			 "no answer from %s: host down, port closed, or another trust domain",
			 endpoint_text(&e->path, text));
		dial_failed(e, why);
		return;
	}
	e->m->cfg.ops->send(e->m->cfg.arg, &e->path, e->knock, KNOCK_LEN);
	loop_timer_set(e->m->cfg.loop, &e->timer, now + (KNOCK_FIRST << e->tries));
	e->tries++;
}

int dial_knock(struct epoch *e, const struct endpoint *to, const struct knock_key *key, bool join)
{
	struct sess_mgr *m = e->m;
	struct knock k = { .flags = join ? KNOCK_F_JOIN : 0, .nonce = rng_u64(m->cfg.rng) };
	int r;

	memcpy(k.key_id, key->id, sizeof(k.key_id));
	r = knock_encode(&k, key->key, knock_mac, e->knock);
	if (r)
		return r;
	e->path = *to;
	e->cookie.nonce = k.nonce;
	e->tries = 0;
	tab_del(&e->by_nonce);
	tab_add(&m->nonces, &e->by_nonce, k.nonce);
	on_timer(e, mgr_now(m));
	return 0;
}

void dial_start(struct sess_mgr *m, struct peer *p, unsigned ep, bool rekey)
{
	const struct contact *c = &m->contact;
	const struct endpoint *to = NULL;
	struct epoch *e;

	if (rekey && p->current && (!p->nep || p->core.failures % 3 != 2))
		to = &p->link.path;
	else if (p->nep)
		to = &p->ep[ep % p->nep];
	e = to && m->tls && c->nkeys ? epoch_new(m, false) : NULL;
	if (!e) {
		peer_error(p, !m->tls || !c->nkeys ? "this node has no identity yet"
						   : "no address known, or no memory");
		core_dial_failed(&m->core, &p->core, mgr_now(m));
		return;
	}
	e->peer = p;
	p->dial = e;
	e->who.expect = &p->id;
	e->tls = tls_ref(m->tls);
	if (dial_knock(e, to, &c->keys[p->attempts++ % c->nkeys], false))
		dial_failed(e, "cannot make the knock");
}

void dial_unknown(struct sess_mgr *m, const struct endpoint *to)
{
	struct epoch *e = m->tls && m->contact.nkeys ? epoch_new(m, false) : NULL;

	if (!e)
		return;
	e->tls = tls_ref(m->tls);
	if (dial_knock(e, to, &m->contact.keys[m->n.recovery_knocks++ % m->contact.nkeys], false))
		epoch_kill(e, 0);
}

static struct epoch *by_nonce(struct sess_mgr *m, uint64_t nonce)
{
	struct tab_node *t = tab_first(&m->nonces, nonce);

	return t ? container_of(t, struct epoch, by_nonce) : NULL;
}

void dial_cookie(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n)
{
	struct cookie ck;
	struct epoch *e;
	SSL *ssl;

	(void)from;
	if (cookie_decode(p, n, &ck)) {
		m->n.drop_malformed++;
		return;
	}
	e = by_nonce(m, ck.nonce);
	if (!e || e->conn) { /* not asked for, or the second answer */
		m->n.drop_cookie++;
		return;
	}
	e->cookie = ck;
	ssl = tls_ssl(e->join ? m->join_ctx : e->tls->client, e->tls, false, &e->who);
	if (!ssl || quic_dial(&m->quic, ssl, &e->who, ck.value, e, &e->conn)) {
		dial_failed(e, "out of memory");
		return;
	}
	loop_timer_set(m->cfg.loop, &e->timer, mgr_now(m) + CONTROL_WITHIN);
}

static bool same_host(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static bool is_known(const struct sess_mgr *m, const struct endpoint *from)
{
	for (const struct peer *p = m->peer_list; p; p = p->next) {
		for (size_t i = 0; i < p->nep; i++)
			if (same_host(&p->ep[i], from))
				return true;
		if (p->current && same_host(&p->link.path, from))
			return true;
	}
	return false;
}

/* Makes room by giving up the one that waits longest and had its second; for a stranger only another
 * stranger. */
static bool evict(struct sess_mgr *m, bool known)
{
	struct epoch *old = NULL;

	for (struct epoch *e = m->epochs; e; e = e->next)
		if (e->half_open && (known || !e->known) && (!old || e->started < old->started))
			old = e;
	if (!old || mgr_now(m) - old->started < EVICT_AFTER)
		return false;
	m->n.handshakes_failed++;
	epoch_kill(old, 0);
	return true;
}

static bool admit(struct sess_mgr *m, const struct endpoint *from, bool *ret_known)
{
	const struct sess_params *p = &m->cfg.params;

	*ret_known = is_known(m, from);
	if (*ret_known)
		return m->half_open < p->max_half_open || evict(m, true);
	if (!contact_allow(&m->contact, mgr_now(m), from))
		return false;
	return m->half_open_unknown < p->max_half_open - p->reserved_half_open || evict(m, false);
}

static void accept_new(struct sess_mgr *m, const struct endpoint *from, const struct hello *h)
{
	struct epoch *e;
	bool known;
	SSL *ssl;

	/* A cookie seen on the way opens no second connection beside its owner's. */
	if (!m->tls || !quic_is_initial(h->quic, h->quic_n, h->cookie.value) ||
	    tab_first(&m->cookies, h->cookie.value)) {
		m->n.drop_quic++;
		return;
	}
	if (!admit(m, from, &known)) {
		m->n.drop_half_open++;
		return;
	}
	e = epoch_new(m, true);
	if (!e)
		return;
	e->half_open = true;
	e->known = known;
	m->half_open++;
	m->half_open_unknown += !known;
	e->path = *from;
	e->cookie = h->cookie;
	tab_add(&m->cookies, &e->by_nonce, h->cookie.value);
	e->tls = tls_ref(m->tls);
	ssl = tls_ssl(e->tls->server, e->tls, true, &e->who);
	if (!ssl || quic_accept(&m->quic, ssl, &e->who, h->quic, h->quic_n, h->cookie.value, e, &e->conn)) {
		epoch_kill(e, 0);
		return;
	}
	loop_timer_set(m->cfg.loop, &e->timer, mgr_now(m) + CONTROL_WITHIN);
	quic_input(e->conn, h->quic, h->quic_n);
}

void accept_hello(struct sess_mgr *m, const struct endpoint *from, const struct hello *h)
{
	struct epoch *e;

	if (h->reply) {
		e = by_nonce(m, h->cookie.nonce);
		if (!e || !e->conn || e->cookie.value != h->cookie.value ||
		    e->cookie.epoch != h->cookie.epoch) {
			m->n.drop_cookie++;
			return;
		}
		m->n.drop_quic += !quic_input(e->conn, h->quic, h->quic_n);
		return;
	}
	if (contact_cookie(&m->contact, m->cfg.rng, mgr_now(m), from, &h->cookie)) {
		m->n.drop_cookie++;
		return;
	}
	struct quic_conn *c = quic_find(&m->quic, h->quic, h->quic_n);

	if (!c) {
		accept_new(m, from, h);
		return;
	}
	e = c->user;
	if (!e || !e->server || e->cookie.value != h->cookie.value) {
		m->n.drop_quic++;
		return;
	}
	m->n.drop_quic += !quic_input(c, h->quic, h->quic_n);
}
