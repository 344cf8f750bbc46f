/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: TLS contexts and peer verification of control sessions
 *
 * Invariants: one protocol version, one group, one signature algorithm; nothing is negotiated downwards. A
 * handshake completes only if svid_verify() in the link profile accepted the peer against the newest bundle,
 * and, on a dial, the identity is exactly the one dialled. The joining client trusts one thing: the hash in
 * its token.
 *
 * Source: RFC 8446; RFC 9881 and draft-ietf-tls-mldsa (signature); draft-ietf-tls-ecdhe-mlkem (group).
 */
#include "session/tls.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

static const unsigned char alpn_link[] = "\4x0/1";
static const unsigned char alpn_join[] = "\11x0-join/1";
enum { ALPN_LINK_LEN = sizeof(alpn_link) - 1, ALPN_JOIN_LEN = sizeof(alpn_join) - 1 };

static int who_index = -1, tls_index = -1;

int64_t tls_wall(const struct tls_env *env)
{
	return ((int64_t)loop_now(env->loop) + env->wall_offset) / (int64_t)NS_PER_S;
}

void tls_who_fini(struct tls_who *w)
{
	X509_free(w->leaf);
	w->leaf = NULL;
}

static int refuse(struct tls_who *w, X509_STORE_CTX *sc, int code, int x509_error)
{
	w->refusal = code == ERR_REVOKED ? TLS_REFUSED_REVOKED : TLS_REFUSED_IDENTITY;
	X509_STORE_CTX_set_error(sc, x509_error);
	return 0;
}

/* The pin first, then the leaf under the pinned root and nothing else. */
static int verify_join(struct tls_who *w, X509 *const *chain, size_t n)
{
	uint8_t hash[SHA256_LEN];
	struct bundle *b;
	int r;

	if (n != 2)
		return err_set(&w->err, ERR_AUTH, "the issuer did not send its root certificate");
	if (key_pub_hash(X509_get0_pubkey(chain[1]), hash) ||
	    !secret_equal(hash, w->join->issuer, SHA256_LEN))
		return err_set(&w->err, ERR_AUTH, "the issuer's key is not the one named in the token");
	b = bundle_new(w->join->trust_domain);
	if (!b)
		return err_set(&w->err, ERR_NOMEM, "out of memory");
	r = bundle_add_root(b, SVID_LINK, chain[1], &w->err);
	if (!r)
		r = svid_verify((const struct bundle *const[]){ b }, 1, SVID_LINK, chain, 1, tls_wall(w->env),
				&w->info, &w->err);
	bundle_free(b);
	return r;
}

static int verify_link(struct tls_who *w, X509 *const *chain, size_t n)
{
	int r;

	if (!w->env->bundle)
		return err_set(&w->err, ERR_AUTH, "this node has no bundle yet: nobody can be verified");
	if (n != 1)
		return err_set(&w->err, ERR_AUTH, "it sent %zu certificates, links take the leaf alone", n);
	r = svid_verify(&w->env->bundle, 1, SVID_LINK, chain, n, tls_wall(w->env), &w->info, &w->err);
	if (r)
		return r;
	if (w->expect && strcmp(w->expect->uri, w->info.id.uri) != 0)
		return err_set(&w->err, ERR_AUTH, "it is '%.100s', dialled was '%.100s'", w->info.id.uri,
			       w->expect->uri);
	if (w->env->self_uri && strcmp(w->env->self_uri, w->info.id.uri) == 0)
		return err_set(&w->err, ERR_AUTH, "it shows this node's own identity");
	return 0;
}

