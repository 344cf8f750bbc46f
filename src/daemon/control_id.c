/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own identity over time: renewal at half life (through the local issuer, or an issuing peer over its
 * session), the bundle as it changes, joins and renewals of others that we pass to the local issuer.
 *
 * Each renewal makes new keys. Whatever fails, the identity in use stays until it expires; a disk that cannot
 * be written costs durability only, and is said so.
 */
#include <stdlib.h>

#include "daemon/control.h"

enum { REPLY_MAX = 256 };
#define RENEW_WAIT (10 * NS_PER_S) /* for one candidate's answer */

struct renewal {
	struct loop_timer timer;
	bool busy;
	bool at_once;			 /* the next round must not wait: see got_own_roots() */
	EVP_PKEY *link_key, *spiffe_key; /* owned; of the renewal under way */
	uint8_t *request;		 /* owned */
	size_t request_n;
	uint32_t session;	       /* asked there; 0: the local issuer, or nobody yet */
	unsigned tried;		       /* peers asked so far in this round */
	char asked[PENDING_RENEW][80]; /* their names */
	struct err last;
	void (*fn)(void *arg, const struct err *e);
	void *fn_arg;
};

/* ---- taking a new identity or bundle into use ---- */

static void store(struct control *c)
{
	struct err e = { 0 };

	if (node_identity_save(c->cfg->identity_dir, c->self, &e) < 0)
		log_error("identity", "not stored: in use until the next start only", LS("why", e.what),
			  LS("todo", e.todo));
}

X509 *control_own_root(const struct node_identity *self)
{
	const struct bundle *b = self->bundle;

	for (size_t i = 0; i < b->nlink_roots; i++) {
		EVP_PKEY *k = X509_get0_pubkey(b->link_roots[i]);

		if (k && X509_verify(self->link, k) == 1)
			return b->link_roots[i];
	}
	return NULL;
}

/* Sessions move to it; the old one is freed. */
static void use(struct control *c, struct node_identity *next)
{
	struct err e = { 0 };

	if (c->issuer) /* joins are answered in the name of the root that our SVID comes from */
		sess_join_root(c->sess, control_own_root(next));
	if (sess_identity(c->sess, next, &e) < 0) {
		log_error("identity", "sessions refused the new identity; the old one stays",
			  LS("why", e.what));
		node_identity_free(next);
		return;
	}
	node_identity_free(c->self);
	c->self = next;
	store(c);
}

static struct node_identity *copy(const struct node_identity *ni)
{
	struct node_identity *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	*n = *ni;
	n->bundle = NULL;
	EVP_PKEY_up_ref(n->link_key);
	EVP_PKEY_up_ref(n->spiffe_key);
	X509_up_ref(n->link);
	X509_up_ref(n->spiffe);
	return n;
}

static void got_own_roots(void *arg, const uint8_t *body, size_t n, const struct err *e);

/*
 * A newcomer's token pins the local issuer's root, so our own SVID must come from there before we can answer:
 * once the bundle holds that root, and our SVID is of another, it is renewed at once.
 */
static void ask_own_roots(struct control *c)
{
	if (issuer_call(c->issuer, ISS_ROOTS, NULL, 0, got_own_roots, c, NULL) < 0)
		log_warn("identity", "the local issuer is not there to tell its roots");
}

static void adopted(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct control *c = arg;

	if (e) {
		log_warn("identity", "the local issuer did not take the new bundle", LS("why", e->what));
		return;
	}
	control_bundle_bytes(c, body, n, NULL); /* ours again, or a union with a higher number */
	ask_own_roots(c);
}

/* What ours and `b` make together. */
static int take_bundle(struct control *c, const struct bundle *b, struct err *e)
{
	struct bundle *settled;
	struct node_identity *next;
	int rc = bundle_settle(c->self->bundle, b, control_wall(c), &settled, e);

	if (rc <= 0)
		return rc;
	next = copy(c->self);
	if (!next) {
		bundle_free(settled);
		return err_set(e, ERR_NOMEM, "no memory for the new bundle");
	}
	next->bundle = settled;
	log_info("identity", "new bundle", LU("number", settled->number),
		 LU("revocations", settled->nrevoked),
		 LU("not_merged", settled->also ? settled->also->nrevoked : 0));
	use(c, next);
	return 0;
}

