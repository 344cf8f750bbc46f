/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the certificates and requests the authority makes
 *
 * Roots: CA:TRUE with path length 0 (chains are leaf only), keyCertSign and cRLSign, URI SAN spiffe://<trust
 * domain>, 10 years, self-signed. Leaves: exactly one URI SAN, CA:FALSE, digitalSignature, serverAuth and
 * clientAuth, random 16-byte serial, key identifiers. Requests: PKCS#10 with an empty subject: only the key
 * and the proof of possession count, the name comes from the token or the session.
 *
 * Sources: X509-SVID sections 2-4; RFC 5280 section 4.2; RFC 7093 method 1 (key identifiers); RFC 2986; RFC
 * 9881.
 */
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { KEY_ID = 20, SERIAL = 16 };
static const int64_t root_life = 3653LL * 86400; /* 10 years */

static const EVP_MD *digest_for(const EVP_PKEY *key)
{
	return key_type_of(key) == KEY_MLDSA65 ? NULL : EVP_sha256();
}

static int key_id(const X509 *x, uint8_t ret[KEY_ID])
{
	uint8_t h[EVP_MAX_MD_SIZE];

	if (X509_pubkey_digest(x, EVP_sha256(), h, NULL) != 1)
		return ERR_FAILED;
	memcpy(ret, h, KEY_ID);
	return 0;
}

static bool add_ext(X509 *x, int nid, void *value, bool critical)
{
	return value && X509_add1_ext_i2d(x, nid, value, critical, X509V3_ADD_APPEND) == 1;
}

static bool add_basic(X509 *x, bool ca)
{
	BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
	bool ok = bc != NULL;

	if (ok && ca) {
		bc->ca = 0xff;
		bc->pathlen = ASN1_INTEGER_new();
		ok = bc->pathlen && ASN1_INTEGER_set(bc->pathlen, 0);
	}
	ok = ok && add_ext(x, NID_basic_constraints, bc, true);
	BASIC_CONSTRAINTS_free(bc);
	return ok;
}

static bool add_key_usage(X509 *x, bool ca)
{
	ASN1_BIT_STRING *ku = ASN1_BIT_STRING_new();
	bool ok = ku && (ca ? ASN1_BIT_STRING_set_bit(ku, 5, 1) && ASN1_BIT_STRING_set_bit(ku, 6, 1)
			    : ASN1_BIT_STRING_set_bit(ku, 0, 1));

	ok = ok && add_ext(x, NID_key_usage, ku, true);
	ASN1_BIT_STRING_free(ku);
	return ok;
}

static bool add_ext_key_usage(X509 *x)
{
	EXTENDED_KEY_USAGE *eku = EXTENDED_KEY_USAGE_new();
	bool ok = eku && sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth)) &&
		  sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_client_auth)) &&
		  add_ext(x, NID_ext_key_usage, eku, false);

	EXTENDED_KEY_USAGE_free(eku);
	return ok;
}

static bool add_uri(X509 *x, const char *uri)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *s = ASN1_IA5STRING_new();
	bool ok = names && name && s && ASN1_STRING_set(s, uri, -1);

	if (ok) {
		GENERAL_NAME_set0_value(name, GEN_URI, s);
		s = NULL;
		ok = sk_GENERAL_NAME_push(names, name) > 0;
		name = ok ? NULL : name;
	}
	ok = ok &&
	     add_ext(x, NID_subject_alt_name, names, false); /* the subject is not empty: not critical */
	ASN1_IA5STRING_free(s);
	GENERAL_NAME_free(name);
	GENERAL_NAMES_free(names);
	return ok;
}

static bool add_key_ids(X509 *x, const X509 *issuer)
{
	AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
	ASN1_OCTET_STRING *ski = ASN1_OCTET_STRING_new();
	uint8_t own[KEY_ID], ca[KEY_ID];
	bool ok = aki && ski && !key_id(x, own) && !key_id(issuer, ca);

	ok = ok && ASN1_OCTET_STRING_set(ski, own, KEY_ID) &&
	     add_ext(x, NID_subject_key_identifier, ski, false);
	if (ok) {
		aki->keyid = ASN1_OCTET_STRING_new();
		ok = aki->keyid && ASN1_OCTET_STRING_set(aki->keyid, ca, KEY_ID) &&
		     add_ext(x, NID_authority_key_identifier, aki, false);
	}
	ASN1_OCTET_STRING_free(ski);
	AUTHORITY_KEYID_free(aki);
	return ok;
}

