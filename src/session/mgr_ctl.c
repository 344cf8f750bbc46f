/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control exchange on stream 0: HELLO, BUNDLE_STATE, (GET, BUNDLE), READY, then typed messages. Keys are
 * installed only after the handshake completed on this side, the bundles were compared, and the peer was
 * checked again against the newer one.
 */
#include <stdlib.h>

#include "session/mgr.h"

#define PEER_OF(e) ((e)->peer ? (e)->peer->id.uri : "stranger")

static uint64_t expiry_ns(const struct sess_mgr *m, int64_t not_after)
{
	int64_t t;

	if (not_after > INT64_MAX / (int64_t)NS_PER_S)
		return NS_NEVER;
	t = not_after * (int64_t)NS_PER_S - m->cfg.wall_offset;
	return t > 0 ? (uint64_t)t : 0;
}

void sess_clock(struct sess_mgr *m, int64_t wall_offset)
{
	m->cfg.wall_offset = m->env.wall_offset = wall_offset;
	for (struct epoch *e = m->epochs; e; e = e->next)
		if (e->in_core)
			e->core.expires = expiry_ns(m, e->who.info.not_after);
}

static void count_refusal(struct sess_mgr *m, const struct epoch *e, int code)
{
	if (e->who.refusal == TLS_REFUSED_REVOKED)
		m->n.refused_revoked++;
	else if (e->who.refusal == TLS_REFUSED_IDENTITY)
		m->n.refused_identity++;
	else if (code == ERR_AUTH)
		m->n.refused_tls++;
}

static void log_refused(const struct epoch *e, const struct err *why)
{
	const char *who = e->peer ? e->peer->id.uri : e->who.info.id.uri;
	char text[ENDPOINT_TEXT];

	snprintf(e->m->refusal, sizeof(e->m->refusal), "%s %.80s: %s", endpoint_text(&e->path, text), who,
		 why->what);
	log_warn("session", "refused a peer", LS("why", why->what), LS("address", text), LS("peer", who),
		 LS("todo", why->todo));
}

/* Of the ways to fail only some are a refusal, and of those only some are ours. */
static void failed_handshake(const struct epoch *e, const struct err *why)
{
	struct sess_mgr *m = e->m;
	char text[ENDPOINT_TEXT];

	m->n.handshakes_failed++;
	if (e->who.refusal != TLS_OK || why->code == ERR_AUTH) {
		count_refusal(m, e, why->code);
		if (!e->join)
			log_refused(e, why);
	} else if (why->code == ERR_DENIED && !e->join) {
		log_warn("session", "a peer refused us", LS("why", why->what),
			 LS("address", endpoint_text(&e->path, text)), LS("peer", PEER_OF(e)),
			 LS("todo", why->todo));
	}
}

static enum sess_end end_of(enum close_code code)
{
	switch (code) {
	case CLOSE_REVOKED:
		return SESS_REVOKED;
	case CLOSE_EXPIRED:
		return SESS_EXPIRED;
	case CLOSE_VERSION:
	case CLOSE_REFUSED:
		return SESS_REFUSED;
	case CLOSE_SPENT:
		return SESS_SPENT;
	default:
		return SESS_CLOSED;
	}
}

/* Ends an epoch wherever it stands: in the core, dialling, or neither. */
static void epoch_end(struct epoch *e, enum sess_end why, const char *sentence, enum close_code code)
{
	struct sess_mgr *m = e->m;

	if (e->peer)
		peer_error(e->peer, sentence);
	if (e->in_core) {
		core_session_end(&m->core, &e->core, why, mgr_now(m));
		mgr_run(m);
	} else if (e->join || (e->peer && e->peer->dial == e)) {
		dial_failed(e, sentence);
	} else {
		epoch_kill(e, code);
	}
}

