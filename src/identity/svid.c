/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: validation of X.509-SVIDs
 *
 * X509-SVID.md sections 2 to 5 on top of RFC 5280 path validation by OpenSSL. The order matters: the leaf's
 * own form and ID come first, because the ID selects the one bundle whose anchors may vouch for it; then the
 * path; then what was revoked. A certificate of another trust domain is never checked against our roots,
 * however well they signed it.
 *
 * The `link` profile adds: leaf and anchor are ML-DSA-65 keys, every signature is ML-DSA-65, and the path has
 * no intermediates. All clocks are the caller's.
 */
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/uio.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { SVID_CHAIN_MAX = 8, SVID_LINK_CHAIN = 2 };

/* keyUsage of a certificate: present, critical and (all of `must`) and (none of `never`). */
static int key_usage_check(X509 *x, const char *which, uint32_t must, uint32_t never, struct err *e)
{
	int at = X509_get_ext_by_NID(x, NID_key_usage, -1);
	uint32_t usage = X509_get_key_usage(x);

	if (at < 0 || usage == UINT32_MAX)
		return err_set(e, ERR_AUTH, "the %s certificate has no usable key usage extension", which);
	if (!X509_EXTENSION_get_critical(X509_get_ext(x, at)))
		return err_set(e, ERR_AUTH, "the %s certificate's key usage extension is not critical",
			       which);
	if ((usage & must) != must)
		return err_set(e, ERR_AUTH,
			       "the %s certificate's key usage does not allow what it is used for", which);
	if (usage & never)
		return err_set(e, ERR_AUTH, "the %s certificate's key usage allows signing certificates",
			       which);
	return 0;
}

static int leaf_form(X509 *leaf, struct spiffe_id *ret_id, struct err *e)
{
	uint32_t flags = X509_get_extension_flags(leaf), eku;
	int code;

	if (X509_get_version(leaf) != X509_VERSION_3 || (flags & EXFLAG_INVALID))
		return err_set(e, ERR_AUTH, "the certificate has malformed extensions or is not version 3");
	code = cert_id(leaf, ret_id, e);
	if (code)
		return code == ERR_PARSE
			       ? err_set(e, ERR_AUTH,
					 "the certificate does not hold exactly one valid SPIFFE ID")
			       : code;
	if (!ret_id->uri[ret_id->path_off])
		return err_set(e, ERR_AUTH,
			       "%.200s is the ID of a whole trust domain, not of a host or workload",
			       ret_id->uri);
	if (flags & EXFLAG_CA)
		return err_set(e, ERR_AUTH,
			       "the certificate is a signing certificate, which identifies nobody");
	code = key_usage_check(leaf, "leaf", X509v3_KU_DIGITAL_SIGNATURE,
			       X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN, e);
	if (code)
		return code;
	/* Extended key usage may be absent; when present it must name both roles (X509-SVID.md section 4.4).
	 */
	if (X509_get_ext_by_NID(leaf, NID_ext_key_usage, -1) >= 0) {
		eku = X509_get_extended_key_usage(leaf);
		if (eku == UINT32_MAX ||
		    (eku & (XKU_SSL_SERVER | XKU_SSL_CLIENT)) != (XKU_SSL_SERVER | XKU_SSL_CLIENT))
			return err_set(e, ERR_AUTH,
				       "the certificate's extended key usage lacks server or client "
				       "authentication");
	}
	return 0;
}

int svid_check_form(X509 *const *chain, size_t nchain, struct spiffe_id *ret_id, struct err *e)
{
	struct spiffe_id id;
	int code;

	if (nchain == 0 || nchain > SVID_CHAIN_MAX)
		return err_set(e, ERR_AUTH, "a chain of %zu certificates is not accepted", nchain);
	code = leaf_form(chain[0], &id, e);
	for (size_t i = 1; !code && i < nchain; i++) {
		if (X509_check_ca(chain[i]) != 1)
			code = err_set(e, ERR_AUTH, "certificate %zu of the chain may not sign certificates",
				       i + 1);
		else
			code = key_usage_check(chain[i], "intermediate", X509v3_KU_KEY_CERT_SIGN, 0, e);
	}
	if (!code)
		*ret_id = id;
	return code;
}

static bool is_mldsa65(X509 *x)
{
	return key_type_of(X509_get0_pubkey(x)) == KEY_MLDSA65 && X509_get_signature_nid(x) == NID_ML_DSA_65;
}

/* In the link profile peers send the leaf alone, or (join) the leaf and its root; nothing else is looked at.
 */