static bool set_serial(X509 *x)
{
	uint8_t s[SERIAL];
	BIGNUM *bn;
	bool ok;

	if (RAND_bytes(s, sizeof(s)) != 1)
		return false;
	s[0] = (uint8_t)((s[0] & 0x7f) | 0x40); /* positive, and always 16 bytes */
	bn = BN_bin2bn(s, sizeof(s), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	return ok;
}

static bool set_frame(X509 *x, EVP_PKEY *pub, int64_t not_before, int64_t not_after)
{
	return X509_set_version(x, X509_VERSION_3) && set_serial(x) && X509_set_pubkey(x, pub) &&
	       ASN1_TIME_set(X509_getm_notBefore(x), (time_t)not_before) &&
	       ASN1_TIME_set(X509_getm_notAfter(x), (time_t)not_after);
}

static bool set_subject(X509 *x, const char *cn)
{
	X509_NAME *n = X509_NAME_new();
	bool ok = n && X509_NAME_add_entry_by_txt(n, "O", MBSTRING_ASC, (const uint8_t *)"x0", -1, -1, 0) &&
		  (!cn ||
		   X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const uint8_t *)cn, -1, -1, 0)) &&
		  X509_set_subject_name(x, n);

	X509_NAME_free(n);
	return ok;
}

int cert_root(const char *trust_domain, EVP_PKEY *key, int64_t now, X509 **ret, struct err *e)
{
	char uri[sizeof("spiffe://") + TRUST_DOMAIN_MAX], cn[sizeof("x0 root ") + 16] = "x0 root ";
	X509 *x = X509_new();
	uint8_t id[KEY_ID];
	bool ok;

	str_fmt(uri, sizeof(uri), "spiffe://%s", trust_domain);
	ok = x && set_frame(x, key, now - SVID_BACKDATE, now + root_life) && !key_id(x, id);
	if (ok) /* the roots of several issuers must not share a name: chains are found by it */
		hex_encode(cn + strlen(cn), id, 8);
	ok = ok && set_subject(x, cn) && X509_set_issuer_name(x, X509_get_subject_name(x)) &&
	     add_basic(x, true) && add_key_usage(x, true) && add_uri(x, uri) && add_key_ids(x, x) &&
	     X509_sign(x, key, digest_for(key)) > 0;
	if (!ok) {
		X509_free(x);
		return err_set(e, ERR_FAILED, "the root certificate could not be made");
	}
	*ret = x;
	return 0;
}

int cert_leaf(const struct spiffe_id *id, EVP_PKEY *pub, X509 *root, EVP_PKEY *root_key, int64_t not_before,
	      int64_t not_after, X509 **ret, struct err *e)
{
	X509 *x = X509_new();
	bool ok = x && set_frame(x, pub, not_before, not_after) && set_subject(x, spiffe_id_node_name(id)) &&
		  X509_set_issuer_name(x, X509_get_subject_name(root)) && add_basic(x, false) &&
		  add_key_usage(x, false) && add_ext_key_usage(x) && add_uri(x, id->uri) &&
		  add_key_ids(x, root) && X509_sign(x, root_key, digest_for(root_key)) > 0;

	if (!ok) {
		X509_free(x);
		return err_set(e, ERR_FAILED, "the certificate for %.200s could not be made", id->uri);
	}
	*ret = x;
	return 0;
}

int cert_der(X509 *x, uint8_t **ret_p, size_t *ret_n)
{
	int n = i2d_X509(x, NULL);
	uint8_t *p, *q;

	if (n <= 0)
		return ERR_FAILED;
	p = malloc((size_t)n);
	if (!p)
		return ERR_NOMEM;
	q = p;
	i2d_X509(x, &q);
	*ret_p = p;
	*ret_n = (size_t)n;
	return 0;
}

