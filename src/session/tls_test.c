/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that offer TLS of another kind: refused with a log line and a counter, or what they offer is not
 * taken. */
#include <openssl/err.h>

#include "session/mgr.h"
#include "session/testlib.h"

static struct net *two(uint64_t seed)
{
	struct net *net = net_new(seed);

	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, node_id(net, 1), NULL, NULL);
	return net;
}

/* Node 1 dials with its client context changed: no session, and node 0 says and counts why. */
static void refused(struct net *net, const char *why)
{
	struct sess_counters c;

	know(net, 1, 0, true);
	run_for(net, 3 * NS_PER_S);
	c = counters(&net->node[0]);
	assert_int_equal(net->node[0].nkeys + net->node[1].nkeys, 0);
	assert_true(c.refused_tls > 0);
	assert_true(c.handshakes_failed >= c.refused_tls);
	if (!strstr(sess_last_refusal(net->node[0].m), why))
		fail_msg("the reason was: %s", sess_last_refusal(net->node[0].m));
	assert_true(info_of(&net->node[1]).last_error[0]);
	net_free(net);
}

static SSL_CTX *client_of(struct net *net, unsigned i)
{
	return net->node[i].m->tls->client;
}

static void other_groups(void **state)
{
	static const char *const groups[] = { "X25519", "P-256", "MLKEM768", "SecP256r1MLKEM768",
					      "X25519:P-256:MLKEM1024" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		struct net *net = two(1 + i);

		assert_int_equal(SSL_CTX_set1_groups_list(client_of(net, 1), groups[i]), 1);
		refused(net, "X25519MLKEM768");
	}
}

static void other_signatures(void **state)
{
	static const char *const algs[] = { "ecdsa_secp256r1_sha256", "mldsa44:mldsa87",
					    "rsa_pss_rsae_sha256" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(algs); i++) {
		struct net *net = two(10 + i);

		assert_int_equal(SSL_CTX_set1_sigalgs_list(client_of(net, 1), algs[i]), 1);
		refused(net, "ML-DSA-65");
	}
}

static void rsa_leaf(void **state)
{
	struct net *net = net_new(20);
	struct node_identity *id = node_id(net, 1);

	(void)state;
	EVP_PKEY_free(id->link_key);
	X509_free(id->link);
	id->link_key = EVP_RSA_gen(2048);
	id->link = mint_cert(id->link_key, &net->mint, id->id.uri, WALL - 600, WALL + 86400);
	node_up(net, 0, node_id(net, 0), NULL, NULL);
	node_up(net, 1, id, NULL, NULL);
	assert_int_equal(SSL_CTX_set1_sigalgs_list(client_of(net, 1), "mldsa65:rsa_pss_rsae_sha256"), 1);
	refused(net, "no ML-DSA-65 certificate");
}

static void other_alpn(void **state)
{
	static const char *const protos[] = { "\2h3", "\4x0/2", "\3x0/", "\11x0-join/1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
		struct net *net = two(30 + i);

		assert_int_equal(SSL_CTX_set_alpn_protos(client_of(net, 1), (const unsigned char *)protos[i],
							 (unsigned)strlen(protos[i])),
				 0);
		refused(net, "does not speak x0/1");
	}
}

/* More than the leaf: even the true root beside it is not what the design says. */
static void more_than_the_leaf(void **state)
{
	struct net *net = two(40);

	(void)state;
	assert_int_equal(SSL_CTX_add1_chain_cert(client_of(net, 1), net->mint.root), 1);
	know(net, 1, 0, true);
	run_for(net, 3 * NS_PER_S);
	assert_int_equal(net->node[0].nkeys + net->node[1].nkeys, 0);
	assert_true(counters(&net->node[0]).refused_identity > 0);
	assert_non_null(strstr(sess_last_refusal(net->node[0].m), "leaf alone"));
	net_free(net);
}

