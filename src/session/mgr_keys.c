/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data and link keys by the TLS exporter. The context binds what TLS 1.3's exporter secret alone does not:
 *the client's certificate, and everything the two ends agreed on in CTL_HELLO.
 *
 *	SHA-256(client leaf) | SHA-256(server leaf) | len16 client ID | len16 server ID | client link index |
 *server link index | session index | lane | direction | suite
 *
 * Direction 1: client to server, 2: back. Link keys: the same with session index, lane and suite zero.
 *
 * Source: RFC 8446 section 7.5; RFC 9266 (why bind).
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "session/mgr.h"

#define LABEL_DATA "EXPORTER-x0-data-v1"
#define LABEL_LINK "EXPORTER-x0-link-v1"

enum { TO_SERVER = 1, TO_CLIENT = 2, CONTEXT_MAX = 2 * SHA256_LEN + 2 * (2 + SPIFFE_ID_MAX) + 15 };

struct context {
	uint8_t b[CONTEXT_MAX];
	size_t fixed; /* length of the part all keys of an epoch share */
};

static void put_id(struct wr *w, const char *uri)
{
	size_t n = strlen(uri);

	wr_u16(w, (uint16_t)n);
	wr_bytes(w, uri, n);
}

static void context_begin(struct context *x, const struct epoch *e)
{
	struct wr w = wr_init(x->b, sizeof(x->b));
	const bool s = e->server;

	wr_bytes(&w, s ? e->who.info.leaf_hash : e->tls->leaf_hash, SHA256_LEN);
	wr_bytes(&w, s ? e->tls->leaf_hash : e->who.info.leaf_hash, SHA256_LEN);
	put_id(&w, s ? e->who.info.id.uri : e->m->self.uri);
	put_id(&w, s ? e->m->self.uri : e->who.info.id.uri);
	wr_u32(&w, s ? e->link_tx : e->link_rx);
	wr_u32(&w, s ? e->link_rx : e->link_tx);
	x->fixed = wr_len(&w);
}

static int export(const struct epoch *e, struct context *x, const char *label, uint32_t index, unsigned lane,
		  unsigned direction, unsigned suite, uint8_t *out, size_t n)
{
	put_u32(x->b + x->fixed, index);
	x->b[x->fixed + 4] = (uint8_t)lane;
	x->b[x->fixed + 5] = (uint8_t)direction;
	x->b[x->fixed + 6] = (uint8_t)suite;
	if (SSL_export_keying_material(e->conn->ssl, out, n, label, strlen(label), x->b, x->fixed + 7, 1) ==
	    1)
		return 0;
	ERR_clear_error();
	return ERR_FAILED;
}

static int lane_keys(const struct epoch *e, struct context *x, uint32_t index, unsigned lane,
		     unsigned direction, unsigned suite, uint8_t *key, uint8_t *iv)
{
	uint8_t b[AEAD_KEY + AEAD_IV];
	int r = export(e, x, LABEL_DATA, index, lane, direction, suite, b, sizeof(b));

	memcpy(key, b, AEAD_KEY);
	memcpy(iv, b + AEAD_KEY, AEAD_IV);
	secret_wipe(b, sizeof(b));
	return r;
}

static int link_key(const struct epoch *e, struct context *x, unsigned direction, struct sipkey *ret)
{
	uint8_t b[16];
	int r = export(e, x, LABEL_LINK, 0, 0, direction, 0, b, sizeof(b));

	*ret = sipkey_from(b);
	secret_wipe(b, sizeof(b));
	return r;
}

int keys_derive(struct epoch *e, const struct ctl_hello *theirs, struct err *er)
{
	const unsigned in = e->server ? TO_SERVER : TO_CLIENT, out = e->server ? TO_CLIENT : TO_SERVER;
	struct sess_keys *k;
	struct context x;
	int r = 0;

	if (theirs->suite != AEAD_AES_256_GCM && theirs->suite != AEAD_CHACHA20_POLY1305)
		return err_set(er, ERR_UNSUPPORTED,
			       "it wants data suite %u, which this version does not know", theirs->suite);
	k = calloc(1, sizeof(*k));
	if (!k)
		return err_set(er, ERR_NOMEM, "out of memory");
	e->link_tx = theirs->link;
	e->peer_mtu = theirs->mtu;
	context_begin(&x, e);
	k->session = e->id;
	k->rx_suite = e->m->cfg.suite;
	k->tx_suite = theirs->suite;
	k->nrx = e->nlanes;
	k->ntx = theirs->nlanes;
	for (unsigned i = 0; i < k->nrx && !r; i++) {
		k->rx[i].index = e->lane[i];
		r = lane_keys(e, &x, e->lane[i], i, in, k->rx_suite, k->rx[i].key, k->rx[i].iv);
	}
	for (unsigned i = 0; i < k->ntx && !r; i++) {
		k->tx[i].index = theirs->lane[i];
		r = lane_keys(e, &x, theirs->lane[i], i, out, k->tx_suite, k->tx[i].key, k->tx[i].iv);
	}
	if (!r)
		r = link_key(e, &x, in, &e->rx_key);
	if (!r)
		r = link_key(e, &x, out, &e->tx_key);
	k->link_rx_index = e->link_rx;
	k->link_tx_index = e->link_tx;
	k->link_rx_key = e->rx_key;
	k->link_tx_key = e->tx_key;
	e->keys = k;
	return r ? err_set(er, r, "the TLS exporter failed") : 0;
}