void control_bundle(struct control *c, struct bundle *theirs)
{
	struct err e = { 0 };

	if (c->issuer &&
	    issuer_call(c->issuer, ISS_ADOPT, theirs->encoded, theirs->encoded_n, adopted, c, NULL) < 0)
		log_warn("identity", "the local issuer is not there to take the new bundle");
	if (take_bundle(c, theirs, &e) < 0)
		log_error("identity", "a bundle cannot be taken", LS("why", e.what));
	bundle_free(theirs);
}

int control_bundle_bytes(struct control *c, const uint8_t *p, size_t n, struct err *e)
{
	struct bundle *b = NULL;
	int rc = bundle_decode_any_number(p, n, c->self->bundle, &b, e);

	rc = rc ? rc : take_bundle(c, b, e);
	bundle_free(b);
	return rc;
}

/* ---- our renewal ---- */

static void forget(struct renewal *r)
{
	EVP_PKEY_free(r->link_key);
	EVP_PKEY_free(r->spiffe_key);
	free(r->request);
	r->link_key = r->spiffe_key = NULL;
	r->request = NULL;
	r->busy = false;
	r->session = 0;
}

/* Ends the round: the next one at half life, or soon if this one failed. */
static void done(struct control *c, const struct err *e)
{
	struct renewal *r = c->renewal;
	int64_t now = control_wall(c), wait = node_identity_renew_at(c->self) - now;
	void (*fn)(void *, const struct err *) = r->fn;

	forget(r);
	r->fn = NULL;
	r->last = e ? *e : (struct err){ 0 };
	if (e) {
		int64_t left = (c->self->not_after - now) / 10;

		wait = left < 1 ? 1 : left > 60 ? 60 : left;
		log_warn("identity", "not renewed", LS("why", e->what), LI("retry_s", wait),
			 LI("expires_s", c->self->not_after - now));
	} else {
		log_info("identity", "renewed", LI("expires_s", c->self->not_after - now));
		if (r->at_once)
			wait = 1;
	}
	/* Short-lived SVIDs (tests) renew within seconds; never spin. */
	loop_timer_set(c->loop, &r->timer, loop_now(c->loop) + (uint64_t)(wait < 1 ? 1 : wait) * NS_PER_S);
	if (fn)
		fn(r->fn_arg, e);
}

static int take_reply(struct control *c, const uint8_t *reply, size_t n, struct err *e)
{
	struct renewal *r = c->renewal;
	struct joined j = { 0 };
	struct node_identity *next;
	const ASN1_TIME *t;
	struct tm tm;
	int rc = renew_reply(&c->self->id, c->self->bundle, reply, n, r->link_key, r->spiffe_key,
			     control_wall(c), &j, e);

	if (rc < 0)
		return rc;
	next = calloc(1, sizeof(*next));
	t = X509_get0_notAfter(j.link);
	if (next) { /* the issuer's may lack what another one revokes */
		struct bundle *settled = NULL;

		if (j.bundle)
			bundle_settle(c->self->bundle, j.bundle, control_wall(c), &settled, NULL);
		bundle_free(j.bundle);
		j.bundle = settled ? settled : bundle_copy(c->self->bundle);
	}
	if (!next || !j.bundle || ASN1_TIME_to_tm(t, &tm) != 1) {
		free(next);
		joined_fini(&j);
		return err_set(e, ERR_NOMEM, "no memory for the new identity");
	}
	next->id = c->self->id;
	memcpy(next->addr, c->self->addr, 16);
	next->link_key = r->link_key;
	next->spiffe_key = r->spiffe_key;
	r->link_key = r->spiffe_key = NULL;
	next->link = j.link;
	next->spiffe = j.spiffe;
	next->bundle = j.bundle;
	next->not_after = (int64_t)timegm(&tm);
	use(c, next);
	return 0;
}

