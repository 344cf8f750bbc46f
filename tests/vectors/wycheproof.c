/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wycheproof (C2SP/wycheproof): classical algorithms. "valid" must be accepted with the stated output,
 * "invalid" must be refused, "acceptable" may go either way but never with another output.
 */
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "vectors.h"

struct aead_case {
	const char *cipher;
	enum aead_suite suite; /* 0: the frame interface does not do this one */
	struct bytes key, iv, aad, msg, ct, tag;
	bool valid;
	uint64_t id;
};

/* The same case through the per-packet interface; the nonce is spread over static IV and counter. */
static bool aead_frame_case(struct vfile *f, const struct aead_case *c)
{
	size_t n = c->msg.n, half = n / 2, total = c->ct.n + c->tag.n;
	uint8_t *out = pool_alloc(f, n + 1 + AEAD_TAG), *in = pool_alloc(f, total + 1), iv[AEAD_IV];
	uint64_t counter = 0x0102030405060708ull * c->id;
	struct aead seal = { 0 }, open = { 0 };
	bool ok;

	memcpy(iv, c->iv.p, AEAD_IV);
	put_u64(iv + 4, get_u64(iv + 4) ^ counter);
	memcpy(in, c->ct.p, c->ct.n);
	memcpy(in + c->ct.n, c->tag.p, c->tag.n);
	ok = !aead_init(&seal, c->suite, c->key.p, iv, true, NULL) &&
	     !aead_init(&open, c->suite, c->key.p, iv, false, NULL);
	/* Once with another counter first: nothing of a packet may stay for the next one. */
	ok = ok && !aead_seal(&seal, counter + 1, NULL, 0, NULL, 0, "x", 1, out);
	ok = ok &&
	     !aead_seal(&seal, counter, c->aad.p, c->aad.n, c->msg.p, half, c->msg.p + half, n - half, out);
	if (c->valid)
		ok = ok && total == n + AEAD_TAG && memcmp(out, in, total) == 0 &&
		     !aead_open(&open, counter, c->aad.p, c->aad.n, in, total) &&
		     memcmp(in, c->msg.p, n) == 0;
	else
		ok = ok && aead_open(&open, counter, c->aad.p, c->aad.n, in, total) == ERR_AUTH;
	aead_fini(&seal);
	aead_fini(&open);
	return ok;
}

static bool aead_once_case(struct vfile *f, const struct aead_case *c)
{
	size_t total = c->ct.n + c->tag.n;
	uint8_t *in = pool_alloc(f, total + 1), *out = pool_alloc(f, c->msg.n + total + AEAD_TAG);
	int code;

	memcpy(in, c->ct.p, c->ct.n);
	memcpy(in + c->ct.n, c->tag.p, c->tag.n);
	code = aead_open_once(c->cipher, c->key.p, c->key.n, c->iv.p, c->iv.n, c->aad.p, c->aad.n, in, total,
			      out);
	if (!c->valid)
		return code != 0;
	if (code || total != c->msg.n + AEAD_TAG || memcmp(out, c->msg.p, c->msg.n) != 0)
		return false;
	code = aead_seal_once(c->cipher, c->key.p, c->key.n, c->iv.p, c->iv.n, c->aad.p, c->aad.n, c->msg.p,
			      c->msg.n, out);
	return !code && memcmp(out, in, total) == 0;
}

static enum vrun aead_group(struct vfile *f, yyjson_val *group)
{
	const char *alg = str_member(f->root, "algorithm");
	uint64_t key_bits = yyjson_get_uint(yyjson_obj_get(group, "keySize"));
	uint64_t tag_bits = yyjson_get_uint(yyjson_obj_get(group, "tagSize"));
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	struct aead_case c = { 0 };
	size_t i, max;