/* Over plain TLS: QUIC itself knows no older version. */
static void tls_1_2(void **state)
{
	struct net *net = two(50);
	struct tls_who who = { .env = &net->node[0].m->env };
	SSL *s = tls_ssl(net->node[0].m->tls->server, net->node[0].m->tls, true, &who), *c;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	BIO *a, *b;

	(void)state;
	SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
	c = SSL_new(ctx);
	assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
	SSL_set_bio(s, a, a);
	SSL_set_bio(c, b, b);
	assert_int_equal(SSL_get_error(c, SSL_connect(c)), SSL_ERROR_WANT_READ);
	assert_int_equal(SSL_get_error(s, SSL_accept(s)), SSL_ERROR_SSL);
	assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_UNSUPPORTED_PROTOCOL);
	ERR_clear_error();
	assert_int_equal(SSL_get_error(c, SSL_connect(c)), SSL_ERROR_SSL);
	ERR_clear_error();
	SSL_free(s);
	SSL_free(c);
	SSL_CTX_free(ctx);
	tls_who_fini(&who);
	net_free(net);
}

/* What our ClientHello offers: one version, group and signature; nothing to resume with, nothing compressed.
 */
static unsigned nhellos;

static bool ext_is(SSL *s, unsigned type, const char *want, size_t n)
{
	const unsigned char *p;
	size_t len;

	return SSL_client_hello_get0_ext(s, type, &p, &len) == 1 && len == n && memcmp(p, want, n) == 0;
}

static bool ext_absent(SSL *s, unsigned type)
{
	const unsigned char *p;
	size_t len;

	return SSL_client_hello_get0_ext(s, type, &p, &len) != 1;
}

static int look(SSL *s, int *alert, void *arg)
{
	(void)alert;
	(void)arg;
	assert_true(ext_is(s, TLSEXT_TYPE_supported_versions, "\2\3\4", 3));
	assert_true(ext_is(s, TLSEXT_TYPE_supported_groups, "\0\2\x11\xec", 4));
	assert_true(ext_is(s, TLSEXT_TYPE_signature_algorithms, "\0\2\x09\5", 4));
	assert_true(ext_absent(s, TLSEXT_TYPE_psk));
	assert_true(ext_absent(s, TLSEXT_TYPE_early_data));
	assert_true(ext_absent(s, TLSEXT_TYPE_session_ticket));
	assert_true(ext_absent(s, TLSEXT_TYPE_compress_certificate));
	nhellos++;
	return SSL_CLIENT_HELLO_SUCCESS;
}

static void what_we_offer(void **state)
{
	struct net *net = two(60);

	(void)state;
	nhellos = 0;
	SSL_CTX_set_client_hello_cb(net->node[0].m->tls->server, look, NULL);
	know(net, 1, 0, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	assert_int_equal(nhellos, 1);
	net_free(net);
}

/* A client that tries to resume and offers compression gets a full handshake all the same. */
static int psk(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *idlen, SSL_SESSION **sess)
{
	static const unsigned char cipher[] = { 0x13, 0x02 };
	SSL_SESSION *s = SSL_SESSION_new();

	(void)md;
	SSL_SESSION_set1_master_key(s, (const unsigned char[48]){ 1 }, 48);
	SSL_SESSION_set_cipher(s, SSL_CIPHER_find(ssl, cipher));
	SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION);
	*id = (const unsigned char *)"ticket";
	*idlen = 6;
	*sess = s;
	return 1;
}

static int has_psk(SSL *s, int *alert, void *arg)
{
	(void)alert;
	(void)arg;
	nhellos += !ext_absent(s, TLSEXT_TYPE_psk);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static void resumption(void **state)
{
	struct net *net = two(70);
	SSL_CTX *c = client_of(net, 1);

	(void)state;
	nhellos = 0;
	SSL_CTX_set_client_hello_cb(net->node[0].m->tls->server, has_psk, NULL);
	SSL_CTX_set_psk_use_session_callback(c, psk);
	SSL_CTX_clear_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION |
					 SSL_OP_NO_TX_CERTIFICATE_COMPRESSION);
	know(net, 1, 0, true);
	assert_true(run_until(net, both_up(net, 0, 1), 2 * NS_PER_S));
	assert_int_equal(nhellos, 1);
	/* Certificates were sent and signed with on both sides. */
	assert_string_equal(info_of(&net->node[0]).signature, "mldsa65");
	assert_string_equal(info_of(&net->node[1]).signature, "mldsa65");
	assert_string_equal(info_of(&net->node[1]).group, "X25519MLKEM768");
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_groups),	 cmocka_unit_test(other_signatures),
		cmocka_unit_test(rsa_leaf),	 cmocka_unit_test(other_alpn),
		cmocka_unit_test(tls_1_2),	 cmocka_unit_test(more_than_the_leaf),
		cmocka_unit_test(what_we_offer), cmocka_unit_test(resumption),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
