/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manager: joins the pure core, links and QUIC, and executes what the core asks. See session.h for the
 * picture.
 *
 * Lifetimes: an epoch (attempt, connection, session) is taken out of everything by epoch_kill() and its
 * memory freed when the loop turns, so that no caller loses the ground it stands on. Peers that are only
 * known because they came are forgotten by the tick once nothing hangs on them.
 */
#include "session/session.h"

#include <stdlib.h>

#include "session/mgr.h"

#define PING_WITHIN (5 * NS_PER_S)

void sess_params_default(struct sess_params *p)
{
	*p = (struct sess_params){
		.rekey_after = 120 * NS_PER_S,
		.rekey_packets = 1ull << 31,
		.rekey_idle = 3600 * NS_PER_S,
		.hard_stop = 180 * NS_PER_S,
		.old_keys_live = 30 * NS_PER_S,
		.keepalive = 25 * NS_PER_S,
		.dead_after = 15 * NS_PER_S,
		.dial_retry_min = 250 * NS_PER_MS,
		.dial_retry_max = 30 * NS_PER_S,
		.max_half_open = 256,
		.reserved_half_open = 64,
		.accept_burst = 16,
		.accept_per_s = 2,
	};
}

/* ---- peers ---- */
struct peer *peer_find(struct sess_mgr *m, const uint8_t addr[16])
{
	for (struct tab_node *t = tab_first(&m->peers, siphash24(&m->addr_key, addr, 16)); t;
	     t = tab_next(t)) {
		struct peer *p = container_of(t, struct peer, by_addr);

		if (memcmp(p->core.addr, addr, 16) == 0)
			return p;
	}
	return NULL;
}

struct peer *peer_get(struct sess_mgr *m, const struct spiffe_id *id, struct err *e)
{
	const struct link_params lp = { .keepalive = m->cfg.params.keepalive,
					.dead_after = m->cfg.params.dead_after,
					.mtu = m->cfg.mtu };
	uint8_t addr[16];
	struct peer *p;

	overlay_addr(id, addr);
	p = peer_find(m, addr);
	if (p) {
		if (strcmp(p->id.uri, id->uri) == 0)
			return p;
		err_set(e, ERR_CONFLICT, "'%.100s' has the overlay address of '%.100s'", id->uri, p->id.uri);
		log_error("session", "two identities with one address", LS("why", e ? e->what : id->uri));
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p || core_peer_add(&m->core, &p->core, addr, mgr_now(m))) {
		free(p);
		err_set(e, ERR_NOMEM, "out of memory");
		return NULL;
	}
	p->id = *id;
	p->m = m;
	p->dynamic = true;
	p->link_id = ++m->next_link;
	link_init(&p->link, &lp);
	loop_timer_init(&p->link_timer, mgr_on_link_timer, p);
	tab_add(&m->peers, &p->by_addr, siphash24(&m->addr_key, addr, 16));
	p->next = m->peer_list;
	if (p->next)
		p->next->prev = &p->next;
	p->prev = &m->peer_list;
	m->peer_list = p;
	return p;
}

void peer_error(struct peer *p, const char *why)
{
	snprintf(p->last_error, sizeof(p->last_error), "%s", why);
}

static void peer_free(struct peer *p)
{
	struct sess_mgr *m = p->m;

	for (struct epoch *e = m->epochs; e; e = e->next)
		if (e->peer == p)
			e->peer = NULL;
	loop_timer_cancel(m->cfg.loop, &p->link_timer);
	tab_del(&p->by_addr);
	if (p->next)
		p->next->prev = p->prev;
	*p->prev = p->next;
	free(p->ep);
	free(p);
}