struct candidates {
	struct control *c;
	struct sess_peer_info pick;
	bool found, seed;
};

static bool is_seed(const struct control *c, const struct spiffe_id *id)
{
	for (unsigned i = 0; i < c->nseeds; i++)
		if (!strcmp(c->seed[i].id.uri, id->uri))
			return true;
	return false;
}

static void consider(void *arg, const struct sess_peer_info *p)
{
	struct candidates *k = arg;
	const struct renewal *r = k->c->renewal;
	bool seed = is_seed(k->c, &p->id);

	if (p->state != SESS_UP || !p->session || (k->found && (k->seed || !seed)))
		return;
	for (unsigned i = 0; i < r->tried; i++)
		if (!strncmp(r->asked[i], p->id.uri, sizeof(r->asked[i]) - 1))
			return;
	k->pick = *p;
	k->found = true;
	k->seed = seed;
}

/* Asks the next peer with a session: those we joined through first. Without one, the seeds are dialled for
 * next time. */
static void ask_peer(struct control *c)
{
	struct renewal *r = c->renewal;
	struct candidates k = { .c = c };
	struct err e = { 0 };
	uint8_t addr[16];

	while (r->tried < PENDING_RENEW) {
		k.found = k.seed = false;
		sess_peers(c->sess, consider, &k);
		if (!k.found)
			break;
		snprintf(r->asked[r->tried++], sizeof(r->asked[0]), "%.79s", k.pick.id.uri);
		if (sess_send(c->sess, k.pick.session, CTL_RENEW, r->request, r->request_n) == 0) {
			r->session = k.pick.session;
			loop_timer_set(c->loop, &r->timer, loop_now(c->loop) + RENEW_WAIT);
			return;
		}
	}
	for (unsigned i = 0; i < c->nseeds; i++) {
		overlay_addr(&c->seed[i].id, addr);
		sess_want(c->sess, addr);
	}
	if (r->last.code)
		e = r->last;
	else
		err_set(&e, ERR_UNREACHABLE, "no peer with a session is an issuer");
	if (!e.todo[0])
		err_todo(&e, "check that an issuing node is up and reachable: x0 peers");
	done(c, &e);
}

static void from_issuer(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct control *c = arg;
	struct err why = { 0 };

	if (!c->renewal->busy)
		return;
	if (!e && n >= 4 && take_reply(c, body + 4, n - 4, &why) == 0) {
		done(c, NULL);
		return;
	}
	c->renewal->last = e ? *e : why;
	ask_peer(c);
}

static int make_request(struct control *c, struct err *e)
{
	struct renewal *r = c->renewal;
	int rc = key_new(KEY_MLDSA65, &r->link_key, e);

	rc = rc ? rc : key_new(KEY_P256, &r->spiffe_key, e);
	return rc ? rc
		  : renew_request(&c->self->id, r->link_key, r->spiffe_key, &r->request, &r->request_n, e);
}

static size_t svid_head(const struct svid_info *who, uint8_t *to, size_t cap)
{
	struct wr w = wr_init(to, cap);

	iss_put_text(&w, who->id.uri);
	wr_bytes(&w, who->key_hash, SHA256_LEN);
	wr_bytes(&w, who->leaf_hash, SHA256_LEN);
	wr_u64(&w, (uint64_t)who->not_before);
	wr_u64(&w, (uint64_t)who->not_after);
	return wr_ok(&w) ? wr_len(&w) : 0;
}

