/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams in and out: which layer a frame belongs to, and which frame a QUIC datagram travels in. */
#include "session/mgr.h"

enum { BURST_FRAMES = 3 };
#define BURST_WITHIN (5 * NS_PER_S)
#define BURST_AGAIN  (NS_PER_S / 2)

/* The path of a session in use is its link's, which roams; before, it is where the handshake runs. */
static const struct endpoint *path_of(const struct epoch *e)
{
	return e->used && e->peer && e->peer->link.up ? &e->peer->link.path : &e->path;
}

void mgr_send(void *arg, struct quic_conn *c, uint8_t *p, size_t n)
{
	struct sess_mgr *m = arg;
	struct epoch *e = c->user;
	struct hello h;

	if (!e)
		return;
	if (e->control) {
		uint8_t *f = p - HOP_LEN;

		hop_put(f, FRAME_CONTROL, HOP_TTL, 0, e->link_tx, overlay_label(e->peer->core.addr),
			m->self_label);
		hop_seal(&e->tx_key, f, HOP_LEN + n);
		if (e->used)
			link_sent(&e->peer->link, mgr_now(m));
		m->cfg.ops->send(m->cfg.arg, path_of(e), f, HOP_LEN + n);
		return;
	}
	h = (struct hello){ .reply = e->server, .cookie = e->cookie };
	hello_encode_head(&h, p - HELLO_HEAD);
	m->cfg.ops->send(m->cfg.arg, &e->path, p - HELLO_HEAD, HELLO_HEAD + n);
}

/* QUIC waits for seconds once it lost something in an outage. The answer to something new shows it at once
 * what was lost. */
static void nudge(struct epoch *e)
{
	uint8_t b[8] = { 0 };

	if (e->conn->tx_acked < e->conn->tx_end)
		quic_send(e->conn, CTL_PING, b, sizeof(b));
}

void mgr_link(struct peer *p, struct link_result *r)
{
	struct sess_mgr *m = p->m;
	struct epoch *e = p->current;
	uint8_t buf[FRAME_MAX];
	char text[ENDPOINT_TEXT];

	for (unsigned i = 0; e && i < r->n; i++) {
		struct link_out *o = &r->out[i];

		o->probe.counter = ++e->tx_counter;
		probe_encode(&o->probe, &e->tx_key, e->link_tx, overlay_label(p->core.addr), m->self_label,
			     buf, o->size);
		m->cfg.ops->send(m->cfg.arg, &o->to, buf, o->size);
	}
	if (r->path_changed) {
		m->n.path_changes++;
		log_info("session", "peer moved", LS("peer", p->id.uri),
			 LS("to", endpoint_text(&p->link.path, text)));
	}
	if (r->back)
		for (struct epoch *x = m->epochs; x; x = x->next)
			if (x->peer == p && x->used && x->conn)
				nudge(x);
	if ((r->path_changed || r->mtu_changed) && m->cfg.ops->path)
		m->cfg.ops->path(m->cfg.arg, p->link_id, &p->link.path, p->link.frame_max);
	if (r->dead && p->current) {
		peer_error(p, "no answer any more");
		core_session_end(&m->core, &p->current->core, SESS_TIMEOUT, mgr_now(m));
		mgr_run(m);
	}
	loop_timer_set(m->cfg.loop, &p->link_timer, link_next(&p->link, mgr_now(m)));
}

void mgr_on_link_timer(void *arg, uint64_t now)
{
	struct peer *p = arg;
	struct link_result r = { 0 };

	if (p->current && p->m->cfg.ops->usage) {
		uint64_t packets = 0, use = 0, rx = 0;

		p->m->cfg.ops->usage(p->m->cfg.arg, p->current->id, &packets, &use, &rx);
		link_usage(&p->link, rx, use);
	}
	link_tick(&p->link, p->m->cfg.rng, now, &r);
	mgr_link(p, &r);
}

static struct epoch *by_link(struct sess_mgr *m, uint32_t index)
{
	struct tab_node *t = tab_first(&m->links, index);

	return t ? container_of(t, struct epoch, by_link) : NULL;
}

/*
 * We were restarted, and a neighbour still sends with the old keys: after a burst from one address, one knock
 * there. Nothing is reset and nothing believed; whoever answers must authenticate as in any dial. Spoofed
 * bursts cost one knock of 48 bytes in half a second, wherever they seem to come from.
 */
