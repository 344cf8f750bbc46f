/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the QUIC engine
 *
 * ngtcp2 >= 1.22 with libngtcp2_crypto_ossl. What costs hours otherwise: the SSL's app data is ngtcp2's and
 * is cleared before SSL_free(); the native handle is the ossl context, not the SSL; TLS is never freed inside
 * a callback; `ts` never goes back; stream data is not copied; a server's Initial flight (10 kB) would meet
 * the amplification limit unless a token came along, ours is the cookie that has already proved the address.
 * Stateless resets and version negotiation are never sent: strangers get silence, and restarts are noticed by
 * the link's own probes.
 *
 * Source: RFC 9000, RFC 9001, RFC 9002.
 */
#include "session/quic.h"

#include <openssl/err.h>
#include <stdlib.h>

enum { HANDSHAKE_TIMEOUT_S = 10, BURST = 64 };

/* ---- connection IDs ---- */
static uint64_t cid_hash(const struct quic *q, const uint8_t *p, size_t n)
{
	return siphash24(&q->cid_key, p, n);
}

static int cid_add(struct quic_conn *c, const ngtcp2_cid *id)
{
	struct quic_cid *x = calloc(1, sizeof(*x));

	if (!x)
		return ERR_NOMEM;
	x->id = *id;
	x->conn = c;
	x->next = c->cids;
	c->cids = x;
	tab_add(&c->q->cids, &x->node, cid_hash(c->q, id->data, id->datalen));
	return 0;
}

static void cid_del(struct quic_conn *c, const ngtcp2_cid *id)
{
	for (struct quic_cid **p = &c->cids; *p; p = &(*p)->next) {
		struct quic_cid *x = *p;

		if (!ngtcp2_cid_eq(&x->id, id))
			continue;
		*p = x->next;
		tab_del(&x->node);
		free(x);
		return;
	}
}

struct quic_conn *quic_find(struct quic *q, const uint8_t *p, size_t n)
{
	ngtcp2_version_cid vc;
	struct tab_node *t;

	if (ngtcp2_pkt_decode_version_cid(&vc, p, n, QUIC_CID) != 0)
		return NULL;
	for (t = tab_first(&q->cids, cid_hash(q, vc.dcid, vc.dcidlen)); t; t = tab_next(t)) {
		struct quic_cid *x = container_of(t, struct quic_cid, node);

		if (x->id.datalen == vc.dcidlen && memcmp(x->id.data, vc.dcid, vc.dcidlen) == 0)
			return x->conn;
	}
	return NULL;
}

/* ---- callbacks of ngtcp2 ---- */
static void cb_rand(uint8_t *p, size_t n, const ngtcp2_rand_ctx *x)
{
	rng_fill(x->native_handle, p, n);
}

static int cb_new_cid(ngtcp2_conn *nc, ngtcp2_cid *id, ngtcp2_stateless_reset_token *tok, size_t n, void *u)
{
	struct quic_conn *c = u;

	(void)nc;
	id->datalen = n;
	rng_fill(c->q->rng, id->data, n);
	rng_fill(c->q->rng, tok->data, sizeof(tok->data)); /* never used: we send no resets */
	return cid_add(c, id) ? NGTCP2_ERR_CALLBACK_FAILURE : 0;
}

static int cb_del_cid(ngtcp2_conn *nc, const ngtcp2_cid *id, void *u)
{
	(void)nc;
	cid_del(u, id);
	return 0;
}

static int cb_challenge(ngtcp2_conn *nc, ngtcp2_path_challenge_data *d, void *u)
{
	(void)nc;
	rng_fill(((struct quic_conn *)u)->q->rng, d->data, sizeof(d->data));
	return 0;
}

static int cb_crypto(ngtcp2_conn *nc, ngtcp2_encryption_level l, uint64_t off, const uint8_t *p, size_t n,
		     void *u)
{
	if (((struct quic_conn *)u)->ssl)
		return ngtcp2_crypto_recv_crypto_data_cb(nc, l, off, p, n, u);
	ngtcp2_conn_set_tls_alert(nc,
				  SSL_AD_UNEXPECTED_MESSAGE); /* a post-handshake message: there are none */
	return NGTCP2_ERR_CRYPTO;
}

static int cb_complete(ngtcp2_conn *nc, void *u)
{
	(void)nc;
	((struct quic_conn *)u)->complete = true;
	return 0;
}

