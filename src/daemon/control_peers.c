/* SPDX-License-Identifier: Apache-2.0 */
/* Which peers there are: those of the configuration, and the seeds a join left. And how far their clocks are
 * off. */
#include <stdlib.h>
#include <unistd.h>

#include "daemon/control.h"

#define CLOCK_EVERY (60 * NS_PER_S)
enum { SEEDS_FILE_MAX = 1 << 16 };

int control_peer_id(struct control *c, const char *name, struct spiffe_id *ret, struct err *e)
{
	const char *td = c->self->bundle->trust_domain;
	int rc;

	if (strncmp(name, "spiffe://", 9))
		return spiffe_id_node(td, name, ret, e);
	rc = spiffe_id_parse(name, strlen(name), ret, e);
	if (rc == 0 && !spiffe_id_in(ret, td))
		rc = err_set(e, ERR_NOT_FOUND, "%.100s is not of trust domain %s", name, td);
	return rc;
}

struct find {
	const struct spiffe_id *id;
	struct sess_peer_info *ret;
	bool found;
};

static void match(void *arg, const struct sess_peer_info *p)
{
	struct find *f = arg;

	if (f->found || strcmp(p->id.uri, f->id->uri))
		return;
	*f->ret = *p;
	f->found = true;
}

int control_peer_find(struct control *c, const struct spiffe_id *id, struct sess_peer_info *ret)
{
	struct find f = { id, ret, false };

	sess_peers(c->sess, match, &f);
	return f.found ? 0 : ERR_NOT_FOUND;
}

static const struct config_peer *peer_in(const struct config *cfg, const char *name)
{
	for (size_t i = 0; cfg && i < cfg->npeers; i++)
		if (!strcmp(cfg->peers[i].name, name))
			return &cfg->peers[i];
	return NULL;
}

static bool same(const struct config_peer *a, const struct config_peer *b)
{
	if (a->keep != b->keep || a->nendpoints != b->nendpoints)
		return false;
	for (unsigned i = 0; i < a->nendpoints; i++)
		if (!endpoint_equal(&a->endpoint[i], &b->endpoint[i]))
			return false;
	return true;
}

static void add(struct control *c, const char *name, const struct endpoint *ep, unsigned n, bool keep)
{
	struct spiffe_id id;
	struct err e = { 0 };

	if (control_peer_id(c, name, &id, &e) < 0 || !strcmp(id.uri, c->self->id.uri))
		return; /* a list shared by all nodes names us too */
	if (sess_peer_add(c->sess, &id, ep, n, keep, &e) < 0)
		log_warn("control", "peer not added", LS("peer", id.uri), LS("why", e.what));
}

void control_peers_set(struct control *c, const struct config *was, const struct config *now)
{
	struct spiffe_id id;

	for (size_t i = 0; was && i < was->npeers; i++)
		if (!peer_in(now, was->peers[i].name) &&
		    control_peer_id(c, was->peers[i].name, &id, NULL) == 0)
			sess_peer_remove(c->sess, &id);
	for (size_t i = 0; i < now->npeers; i++) {
		const struct config_peer *p = &now->peers[i], *old = peer_in(was, p->name);

		if (!old || !same(old, p))
			add(c, p->name, p->endpoint, p->nendpoints, p->keep);
	}
	for (unsigned i = 0; i < c->nseeds; i++) {
		const struct seed *s = &c->seed[i];
		const char *name = spiffe_id_node_name(&s->id);

		if (!name || !peer_in(now, name))
			add(c, s->id.uri, s->ep, s->n, true);
	}
}

/* Lines of "<SPIFFE ID> <endpoint>...", written by x0 join. A line that cannot be read is passed over aloud.
 */
static void seeds_parse(struct control *c, char *text)
{
	char *line_save = NULL, *word_save = NULL;

	for (char *line = strtok_r(text, "\n", &line_save); line; line = strtok_r(NULL, "\n", &line_save)) {
		struct seed s = { 0 };
		char *w = strtok_r(line, " ", &word_save);

		if (!w || c->nseeds == SEEDS_MAX)
			continue;
		if (spiffe_id_parse(w, strlen(w), &s.id, NULL) < 0) {
			log_warn("control", "seed not understood", LS("seed", w));
			continue;
		}
		while ((w = strtok_r(NULL, " ", &word_save)) && s.n < TOKEN_ADDRS)
			if (endpoint_parse(w, 0, &s.ep[s.n], NULL) == 0)
				s.n++;
		c->seed[c->nseeds++] = s;
	}
}

static void on_clock_timer(void *arg, uint64_t now)
{
	struct control *c = arg;
	uint8_t p[8];

	/* It may have been set, or the host have slept: certificates go by the wall clock. */
	c->wall_offset = (int64_t)(clock_wall_ns() - clock_mono_ns());
	sess_clock(c->sess, c->wall_offset);
	/* Old news about a clock is no news. */
	if (c->clock_known && now - c->clock_at > 10 * CLOCK_EVERY)
		c->clock_known = false;
	for (size_t i = 0; i < c->nepochs; i++)
		if (c->epoch[i].used) {
			put_u64(p, loop_now_fresh(c->loop));
			sess_send(c->sess, c->epoch[i].session, MSG_CLOCK, p, sizeof(p));
		}
	loop_timer_set(c->loop, &c->clock_timer, now + CLOCK_EVERY);
}

void control_clock_message(struct control *c, uint32_t session, const struct svid_info *peer, uint16_t type,
			   const uint8_t *p, size_t n)
{
	struct rd r = rd_init(p, n);
	uint64_t sent = rd_u64(&r), wall = type == MSG_CLOCK_REPLY ? rd_u64(&r) : 0, now, rtt;
	const char *name = spiffe_id_node_name(&peer->id);
	uint8_t to[16];
	int64_t off;

	if (!rd_ok(&r))
		return;
	if (type == MSG_CLOCK) {
		put_u64(to, sent);
		put_u64(to + 8, clock_wall_ns());
		sess_send(c->sess, session, MSG_CLOCK_REPLY, to, sizeof(to));
		return;
	}
	now = loop_now_fresh(c->loop);
	rtt = now - sent;
	if (sent > now || rtt > 2 * NS_PER_S)
		return;
	/* As in NTP: the peer read its clock about half a round trip ago. */
	off = (int64_t)(wall + rtt / 2 - clock_wall_ns());
	if (!c->clock_known || llabs(off) >= llabs(c->clock_off_ns) ||
	    (name && !strcmp(name, c->clock_peer))) {
		c->clock_known = true;
		c->clock_off_ns = off;
		c->clock_at = now;
		snprintf(c->clock_peer, sizeof(c->clock_peer), "%s", name ? name : "");
	}
}

int control_peers_start(struct control *c, struct err *e)
{
	uint8_t *p = NULL;
	size_t n;

	(void)e;
	if (file_read(c->cfg->seeds, SEEDS_FILE_MAX, &p, &n, NULL) == 0) {
		seeds_parse(c, (char *)p);
		free(p);
	}
	/* The loop does not run yet and its time is that of its birth: first knocks would be repeated at
	 * once. */
	loop_now_fresh(c->loop);
	control_peers_set(c, NULL, c->cfg);
	loop_timer_init(&c->clock_timer, on_clock_timer, c);
	loop_timer_set(c->loop, &c->clock_timer, loop_now(c->loop) + CLOCK_EVERY);
	return 0;
}
