/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: bench-handshake
 *
 * CPU of one full mutual handshake, both ends together: knock, cookie, QUIC, TLS, control exchange, key
 * export, until both ends send with the new keys; against the same public-key operations called bare. How
 * many signatures and verifications really occur is counted, not assumed, where libssl and libcrypto call
 * each other. Both are measured in turn, so that the machine's moods hit both.
 *
 * usage: bench-handshake [HANDSHAKES]
 */
#include <dlfcn.h>
#include <openssl/evp.h>

#include "memnet.h"

static unsigned signs, verifies;

/* ---- counters in front of libcrypto's own ---- */
int EVP_DigestSign(EVP_MD_CTX *c, unsigned char *sig, size_t *sig_n, const unsigned char *p, size_t n)
{
	static int (*next)(EVP_MD_CTX *, unsigned char *, size_t *, const unsigned char *, size_t);

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "EVP_DigestSign");
	signs += sig != NULL;
	return next(c, sig, sig_n, p, n);
}

int EVP_DigestVerify(EVP_MD_CTX *c, const unsigned char *sig, size_t sig_n, const unsigned char *p, size_t n)
{
	static int (*next)(EVP_MD_CTX *, const unsigned char *, size_t, const unsigned char *, size_t);

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "EVP_DigestVerify");
	verifies++;
	return next(c, sig, sig_n, p, n);
}

/* ---- the bare operations ---- */
static void bare_kem(void)
{
	EVP_PKEY *mine = EVP_PKEY_Q_keygen(NULL, NULL, "X25519MLKEM768"), *theirs = EVP_PKEY_new();
	unsigned char *pub = NULL, ct[2048], a[128], b[128];
	size_t ct_n = sizeof(ct), a_n = sizeof(a), b_n = sizeof(b),
	       pub_n = EVP_PKEY_get1_encoded_public_key(mine, &pub);
	EVP_PKEY_CTX *enc, *dec = EVP_PKEY_CTX_new_from_pkey(NULL, mine, NULL);

	assert_true(pub_n > 0 && EVP_PKEY_copy_parameters(theirs, mine) == 1 &&
		    EVP_PKEY_set1_encoded_public_key(theirs, pub, pub_n) == 1);
	enc = EVP_PKEY_CTX_new_from_pkey(NULL, theirs, NULL);
	assert_true(EVP_PKEY_encapsulate_init(enc, NULL) == 1 &&
		    EVP_PKEY_encapsulate(enc, ct, &ct_n, a, &a_n) == 1);
	assert_true(EVP_PKEY_decapsulate_init(dec, NULL) == 1 &&
		    EVP_PKEY_decapsulate(dec, b, &b_n, ct, ct_n) == 1);
	assert_true(a_n == b_n && memcmp(a, b, a_n) == 0);
	EVP_PKEY_CTX_free(enc);
	EVP_PKEY_CTX_free(dec);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(theirs);
	OPENSSL_free(pub);
}

static void bare(EVP_PKEY *key, unsigned nsign, unsigned nverify)
{
	static const uint8_t text[146]; /* as long as what CertificateVerify signs with SHA-384 */
	uint8_t sig[SIG_MAX];
	size_t n = sizeof(sig);

	bare_kem();
	for (unsigned i = 0; i < nsign; i++) {
		EVP_MD_CTX *c = EVP_MD_CTX_new();

		n = sizeof(sig);
		assert_true(EVP_DigestSignInit_ex(c, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
			    EVP_DigestSign(c, sig, &n, text, sizeof(text)) == 1);
		EVP_MD_CTX_free(c);
	}
	for (unsigned i = 0; i < nverify; i++) {
		EVP_MD_CTX *c = EVP_MD_CTX_new();

		assert_true(EVP_DigestVerifyInit_ex(c, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
			    EVP_DigestVerify(c, sig, n, text, sizeof(text)) == 1);
		EVP_MD_CTX_free(c);
	}
}

/* ---- the handshake: new keys for a pair that has a session, which is a full mutual connection ---- */
static void handshake(struct mem_net *net)
{
	struct mem_node *a = &net->node[0], *b = &net->node[1];
	const unsigned au = a->uses, bu = b->uses;

	sess_rekey(a->m, a->used);
	for (unsigned i = 0; i < 1000 && (a->uses == au || b->uses == bu); i++)
		mem_step(net, MEM_LATENCY);
	assert_true(a->uses == au + 1 && b->uses == bu + 1);
}

int main(int argc, char **argv)
{
	const unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 300, warm = 10;
	struct mem_net *net = mem_new(2);
	double whole = 0, alone = 0;
	unsigned nsign = 0, nverify = 0;
	uint64_t datagrams = 0;

	mem_know(net, 0, 1);
	mem_settle(net, NS_PER_S);
	assert_true(net->node[0].used && net->node[1].used);
	for (unsigned i = 0; i < n + warm; i++) {
		uint64_t sent = net->datagrams;
		double t0, t1, t2;

		signs = verifies = 0;
		t0 = cpu_us();
		handshake(net);
		t1 = cpu_us();
		nsign = signs;
		nverify = verifies;
		sent = net->datagrams - sent;
		mem_settle(net, 40 * NS_PER_S); /* the old keys end */
		t2 = cpu_us();
		bare(net->node[0].self->link_key, nsign, nverify);
		if (i < warm)
			continue;
		alone += cpu_us() - t2;
		whole += t1 - t0;
		datagrams += sent;
	}
	printf("{\"handshake_us\":%.1f,\"bare_us\":%.1f,\"ratio\":%.3f,\"n\":%u,\"signatures\":%u,"
	       "\"verifications\":%u,"
	       "\"datagrams\":%.1f}\n",
	       whole / n, alone / n, whole / alone, n, nsign, nverify, (double)datagrams / n);
	mem_free(net);
	return 0;
}