static int cb_open(ngtcp2_conn *nc, int64_t id, void *u)
{
	struct quic_conn *c = u;

	(void)nc;
	if (c->stream < 0 && id == 0) {
		c->stream = id;
		quic_wake(c);
	}
	return 0;
}

static int cb_data(ngtcp2_conn *nc, uint32_t flags, int64_t id, uint64_t off, const uint8_t *p, size_t n,
		   void *u, void *su)
{
	struct quic_conn *c = u;

	(void)flags;
	(void)off;
	(void)su;
	ngtcp2_conn_extend_max_stream_offset(nc, id, n);
	ngtcp2_conn_extend_max_offset(nc, n);
	if (id != c->stream || n == 0)
		return 0;
	return quic_rx_append(c, p, n) ? NGTCP2_ERR_CALLBACK_FAILURE : 0;
}

static int cb_acked(ngtcp2_conn *nc, int64_t id, uint64_t off, uint64_t n, void *u, void *su)
{
	struct quic_conn *c = u;

	(void)nc;
	(void)su;
	if (id == c->stream)
		quic_tx_acked(c, off + n);
	return 0;
}

static const ngtcp2_callbacks callbacks = {
	.client_initial = ngtcp2_crypto_client_initial_cb,
	.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
	.recv_crypto_data = cb_crypto,
	.handshake_completed = cb_complete,
	.recv_retry = ngtcp2_crypto_recv_retry_cb,
	.encrypt = ngtcp2_crypto_encrypt_cb,
	.decrypt = ngtcp2_crypto_decrypt_cb,
	.hp_mask = ngtcp2_crypto_hp_mask_cb,
	.update_key = ngtcp2_crypto_update_key_cb,
	.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
	.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
	.version_negotiation = ngtcp2_crypto_version_negotiation_cb,
	.rand = cb_rand,
	.get_new_connection_id2 = cb_new_cid,
	.remove_connection_id = cb_del_cid,
	.get_path_challenge_data2 = cb_challenge,
	.recv_stream_data = cb_data,
	.acked_stream_data_offset = cb_acked,
	.stream_open = cb_open,
};

static ngtcp2_conn *ref_conn(ngtcp2_crypto_conn_ref *r)
{
	return ((struct quic_conn *)r->user_data)->nc;
}

/* ---- engine ---- */
static void on_flush(void *arg, uint64_t now)
{
	(void)now;
	quic_flush(arg);
	quic_reap(arg);
}

int quic_init(struct quic *q, struct loop *loop, struct rng *rng, const struct quic_ops *ops, void *arg)
{
	static bool once;
	uint8_t key[16];

	if (!once && ngtcp2_crypto_ossl_init() != 0)
		return ERR_FAILED;
	once = true;
	*q = (struct quic){ .loop = loop, .rng = rng, .ops = ops, .arg = arg };
	rng_fill(rng, key, sizeof(key));
	q->cid_key = sipkey_from(key);
	loop_timer_init(&q->flush, on_flush, q);
	return tab_init(&q->cids);
}

void quic_drop_tls(struct quic_conn *c)
{
	if (!c->ssl)
		return;
	SSL_set_app_data(c->ssl, NULL);
	SSL_free(c->ssl);
	c->ssl = NULL;
	if (c->nc)
		ngtcp2_conn_set_tls_native_handle(c->nc, NULL);
	ngtcp2_crypto_ossl_ctx_del(c->octx);
	c->octx = NULL;
}

static void conn_free(struct quic_conn *c)
{
	quic_drop_tls(c);
	ngtcp2_conn_del(c->nc);
	quic_stream_fini(c);
	free(c);
}

void quic_reap(struct quic *q)
{
	struct quic_conn *c;

	while ((c = q->dead)) {
		q->dead = c->dirty_next;
		conn_free(c);
	}
}

void quic_fini(struct quic *q)
{
	if (!q->loop)
		return;
	while (q->all)
		quic_close(q->all, 0, false);
	quic_reap(q);
	loop_timer_cancel(q->loop, &q->flush);
	tab_fini(&q->cids);
	*q = (struct quic){ 0 };
}

static void undirty(struct quic_conn *c)
{
	struct quic_conn **p = &c->q->dirty;

	if (!c->is_dirty)
		return;
	while (*p != c)
		p = &(*p)->dirty_next;
	*p = c->dirty_next;
	c->is_dirty = false;
}