int ctl_close(struct epoch *e, enum close_code code, const char *why)
{
	uint8_t b[2 + 200];
	size_t n = strlen(why);

	if (!e->conn)
		return ERR_NOT_FOUND;
	if (n > 200)
		n = 200;
	put_u16(b, (uint16_t)code);
	memcpy(b + 2, why, n);
	return quic_send(e->conn, CTL_CLOSE, b, 2 + n);
}

void ctl_refuse(struct epoch *e, enum close_code code, const struct err *why)
{
	log_refused(e, why);
	if (e->conn) {
		ctl_close(e, code, why->what);
		quic_flush(&e->m->quic);
	}
	if (!e->dead)
		epoch_end(e, end_of(code), why->what, code);
}

/* ---- after the handshake ---- */
static void names(struct epoch *e)
{
	const char *sig = NULL, *group = SSL_get0_group_name(e->conn->ssl);

	SSL_get0_peer_signature_name(e->conn->ssl, &sig);
	snprintf(e->group, sizeof(e->group), "%s", group ? group : "");
	snprintf(e->signature, sizeof(e->signature), "%s", sig ? sig : "");
}

static uint32_t new_link_index(struct sess_mgr *m)
{
	uint32_t i;

	do
		i = (uint32_t)rng_u64(m->cfg.rng);
	while (!i || tab_first(&m->links, i));
	return i;
}

/* N and N-1 talk to each other. */
static uint16_t version_min(const struct sess_mgr *m)
{
	return m->cfg.proto > 1 ? (uint16_t)(m->cfg.proto - 1) : 1;
}

static int send_hello(struct epoch *e)
{
	struct sess_mgr *m = e->m;
	struct ctl_hello h = { .version = m->cfg.proto,
			       .version_min = version_min(m),
			       .suite = (uint8_t)m->cfg.suite,
			       .mtu = (uint16_t)m->cfg.mtu };
	uint8_t b[32 + 4 * LANES_MAX];

	e->link_rx = h.link = new_link_index(m);
	tab_add(&m->links, &e->by_link, h.link);
	e->nlanes = h.nlanes = (uint8_t)m->cfg.nlanes;
	for (unsigned i = 0; i < e->nlanes; i++)
		e->lane[i] = h.lane[i] = m->cfg.ops->index_new(m->cfg.arg, i);
	return quic_send(e->conn, CTL_HELLO, b, ctl_hello_encode(&h, b, sizeof(b)));
}

void ctl_bundle_state(struct epoch *e)
{
	const struct bundle *b = e->m->bundle;
	const bool can_serve = b && b->encoded && b->encoded_n <= CTL_MAX;
	uint8_t v[8 + SHA256_LEN] = { 0 };

	if (can_serve) {
		put_u64(v, b->number);
		memcpy(v + 8, b->hash, SHA256_LEN);
	}
	quic_send(e->conn, CTL_BUNDLE_STATE, v, sizeof(v));
}

void ctl_up(void *arg, struct quic_conn *c)
{
	struct sess_mgr *m = arg;
	struct epoch *e = c->user;
	struct err er = { 0 };
	bool dialled;
	int r;

	if (!e)
		return;
	e->handshake_ns = mgr_now(m) - e->started;
	if (tls_check(c->ssl, &e->who, &er)) {
		m->n.refused_tls++;
		m->n.handshakes_failed++;
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return;
	}
	names(e);
	if (e->join || e->who.is_join) {
		/* A newcomer has shown nothing yet: it counts as half open until it is gone, and may not talk
		 * long. */
		if (e->server)
			e->conn->reader.max = JOIN_REQUEST_MAX;
		join_up(e);
		return;
	}
	not_half_open(e);
	if (!e->peer)
		e->peer = peer_get(m, &e->who.info.id, &er);
	if (!e->peer) {
		m->n.refused_identity++;
		m->n.handshakes_failed++;
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return;
	}
	m->n.handshakes_ok++;
	dialled = e->peer->dial == e;
	if (dialled)
		e->peer->dial = NULL;
	r = core_session_open(&m->core, &e->peer->core, &e->core, dialled,
			      expiry_ns(m, e->who.info.not_after), mgr_now(m));
	if (r) {
		if (dialled) {
			e->peer->dial = e;
			dial_failed(e, "out of memory");
		} else {
			epoch_kill(e, CLOSE_REFUSED);
		}
		return;
	}
	e->in_core = true;
	mgr_run(m);
	if (e->dead || send_hello(e))
		return;
	ctl_bundle_state(e);
}