	if (strcmp(alg, "CHACHA20-POLY1305") == 0)
		c.cipher = "ChaCha20-Poly1305";
	else if (strcmp(alg, "AES-GCM") == 0)
		c.cipher = key_bits == 128 ? "AES-128-GCM" : key_bits == 192 ? "AES-192-GCM" : "AES-256-GCM";
	if (!c.cipher || tag_bits != 8 * AEAD_TAG) {
		f->unsupported += (unsigned)yyjson_arr_size(tests);
		return V_RAN;
	}
	yyjson_arr_foreach(tests, i, max, t) {
		bool frame;

		c.key = hex_member(f, t, "key");
		c.iv = hex_member(f, t, "iv");
		c.aad = hex_member(f, t, "aad");
		c.msg = hex_member(f, t, "msg");
		c.ct = hex_member(f, t, "ct");
		c.tag = hex_member(f, t, "tag");
		c.id = yyjson_get_uint(yyjson_obj_get(t, "tcId"));
		c.valid = strcmp(str_member(t, "result"), "valid") == 0;
		c.suite = strcmp(c.cipher, "ChaCha20-Poly1305") == 0 ? AEAD_CHACHA20_POLY1305
								     : AEAD_AES_256_GCM;
		frame = c.key.n == AEAD_KEY && c.iv.n == AEAD_IV;
		check(f, aead_once_case(f, &c) && (!frame || aead_frame_case(f, &c)), "tcId %llu",
		      (unsigned long long)c.id);
	}
	return V_RAN;
}

/* "HMACSHA256", "HKDF-SHA-384", "SHA-256": the digest's name here, or NULL. */
static const char *digest_of(const char *s)
{
	if (strstr(s, "3-") || strstr(s, "/"))
		return NULL; /* SHA3-*, SHA-512/256 */
	if (strstr(s, "256"))
		return "SHA256";
	if (strstr(s, "384"))
		return "SHA384";
	return strstr(s, "512") ? "SHA512" : NULL;
}

static enum vrun mac_group(struct vfile *f, yyjson_val *group)
{
	const char *alg = str_member(f->root, "algorithm"), *digest = digest_of(alg);
	size_t tag_n = yyjson_get_uint(yyjson_obj_get(group, "tagSize")) / 8;
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	uint8_t out[64];
	size_t i, max;

	if (strncmp(alg, "HMAC", 4) != 0 || !digest || tag_n > sizeof(out)) {
		f->unsupported += (unsigned)yyjson_arr_size(tests);
		return V_RAN;
	}
	yyjson_arr_foreach(tests, i, max, t) {
		struct bytes key = hex_member(f, t, "key"), msg = hex_member(f, t, "msg"),
			     tag = hex_member(f, t, "tag");
		bool same = !hmac(digest, key.p, key.n, msg.p, msg.n, out, tag_n) && tag.n == tag_n &&
			    secret_equal(out, tag.p, tag_n);

		check(f, same == (strcmp(str_member(t, "result"), "valid") == 0), "tcId %llu",
		      (unsigned long long)yyjson_get_uint(yyjson_obj_get(t, "tcId")));
	}
	return V_RAN;
}

static enum vrun hkdf_group(struct vfile *f, yyjson_val *group)
{
	const char *digest = digest_of(str_member(f->root, "algorithm"));
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	size_t i, max;

	if (!digest) {
		f->unsupported += (unsigned)yyjson_arr_size(tests);
		return V_RAN;
	}
	yyjson_arr_foreach(tests, i, max, t) {
		struct bytes ikm = hex_member(f, t, "ikm"), salt = hex_member(f, t, "salt"),
			     info = hex_member(f, t, "info");
		struct bytes okm = hex_member(f, t, "okm");
		size_t n = yyjson_get_uint(yyjson_obj_get(t, "size"));
		uint8_t *out = pool_alloc(f, n);
		int code = hkdf(digest, ikm.p, ikm.n, salt.p, salt.n, info.p, info.n, out, n);
		bool valid = strcmp(str_member(t, "result"), "valid") == 0;

		check(f, valid ? !code && bytes_equal(okm, out, n) : code != 0, "tcId %llu",
		      (unsigned long long)yyjson_get_uint(yyjson_obj_get(t, "tcId")));
	}
	return V_RAN;
}