/* Takes the connection out of everything; quic_reap() frees it. */
static void bury(struct quic_conn *c)
{
	if (c->is_dead)
		return;
	undirty(c);
	c->is_dead = true;
	loop_timer_cancel(c->q->loop, &c->timer);
	while (c->cids) {
		struct quic_cid *x = c->cids;

		c->cids = x->next;
		tab_del(&x->node);
		free(x);
	}
	if (c->next)
		c->next->prev = c->prev;
	*c->prev = c->next;
	c->dirty_next = c->q->dead;
	c->q->dead = c;
	loop_timer_set(c->q->loop, &c->q->flush, loop_now(c->q->loop));
}

static void write_close(struct quic_conn *c, const ngtcp2_ccerr *cc)
{
	uint8_t buf[QUIC_ROOM + QUIC_DGRAM];
	ngtcp2_path_storage ps;
	ngtcp2_pkt_info pi;
	ngtcp2_ssize n;

	ngtcp2_path_storage_zero(&ps);
	n = ngtcp2_conn_write_connection_close(c->nc, &ps.path, &pi, buf + QUIC_ROOM, QUIC_DGRAM, cc,
					       loop_now(c->q->loop));
	if (n > 0)
		c->q->ops->send(c->q->arg, c, buf + QUIC_ROOM, (size_t)n);
}

void quic_close(struct quic_conn *c, uint64_t code, bool tell)
{
	if (c->is_dead)
		return;
	if (tell) {
		ngtcp2_ccerr cc;

		ngtcp2_ccerr_default(&cc);
		ngtcp2_ccerr_set_application_error(&cc, code, NULL, 0);
		write_close(c, &cc);
	}
	bury(c);
}

/* Why the connection ended, for humans. */
static void explain(struct quic_conn *c, int rv, struct err *e)
{
	const ngtcp2_ccerr *cc = ngtcp2_conn_get_ccerr(c->nc);

	if (rv == NGTCP2_ERR_CRYPTO || rv == NGTCP2_ERR_CALLBACK_FAILURE) {
		tls_reason(c->who, ngtcp2_conn_get_tls_alert(c->nc), e);
	} else if (rv == NGTCP2_ERR_HANDSHAKE_TIMEOUT) {
		err_set(e, ERR_TIMEOUT, "the handshake did not finish in %d s", HANDSHAKE_TIMEOUT_S);
	} else if (rv == NGTCP2_ERR_DRAINING && cc->error_code >= NGTCP2_CRYPTO_ERROR &&
		   cc->error_code < 0x200 && cc->type == NGTCP2_CCERR_TYPE_TRANSPORT) {
		err_set(e, ERR_DENIED, "it refused us: %s",
			SSL_alert_desc_string_long((int)(cc->error_code & 0xff)));
		err_todo(e, "its log says why; check both clocks and that both have the same trust domain's "
			    "bundle");
	} else if (rv == NGTCP2_ERR_DRAINING) {
		err_set(e, ERR_FAILED, "it closed the connection");
	} else {
		err_set(e, ERR_FAILED, "QUIC: %s", ngtcp2_strerror(rv));
	}
	ERR_clear_error();
}

static void fail(struct quic_conn *c, int rv)
{
	struct err why = { 0 };
	ngtcp2_ccerr cc;

	if (c->is_dead)
		return;
	explain(c, rv, &why);
	ngtcp2_ccerr_default(&cc);
	switch (rv) {
	case NGTCP2_ERR_DRAINING:
	case NGTCP2_ERR_DROP_CONN:
	case NGTCP2_ERR_RETRY:
	case NGTCP2_ERR_IDLE_CLOSE:
	case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
	case NGTCP2_ERR_RECV_VERSION_NEGOTIATION:
		break;
	case NGTCP2_ERR_CRYPTO:
		ngtcp2_ccerr_set_tls_alert(&cc, ngtcp2_conn_get_tls_alert(c->nc), NULL, 0);
		write_close(c, &cc);
		break;
	default:
		ngtcp2_ccerr_set_liberr(&cc, rv, NULL, 0);
		write_close(c, &cc);
	}
	bury(c);
	c->q->ops->closed(c->q->arg, c, &why);
}

static void on_timer(void *arg, uint64_t now)
{
	struct quic_conn *c = arg;
	int rv = ngtcp2_conn_handle_expiry(c->nc, now);

	if (rv != 0)
		fail(c, rv);
	else
		quic_wake(c);
}

static void open_stream(struct quic_conn *c)
{
	int64_t id;

	if (!c->server && c->complete && c->stream < 0 && ngtcp2_conn_open_bidi_stream(c->nc, &id, NULL) == 0)
		c->stream = id;
}

