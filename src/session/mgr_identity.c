/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our identity and the bundle, and what a change of either means: revoked peers end at once, every neighbour
 * hears of the new bundle, and sessions whose root is gone prove themselves again.
 */
#include "session/mgr.h"

static bool has_root(const struct bundle *b, const X509 *root)
{
	for (size_t i = 0; i < b->nlink_roots; i++)
		if (X509_cmp(b->link_roots[i], root) == 0)
			return true;
	return false;
}

static int own_root_hash(const struct sess_mgr *m, uint8_t hash[SHA256_LEN])
{
	return m->cfg.join_root ? key_pub_hash(X509_get0_pubkey(m->cfg.join_root), hash) : ERR_NOT_FOUND;
}

void sess_join_root(struct sess_mgr *m, X509 *root)
{
	if (root)
		X509_up_ref(root);
	X509_free(m->cfg.join_root);
	m->cfg.join_root = root;
}

/* The knock keys we answer to: of every root, and of our own for joins. */
static int set_contact(struct sess_mgr *m, const struct bundle *b, struct err *e)
{
	uint8_t hash[SHA256_LEN];
	const bool join = own_root_hash(m, hash) == 0;

	return contact_roots(&m->contact, b, join ? hash : NULL, e);
}

_Static_assert((int)BUNDLE_SENT_MAX <= (int)CTL_MAX, "a bundle travels in one message");

static int set_bundle(struct sess_mgr *m, struct bundle *b /* owned */, struct err *e)
{
	struct bundle *old = m->bundle;
	const bool same = old && !memcmp(old->hash, b->hash, SHA256_LEN);
	bool root_gone = false;
	int r = set_contact(m, b, e);

	if (r) {
		bundle_free(b);
		return r;
	}
	m->bundle = b;
	m->env.bundle = b;
	if (b->encoded_n > CTL_MAX)
		log_error("session", "the bundle is too large to be sent: peers do not hear of it",
			  LU("bytes", b->encoded_n), LU("at_most", CTL_MAX));
	for (size_t i = 0; old && i < old->nlink_roots; i++)
		root_gone |= !has_root(b, old->link_roots[i]);
	bundle_free(old);
	for (struct epoch *x = m->epochs; x; x = x->next)
		if (x->in_core && !x->dead &&
		    bundle_revokes(b, x->who.info.id.uri, x->who.info.key_hash, x->who.info.not_before))
			core_session_end(&m->core, &x->core, SESS_REVOKED, mgr_now(m));
	mgr_run(m);
	for (struct epoch *x = m->epochs; x && !same; x = x->next)
		if (x->in_core && x->conn)
			ctl_bundle_state(x);
	/* A new handshake verifies the peer against the roots that are left. */
	if (root_gone)
		core_rekey_all(&m->core, mgr_now(m));
	return 0;
}

int mgr_settle_bundle(struct sess_mgr *m, const struct bundle *theirs, struct err *e)
{
	struct bundle *b;
	int r;

	if (m->bundle) {
		r = bundle_settle(m->bundle, theirs, tls_wall(&m->env), &b, e);
		if (r <= 0)
			return r;
	} else {
		b = bundle_copy(theirs);
		if (!b)
			return err_set(e, ERR_NOMEM, "out of memory");
	}
	r = set_bundle(m, b, e);
	return r ? r : 1;
}

int sess_identity(struct sess_mgr *m, const struct node_identity *self, struct err *e)
{
	struct tls *t;
	bool renewed;
	int r = tls_new(self, m->cfg.join_root, &t, e);

	if (r)
		return r;
	r = mgr_settle_bundle(m, self->bundle, e);
	if (r >= 0)
		r = set_contact(m, m->bundle, e); /* the join root may have changed */
	if (r < 0) {
		tls_unref(t);
		return r;
	}
	renewed = m->tls && memcmp(m->tls->leaf_hash, t->leaf_hash, SHA256_LEN) != 0;
	tls_unref(m->tls);
	m->tls = t;
	m->cfg.self = self;
	m->self = self->id;
	m->env.self_uri = m->self.uri;
	overlay_addr(&m->self, m->self_addr);
	m->self_label = overlay_label(m->self_addr);
	core_self(&m->core, m->self_addr);
	if (renewed)
		core_rekey_all(&m->core, mgr_now(m));
	mgr_run(m);
	return 0;
}