int cert_from_der(const void *p, size_t n, X509 **ret, struct err *e)
{
	const uint8_t *in = p;
	uint8_t *again = NULL;
	size_t again_n = 0;
	X509 *x = n <= CERT_MAX ? d2i_X509(NULL, &in, (long)n) : NULL;

	/* What OpenSSL would write differently was not DER: two encodings of one certificate are one too
	 * many. */
	if (!x || in != (const uint8_t *)p + n || cert_der(x, &again, &again_n) || again_n != n ||
	    memcmp(again, p, n)) {
		free(again);
		X509_free(x);
		return err_set(e, ERR_PARSE, "malformed certificate");
	}
	free(again);
	*ret = x;
	return 0;
}

int cert_id(X509 *x, struct spiffe_id *ret, struct err *e)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	const ASN1_IA5STRING *uri = NULL;
	int n = 0, rc;

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_URI) {
			uri = g->d.uniformResourceIdentifier;
			n++;
		}
	}
	if (n != 1)
		rc = err_set(e, ERR_PARSE, "the certificate has %d URI names instead of one SPIFFE ID", n);
	else
		rc = spiffe_id_parse((const char *)ASN1_STRING_get0_data(uri),
				     (size_t)ASN1_STRING_length(uri), ret, e);
	GENERAL_NAMES_free(names);
	return rc;
}

static int time_of(const ASN1_TIME *t, int64_t *ret)
{
	struct tm tm;

	if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
		return ERR_PARSE;
	*ret = (int64_t)timegm(&tm);
	return 0;
}

int cert_times(const X509 *x, int64_t *ret_not_before, int64_t *ret_not_after)
{
	int64_t nb, na;

	if (time_of(X509_get0_notBefore(x), &nb) || time_of(X509_get0_notAfter(x), &na))
		return ERR_PARSE;
	*ret_not_before = nb;
	*ret_not_after = na;
	return 0;
}

int csr_new(EVP_PKEY *key, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	X509_REQ *req = X509_REQ_new();
	uint8_t *p = NULL, *q;
	int n = -1;

	if (req && X509_REQ_set_version(req, X509_REQ_VERSION_1) && X509_REQ_set_pubkey(req, key) &&
	    X509_REQ_sign(req, key, digest_for(key)) > 0)
		n = i2d_X509_REQ(req, NULL);
	p = n > 0 ? malloc((size_t)n) : NULL;
	if (p) {
		q = p;
		i2d_X509_REQ(req, &q);
	}
	X509_REQ_free(req);
	if (!p)
		return err_set(e, ERR_FAILED, "the certificate request could not be made");
	*ret_p = p;
	*ret_n = (size_t)n;
	return 0;
}

int csr_from_der(const void *p, size_t n, X509_REQ **ret, struct err *e)
{
	const uint8_t *in = p;
	uint8_t *again = NULL;
	X509_REQ *req = n <= CSR_MAX ? d2i_X509_REQ(NULL, &in, (long)n) : NULL;
	bool same = req && in == (const uint8_t *)p + n && i2d_X509_REQ(req, &again) == (int)n &&
		    !memcmp(again, p, n);

	OPENSSL_free(again);
	if (!same) {
		X509_REQ_free(req);
		return err_set(e, ERR_PARSE, "malformed certificate request");
	}
	*ret = req;
	return 0;
}

int csr_check(X509_REQ *req, enum key_type type, struct err *e)
{
	EVP_PKEY *key = X509_REQ_get0_pubkey(req);

	if (!key || key_type_of(key) != (int)type)
		return err_set(e, ERR_UNSUPPORTED, "the %s request must have %s key",
			       type == KEY_MLDSA65 ? "link" : "SPIFFE",
			       type == KEY_MLDSA65 ? "an ML-DSA-65" : "a P-256");
	if (X509_REQ_verify(req, key) != 1)
		return err_set(e, ERR_AUTH, "the certificate request is not signed with its own key");
	return 0;
}