static void pump(struct quic_conn *c)
{
	uint8_t buf[QUIC_ROOM + QUIC_DGRAM];
	const uint64_t now = loop_now(c->q->loop);
	ngtcp2_path_storage ps;
	ngtcp2_pkt_info pi;
	bool blocked = false;

	ngtcp2_path_storage_zero(&ps);
	open_stream(c);
	for (unsigned i = 0; i < BURST; i++) {
		ngtcp2_vec v[4];
		ngtcp2_ssize took = -1, n;
		size_t nv = c->stream >= 0 && !blocked ? quic_tx_vec(c, v, ARRAY_SIZE(v)) : 0;

		n = ngtcp2_conn_writev_stream(c->nc, &ps.path, &pi, buf + QUIC_ROOM, QUIC_DGRAM, &took,
					      NGTCP2_WRITE_STREAM_FLAG_NONE, nv ? c->stream : -1, v, nv, now);
		if (nv && (n == NGTCP2_ERR_STREAM_DATA_BLOCKED || n == NGTCP2_ERR_STREAM_SHUT_WR ||
			   n == NGTCP2_ERR_STREAM_NOT_FOUND)) {
			blocked = true;
			continue;
		}
		if (n < 0) {
			fail(c, (int)n);
			return;
		}
		if (nv && took > 0)
			c->tx_next += (uint64_t)took;
		if (n == 0)
			break;
		c->q->ops->send(c->q->arg, c, buf + QUIC_ROOM, (size_t)n);
		if (c->is_dead)
			return;
	}
	ngtcp2_conn_update_pkt_tx_time(c->nc, now);
	loop_timer_set(c->q->loop, &c->timer, ngtcp2_conn_get_expiry(c->nc));
}

void quic_wake(struct quic_conn *c)
{
	if (c->is_dirty || c->is_dead)
		return;
	c->is_dirty = true;
	c->dirty_next = c->q->dirty;
	c->q->dirty = c;
	loop_timer_set(c->q->loop, &c->q->flush, loop_now(c->q->loop));
}

void quic_flush(struct quic *q)
{
	struct quic_conn *c;

	while ((c = q->dirty)) {
		q->dirty = c->dirty_next;
		c->is_dirty = false;
		pump(c);
	}
}

/* ---- connections ---- */
static ngtcp2_path pseudo_path(void)
{
	static struct sockaddr_in us = { .sin_family = AF_INET, .sin_port = 1 },
				  them = { .sin_family = AF_INET, .sin_port = 2 };

	return (ngtcp2_path){ { (ngtcp2_sockaddr *)&us, sizeof(us) },
			      { (ngtcp2_sockaddr *)&them, sizeof(them) },
			      NULL };
}

static void defaults(struct quic *q, ngtcp2_settings *s, ngtcp2_transport_params *t, const uint8_t *token,
		     size_t n)
{
	ngtcp2_settings_default(s);
	ngtcp2_transport_params_default(t);
	s->initial_ts = loop_now(q->loop);
	s->max_tx_udp_payload_size = QUIC_DGRAM;
	s->no_pmtud = 1;
	s->handshake_timeout = HANDSHAKE_TIMEOUT_S * NGTCP2_SECONDS;
	s->initial_rtt = 100 * NGTCP2_MILLISECONDS;
	s->rand_ctx.native_handle = q->rng;
	s->token = token;
	s->tokenlen = n;
	s->token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
	t->initial_max_streams_bidi = 1;
	t->initial_max_data = 512 * 1024;
	t->initial_max_stream_data_bidi_local = t->initial_max_stream_data_bidi_remote = 256 * 1024;
	t->max_idle_timeout = 0; /* the link's probes decide */
	t->active_connection_id_limit = 2;
}

static struct quic_conn *conn_new(struct quic *q, SSL *ssl, const struct tls_who *who, bool server,
				  void *user)
{
	struct quic_conn *c = calloc(1, sizeof(*c));

	if (!c || ngtcp2_crypto_ossl_ctx_new(&c->octx, ssl) != 0) {
		free(c);
		SSL_free(ssl);
		return NULL;
	}
	c->q = q;
	c->ssl = ssl;
	c->server = server;
	c->who = who;
	c->user = user;
	c->stream = -1;
	c->reader.max = CTL_MAX;
	c->ref = (ngtcp2_crypto_conn_ref){ ref_conn, c };
	loop_timer_init(&c->timer, on_timer, c);
	SSL_set_app_data(ssl, &c->ref);
	return c;
}