/* ISS_RENEW in the name of `who`, who proved itself on a session (or is us). */
static int ask_issuer(struct control *c, const struct svid_info *who, const uint8_t *p, size_t n,
		      issuer_fn *fn, void *arg, struct err *e)
{
	size_t cap = SPIFFE_ID_MAX + 128 + n, k;
	uint8_t *v = malloc(cap);
	int rc;

	if (!v)
		return err_set(e, ERR_NOMEM, "no memory for a renewal");
	k = svid_head(who, v, cap - n);
	memcpy(v + k, p, n);
	rc = k ? issuer_call(c->issuer, ISS_RENEW, v, k + n, fn, arg, e)
	       : err_set(e, ERR_LIMIT, "the SPIFFE ID is too long");
	free(v);
	return rc;
}

static int self_info(struct control *c, struct svid_info *ret, struct err *e)
{
	const struct bundle *b = c->self->bundle;

	return svid_verify(&b, 1, SVID_LINK, &c->self->link, 1, control_wall(c), ret, e);
}

static int renew_start(struct control *c, struct err *e)
{
	struct renewal *r = c->renewal;
	struct svid_info me;
	int rc;

	r->tried = 0;
	r->at_once = false;
	r->last = (struct err){ 0 };
	rc = make_request(c, e);
	if (rc < 0) {
		forget(r);
		return rc;
	}
	r->busy = true;
	if (c->issuer) {
		rc = self_info(c, &me, &r->last);
		rc = rc ? rc : ask_issuer(c, &me, r->request, r->request_n, from_issuer, c, &r->last);
		if (rc == 0)
			return 0;
	}
	ask_peer(c);
	return 0;
}

static void on_timer(void *arg, uint64_t now)
{
	struct control *c = arg;
	struct err e = { 0 };

	(void)now;
	if (c->renewal->busy) {
		err_set(&c->renewal->last, ERR_TIMEOUT, "an issuer did not answer the renewal");
		ask_peer(c);
	} else if (renew_start(c, &e) < 0) {
		done(c, &e);
	}
}

int control_renew(struct control *c, void (*fn)(void *arg, const struct err *e), void *arg, struct err *e)
{
	struct renewal *r = c->renewal;
	int rc;

	if (r->busy)
		return err_set(e, ERR_CONFLICT, "a renewal is under way");
	r->fn = fn;
	r->fn_arg = arg;
	rc = renew_start(c, e);
	if (rc < 0)
		r->fn = NULL;
	return rc;
}

void control_renew_session_up(struct control *c, uint32_t session, const struct spiffe_id *id)
{
	struct renewal *r = c->renewal;

	(void)session;
	/* A renewal that failed for want of an issuer is tried as soon as one appears. */
	if (!r->busy && r->last.code && is_seed(c, id))
		loop_timer_set(c->loop, &r->timer, loop_now(c->loop));
}

static void got_own_roots(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct control *c = arg;
	const struct bundle *b = c->self->bundle;
	struct rd r = rd_init(body, n);
	struct rd der = e ? rd_init(NULL, 0) : rd_sub(&r, rd_u32(&r));
	X509 *root = NULL, *own = control_own_root(c->self);
	bool listed = false;

	if (e || !rd_ok(&r))
		return;
	root = d2i_X509(NULL, &der.p, (long)rd_left(&der));
	if (!root)
		return;
	for (size_t i = 0; i < b->nlink_roots; i++)
		listed |= !X509_cmp(b->link_roots[i], root);
	if (listed && (!own || X509_cmp(own, root) != 0)) {
		log_info("identity", "the mesh trusts the local issuer now: renewing there");
		c->renewal->at_once = true;
		if (!c->renewal->busy)
			loop_timer_set(c->loop, &c->renewal->timer, loop_now(c->loop));
	}
	X509_free(root);
}

/* ---- others' renewals and joins ---- */

struct forward {
	struct control *c;
	uint32_t session;
	uint64_t ticket;
};

static void renewed(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct forward *f = arg;
	bool ok = !e && n > 4;

	/* An empty answer says: not here, ask another. */
	sess_send(f->c->sess, f->session, CTL_RENEWED, ok ? body + 4 : NULL, ok ? n - 4 : 0);
	free(f);
}

