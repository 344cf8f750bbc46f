/* SPDX-License-Identifier: Apache-2.0 */
/* Wycheproof (C2SP/wycheproof): ML-KEM-768 and ML-DSA-65, in all the shapes their schemas have. */
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "vectors.h"

static bool wants(yyjson_val *t)
{
	return strcmp(str_member(t, "result"), "valid") == 0;
}

static unsigned long long id_of(yyjson_val *t)
{
	return yyjson_get_uint(yyjson_obj_get(t, "tcId"));
}

static bool kem_full_case(struct vfile *f, yyjson_val *t)
{
	struct bytes seed = hex_member(f, t, "seed"), ek = hex_member(f, t, "ek"), c = hex_member(f, t, "c");
	struct bytes shared = hex_member(f, t, "K");
	uint8_t pub[KEM_PUB], ss[KEM_SS];
	struct secret dk = { 0 };
	bool done = seed.n == KEM_SEED && !kem_keygen(seed.p, pub, &dk) &&
		    !kem_decap(dk.p, dk.n, c.p, c.n, ss);
	bool ok = wants(t) ? done && bytes_equal(ek, pub, sizeof(pub)) && bytes_equal(shared, ss, sizeof(ss))
			   : !done;

	secret_fini(&dk);
	return ok;
}

static bool kem_encap_case(struct vfile *f, yyjson_val *t)
{
	struct bytes m = hex_member(f, t, "m"), ek = hex_member(f, t, "ek"), c = hex_member(f, t, "c");
	struct bytes shared = hex_member(f, t, "K");
	uint8_t ct[KEM_CT], ss[KEM_SS];
	bool done = m.n == 32 && !kem_encap(ek.p, ek.n, m.p, ct, ss);

	return wants(t) ? done && bytes_equal(c, ct, sizeof(ct)) && bytes_equal(shared, ss, sizeof(ss))
			: !done;
}

static bool kem_keygen_case(struct vfile *f, yyjson_val *t)
{
	struct bytes seed = hex_member(f, t, "seed"), ek = hex_member(f, t, "ek"),
		     want = hex_member(f, t, "dk");
	uint8_t pub[KEM_PUB];
	struct secret dk = { 0 };
	bool done = seed.n == KEM_SEED && !kem_keygen(seed.p, pub, &dk);
	bool ok = wants(t) ? done && bytes_equal(ek, pub, sizeof(pub)) && bytes_equal(want, dk.p, dk.n)
			   : !done;

	secret_fini(&dk);
	return ok;
}

static bool kem_decap_case(struct vfile *f, yyjson_val *t)
{
	struct bytes dk = hex_member(f, t, "dk"), c = hex_member(f, t, "c"), shared = hex_member(f, t, "K");
	uint8_t ss[KEM_SS];
	bool done = !kem_decap(dk.p, dk.n, c.p, c.n, ss);

	return wants(t) ? done && (shared.absent || bytes_equal(shared, ss, sizeof(ss))) : !done;
}

static bool dsa_verify_case(struct vfile *f, yyjson_val *group, yyjson_val *t)
{
	struct bytes pub = hex_member(f, group, "publicKey"), msg = hex_member(f, t, "msg"),
		     ctx = hex_member(f, t, "ctx");
	struct bytes sig = hex_member(f, t, "sig"), mu = hex_member(f, t, "mu");
	bool by_mu = msg.absent && !mu.absent, done;

	if (by_mu)
		msg = mu;
	done = pub.n == 1952 &&
	       !mldsa65_verify(pub.p, msg.p, msg.n, ctx.p, ctx.n, sig.p, sig.n, false, by_mu);
	return done == wants(t);
}

/* RFC 9881 section 6: an expanded key of 4032 bytes as PKCS#8, so that it enters through the one door for
 * keys. */
static EVP_PKEY *expanded_key(struct vfile *f, struct bytes priv)
{
	static const uint8_t head[] = { 0x30, 0x82, 0x0f, 0xd8, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06,
					0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12,
					0x04, 0x82, 0x0f, 0xc4, 0x04, 0x82, 0x0f, 0xc0 };
	uint8_t *der = pool_alloc(f, sizeof(head) + priv.n);
	EVP_PKEY *k = NULL;

	memcpy(der, head, sizeof(head));
	memcpy(der + sizeof(head), priv.p, priv.n);
	if (priv.n == 4032)
		(void)key_from_der(der, sizeof(head) + priv.n, &k, NULL);
	return k;
}

struct dsa_key {
	EVP_PKEY *k;
	bool agrees; /* every form the file gives is the same key, or every form is refused */
};

/* The key of a group or of a test: seed, PKCS#8 and expanded form, as far as they are given. */
static struct dsa_key dsa_key_of(struct vfile *f, yyjson_val *obj)
{
	struct bytes seed = hex_member(f, obj, "privateSeed"), der = hex_member(f, obj, "privateKeyPkcs8");
	struct bytes pub = hex_member(f, obj, "publicKey"), expanded = hex_member(f, obj, "privateKey");
	struct dsa_key key = { .agrees = true };
	uint8_t raw[1952], a[SHA256_LEN], b[SHA256_LEN];
	EVP_PKEY *other = NULL;
	size_t n = 0;