int sess_peer_add(struct sess_mgr *m, const struct spiffe_id *id, const struct endpoint *ep, size_t nep,
		  bool keep, struct err *e)
{
	struct endpoint *copy = NULL;
	struct err why = { 0 };
	struct peer *p;

	if (m->self.uri[0] && strcmp(m->self.uri, id->uri) == 0)
		return err_set(e, ERR_USAGE, "'%.200s' is this node itself", id->uri);
	if (nep) {
		copy = malloc(nep * sizeof(*copy));
		if (!copy)
			return err_set(e, ERR_NOMEM, "out of memory");
		memcpy(copy, ep, nep * sizeof(*copy));
	}
	p = peer_get(m, id, &why);
	if (!p) {
		free(copy);
		if (e)
			*e = why;
		return why.code;
	}
	free(p->ep);
	p->ep = copy;
	p->nep = nep;
	p->dynamic = false;
	core_peer_dial(&m->core, &p->core, (unsigned)nep, keep, mgr_now(m));
	mgr_run(m);
	return 0;
}

void sess_peer_remove(struct sess_mgr *m, const struct spiffe_id *id)
{
	uint8_t addr[16];
	struct peer *p;

	overlay_addr(id, addr);
	p = peer_find(m, addr);
	if (!p)
		return;
	p->dynamic = true;
	p->nep = 0;
	core_peer_dial(&m->core, &p->core, 0, false, mgr_now(m));
	if (p->dial)
		dial_failed(p->dial, "the peer was removed");
	while (p->core.sessions)
		core_session_end(&m->core, p->core.sessions, SESS_CLOSED, mgr_now(m));
	mgr_run(m);
}

int sess_want(struct sess_mgr *m, const uint8_t addr[16])
{
	struct peer *p = peer_find(m, addr);

	if (!p)
		return ERR_NOT_FOUND;
	core_want(&m->core, &p->core, mgr_now(m));
	mgr_run(m);
	return 0;
}

/* ---- what the core asks ---- */
static struct epoch *epoch_of(struct core_session *s)
{
	return container_of(s, struct epoch, core);
}

static void use(struct sess_mgr *m, struct peer *p, struct epoch *e)
{
	const uint64_t now = mgr_now(m);
	struct link_result r = { 0 };
	const bool first = !p->current;
	char text[ENDPOINT_TEXT];

	/* Taken into use again: its path is of long ago, the link's is where the peer is now. */
	const struct endpoint *path = e->used && p->link.up ? &p->link.path : &e->path;

	p->current = e;
	if (!e->used) {
		p->epochs++;
		m->n.rekeys += !first;
	}
	e->used = true;
	p->handshake_ns = e->handshake_ns;
	memcpy(p->group, e->group, sizeof(p->group));
	memcpy(p->signature, e->signature, sizeof(p->signature));
	p->last_error[0] = 0;
	if (m->cfg.ops->use)
		m->cfg.ops->use(m->cfg.arg, e->id);
	if (first) {
		p->up_since = now;
		log_info("session", "session up", LS("peer", p->id.uri),
			 LS("address", endpoint_text(&e->path, text)), LS("group", e->group),
			 LS("signature", e->signature),
			 LF("ms", (double)e->handshake_ns / (double)NS_PER_MS));
	} else {
		log_debug("session", "keys renewed", LS("peer", p->id.uri), LU("epoch", p->epochs));
	}
	link_keys(&p->link, path, e->peer_mtu, now, &r);
	mgr_link(p, &r);
}

static enum close_code code_of(enum sess_end why)
{
	switch (why) {
	case SESS_REVOKED:
		return CLOSE_REVOKED;
	case SESS_EXPIRED:
		return CLOSE_EXPIRED;
	case SESS_REFUSED:
		return CLOSE_REFUSED;
	case SESS_SPENT:
		return CLOSE_SPENT;
	case SESS_REKEYED:
		return CLOSE_REPLACED;
	case SESS_TIMEOUT:
	case SESS_CLOSED:
		break;
	}
	return CLOSE_BYE;
}

static const char *end_text(enum sess_end why)
{
	static const char *const t[] = { "closed",
					 "replaced by new keys",
					 "no answer",
					 "its SVID expired",
					 "revoked",
					 "refused",
					 "keys are used up and were not renewed" };

	return (size_t)why < ARRAY_SIZE(t) ? t[why] : "?";
}

