/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SPIFFE: our case files (spiffe-id-cases/1, svid-cases/1, jwt-svid-cases/1) and JWKS bundles of go-spiffe,
 * whose names say what must become of them. Cases the specification demands and go-spiffe does not check
 * ("strict_only") count.
 */
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "identity/identity.h"
#include "vectors.h"

static const char *name_of(yyjson_val *c)
{
	return str_member(c, yyjson_obj_get(c, "name") ? "name" : "id");
}

/* ---- IDs ---- */

static bool id_case(yyjson_val *c)
{
	yyjson_val *text = yyjson_obj_get(c, "id");
	struct spiffe_id id;
	const char *td = str_member(c, "trust_domain");
	bool ok = !spiffe_id_parse(yyjson_get_str(text), yyjson_get_len(text), &id, NULL);

	if (!yyjson_get_bool(yyjson_obj_get(c, "valid")))
		return !ok;
	return ok && spiffe_id_in(&id, td) && strcmp(id.uri + id.path_off, str_member(c, "path")) == 0 &&
	       strcmp(id.uri, yyjson_get_str(text)) == 0;
}

/* ---- X.509-SVIDs ---- */

enum { BUNDLES_MAX = 16 };

struct svid_set {
	struct bundle *b[BUNDLES_MAX];
	size_t n;
};

/* Every root is an anchor of the spiffe profile; the ML-DSA-65 ones of the link profile too. */
static bool bundles_load(yyjson_val *bundles, struct svid_set *set)
{
	yyjson_val *td, *pem;
	size_t i, max;

	yyjson_obj_foreach(bundles, i, max, td, pem) {
		struct bundle *b = set->n < BUNDLES_MAX ? bundle_new(yyjson_get_str(td)) : NULL;
		X509 **roots = NULL;
		size_t nroots = 0;
		bool ok;

		if (!b)
			return false;
		set->b[set->n++] = b;
		ok = !pem_certs(yyjson_get_str(pem), yyjson_get_len(pem), &roots, &nroots, NULL);
		for (size_t k = 0; ok && k < nroots; k++) {
			ok = !bundle_add_root(b, SVID_SPIFFE, roots[k], NULL);
			if (ok && key_type_of(X509_get0_pubkey(roots[k])) == KEY_MLDSA65)
				ok = !bundle_add_root(b, SVID_LINK, roots[k], NULL);
		}
		pem_certs_free(roots, nroots);
		if (!ok)
			return false;
	}
	return true;
}

static int64_t time_of(const char *s)
{
	struct tm tm = { 0 };
	const char *end = strptime(s, "%Y-%m-%dT%H:%M:%SZ", &tm);

	return end && !*end ? (int64_t)timegm(&tm) : -1;
}

static bool svid_case(struct svid_set *set, yyjson_val *c)
{
	const char *pem = str_member(c, "chain_pem");
	int64_t at = time_of(str_member(c, "verify_at"));
	bool want = yyjson_get_bool(yyjson_obj_get(c, "accept")), ok = at >= 0, link, all_pq;
	X509 **chain = NULL;
	struct svid_info info;
	size_t n = 0;

	if (pem_certs(pem, strlen(pem), &chain, &n, NULL))
		return !want;
	all_pq = n == 1 && X509_get_signature_nid(chain[0]) == NID_ML_DSA_65 &&
		 key_type_of(X509_get0_pubkey(chain[0])) == KEY_MLDSA65;
	memset(&info, 0, sizeof(info));
	if (svid_verify((const struct bundle *const *)set->b, set->n, SVID_SPIFFE, chain, n, at, &info,
			NULL) == 0)
		ok = ok && want && strcmp(info.id.uri, str_member(c, "spiffe_id")) == 0;
	else
		ok = ok && !want && info.id.uri[0] == 0;
	/* The link profile is narrower: the same verdict for post-quantum leaves, and no to all others. */
	link = !svid_verify((const struct bundle *const *)set->b, set->n, SVID_LINK, chain, n, at, &info,
			    NULL);
	ok = ok && link == (want && all_pq);
	pem_certs_free(chain, n);
	return ok;
}

static void svid_cases(struct vfile *f)
{
	struct svid_set set = { .n = 0 };
	yyjson_val *c;
	size_t i, max;

	if (check(f, bundles_load(yyjson_obj_get(f->root, "bundles"), &set), "bundles")) {
		f->passed--; /* the cases are what is counted */
		yyjson_arr_foreach(yyjson_obj_get(f->root, "cases"), i, max, c)
			check(f, svid_case(&set, c), "%s", name_of(c));
	}
	for (size_t k = 0; k < set.n; k++)
		bundle_free(set.b[k]);
}

/* ---- JWT-SVIDs ---- */

static bool jwt_case(yyjson_val *bundles, yyjson_val *c)
{
	yyjson_val *token = yyjson_obj_get(c, "token"), *td, *jwks;
	bool want = yyjson_get_bool(yyjson_obj_get(c, "valid")), good = false, ok = true;
	struct spiffe_id id;
	size_t i, max, n;

	yyjson_obj_foreach(bundles, i, max, td, jwks) {
		const char *name = yyjson_get_str(td);
		char *text = yyjson_val_write(jwks, YYJSON_WRITE_NOFLAG, &n);

		if (strncmp(name, "spiffe://", 9) == 0)
			name += 9;
		if (!text)
			return false;
		if (!jwt_svid_verify(yyjson_get_str(token), yyjson_get_len(token), text, n, name,
				     str_member(c, "audience"), yyjson_get_sint(yyjson_obj_get(c, "now")),
				     &id, NULL)) {
			good = true;
			ok = ok && strcmp(id.uri, str_member(c, "spiffe_id")) == 0;
		}
		free(text);
	}
	return ok && good == want;
}

/* ---- JWKS files ---- */

static bool jwks_is_bad(const char *name)
{
	static const char *const bad[] = { "missing", "no_keys",   "invalid",  "bad",	   "corrupt",
					   "wrong",   "malformed", "not_json", "not-json", "non_json" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (strstr(name, bad[i]))
			return true;
	}
	return false;
}

static void jwks_file(struct vfile *f)
{
	struct trust_bundle b = { 0 };
	int code = trust_bundle_parse((const char *)f->p, f->n, &b, NULL);

	if (jwks_is_bad(f->name))
		check(f, code != 0 && !b.nroots && !b.njwt, "accepted");
	else
		check(f, code == 0 && b.nroots + b.njwt > 0, "refused");
	trust_bundle_fini(&b);
}

enum vrun spiffe_run(struct vfile *f)
{
	const char *format = str_member(f->root, "format");
	yyjson_val *c, *cases = yyjson_obj_get(f->root, "cases");
	size_t i, max;

	if (strcmp(format, "spiffe-id-cases/1") == 0) {
		yyjson_arr_foreach(cases, i, max, c)
			check(f, id_case(c), "%s", str_member(c, "rule"));
	} else if (strcmp(format, "svid-cases/1") == 0) {
		svid_cases(f);
	} else if (strcmp(format, "jwt-svid-cases/1") == 0) {
		yyjson_arr_foreach(cases, i, max, c)
			check(f, jwt_case(yyjson_obj_get(f->root, "bundles"), c), "%s", name_of(c));
	} else if (yyjson_is_arr(yyjson_obj_get(f->root, "keys")) ||
		   yyjson_obj_get(f->root, "spiffe_sequence") || strstr(f->path, "jwtbundle") ||
		   strstr(f->path, "spiffebundle")) {
		jwks_file(f);
	} else {
		return V_NOT_MINE;
	}
	return V_RAN;
}
