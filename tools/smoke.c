/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Smoke test of the libraries that set-up unpacked: one TLS 1.3 handshake in memory with everything the links
 * need (X25519MLKEM768, ML-DSA-65 certificates both ways, both verified), ngtcp2's helper for this OpenSSL,
 * and a single libcrypto in the process: two of them would mean that the loader mixed the host's libraries
 * with ours.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto_ossl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define MUST(c) ((c) ? (void)0 : failed(__LINE__, #c))

static void failed(int line, const char *what)
{
	fprintf(stderr, "smoke: line %d: %s\n", line, what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

struct end {
	EVP_PKEY *key;
	X509 *cert;
	SSL_CTX *ctx;
	SSL *ssl;
};

static void end_cert(struct end *e, const char *name)
{
	X509_NAME *n = X509_NAME_new();

	e->key = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65");
	e->cert = X509_new();
	MUST(n && e->key && e->cert);
	MUST(X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0));
	MUST(X509_set_version(e->cert, X509_VERSION_3) &&
	     ASN1_INTEGER_set(X509_get_serialNumber(e->cert), 1));
	MUST(X509_set_subject_name(e->cert, n) && X509_set_issuer_name(e->cert, n));
	MUST(X509_gmtime_adj(X509_getm_notBefore(e->cert), -60) &&
	     X509_gmtime_adj(X509_getm_notAfter(e->cert), 3600));
	MUST(X509_set_pubkey(e->cert, e->key) && X509_sign(e->cert, e->key, NULL) > 0);
	X509_NAME_free(n);
}

static void end_init(struct end *e, const struct end *peer, int server)
{
	e->ctx = SSL_CTX_new(TLS_method());
	MUST(e->ctx && SSL_CTX_set_min_proto_version(e->ctx, TLS1_3_VERSION));
	MUST(SSL_CTX_set1_groups_list(e->ctx, "X25519MLKEM768") &&
	     SSL_CTX_set1_sigalgs_list(e->ctx, "mldsa65"));
	MUST(SSL_CTX_use_certificate(e->ctx, e->cert) == 1 && SSL_CTX_use_PrivateKey(e->ctx, e->key) == 1);
	MUST(X509_STORE_add_cert(SSL_CTX_get_cert_store(e->ctx), peer->cert));
	SSL_CTX_set_verify(e->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	e->ssl = SSL_new(e->ctx);
	MUST(e->ssl);
	if (server)
		SSL_set_accept_state(e->ssl);
	else
		SSL_set_connect_state(e->ssl);
}

static void end_check(const struct end *e)
{
	const char *mine = NULL, *theirs = NULL;

	MUST(SSL_version(e->ssl) == TLS1_3_VERSION && !strcmp(SSL_get0_group_name(e->ssl), "X25519MLKEM768"));
	MUST(SSL_get0_signature_name(e->ssl, &mine) && SSL_get0_peer_signature_name(e->ssl, &theirs));
	MUST(!strcmp(mine, "mldsa65") && !strcmp(theirs, "mldsa65"));
	MUST(SSL_get_verify_result(e->ssl) == X509_V_OK && SSL_get0_peer_certificate(e->ssl));
}

static void end_fini(struct end *e)
{
	SSL_free(e->ssl);
	SSL_CTX_free(e->ctx);
	X509_free(e->cert);
	EVP_PKEY_free(e->key);
}

static void handshake(void)
{
	struct end c = { 0 }, s = { 0 };
	BIO *cb, *sb;
	int rc = 0, rs = 0;

	end_cert(&c, "client");
	end_cert(&s, "server");
	end_init(&c, &s, 0);
	end_init(&s, &c, 1);
	MUST(BIO_new_bio_pair(&cb, 65536, &sb, 65536));
	SSL_set_bio(c.ssl, cb, cb);
	SSL_set_bio(s.ssl, sb, sb);
	for (int i = 0; i < 10 && (rc != 1 || rs != 1); i++) {
		rc = SSL_do_handshake(c.ssl);
		MUST(rc == 1 || SSL_get_error(c.ssl, rc) == SSL_ERROR_WANT_READ);
		rs = SSL_do_handshake(s.ssl);
		MUST(rs == 1 || SSL_get_error(s.ssl, rs) == SSL_ERROR_WANT_READ);
	}
	MUST(rc == 1 && rs == 1);
	end_check(&c);
	end_check(&s);
	end_fini(&c);
	end_fini(&s);
}

/* How many different files named libcrypto.* the process has mapped; prints them if they are not one. */
static int libcryptos(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4352], seen[4][4352];
	int n = 0, i;

	MUST(f);
	while (fgets(line, sizeof line, f)) {
		const char *path = strchr(line, '/');

		if (!path || !strstr(path, "/libcrypto."))
			continue;
		for (i = 0; i < n && strcmp(seen[i], path) != 0; i++)
			;
		if (i == n && n < 4)
			strcpy(seen[n++], path);
	}
	fclose(f);
	for (i = 0; n != 1 && i < n; i++)
		fprintf(stderr, "smoke: mapped: %s", seen[i]);
	return n;
}

int main(int argc, char **argv)
{
	MUST(OPENSSL_VERSION_NUMBER >= 0x30500070L && OpenSSL_version_num() == OPENSSL_VERSION_NUMBER);
	MUST(ngtcp2_crypto_ossl_init() == 0);
	MUST(ngtcp2_version(NGTCP2_VERSION_NUM));
	handshake();
	MUST(libcryptos() == 1);
	printf("set-up:   OpenSSL %s, ngtcp2 %s, %s: X25519MLKEM768 and ML-DSA-65 work\n",
	       OpenSSL_version(OPENSSL_VERSION_STRING), ngtcp2_version(0)->version_str,
	       argc > 1 ? argv[1] : "?");
	return 0;
}