static void renew_for(struct control *c, uint32_t session, const struct svid_info *peer, const uint8_t *p,
		      size_t n)
{
	struct forward *f = c->issuer ? calloc(1, sizeof(*f)) : NULL;

	if (f) {
		f->c = c;
		f->session = session;
		if (ask_issuer(c, peer, p, n, renewed, f, NULL) == 0)
			return;
		free(f);
	}
	sess_send(c->sess, session, CTL_RENEWED, NULL, 0);
}

void control_renew_message(struct control *c, uint32_t session, const struct svid_info *peer, uint16_t type,
			   const uint8_t *p, size_t n)
{
	struct renewal *r = c->renewal;
	struct err e = { 0 };

	if (type == CTL_RENEW) {
		renew_for(c, session, peer, p, n);
		return;
	}
	if (!r->busy || r->session != session)
		return; /* late: another answered meanwhile */
	r->session = 0;
	if (n && take_reply(c, p, n, &e) == 0) {
		done(c, NULL);
		return;
	}
	if (n)
		r->last = e;
	ask_peer(c);
}

/*
 * Our own SPIFFE ID stands before the issuer's reply (u16 length | ID), so that the new node knows whom it
 * joined through: that is its first peer.
 */
static void joined(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct forward *f = arg;
	size_t k = strlen(f->c->self->id.uri);
	uint8_t *p = !e && n > 4 ? malloc(2 + k + n) : NULL;

	if (p) {
		put_u16(p, (uint16_t)k);
		memcpy(p + 2, f->c->self->id.uri, k);
		memcpy(p + 2 + k, body + 4, n - 4);
		sess_join_answer(f->c->sess, f->ticket, p, 2 + k + n - 4);
	} else {
		log_warn("identity", "join not answered", LS("why", e ? e->what : "no memory"));
		sess_join_answer(f->c->sess, f->ticket, NULL, 0);
	}
	free(p);
	free(f);
}

void control_join(struct control *c, uint64_t ticket, const uint8_t exporter[32], const uint8_t *p, size_t n)
{
	struct forward *f = calloc(1, sizeof(*f));
	uint8_t *v = malloc(32 + n);
	struct err e = { 0 };
	int rc = f && v ? 0 : ERR_NOMEM;

	if (!rc) {
		f->c = c;
		f->ticket = ticket;
		memcpy(v, exporter, 32);
		memcpy(v + 32, p, n);
		rc = issuer_call(c->issuer, ISS_JOIN, v, 32 + n, joined, f, &e);
	}
	if (rc < 0) {
		log_warn("identity", "join not answered", LS("why", e.what));
		sess_join_answer(c->sess, ticket, NULL, 0);
		free(f);
	}
	free(v);
}

/* ---- start ---- */

static void synced(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct control *c = arg;

	if (e)
		return;
	control_bundle_bytes(c, body, n, NULL);
	ask_own_roots(c);
}

int control_id_start(struct control *c, struct err *e)
{
	const struct bundle *b = c->self->bundle;
	int64_t wait = node_identity_renew_at(c->self) - control_wall(c);

	c->renewal = calloc(1, sizeof(*c->renewal));
	if (!c->renewal)
		return err_set(e, ERR_NOMEM, "no memory for renewals");
	loop_timer_init(&c->renewal->timer, on_timer, c);
	loop_timer_set(c->loop, &c->renewal->timer,
		       loop_now(c->loop) + (uint64_t)(wait < 0 ? 0 : wait) * NS_PER_S);
	/* Either may have learned something while the other was down. */
	if (c->issuer && issuer_call(c->issuer, ISS_ADOPT, b->encoded, b->encoded_n, synced, c, NULL) < 0)
		log_warn("identity", "the issuer process does not answer yet");
	return 0;
}

void control_id_stop(struct control *c)
{
	loop_timer_cancel(c->loop, &c->renewal->timer);
	forget(c->renewal);
	free(c->renewal);
	c->renewal = NULL;
}