static int link_form(const struct bundle *b, X509 *const *chain, size_t nchain, struct err *e)
{
	if (!is_mldsa65(chain[0]))
		return err_set(
			e, ERR_AUTH,
			"links take ML-DSA-65 keys and signatures only, and this certificate has others");
	for (size_t i = 1; i < nchain; i++) {
		bool anchor = false;

		for (size_t j = 0; j < b->nlink_roots; j++)
			anchor = anchor || X509_cmp(chain[i], b->link_roots[j]) == 0;
		if (!anchor)
			return err_set(
				e, ERR_AUTH,
				"the chain has an intermediate certificate, which links do not accept");
	}
	return 0;
}

static STACK_OF(X509) * stack_of(X509 *const *x, size_t n)
{
	STACK_OF(X509) *sk = sk_X509_new_reserve(NULL, (int)n);

	for (size_t i = 0; sk && i < n; i++)
		sk_X509_push(sk, x[i]); /* cannot fail: reserved */
	return sk;
}

static const char *time_text(const struct tm *tm, char to[24])
{
	return strftime(to, 24, "%Y-%m-%d %H:%M UTC", tm) ? to : "?";
}

/* Whoever reads it must see at once if it is this host's clock that is wrong. */
static void period_error(X509_STORE_CTX *ctx, bool over, int64_t now, const struct spiffe_id *id,
			 struct err *e)
{
	X509 *x = X509_STORE_CTX_get_current_cert(ctx);
	const ASN1_TIME *t = !x ? NULL : over ? X509_get0_notAfter(x) : X509_get0_notBefore(x);
	struct tm at = { 0 }, here = { 0 };
	char end[24], clock[24];
	time_t tt = (time_t)now;

	if (t)
		ASN1_TIME_to_tm(t, &at);
	gmtime_r(&tt, &here);
	err_set(e, over ? ERR_EXPIRED : ERR_CLOCK, "a certificate of %.160s %s %s, this host's clock says %s",
		id->uri, over ? "has expired: it was valid until" : "is not valid yet: it is from",
		time_text(&at, end), time_text(&here, clock));
}

static int path_error(X509_STORE_CTX *ctx, int64_t now, const struct spiffe_id *id, struct err *e)
{
	int why = X509_STORE_CTX_get_error(ctx);

	switch (why) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		period_error(ctx, true, now, id, e);
		return err_todo(e, "see why that host did not renew, and whether the clocks of both agree");
	case X509_V_ERR_CERT_NOT_YET_VALID:
		period_error(ctx, false, now, id, e);
		return err_todo(e, "compare the clocks of the two hosts and of the issuer");
	case X509_V_ERR_OUT_OF_MEM:
		return err_set(e, ERR_NOMEM, "out of memory while checking a certificate");
	}
	return err_set(e, ERR_AUTH, "the certificate of %.200s is not vouched for by its trust domain: %s",
		       id->uri, X509_verify_cert_error_string(why));
}

/* The path OpenSSL built: leaf, then signing certificates, the last of them an anchor. */
static int built_path(const STACK_OF(X509) * path, enum svid_profile profile, struct err *e)
{
	int n = sk_X509_num(path);

	if (n < 2)
		return err_set(e, ERR_AUTH, "the certificate is itself a root");
	for (int i = 1; i < n; i++) {
		if (X509_check_ca(sk_X509_value(path, i)) != 1)
			return err_set(e, ERR_AUTH, "a certificate above the leaf may not sign certificates");
	}
	for (int i = 1; i < n - 1; i++) {
		int code = key_usage_check(sk_X509_value(path, i), "intermediate", X509v3_KU_KEY_CERT_SIGN, 0,
					   e);

		if (code)
			return code;
	}
	if (profile != SVID_LINK)
		return 0;
	if (n != SVID_LINK_CHAIN)
		return err_set(e, ERR_AUTH,
			       "the chain has an intermediate certificate, which links do not accept");
	/* Not implied by the set: whoever filled it, a link never hangs on another algorithm. */
	for (int i = 0; i < n; i++) {
		if (!is_mldsa65(sk_X509_value(path, i)))
			return err_set(e, ERR_AUTH, "links take ML-DSA-65 anchors only");
	}
	return 0;
}