static void unknown_index(struct sess_mgr *m, const struct endpoint *from)
{
	const uint64_t now = mgr_now(m);
	const size_t i = siphash24(&m->addr_key, from->addr, 16) % BURST_SLOTS;

	if (now - m->burst[i].since > BURST_WITHIN) {
		m->burst[i].since = now;
		m->burst[i].n = 0;
	}
	if (++m->burst[i].n != BURST_FRAMES || now < m->burst_again)
		return;
	m->burst_again = now + BURST_AGAIN;
	dial_unknown(m, from);
}

/* The session a hop-tagged frame belongs to, if its tag is right. */
static struct epoch *authentic(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n,
			       struct hop *h)
{
	struct epoch *e;

	if (hop_decode(p, n, h)) {
		m->n.drop_malformed++;
		return NULL;
	}
	e = by_link(m, h->link);
	if (!e && h->dst == m->self_label)
		unknown_index(m, from);
	if (!e || !e->hello_in || h->dst != m->self_label || hop_check(&e->rx_key, p, n)) {
		m->n.drop_link++;
		return NULL;
	}
	return e;
}

static void seen(struct epoch *e, const struct endpoint *from)
{
	struct link_result r = { 0 };

	if (!e->used || !e->peer || !e->peer->current)
		return;
	link_seen(&e->peer->link, from, e->m->cfg.rng, mgr_now(e->m), &r);
	mgr_link(e->peer, &r);
}

static void input_control(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n)
{
	struct hop h;
	struct epoch *e = authentic(m, from, p, n, &h);
	bool fresh;

	if (!e)
		return;
	fresh = false;
	if (e->conn) {
		e->control = true; /* whoever made the tag has the keys */
		fresh = quic_input(e->conn, p + HOP_LEN, n - HOP_LEN);
	}
	if (!fresh)
		m->n.drop_quic++;
	else if (!e->dead)
		seen(e, from);
}

static void input_probe(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n)
{
	struct link_result r = { 0 };
	struct probe pr;
	struct hop h;
	struct epoch *e = authentic(m, from, p, n, &h);

	if (!e)
		return;
	if (probe_decode(p, n, &pr) || pr.counter <= e->rx_counter) {
		m->n.drop_probe++;
		return;
	}
	e->rx_counter = pr.counter;
	e->control = true;
	seen(e, from);
	if (!e->peer || !e->peer->current)
		return;
	if (!link_probe(&e->peer->link, from, &pr, mgr_now(m), &r))
		m->n.drop_probe++;
	mgr_link(e->peer, &r);
}

void sess_input(struct sess_mgr *m, const struct endpoint *from, const uint8_t *p, size_t n)
{
	uint8_t cookie[COOKIE_LEN];
	struct hello h;
	int r;

	if (m->closing)
		return;
	switch (n ? p[0] : 0) {
	case FRAME_KNOCK:
		r = contact_knock(&m->contact, m->cfg.rng, mgr_now(m), from, p, n, cookie);
		if (!r)
			m->cfg.ops->send(m->cfg.arg, from, cookie, sizeof(cookie));
		else if (r == ERR_PARSE)
			m->n.drop_malformed++;
		else
			m->n.drop_knock++;
		return;
	case FRAME_COOKIE:
		dial_cookie(m, from, p, n);
		return;
	case FRAME_HELLO:
		if (hello_decode(p, n, &h))
			m->n.drop_malformed++;
		else
			accept_hello(m, from, &h);
		return;
	case FRAME_CONTROL:
		input_control(m, from, p, n);
		return;
	case FRAME_PROBE:
		input_probe(m, from, p, n);
		return;
	default:
		m->n.drop_type++;
	}
}

void sess_path_seen(struct sess_mgr *m, uint32_t link, const struct endpoint *from)
{
	for (struct peer *p = m->peer_list; p; p = p->next) {
		struct link_result r = { 0 };

		if (p->link_id != link || !p->current)
			continue;
		link_seen(&p->link, from, m->cfg.rng, mgr_now(m), &r);
		mgr_link(p, &r);
		return;
	}
}

void sess_path_too_big(struct sess_mgr *m, uint32_t link)
{
	for (struct peer *p = m->peer_list; p; p = p->next) {
		struct link_result r = { 0 };

		if (p->link_id != link || !p->current)
			continue;
		link_too_big(&p->link, mgr_now(m), &r);
		mgr_link(p, &r);
		return;
	}
}

void sess_moved(struct sess_mgr *m)
{
	for (struct peer *p = m->peer_list; p; p = p->next) {
		struct link_result r = { 0 };

		if (!p->current)
			continue;
		link_ping(&p->link, mgr_now(m), &r);
		mgr_link(p, &r);
	}
}