static enum vrun sig_group(struct vfile *f, yyjson_val *group, bool hashes)
{
	struct bytes der = hex_member(f, group, "publicKeyDer");
	const char *digest = hashes ? digest_of(str_member(group, "sha")) : NULL;
	const char *curve = str_member(yyjson_obj_get(group, "publicKey"), "curve");
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	EVP_PKEY *k = NULL;
	size_t i, max;

	/* Ours on this side: P-256, P-384, P-521 and Ed25519. */
	if (der.absent || (hashes && !digest) ||
	    (strcmp(curve, "edwards25519") != 0 && strcmp(curve, "secp256r1") != 0 &&
	     strcmp(curve, "secp384r1") != 0 && strcmp(curve, "secp521r1") != 0)) {
		f->unsupported += (unsigned)yyjson_arr_size(tests);
		return V_RAN;
	}
	(void)key_from_spki(der.p, der.n, &k, NULL);
	yyjson_arr_foreach(tests, i, max, t) {
		struct bytes msg = hex_member(f, t, "msg"), sig = hex_member(f, t, "sig");
		bool good = k && !sig_check_bare(k, digest, false, msg.p, msg.n, sig.p, sig.n);
		const char *result = str_member(t, "result");

		check(f, strcmp(result, "acceptable") == 0 || good == (strcmp(result, "valid") == 0),
		      "tcId %llu", (unsigned long long)yyjson_get_uint(yyjson_obj_get(t, "tcId")));
	}
	EVP_PKEY_free(k);
	return V_RAN;
}

static enum vrun xdh_group(struct vfile *f, yyjson_val *group)
{
	yyjson_val *tests = yyjson_obj_get(group, "tests"), *t;
	uint8_t out[32];
	size_t i, max;

	if (strcmp(str_member(group, "curve"), "curve25519") != 0) {
		f->unsupported += (unsigned)yyjson_arr_size(tests);
		return V_RAN;
	}
	yyjson_arr_foreach(tests, i, max, t) {
		struct bytes priv = hex_member(f, t, "private"), pub = hex_member(f, t, "public");
		struct bytes shared = hex_member(f, t, "shared");
		bool done = priv.n == 32 && pub.n == 32 && !x25519(priv.p, pub.p, out), ok;
		const char *result = str_member(t, "result");

		if (strcmp(result, "valid") == 0)
			ok = done && bytes_equal(shared, out, sizeof(out));
		else if (strcmp(result, "acceptable") == 0)
			ok = !done || bytes_equal(shared, out, sizeof(out));
		else
			ok = !done;
		/* An all-zero secret is what a small-order point gives: always refused here. */
		check(f, ok && !(done && bytes_equal(shared, (uint8_t[32]){ 0 }, 32)), "tcId %llu",
		      (unsigned long long)yyjson_get_uint(yyjson_obj_get(t, "tcId")));
	}
	return V_RAN;
}

enum vrun wycheproof_run(struct vfile *f)
{
	yyjson_val *groups = yyjson_obj_get(f->root, "testGroups"), *g;
	enum vrun r = V_NOT_MINE;
	size_t i, max;

	/* NIST's files have groups and an algorithm too, but also a "vsId". */
	if (!yyjson_is_arr(groups) || !yyjson_obj_get(f->root, "schema") || yyjson_obj_get(f->root, "vsId"))
		return V_NOT_MINE;
	yyjson_arr_foreach(groups, i, max, g) {
		const char *type = str_member(g, "type");

		if (strcmp(type, "AeadTest") == 0)
			r = aead_group(f, g);
		else if (strcmp(type, "MacTest") == 0)
			r = mac_group(f, g);
		else if (strcmp(type, "HkdfTest") == 0)
			r = hkdf_group(f, g);
		else if (strcmp(type, "EcdsaVerify") == 0)
			r = sig_group(f, g, true);
		else if (strcmp(type, "EddsaVerify") == 0)
			r = sig_group(f, g, false);
		else if (strcmp(type, "XdhComp") == 0)
			r = xdh_group(f, g);
		else
			r = wycheproof_pq_group(f, type, g);
		if (r != V_RAN)
			return r;
	}
	return r;
}