static int path_check(const struct bundle *b, enum svid_profile profile, X509 *const *chain, size_t nchain,
		      const struct spiffe_id *id, int64_t now, struct err *e)
{
	X509 *const *roots = profile == SVID_LINK ? b->link_roots : b->spiffe_roots;
	size_t nroots = profile == SVID_LINK ? b->nlink_roots : b->nspiffe_roots;
	STACK_OF(X509) *trusted = stack_of(roots, nroots);
	STACK_OF(X509) *untrusted = stack_of(chain + 1, profile == SVID_LINK ? 0 : nchain - 1);
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;
	int code;

	if (!trusted || !untrusted || !ctx || X509_STORE_CTX_init(ctx, NULL, chain[0], untrusted) != 1) {
		code = err_set(e, ERR_NOMEM, "out of memory while checking a certificate");
		goto out;
	}
	X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_time(param, (time_t)now);
	X509_VERIFY_PARAM_set_depth(param, SVID_CHAIN_MAX);
	/* An anchor is what the bundle says, self-signed or not. 112 bits: no SHA-1, no RSA below 2048. */
	X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
	X509_VERIFY_PARAM_set_auth_level(param, 2);
	if (X509_verify_cert(ctx) != 1)
		code = path_error(ctx, now, id, e);
	else
		code = built_path(X509_STORE_CTX_get0_chain(ctx), profile, e);
out:
	X509_STORE_CTX_free(ctx);
	sk_X509_free(trusted);
	sk_X509_free(untrusted);
	ERR_clear_error();
	return code;
}

static int info_fill(X509 *leaf, const struct spiffe_id *id, struct svid_info *to, struct err *e)
{
	uint8_t *der = NULL;
	size_t der_n;
	int code;

	if (key_pub_hash(X509_get0_pubkey(leaf), to->key_hash) ||
	    cert_times(leaf, &to->not_before, &to->not_after))
		return err_set(e, ERR_AUTH, "the certificate's key or dates cannot be read");
	code = cert_der(leaf, &der, &der_n);
	if (!code)
		code = sha256(der, der_n, to->leaf_hash);
	free(der);
	if (code)
		return err_set(e, code, "cannot hash the certificate");
	to->id = *id;
	overlay_addr(id, to->addr);
	return 0;
}

int svid_verify(const struct bundle *const *bundles, size_t nbundles, enum svid_profile profile,
		X509 *const *chain, size_t nchain, int64_t now, struct svid_info *ret, struct err *e)
{
	const struct bundle *b = NULL;
	struct svid_info info;
	struct spiffe_id id;
	int code;

	if (profile != SVID_SPIFFE && profile != SVID_LINK)
		return err_set(e, ERR_USAGE, "no such validation profile: %d", (int)profile);
	if (nchain == 0 || nchain > SVID_CHAIN_MAX)
		return err_set(e, ERR_AUTH, "a chain of %zu certificates is not accepted", nchain);
	code = leaf_form(chain[0], &id, e);
	if (code)
		return code;
	for (size_t i = 0; i < nbundles && !b; i++) {
		if (spiffe_id_in(&id, bundles[i]->trust_domain))
			b = bundles[i];
	}
	if (!b) {
		err_set(e, ERR_AUTH, "%.200s belongs to a trust domain this host has no bundle of", id.uri);
		return err_todo(e, "federate with that trust domain if its members are welcome");
	}
	if (profile == SVID_LINK)
		code = link_form(b, chain, nchain, e);
	if (!code)
		code = path_check(b, profile, chain, nchain, &id, now, e);
	if (!code)
		code = info_fill(chain[0], &id, &info, e);
	if (code)
		return code;
	if (bundle_revokes(b, id.uri, info.key_hash, info.not_before)) {
		err_set(e, ERR_REVOKED, "the certificate of %.200s was revoked", id.uri);
		return err_todo(e, "join that host again if it was revoked by mistake");
	}
	*ret = info;
	return 0;
}

int svid_verify_der(const struct bundle *const *bundles, size_t nbundles, enum svid_profile profile,
		    const struct iovec *der, size_t nder, int64_t now, struct svid_info *ret, struct err *e)
{
	X509 *chain[SVID_CHAIN_MAX] = { NULL };
	int code = 0;

	if (nder == 0 || nder > SVID_CHAIN_MAX)
		return err_set(e, ERR_AUTH, "a chain of %zu certificates is not accepted", nder);
	for (size_t i = 0; !code && i < nder; i++)
		code = cert_from_der(der[i].iov_base, der[i].iov_len, &chain[i], e);
	if (!code)
		code = svid_verify(bundles, nbundles, profile, chain, nder, now, ret, e);
	for (size_t i = 0; i < nder; i++)
		X509_free(chain[i]);
	return code;
}