static int verify_cb(X509_STORE_CTX *sc, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(sc, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_who *w = SSL_get_ex_data(ssl, who_index);
	STACK_OF(X509) *sk = X509_STORE_CTX_get0_untrusted(sc);
	X509 *chain[8];
	size_t n = 0;
	int r;

	(void)arg;
	if (!w)
		return 0;
	if (sk_X509_num(sk) < 1 || sk_X509_num(sk) > (int)ARRAY_SIZE(chain)) {
		r = err_set(&w->err, ERR_AUTH, "it sent %d certificates", sk_X509_num(sk));
		return refuse(w, sc, r, X509_V_ERR_CERT_CHAIN_TOO_LONG);
	}
	for (; n < (size_t)sk_X509_num(sk); n++)
		chain[n] = sk_X509_value(sk, (int)n);
	w->err = (struct err){ 0 };
	r = w->join ? verify_join(w, chain, n) : verify_link(w, chain, n);
	ERR_clear_error();
	if (r == ERR_EXPIRED)
		return refuse(w, sc, r, X509_V_ERR_CERT_HAS_EXPIRED);
	if (r == ERR_REVOKED)
		return refuse(w, sc, r, X509_V_ERR_CERT_REVOKED);
	if (r)
		return refuse(w, sc, r, X509_V_ERR_CERT_UNTRUSTED);
	X509_free(w->leaf);
	X509_up_ref(chain[0]);
	w->leaf = chain[0];
	if (!w->join) {
		w->bundle_number = w->env->bundle->number;
		memcpy(w->bundle_hash, w->env->bundle->hash, SHA256_LEN);
	}
	w->verified = true;
	X509_STORE_CTX_set_error(sc, X509_V_OK);
	return 1;
}

int tls_recheck(const struct tls_who *w, struct err *e)
{
	const struct bundle *b = w->env->bundle;
	struct svid_info info;

	if (!b || !w->verified || !w->leaf)
		return err_set(e, ERR_AUTH, "it was not verified");
	/* An unsigned bundle has no hash to know it by, and the hash says nothing of `also`. */
	if (b->encoded && !b->also && b->number == w->bundle_number &&
	    memcmp(b->hash, w->bundle_hash, SHA256_LEN) == 0 && tls_wall(w->env) < w->info.not_after)
		return 0;
	return svid_verify(&b, 1, SVID_LINK, &w->leaf, 1, tls_wall(w->env), &info, e);
}

/* Whether the client's ALPN list (length-prefixed names) has the one name in `want`. */
static bool alpn_has(const unsigned char *in, unsigned n, const unsigned char *want, size_t want_n)
{
	struct rd r = rd_init(in, n);

	while (rd_left(&r) && rd_ok(&r)) {
		size_t len = rd_u8(&r);
		const uint8_t *p = rd_bytes(&r, len);

		if (p && len + 1 == want_n && memcmp(p, want + 1, len) == 0)
			return true;
	}
	return false;
}

static int alpn_cb(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
		   unsigned n, void *arg)
{
	struct tls_who *w = SSL_get_ex_data(ssl, who_index);
	struct tls *t = SSL_get_ex_data(ssl, tls_index);

	(void)arg;
	if (alpn_has(in, n, alpn_link, ALPN_LINK_LEN)) {
		*out = alpn_link + 1;
		*out_n = alpn_link[0];
		return SSL_TLSEXT_ERR_OK;
	}
	if (!w || !t || !t->root || !alpn_has(in, n, alpn_join, ALPN_JOIN_LEN))
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	/* The newcomer has no certificate; the token authenticates it inside, and it gets no session. */
	if (SSL_add1_chain_cert(ssl, t->root) != 1)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	w->is_join = true;
	*out = alpn_join + 1;
	*out_n = alpn_join[0];
	return SSL_TLSEXT_ERR_OK;
}

static int indices(struct err *e)
{
	if (who_index < 0)
		who_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	if (tls_index < 0)
		tls_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return who_index < 0 || tls_index < 0 ? err_set(e, ERR_NOMEM, "OpenSSL is out of memory") : 0;
}

static int ctx_new(bool server, SSL_CTX **ret, struct err *e)
{
	SSL_CTX *c;

	if (indices(e))
		return e ? e->code : ERR_NOMEM;
	c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	if (!c)
		return err_set(e, ERR_NOMEM, "cannot make a TLS context");
	if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(c, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1 ||
	    SSL_CTX_set1_groups_list(c, "X25519MLKEM768") != 1 ||
	    SSL_CTX_set1_sigalgs_list(c, "mldsa65") != 1) {
		SSL_CTX_free(c);
		ERR_clear_error();
		err_set(e, ERR_UNSUPPORTED, "this OpenSSL has no X25519MLKEM768 or no ML-DSA-65");
		return err_todo(e, "install OpenSSL 3.5 or newer with its default provider");
	}
	SSL_CTX_set_mode(c, SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION |
				       SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_num_tickets(c, 0);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(c, verify_cb, NULL);
	if (server)
		SSL_CTX_set_alpn_select_cb(c, alpn_cb, NULL);
	*ret = c;
	return 0;
}

static int ctx_identity(SSL_CTX *c, const struct node_identity *self, struct err *e)
{
	if (SSL_CTX_use_certificate(c, self->link) == 1 && SSL_CTX_use_PrivateKey(c, self->link_key) == 1)
		return 0;
	ERR_clear_error();
	return err_set(e, ERR_CONFIG, "the link SVID and its key do not fit together");
}

int tls_new(const struct node_identity *self, X509 *join_root, struct tls **ret, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));
	unsigned char *der = NULL;
	int n, r;

	if (!t)
		return err_set(e, ERR_NOMEM, "out of memory");
	t->refs = 1;
	r = ctx_new(true, &t->server, e);
	if (!r)
		r = ctx_new(false, &t->client, e);
	if (!r)
		r = ctx_identity(t->server, self, e);
	if (!r)
		r = ctx_identity(t->client, self, e);
	if (!r && SSL_CTX_set_alpn_protos(t->client, alpn_link, ALPN_LINK_LEN) != 0)
		r = err_set(e, ERR_NOMEM, "out of memory");
	if (!r) {
		n = i2d_X509(self->link, &der);
		if (n <= 0 || sha256(der, (size_t)n, t->leaf_hash))
			r = err_set(e, ERR_FAILED, "cannot encode the link SVID");
		OPENSSL_free(der);
	}
	if (r) {
		tls_unref(t);
		return r;
	}
	if (join_root) {
		X509_up_ref(join_root);
		t->root = join_root;
	}
	*ret = t;
	return 0;
}