static void end(struct sess_mgr *m, struct peer *p, struct epoch *e, enum sess_end why)
{
	const bool was_current = p->current == e;

	m->n.closed_revoked += why == SESS_REVOKED;
	m->n.closed_expired += why == SESS_EXPIRED;
	if (e->installed && m->cfg.ops->gone)
		m->cfg.ops->gone(m->cfg.arg, e->id, why, end_text(why));
	e->in_core = false;
	epoch_kill(e, code_of(why));
	if (!was_current)
		return;
	if (p->core.current)
		return; /* CORE_USE of another follows */
	link_down(&p->link);
	loop_timer_cancel(m->cfg.loop, &p->link_timer);
	if (!p->last_error[0])
		peer_error(p, end_text(why));
	log_info("session", "session down", LS("peer", p->id.uri), LS("why", end_text(why)));
}

void mgr_run(struct sess_mgr *m)
{
	struct core_act a;

	if (m->running)
		return;
	m->running = true;
	while (core_next(&m->core, &a)) {
		struct peer *p = container_of(a.peer, struct peer, core);
		struct epoch *e = a.session ? epoch_of(a.session) : NULL;

		switch (a.kind) {
		case CORE_DIAL:
			if (!m->closing)
				dial_start(m, p, a.ep, a.rekey);
			break;
		case CORE_ABORT:
			if (p->dial)
				epoch_kill(p->dial, CLOSE_BYE);
			break;
		case CORE_USE:
			if (!e->dead)
				use(m, p, e);
			break;
		case CORE_REPLACED:
			if (!e->dead)
				ctl_close(e, CLOSE_REPLACED, "replaced by newer keys");
			break;
		case CORE_END:
			end(m, p, e, a.why);
			break;
		case CORE_UNREACHABLE:
			if (m->cfg.ops->unreachable)
				m->cfg.ops->unreachable(m->cfg.arg, &p->id, p->last_error);
			break;
		}
	}
	m->running = false;
	/* A dial that becomes due before the next tick does not wait for it. */
	if (m->core.next_dial < m->tick.at && !m->closing)
		loop_timer_set(m->cfg.loop, &m->tick, m->core.next_dial);
}

/* ---- time ---- */
static void pings_timeout(struct sess_mgr *m, uint64_t now)
{
	struct ping **q = &m->pings;

	while (*q) {
		struct ping *x = *q;

		if (now < x->sent + PING_WITHIN) {
			q = &x->next;
			continue;
		}
		*q = x->next;
		x->fn(x->arg, ERR_TIMEOUT, 0);
		free(x);
		q = &m->pings; /* fn may have changed the list */
	}
}

static void on_tick(void *arg, uint64_t now)
{
	struct sess_mgr *m = arg;
	uint64_t next;

	if (m->cfg.ops->usage)
		for (struct epoch *e = m->epochs; e; e = e->next) {
			uint64_t packets = 0, last = 0, rx = 0;

			if (!e->installed)
				continue;
			m->cfg.ops->usage(m->cfg.arg, e->id, &packets, &last, &rx);
			core_usage(&m->core, &e->core, packets, rx);
		}
	next = core_tick(&m->core, now);
	mgr_run(m);
	pings_timeout(m, now);
	for (struct peer *p = m->peer_list, *after; p; p = after) {
		after = p->next;
		if (!p->dynamic || p->core.sessions || p->dial)
			continue;
		core_peer_remove(&m->core, &p->core, SESS_CLOSED);
		mgr_run(m);
		peer_free(p);
	}
	loop_timer_set(m->cfg.loop, &m->tick, m->core.next_dial < next ? m->core.next_dial : next);
}

static void on_reap(void *arg, uint64_t now)
{
	struct sess_mgr *m = arg;
	struct epoch *e;

	(void)now;
	quic_flush(&m->quic);
	quic_reap(&m->quic); /* they point into the graves */
	while ((e = m->graves)) {
		m->graves = e->next;
		tls_who_fini(&e->who);
		tls_unref(e->tls);
		secret_wipe(e, sizeof(*e));
		free(e);
	}
}

