/* SPDX-License-Identifier: Apache-2.0 */
/* For tests only: certificates with any fault one asks for. */
#ifndef X0_IDENTITY_TESTCERT_H
#define X0_IDENTITY_TESTCERT_H

#include <openssl/x509v3.h>
#include <stdlib.h>

#include "identity/identity.h"

struct testcert {
	const char *subject, *issuer; /* common names */
	const char *bc, *ku, *eku, *san,
		*extra; /* extension texts of x509v3_config; NULL: none. extra: name constraints */
	int64_t not_before, not_after;
	EVP_PKEY *key, *signer;
	bool v1;
};

static inline X509_NAME *testcert_name(const char *cn)
{
	X509_NAME *n = X509_NAME_new();

	X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
	return n;
}

static inline void testcert_ext(X509 *x, int nid, const char *text)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;

	if (!text)
		return;
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
	if (!ext || X509_add_ext(x, ext, -1) != 1)
		abort();
	X509_EXTENSION_free(ext);
}

/* The caller frees. */
static inline X509 *testcert_make(const struct testcert *t)
{
	static long serial = 1000;
	X509 *x = X509_new();
	X509_NAME *s = testcert_name(t->subject), *i = testcert_name(t->issuer);

	X509_set_version(x, t->v1 ? X509_VERSION_1 : X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
	X509_set_subject_name(x, s);
	X509_set_issuer_name(x, i);
	X509_NAME_free(s);
	X509_NAME_free(i);
	ASN1_TIME_set(X509_getm_notBefore(x), (time_t)t->not_before);
	ASN1_TIME_set(X509_getm_notAfter(x), (time_t)t->not_after);
	X509_set_pubkey(x, t->key);
	testcert_ext(x, NID_basic_constraints, t->bc);
	testcert_ext(x, NID_key_usage, t->ku);
	testcert_ext(x, NID_ext_key_usage, t->eku);
	testcert_ext(x, NID_subject_alt_name, t->san);
	if (t->extra)
		testcert_ext(x, NID_name_constraints, t->extra);
	if (X509_sign(x, t->signer, key_type_of(t->signer) == KEY_MLDSA65 ? NULL : EVP_sha256()) <= 0)
		abort();
	return x;
}

#endif