void ctl_closed(void *arg, struct quic_conn *c, const struct err *why)
{
	struct epoch *e = c->user;

	(void)arg;
	if (!e)
		return;
	c->user = NULL;
	e->conn = NULL;
	if (!e->in_core) {
		if (!e->join_server) /* the newcomer's handshake was complete; it left */
			failed_handshake(e, why);
		if (e->join) {
			join_failed(e, why);
			return;
		}
		epoch_end(e, SESS_REFUSED, why->what, CLOSE_REFUSED);
		return;
	}
	epoch_end(e, e->core.old ? SESS_REKEYED : SESS_CLOSED, why->what, CLOSE_BYE);
}

/* ---- messages ---- */
static int recheck(struct epoch *e, struct err *er)
{
	int r = tls_recheck(&e->who, er);

	if (r == ERR_REVOKED)
		e->m->n.refused_revoked++;
	else if (r)
		e->m->n.refused_identity++;
	return r;
}

static int install(struct epoch *e)
{
	struct sess_mgr *m = e->m;
	struct peer *p = e->peer;
	struct err er = { 0 };
	int r;

	if (!e->hello_in || !e->state_in || e->wait_bundle || e->installed)
		return 0;
	r = recheck(e, &er);
	if (r) {
		ctl_refuse(e, r == ERR_REVOKED ? CLOSE_REVOKED : CLOSE_REFUSED, &er);
		return 1;
	}
	X509_free(e->who.leaf);
	e->who.leaf = NULL;
	e->keys->link = p->link_id;
	e->keys->peer = &e->who.info;
	e->keys->path = p->current ? p->link.path : e->path;
	e->keys->frame_max = p->current ? p->link.frame_max : LINK_MTU_BASE;
	r = m->cfg.ops->keys(m->cfg.arg, e->keys, &er);
	secret_wipe(e->keys, sizeof(*e->keys));
	free(e->keys);
	e->keys = NULL;
	if (r) {
		err_prefix(&er, "cannot install its keys");
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return 1;
	}
	e->installed = true;
	quic_send(e->conn, CTL_READY, NULL, 0);
	if (e->ready_in) {
		core_session_ready(&m->core, &e->core, mgr_now(m));
		mgr_run(m);
	}
	return e->dead;
}

static int on_hello(struct epoch *e, const uint8_t *p, size_t n)
{
	const unsigned mine = e->m->cfg.proto, mine_min = version_min(e->m);
	struct err er = { 0 };
	struct ctl_hello h;
	int r;

	if (e->hello_in || ctl_hello_decode(p, n, &h)) {
		err_set(&er, ERR_PARSE, "its HELLO is malformed");
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return 1;
	}
	if (h.version < mine_min || h.version_min > mine) {
		e->m->n.refused_version++;
		err_set(&er, ERR_UNSUPPORTED,
			"protocol versions too far apart: it speaks %u to %u, this node %u to %u",
			h.version_min, h.version, mine_min, mine);
		err_todo(&er, "upgrade one step at a time: neighbouring versions talk to each other");
		ctl_refuse(e, CLOSE_VERSION, &er);
		return 1;
	}
	r = keys_derive(e, &h, &er);
	if (r) {
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return 1;
	}
	e->hello_in = true;
	quic_drop_tls(e->conn);
	return install(e);
}