struct tls *tls_ref(struct tls *t)
{
	if (t)
		t->refs++;
	return t;
}

struct tls *tls_unref(struct tls *t)
{
	if (!t || --t->refs)
		return NULL;
	SSL_CTX_free(t->server);
	SSL_CTX_free(t->client);
	X509_free(t->root);
	free(t);
	return NULL;
}

int tls_join_client(SSL_CTX **ret, struct err *e)
{
	SSL_CTX *c;
	int r = ctx_new(false, &c, e);

	if (r)
		return r;
	if (SSL_CTX_set_alpn_protos(c, alpn_join, ALPN_JOIN_LEN) != 0) {
		SSL_CTX_free(c);
		return err_set(e, ERR_NOMEM, "out of memory");
	}
	*ret = c;
	return 0;
}

SSL *tls_ssl(SSL_CTX *ctx, struct tls *t, bool server, struct tls_who *who)
{
	SSL *s = SSL_new(ctx);

	if (!s)
		return NULL;
	if (SSL_set_ex_data(s, who_index, who) != 1 || SSL_set_ex_data(s, tls_index, t) != 1) {
		SSL_free(s);
		return NULL;
	}
	if (server)
		SSL_set_accept_state(s);
	else
		SSL_set_connect_state(s);
	return s;
}

static bool name_is(const char *have, const char *want)
{
	return have && strcmp(have, want) == 0;
}

int tls_check(SSL *ssl, const struct tls_who *who, struct err *e)
{
	const bool server = SSL_is_server(ssl) == 1;
	const char *mine = NULL, *theirs = NULL;
	const unsigned char *alpn = NULL;
	unsigned alpn_n = 0;
	bool join = server ? who->is_join : who->join != NULL;
	const unsigned char *want = join ? alpn_join : alpn_link;

	if (SSL_version(ssl) != TLS1_3_VERSION || SSL_session_reused(ssl))
		return err_set(e, ERR_AUTH, "not a full TLS 1.3 handshake");
	if (!name_is(SSL_get0_group_name(ssl), "X25519MLKEM768"))
		return err_set(e, ERR_AUTH, "key exchange is not X25519MLKEM768");
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_n);
	if (alpn_n != want[0] || memcmp(alpn, want + 1, alpn_n) != 0)
		return err_set(e, ERR_AUTH, "the application protocol is not x0's");
	if ((server || !join) && (SSL_get0_signature_name(ssl, &mine) != 1 || !name_is(mine, "mldsa65")))
		return err_set(e, ERR_AUTH, "our signature is not ML-DSA-65");
	if (server && join)
		return 0;
	if (SSL_get0_peer_signature_name(ssl, &theirs) != 1 || !name_is(theirs, "mldsa65"))
		return err_set(e, ERR_AUTH, "the peer's signature is not ML-DSA-65");
	if (!who->verified || SSL_get_verify_result(ssl) != X509_V_OK || !SSL_get0_peer_certificate(ssl))
		return err_set(e, ERR_AUTH, "the peer's certificate was not verified");
	return 0;
}

void tls_reason(const struct tls_who *who, int alert, struct err *e)
{
	unsigned long code = ERR_peek_error();

	ERR_clear_error();
	if (who->refusal != TLS_OK) {
		*e = who->err;
		return;
	}
	switch (ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0) {
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_WRONG_SIGNATURE_TYPE:
	case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
		err_set(e, ERR_AUTH, "it offers no ML-DSA-65 signature, links take nothing else");
		return;
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SUITABLE_GROUPS:
	case SSL_R_BAD_KEY_SHARE:
		err_set(e, ERR_AUTH, "it offers no X25519MLKEM768 key share, links take nothing else");
		return;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		err_set(e, ERR_AUTH, "it has no ML-DSA-65 certificate to show");
		return;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		err_set(e, ERR_AUTH, "it does not speak x0/1 (or asks to join, and this node is no issuer)");
		return;
	default:
		break;
	}
	if (code && ERR_reason_error_string(code))
		err_set(e, ERR_AUTH, "TLS: %s", ERR_reason_error_string(code));
	else
		err_set(e, ERR_AUTH, "TLS alert: %s", SSL_alert_desc_string_long(alert));
}