/* ---- life ---- */
static const struct quic_ops quic_ops = {
	.send = mgr_send, .up = ctl_up, .message = ctl_message, .closed = ctl_closed
};

static int check_config(const struct sess_config *cfg, struct err *e)
{
	if (!cfg->loop || !cfg->rng || !cfg->ops || !cfg->ops->send)
		return err_set(e, ERR_USAGE, "a session manager needs a loop, randomness and a way to send");
	if (cfg->self && (!cfg->ops->keys || !cfg->ops->index_new))
		return err_set(e, ERR_USAGE, "a session manager with an identity needs a data path");
	if (cfg->nlanes < 1 || cfg->nlanes > LANES_MAX)
		return err_set(e, ERR_USAGE, "%u lanes; 1 to %d are possible", cfg->nlanes, LANES_MAX);
	if (cfg->mtu < LINK_MTU_BASE || cfg->mtu > FRAME_MAX)
		return err_set(e, ERR_USAGE, "underlay MTU %u; %d to %d are possible", cfg->mtu,
			       LINK_MTU_BASE, FRAME_MAX);
	return 0;
}

int sess_new(const struct sess_config *cfg, struct sess_mgr **ret, struct err *e)
{
	struct sess_mgr *m;
	uint8_t key[16];
	int r = check_config(cfg, e);

	if (r)
		return r;
	r = crypto_init(e);
	if (r)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(e, ERR_NOMEM, "out of memory");
	m->cfg = *cfg;
	m->cfg.self = NULL;
	m->cfg.join_root = NULL;
	sess_join_root(m, cfg->join_root);
	if (!m->cfg.proto)
		m->cfg.proto = X0_PROTO;
	m->env = (struct tls_env){ .loop = cfg->loop, .wall_offset = cfg->wall_offset };
	rng_fill(cfg->rng, key, sizeof(key));
	m->addr_key = sipkey_from(key);
	contact_init(&m->contact, cfg->rng, loop_now(cfg->loop));
	if (cfg->params.accept_burst)
		m->contact.burst = cfg->params.accept_burst;
	if (cfg->params.accept_per_s)
		m->contact.per_second = cfg->params.accept_per_s;
	loop_timer_init(&m->tick, on_tick, m);
	loop_timer_init(&m->reap, on_reap, m);
	if (tab_init(&m->peers) || tab_init(&m->ids) || tab_init(&m->links) || tab_init(&m->nonces) ||
	    tab_init(&m->cookies) || core_init(&m->core, &cfg->params, m->self_addr, cfg->rng) ||
	    quic_init(&m->quic, cfg->loop, cfg->rng, &quic_ops, m))
		r = err_set(e, ERR_NOMEM, "out of memory");
	if (!r && cfg->self)
		r = sess_identity(m, cfg->self, e);
	if (r) {
		sess_free(m);
		return r;
	}
	loop_timer_set(cfg->loop, &m->tick, loop_now(cfg->loop) + core_tick_every(&m->core));
	*ret = m;
	return 0;
}

struct sess_mgr *sess_free(struct sess_mgr *m)
{
	if (!m)
		return NULL;
	m->closing = true;
	while (m->peer_list) {
		struct peer *p = m->peer_list;

		core_peer_remove(&m->core, &p->core, SESS_CLOSED);
		mgr_run(m);
		peer_free(p);
	}
	while (m->epochs)
		epoch_kill(m->epochs, CLOSE_BYE);
	join_fini(m);
	if (m->quic.loop)
		on_reap(m, mgr_now(m));
	quic_fini(&m->quic);
	loop_timer_cancel(m->cfg.loop, &m->tick);
	loop_timer_cancel(m->cfg.loop, &m->reap);
	core_fini(&m->core);
	contact_fini(&m->contact);
	bundle_free(m->bundle);
	sess_join_root(m, NULL);
	tls_unref(m->tls);
	SSL_CTX_free(m->join_ctx);
	tab_fini(&m->peers);
	tab_fini(&m->ids);
	tab_fini(&m->links);
	tab_fini(&m->nonces);
	tab_fini(&m->cookies);
	free(m);
	return NULL;
}