/* ---- the bundle ---- */
/* A peer whose bundle was of no use is asked again after 1 s, then 2 s, ... 64 s: it cannot keep us busy. */
static void ask_bundle(struct epoch *e)
{
	struct sess_mgr *m = e->m;

	if (e->wait_bundle) /* the answer under way was made after this offer */
		return;
	if (mgr_now(m) < e->ask_bundle_at) {
		loop_timer_set(m->cfg.loop, &e->bundle_timer, e->ask_bundle_at);
		return;
	}
	e->wait_bundle = true;
	quic_send(e->conn, CTL_BUNDLE_GET, NULL, 0);
}

static void look_at_offer(struct epoch *e)
{
	const struct bundle *b = e->m->bundle;

	/* Equal numbers: two issuers made a bundle each. What the other one revokes counts here too. */
	if (e->offer_number > b->number ||
	    (e->offer_number == b->number && memcmp(e->offer_hash, b->hash, SHA256_LEN) != 0))
		ask_bundle(e);
}

void ctl_on_bundle_timer(void *arg, uint64_t now)
{
	struct epoch *e = arg;

	(void)now;
	if (e->conn)
		look_at_offer(e);
}

static int on_bundle_state(struct epoch *e, const uint8_t *p, size_t n)
{
	if (n < 8 + SHA256_LEN)
		return 0;
	e->offer_number = get_u64(p);
	memcpy(e->offer_hash, p + 8, SHA256_LEN);
	look_at_offer(e);
	e->state_in = true;
	return install(e);
}

static void useless_bundle(struct epoch *e)
{
	const unsigned shift = e->useless_bundles < 6 ? e->useless_bundles : 6;

	e->useless_bundles++;
	e->ask_bundle_at = mgr_now(e->m) + (NS_PER_S << shift);
}

/*
 * Nobody we know signed it, so it says nothing, neither about the mesh nor against its bearer, whose SVID is
 * good by our own bundle: it may follow an issuer that ours has yet to add. Each such bundle is logged once,
 * and no more than one a minute.
 */
static void unknown_bundle(struct epoch *e)
{
	struct sess_mgr *m = e->m;

	m->n.bundles_unknown++;
	useless_bundle(e);
	if (mgr_now(m) < m->bundle_log_at || !memcmp(m->bundle_logged, e->offer_hash, SHA256_LEN))
		return;
	m->bundle_log_at = mgr_now(m) + 60 * NS_PER_S;
	memcpy(m->bundle_logged, e->offer_hash, SHA256_LEN);
	log_warn("session", "a peer's bundle is signed by no root known here: ours stays in force",
		 LS("peer", PEER_OF(e)), LU("theirs", e->offer_number), LU("ours", m->bundle->number),
		 LS("todo", "x0 ca add-issuer makes a new issuer known to the mesh"));
}

/* Verified: newer, or a second one of our number, or (while we waited, another peer was faster) old. */
static void known_bundle(struct epoch *e, struct bundle *theirs /* owned */)
{
	struct sess_mgr *m = e->m;
	const bool conflict = theirs->number == m->bundle->number &&
			      memcmp(theirs->hash, m->bundle->hash, SHA256_LEN) != 0;
	struct err er = { 0 };
	int r;

	/* Before it counts: it may revoke its bearer, who is gone then. */
	if (conflict || theirs->number > m->bundle->number)
		log_info("session",
			 conflict ? "two bundles of one number: revocations of both count" : "newer bundle",
			 LU("number", theirs->number), LS("from", PEER_OF(e)));
	r = mgr_settle_bundle(m, theirs, &er);
	if (r < 0)
		log_error("session", "cannot adopt a bundle", LS("why", er.what));
	if (r <= 0)
		useless_bundle(e);
	else
		e->useless_bundles = 0;
	if (m->cfg.ops->bundle && (r > 0 || conflict))
		m->cfg.ops->bundle(m->cfg.arg, theirs);
	else
		bundle_free(theirs);
}

