/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NIST ACVP: ML-KEM keyGen and encapDecap (FIPS 203), ML-DSA keyGen and sigVer (FIPS 204). Expected results
 * stand in an "expected" object per test, or beside the inputs as in NIST's own internalProjection.json.
 */
#include <openssl/core_names.h>
#include <string.h>

#include "crypto/crypto.h"
#include "vectors.h"

static struct bytes expected(struct vfile *f, yyjson_val *t, const char *name)
{
	yyjson_val *e = yyjson_obj_get(t, "expected");

	return hex_member(f, e ? e : t, name);
}

/* Inputs may stand at the test or once for the group. */
static struct bytes input(struct vfile *f, yyjson_val *group, yyjson_val *t, const char *name)
{
	struct bytes b = hex_member(f, t, name);

	return b.absent ? hex_member(f, group, name) : b;
}

static bool expected_pass(yyjson_val *t)
{
	yyjson_val *e = yyjson_obj_get(t, "expected");

	return yyjson_get_bool(yyjson_obj_get(e ? e : t, "testPassed"));
}

static bool kem_keygen_case(struct vfile *f, yyjson_val *group, yyjson_val *t)
{
	struct bytes d = hex_member(f, t, "d"), z = hex_member(f, t, "z");
	uint8_t seed[KEM_SEED], pub[KEM_PUB];
	struct secret dk = { 0 };
	bool ok;

	(void)group;
	if (d.n != 32 || z.n != 32)
		return false;
	memcpy(seed, d.p, 32);
	memcpy(seed + 32, z.p, 32);
	ok = !kem_keygen(seed, pub, &dk) && bytes_equal(expected(f, t, "ek"), pub, sizeof(pub)) &&
	     bytes_equal(expected(f, t, "dk"), dk.p, dk.n);
	secret_fini(&dk);
	return ok;
}

static bool kem_encap_decap_case(struct vfile *f, yyjson_val *group, yyjson_val *t)
{
	const char *function = str_member(group, "function");
	struct bytes ek = input(f, group, t, "ek"), dk = input(f, group, t, "dk");
	struct bytes m = hex_member(f, t, "m"), c = hex_member(f, t, "c");
	uint8_t ct[KEM_CT] = { 0 }, ss[KEM_SS];
	bool done;

	if (strcmp(function, "encapsulation") == 0)
		return m.n == 32 && !kem_encap(ek.p, ek.n, m.p, ct, ss) &&
		       bytes_equal(expected(f, t, "c"), ct, sizeof(ct)) &&
		       bytes_equal(expected(f, t, "k"), ss, sizeof(ss));
	if (strcmp(function, "decapsulation") == 0)
		return !kem_decap(dk.p, dk.n, c.p, c.n, ss) &&
		       bytes_equal(expected(f, t, "k"), ss, sizeof(ss));
	/* The two key checks: whether the key can be used at all. */
	if (strcmp(function, "encapsulationKeyCheck") == 0)
		done = !kem_encap(ek.p, ek.n, NULL, ct, ss);
	else if (strcmp(function, "decapsulationKeyCheck") == 0)
		done = !kem_decap(dk.p, dk.n, ct, sizeof(ct), ss);
	else
		return false;
	return done == expected_pass(t);
}

static bool dsa_keygen_case(struct vfile *f, yyjson_val *group, yyjson_val *t)
{
	struct bytes seed = hex_member(f, t, "seed");
	uint8_t pk[1952], sk[4032];
	size_t pk_n = 0, sk_n = 0;
	EVP_PKEY *k = NULL;
	bool ok;

	(void)group;
	ok = seed.n == 32 && !key_from_seed(seed.p, &k, NULL) &&
	     EVP_PKEY_get_octet_string_param(k, OSSL_PKEY_PARAM_PUB_KEY, pk, sizeof(pk), &pk_n) == 1 &&
	     EVP_PKEY_get_octet_string_param(k, OSSL_PKEY_PARAM_PRIV_KEY, sk, sizeof(sk), &sk_n) == 1 &&
	     bytes_equal(expected(f, t, "pk"), pk, pk_n) && bytes_equal(expected(f, t, "sk"), sk, sk_n);
	EVP_PKEY_free(k);
	return ok;
}

static bool dsa_verify_case(struct vfile *f, yyjson_val *group, yyjson_val *t)
{
	/* The first revision of the tests had the internal interface only, and no field to say so. */
	bool internal = strcmp(str_member(group, "signatureInterface"), "external") != 0;
	struct bytes pk = input(f, group, t, "pk"), msg = hex_member(f, t, "message"),
		     sig = hex_member(f, t, "signature");
	struct bytes ctx = hex_member(f, t, "context"), mu = hex_member(f, t, "mu");
	bool by_mu = internal && yyjson_get_bool(yyjson_obj_get(group, "externalMu"));
	bool good;

	if (by_mu)
		msg = mu;
	good = pk.n == 1952 && !mldsa65_verify(pk.p, msg.p, msg.n, ctx.p, internal ? 0 : ctx.n, sig.p, sig.n,
					       internal && !by_mu, by_mu);
	return good == expected_pass(t);
}

enum vrun acvp_run(struct vfile *f)
{
	static const struct {
		const char *algorithm, *mode, *set;
		bool (*one)(struct vfile *f, yyjson_val *group, yyjson_val *t);
	} known[] = {
		{ "ML-KEM", "keyGen", "ML-KEM-768", kem_keygen_case },
		{ "ML-KEM", "encapDecap", "ML-KEM-768", kem_encap_decap_case },
		{ "ML-DSA", "keyGen", "ML-DSA-65", dsa_keygen_case },
		{ "ML-DSA", "sigVer", "ML-DSA-65", dsa_verify_case },
	};
	yyjson_val *groups = yyjson_obj_get(f->root, "testGroups"), *g, *tests, *t;
	const char *algorithm = str_member(f->root, "algorithm"), *mode = str_member(f->root, "mode");
	size_t k, i, j, gmax, tmax;

	if (!yyjson_is_arr(groups) || !yyjson_obj_get(f->root, "vsId"))
		return V_NOT_MINE;
	for (k = 0; k < ARRAY_SIZE(known); k++) {
		if (strcmp(algorithm, known[k].algorithm) == 0 && strcmp(mode, known[k].mode) == 0)
			break;
	}
	if (k == ARRAY_SIZE(known))
		return V_LATER;
	yyjson_arr_foreach(groups, i, gmax, g) {
		tests = yyjson_obj_get(g, "tests");
		if (strcmp(str_member(g, "parameterSet"), known[k].set) != 0 ||
		    strcmp(str_member(g, "preHash"), "preHash") == 0) {
			f->unsupported += (unsigned)yyjson_arr_size(tests);
			continue;
		}
		yyjson_arr_foreach(tests, j, tmax, t)
			check(f, known[k].one(f, g, t), "tcId %llu",
			      (unsigned long long)yyjson_get_uint(yyjson_obj_get(t, "tcId")));
	}
	return V_RAN;
}