/* ---- calls about one session ---- */
/* A handle of an epoch that was replaced stands for its peer's present one. */
static struct epoch *live(struct sess_mgr *m, uint32_t session)
{
	struct epoch *e = epoch_by_id(m, session);

	if (e && e->peer && e->peer->current && e->installed)
		e = e->peer->current;
	return e && e->used && e->conn ? e : NULL;
}

int sess_send(struct sess_mgr *m, uint32_t session, uint16_t type, const void *p, size_t n)
{
	struct epoch *e = live(m, session);

	return e ? quic_send(e->conn, type, p, n) : ERR_NOT_FOUND;
}

int sess_ping(struct sess_mgr *m, uint32_t session, void (*fn)(void *arg, int code, uint64_t rtt_ns),
	      void *arg)
{
	struct epoch *e = live(m, session);
	struct ping *x;
	uint8_t b[8];
	int r;

	if (!e)
		return ERR_NOT_FOUND;
	x = calloc(1, sizeof(*x));
	if (!x)
		return ERR_NOMEM;
	*x = (struct ping){
		.id = rng_u64(m->cfg.rng), .sent = mgr_now(m), .session = e->id, .fn = fn, .arg = arg
	};
	put_u64(b, x->id);
	r = quic_send(e->conn, CTL_PING, b, sizeof(b));
	if (r) {
		free(x);
		return r;
	}
	x->next = m->pings;
	m->pings = x;
	return 0;
}

void sess_spent(struct sess_mgr *m, uint32_t session)
{
	struct epoch *e = epoch_by_id(m, session);

	if (!e || !e->in_core)
		return;
	core_session_end(&m->core, &e->core, SESS_SPENT, mgr_now(m));
	mgr_run(m);
}

void sess_rekey(struct sess_mgr *m, uint32_t session)
{
	struct epoch *e = epoch_by_id(m, session);

	if (!e || !e->in_core || !e->peer)
		return;
	core_rekey(&m->core, &e->peer->core, mgr_now(m));
	mgr_run(m);
}

/* ---- what there is ---- */
static enum sess_state state_of(const struct peer *p)
{
	if (p->current)
		return SESS_UP;
	if (p->core.sessions || (p->dial && p->dial->conn))
		return SESS_HANDSHAKE;
	if (p->core.failures)
		return SESS_FAILED;
	return p->dial ? SESS_DIALING : SESS_IDLE;
}

void sess_peers(struct sess_mgr *m, void (*fn)(void *arg, const struct sess_peer_info *p), void *arg)
{
	for (const struct peer *p = m->peer_list, *next; p; p = next) {
		const struct epoch *e = p->current;
		struct sess_peer_info i = { .id = p->id, .state = state_of(p), .epoch = p->epochs };

		next = p->next;
		memcpy(i.addr, p->core.addr, 16);
		if (e) {
			i.session = e->id;
			i.link = p->link_id;
			i.path = p->link.path;
			i.frame_max = p->link.frame_max;
			i.rtt_ns = p->link.srtt;
			i.up_since = p->up_since;
			i.svid_not_after = e->who.info.not_after;
		} else if (p->nep) {
			i.path = p->ep[p->core.next_ep % p->nep];
		}
		i.handshake_ns = p->handshake_ns;
		i.group = p->group;
		i.signature = p->signature;
		i.cipher = m->cfg.suite == AEAD_AES_256_GCM ? "AES-256-GCM" : "ChaCha20-Poly1305";
		snprintf(i.last_error, sizeof(i.last_error), "%s", p->last_error);
		fn(arg, &i);
	}
}

void sess_counters(struct sess_mgr *m, struct sess_counters *ret)
{
	*ret = m->n;
}

const char *sess_last_refusal(const struct sess_mgr *m)
{
	return m->refusal;
}