static void conn_link(struct quic_conn *c)
{
	ngtcp2_conn_set_tls_native_handle(c->nc, c->octx);
	c->next = c->q->all;
	if (c->next)
		c->next->prev = &c->next;
	c->prev = &c->q->all;
	c->q->all = c;
}

int quic_dial(struct quic *q, SSL *ssl, const struct tls_who *who, uint64_t cookie, void *user,
	      struct quic_conn **ret)
{
	struct quic_conn *c = conn_new(q, ssl, who, false, user);
	ngtcp2_cid scid = { .datalen = QUIC_CID }, dcid = { .datalen = QUIC_CID };
	ngtcp2_path path = pseudo_path();
	ngtcp2_transport_params t;
	ngtcp2_settings s;
	uint8_t token[8];

	if (!c)
		return ERR_NOMEM;
	put_u64(token, cookie);
	defaults(q, &s, &t, token, sizeof(token));
	rng_fill(q->rng, scid.data, QUIC_CID);
	rng_fill(q->rng, dcid.data, QUIC_CID);
	if (ngtcp2_crypto_ossl_configure_client_session(ssl) != 0 ||
	    ngtcp2_conn_client_new(&c->nc, &dcid, &scid, &path, NGTCP2_PROTO_VER_V1, &callbacks, &s, &t, NULL,
				   c) != 0) {
		conn_free(c);
		return ERR_NOMEM;
	}
	conn_link(c);
	if (cid_add(c, &scid)) {
		bury(c);
		return ERR_NOMEM;
	}
	quic_wake(c);
	*ret = c;
	return 0;
}

bool quic_is_initial(const uint8_t *p, size_t n, uint64_t cookie)
{
	ngtcp2_pkt_hd hd;

	return n >= NGTCP2_MAX_UDP_PAYLOAD_SIZE && ngtcp2_accept(&hd, p, n) == 0 &&
	       hd.version == NGTCP2_PROTO_VER_V1 && hd.tokenlen == 8 && get_u64(hd.token) == cookie;
}

int quic_accept(struct quic *q, SSL *ssl, const struct tls_who *who, const uint8_t *p, size_t n,
		uint64_t cookie, void *user, struct quic_conn **ret)
{
	struct quic_conn *c = conn_new(q, ssl, who, true, user);
	ngtcp2_cid scid = { .datalen = QUIC_CID };
	ngtcp2_path path = pseudo_path();
	ngtcp2_transport_params t;
	ngtcp2_settings s;
	ngtcp2_pkt_hd hd;
	uint8_t token[8];

	if (!c)
		return ERR_NOMEM;
	put_u64(token, cookie);
	if (ngtcp2_accept(&hd, p, n) != 0) {
		conn_free(c);
		return ERR_PARSE;
	}
	defaults(q, &s, &t, token, sizeof(token));
	t.original_dcid = hd.dcid;
	t.original_dcid_present = 1;
	rng_fill(q->rng, scid.data, QUIC_CID);
	if (ngtcp2_crypto_ossl_configure_server_session(ssl) != 0 ||
	    ngtcp2_conn_server_new(&c->nc, &hd.scid, &scid, &path, hd.version, &callbacks, &s, &t, NULL, c) !=
		    0) {
		conn_free(c);
		return ERR_NOMEM;
	}
	conn_link(c);
	/* ngtcp2 knows the client's first DCID only after an Initial was decrypted: the table keeps its own
	 * copy. */
	if (cid_add(c, &scid) || cid_add(c, &hd.dcid)) {
		bury(c);
		return ERR_NOMEM;
	}
	*ret = c;
	return 0;
}

bool quic_input(struct quic_conn *c, const uint8_t *p, size_t n)
{
	ngtcp2_path path = pseudo_path();
	ngtcp2_conn_info info;
	ngtcp2_pkt_info pi = { 0 };
	bool fresh;
	int rv;

	if (c->is_dead)
		return false;
	ERR_clear_error();
	rv = ngtcp2_conn_read_pkt(c->nc, &path, &pi, p, n, loop_now(c->q->loop));
	if (rv != 0) {
		fail(c, rv);
		return false;
	}
	ngtcp2_conn_get_conn_info(c->nc, &info);
	fresh = info.pkt_recv > c->rx_packets;
	c->rx_packets = info.pkt_recv;
	quic_wake(c);
	if (c->complete && !c->announced) {
		c->announced = true;
		c->q->ops->up(c->q->arg, c);
	}
	if (!c->is_dead && c->announced)
		quic_rx_deliver(c);
	return fresh;
}