static int on_bundle(struct epoch *e, const uint8_t *p, size_t n)
{
	struct bundle *theirs = NULL;
	struct err er = { 0 };
	int r;

	if (!e->wait_bundle)
		return 0;
	r = bundle_decode_any_number(p, n, e->m->bundle, &theirs, &er);
	if (r && !(r == ERR_AUTH && !bundle_names_signer(p, n, e->m->bundle))) {
		err_prefix(&er, "its bundle");
		ctl_refuse(e, CLOSE_REFUSED, &er);
		return 1;
	}
	e->wait_bundle = false;
	if (r)
		unknown_bundle(e);
	else
		known_bundle(e, theirs);
	return e->dead ? 1 : install(e);
}

static int on_ready(struct epoch *e)
{
	if (e->ready_in || !e->hello_in)
		return 0;
	e->ready_in = true;
	e->control = true;
	if (!e->installed)
		return 0;
	core_session_ready(&e->m->core, &e->core, mgr_now(e->m));
	mgr_run(e->m);
	return e->dead;
}

static int on_close(struct epoch *e, const uint8_t *p, size_t n)
{
	struct sess_mgr *m = e->m;
	enum close_code code;
	char why[201] = "";

	if (n < 2)
		return 0;
	code = get_u16(p);
	for (size_t i = 0; i < n - 2 && i < sizeof(why) - 1; i++)
		why[i] = p[2 + i] >= 0x20 && p[2 + i] < 0x7f ? (char)p[2 + i] : '?';
	if (code == CLOSE_REPLACED && e->in_core && e->core.ready) {
		core_session_replaced(&m->core, &e->core, mgr_now(m));
		mgr_run(m);
		return e->dead;
	}
	log_info("session", "peer closed the session", LS("peer", PEER_OF(e)), LS("why", why));
	epoch_end(e, end_of(code), why, 0);
	return 1;
}

static void on_pong(struct epoch *e, const uint8_t *p, size_t n)
{
	for (struct ping **q = &e->m->pings; n == 8 && *q; q = &(*q)->next) {
		struct ping *x = *q;

		if (x->id != get_u64(p) || x->session != e->id)
			continue;
		*q = x->next;
		x->fn(x->arg, 0, mgr_now(e->m) - x->sent);
		free(x);
		return;
	}
}

void ctl_pings_failed(struct sess_mgr *m, uint32_t session)
{
	struct ping **q = &m->pings;

	while (*q) {
		struct ping *x = *q;

		if (x->session != session) {
			q = &x->next;
			continue;
		}
		*q = x->next;
		x->fn(x->arg, ERR_FAILED, 0);
		free(x);
	}
}

int ctl_message(void *arg, struct quic_conn *c, uint16_t type, const uint8_t *p, size_t n)
{
	struct sess_mgr *m = arg;
	struct epoch *e = c->user;

	if (!e)
		return 1;
	if (e->join || e->join_server)
		return join_message(e, type, p, n);
	switch (type) {
	case CTL_HELLO:
		return on_hello(e, p, n);
	case CTL_BUNDLE_STATE:
		return on_bundle_state(e, p, n);
	case CTL_BUNDLE_GET:
		if (m->bundle->encoded && m->bundle->encoded_n <= CTL_MAX)
			quic_send(c, CTL_BUNDLE, m->bundle->encoded, m->bundle->encoded_n);
		return 0;
	case CTL_BUNDLE:
		return on_bundle(e, p, n);
	case CTL_READY:
		return on_ready(e);
	case CTL_PING:
		return quic_send(c, CTL_PONG, p, n < 64 ? n : 64) == ERR_NOMEM;
	case CTL_PONG:
		on_pong(e, p, n);
		return 0;
	case CTL_CLOSE:
		return on_close(e, p, n);
	default:
		break;
	}
	if (type < 64 && type != CTL_RENEW && type != CTL_RENEWED) {
		m->n.unknown_messages++;
		return 0;
	}
	/* The peer may only speak so after our READY, which follows the second check of its identity. */
	if (e->installed && m->cfg.ops->message)
		m->cfg.ops->message(m->cfg.arg, e->id, &e->who.info, type, p, n);
	else
		m->n.unknown_messages++;
	return e->dead;
}