	if (seed.absent)
		key.k = expanded_key(f, expanded);
	else if (seed.n == 32)
		(void)key_from_seed(seed.p, &key.k, NULL);
	if (!der.absent) {
		(void)key_from_der(der.p, der.n, &other, NULL);
		key.agrees = !key.k == !other &&
			     (!key.k || (!key_pub_hash(key.k, a) && !key_pub_hash(other, b) &&
					 memcmp(a, b, sizeof(a)) == 0));
		EVP_PKEY_free(other);
	}
	if (key.k && !pub.absent && pub.n)
		key.agrees = key.agrees && EVP_PKEY_get_raw_public_key(key.k, NULL, &n) == 1 &&
			     n == sizeof(raw) && EVP_PKEY_get_raw_public_key(key.k, raw, &n) == 1 &&
			     bytes_equal(pub, raw, n);
	return key;
}

static bool dsa_sign_case(struct vfile *f, const struct dsa_key *key, yyjson_val *t)
{
	struct bytes msg = hex_member(f, t, "msg"), mu = hex_member(f, t, "mu"),
		     ctx = hex_member(f, t, "ctx");
	struct bytes want = hex_member(f, t, "sig"), rnd = hex_member(f, t, "rnd");
	uint8_t sig[SIG_MAX];
	const uint8_t *r;
	bool ok = key->agrees, done = false;

	if (rnd.absent)
		rnd = hex_member(f, t, "randomness");
	r = !rnd.absent && rnd.n == 32 ? rnd.p : NULL;
	if (!wants(t))
		return ok &&
		       !(key->k && !msg.absent &&
			 !mldsa65_sign_rnd(key->k, msg.p, msg.n, ctx.p, ctx.n, r, false, sig)) &&
		       !(key->k && msg.absent &&
			 !mldsa65_sign_rnd(key->k, mu.p, mu.n, NULL, 0, r, true, sig));
	if (!key->k)
		return false;
	if (!msg.absent) {
		ok = ok && !mldsa65_sign_rnd(key->k, msg.p, msg.n, ctx.p, ctx.n, r, false, sig) &&
		     bytes_equal(want, sig, sizeof(sig));
		done = true;
	}
	if (!mu.absent && mu.n) {
		ok = ok && !mldsa65_sign_rnd(key->k, mu.p, mu.n, NULL, 0, r, true, sig) &&
		     bytes_equal(want, sig, sizeof(sig));
		done = true;
	}
	return ok && done;
}

static void dsa_sign_group(struct vfile *f, yyjson_val *group)
{
	bool shared = yyjson_obj_get(group, "privateSeed") || yyjson_obj_get(group, "privateKey");
	struct dsa_key key = { 0 };
	yyjson_val *t;
	size_t i, max;

	if (shared)
		key = dsa_key_of(f, group);
	yyjson_arr_foreach(yyjson_obj_get(group, "tests"), i, max, t) {
		struct dsa_key own = shared ? key : dsa_key_of(f, t);

		check(f, dsa_sign_case(f, &own, t), "tcId %llu", id_of(t));
		if (!shared)
			EVP_PKEY_free(own.k);
	}
	EVP_PKEY_free(key.k);
}

enum vrun wycheproof_pq_group(struct vfile *f, const char *type, yyjson_val *group)
{
	static const struct {
		const char *type;
		bool (*one)(struct vfile *f, yyjson_val *t);
	} kem[] = {
		{ "MLKEMTest", kem_full_case },	       { "MLKEMEncapsTest", kem_encap_case },
		{ "MLKEMKeyGen", kem_keygen_case },    { "MLKEMDecapsValidationTest", kem_decap_case },
		{ "MLKEMDecapsTest", kem_decap_case },
	};
	const char *set = str_member(group, "parameterSet"), *alg = str_member(f->root, "algorithm");
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	size_t i, max;

	for (size_t k = 0; k < ARRAY_SIZE(kem); k++) {
		if (strcmp(type, kem[k].type) != 0)
			continue;
		if (strcmp(set, "ML-KEM-768") != 0) {
			f->unsupported += (unsigned)yyjson_arr_size(tests);
			return V_RAN;
		}
		yyjson_arr_foreach(tests, i, max, t)
			check(f, kem[k].one(f, t), "tcId %llu", id_of(t));
		return V_RAN;
	}
	if (strcmp(type, "MlDsaVerify") == 0 || strcmp(type, "MlDsaSign") == 0) {
		if (strcmp(alg, "ML-DSA-65") != 0) {
			f->unsupported += (unsigned)yyjson_arr_size(tests);
		} else if (strcmp(type, "MlDsaSign") == 0) {
			dsa_sign_group(f, group);
		} else {
			yyjson_arr_foreach(tests, i, max, t)
				check(f, dsa_verify_case(f, group, t), "tcId %llu", id_of(t));
		}
		return V_RAN;
	}
	return V_LATER;
}
