/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS as the control session wants it: 1.3 only, X25519MLKEM768 only, ML-DSA-65 only, no tickets, no
 * resumption, no certificate compression. ALPN "x0/1" is mutual and sends the leaf only; "x0-join/1" proves
 * the server alone and sends leaf and root. OpenSSL's own certificate store is never asked: svid_verify()
 * decides.
 */
#ifndef X0_SESSION_TLS_H
#define X0_SESSION_TLS_H

#include <openssl/ssl.h>

#include "base/base.h"
#include "crypto/crypto.h"
#include "identity/identity.h"

/* What verification needs and what changes over time; one per manager. */
struct tls_env {
	const struct bundle *bundle; /* borrowed; the newest known; NULL: no peer can be verified */
	const char *self_uri;	     /* borrowed; a peer that shows our own identity is refused; NULL: none */
	struct loop *loop;
	int64_t wall_offset; /* ns */
};

int64_t tls_wall(const struct tls_env *env); /* Unix seconds */

enum tls_refusal { TLS_OK, TLS_REFUSED_IDENTITY, TLS_REFUSED_REVOKED };

/* One connection's view of its peer. Outlives the SSL object; the SSL points to it. */
struct tls_who {
	const struct tls_env *env;
	const struct spiffe_id *expect; /* borrowed; the identity dialled, NULL: any valid one */
	const struct token *join; /* borrowed; set on the joining client: its pin and trust domain decide */
	bool is_join;		  /* ALPN x0-join/1 was chosen */
	bool verified;
	enum tls_refusal refusal;
	struct svid_info info;	/* when verified */
	X509 *leaf;		/* owned; when verified */
	uint64_t bundle_number; /* what it was verified against */
	uint8_t bundle_hash[SHA256_LEN];
	struct err err; /* why it was refused */
};
void tls_who_fini(struct tls_who *w);

/* Our side: contexts of one identity. Replaced when the SVID is renewed; connections keep a reference. */
struct tls {
	unsigned refs;
	SSL_CTX *server, *client;      /* owned */
	uint8_t leaf_hash[SHA256_LEN]; /* SHA-256 of our leaf's DER: part of the key context */
	X509 *root; /* owned; what x0-join/1 sends beside the leaf; NULL: this node is no issuer */
};
/* `join_root`: our own link root if this node answers joins, else NULL. */
int tls_new(const struct node_identity *self, X509 *join_root, struct tls **ret, struct err *e);
struct tls *tls_ref(struct tls *t);
struct tls *tls_unref(struct tls *t);		   /* NULL is fine; returns NULL */
int tls_join_client(SSL_CTX **ret, struct err *e); /* context without certificate of ours; caller frees */

/* A connection's object; `who` must stay until the SSL is freed. `t` is needed on servers (join root), else
 * NULL. */
SSL *tls_ssl(SSL_CTX *ctx, struct tls *t, bool server, struct tls_who *who);

/*
 * Whether the peer, verified in the handshake, may still come in now. The signature is checked again only if
 * the bundle is another one by now. 0, ERR_EXPIRED, ERR_REVOKED, ERR_AUTH.
 */
int tls_recheck(const struct tls_who *who, struct err *e);
/* After the handshake: everything the design demands was negotiated. ERR_AUTH with the sentence otherwise. */
int tls_check(SSL *ssl, const struct tls_who *who, struct err *e);
/* Human reason for a failed handshake: our own refusal, an OpenSSL error, or the alert. Clears OpenSSL's
 * queue. */
void tls_reason(const struct tls_who *who, int alert, struct err *e);

#endif
