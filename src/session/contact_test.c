/* SPDX-License-Identifier: Apache-2.0 */
#include "session/testlib.h"

#include "session/contact.h"

struct fix {
	struct contact c;
	struct rng rng;
	struct mint mint, own;
	struct bundle *b;
	struct knock_key key, own_key;
	struct endpoint from;
};

static void begin(struct fix *f)
{
	uint8_t hash[SHA256_LEN];

	assert_int_equal(crypto_init(NULL), 0);
	rng_init_seeded(&f->rng, 1);
	f->mint = mint_new(KEY_MLDSA65, TD);
	f->own = mint_new(KEY_MLDSA65, TD);
	f->b = mint_bundle(&f->mint, 1);
	assert_int_equal(key_pub_hash(f->mint.key, hash), 0);
	assert_int_equal(knock_key_from(hash, &f->key), 0);
	assert_int_equal(key_pub_hash(f->own.key, hash), 0);
	assert_int_equal(knock_key_from(hash, &f->own_key), 0);
	f->from = ep_at(9, 4242);
	contact_init(&f->c, &f->rng, 0);
	assert_int_equal(contact_roots(&f->c, f->b, hash, NULL), 0);
}

static void end(struct fix *f)
{
	contact_fini(&f->c);
	bundle_free(f->b);
	mint_fini(&f->mint);
	mint_fini(&f->own);
}

static void make_knock(const struct knock_key *key, uint8_t flags, uint64_t nonce, uint8_t to[KNOCK_LEN])
{
	struct knock k = { .flags = flags, .nonce = nonce };

	memcpy(k.key_id, key->id, 8);
	assert_int_equal(knock_encode(&k, key->key, knock_mac, to), 0);
}

static void knock_and_cookie(void **state)
{
	struct fix f;
	uint8_t k[KNOCK_LEN], out[COOKIE_LEN];
	struct endpoint other;
	struct cookie ck, bad;

	(void)state;
	begin(&f);
	make_knock(&f.key, 0, 77, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), 0);
	assert_true(sizeof(out) <= sizeof(k));
	assert_int_equal(cookie_decode(out, sizeof(out), &ck), 0);
	assert_int_equal(ck.nonce, 77);
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &f.from, &ck), 0);
	/* Bound to address, port, nonce and epoch. */
	other = f.from;
	other.port++;
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &other, &ck), ERR_AUTH);
	other = f.from;
	other.addr[15] ^= 1;
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &other, &ck), ERR_AUTH);
	bad = ck;
	bad.nonce++;
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &f.from, &bad), ERR_AUTH);
	bad = ck;
	bad.epoch ^= 2;
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &f.from, &bad), ERR_AUTH);
	bad = ck;
	bad.value ^= 1ull << 63;
	assert_int_equal(contact_cookie(&f.c, &f.rng, 6, &f.from, &bad), ERR_AUTH);
	/* It lives one change of secret and no more. */
	assert_int_equal(contact_cookie(&f.c, &f.rng, 61 * NS_PER_S, &f.from, &ck), 0);
	assert_int_equal(contact_cookie(&f.c, &f.rng, 121 * NS_PER_S, &f.from, &ck), ERR_AUTH);
	end(&f);
}

static void long_silence(void **state)
{
	struct fix f;
	uint8_t k[KNOCK_LEN], out[COOKIE_LEN];
	struct cookie ck;

	(void)state;
	begin(&f);
	make_knock(&f.key, 0, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), 0);
	assert_int_equal(cookie_decode(out, sizeof(out), &ck), 0);
	/* 256 changes of secret later the epoch byte is the same again; the cookie must not be. */
	assert_int_equal(contact_cookie(&f.c, &f.rng, 256 * 60 * NS_PER_S + 6, &f.from, &ck), ERR_AUTH);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(contact_cookie(&f.c, &f.rng, (20000 + 60 * i) * NS_PER_S, &f.from, &ck),
				 ERR_AUTH);
	end(&f);
}

static void strangers(void **state)
{
	struct fix f;
	uint8_t k[KNOCK_LEN], out[COOKIE_LEN];
	struct knock_key stranger = { .id = { 1 }, .key = { 2 } }, liar;

	(void)state;
	begin(&f);
	make_knock(&stranger, 0, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), ERR_AUTH);
	liar = f.key;
	liar.key[0] ^= 1; /* knows the key's name only */
	make_knock(&liar, 0, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), ERR_AUTH);
	make_knock(&f.key, 0, 1, k);
	for (size_t i = 0; i < KNOCK_LEN; i++) {
		k[i] ^= 0x10;
		assert_true(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out) < 0);
		k[i] ^= 0x10;
	}
	for (size_t n = 0; n < KNOCK_LEN; n++)
		assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, n, out), ERR_PARSE);
	/* A join knock needs our own root's key, another knock a root of the bundle. */
	make_knock(&f.own_key, 0, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), ERR_AUTH);
	make_knock(&f.own_key, KNOCK_F_JOIN, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), 0);
	make_knock(&f.key, KNOCK_F_JOIN, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), ERR_AUTH);
	/* No issuer: no join knock is answered. */
	assert_int_equal(contact_roots(&f.c, f.b, NULL, NULL), 0);
	make_knock(&f.own_key, KNOCK_F_JOIN, 1, k);
	assert_int_equal(contact_knock(&f.c, &f.rng, 5, &f.from, k, sizeof(k), out), ERR_AUTH);
	end(&f);
}

static void allowance(void **state)
{
	struct fix f;
	unsigned n = 0;
	struct endpoint v6 = { .addr = { 0x20, 1, 0xd, 0xb8 }, .port = 1 };

	(void)state;
	begin(&f);
	while (n < 100 && contact_allow(&f.c, NS_PER_S, &f.from))
		n++;
	assert_int_equal(n, 16);
	assert_false(contact_allow(&f.c, NS_PER_S + 400 * NS_PER_MS, &f.from));
	assert_true(contact_allow(&f.c, NS_PER_S + 500 * NS_PER_MS, &f.from));
	assert_false(contact_allow(&f.c, NS_PER_S + 501 * NS_PER_MS, &f.from));
	f.from.port++; /* a port is no new source */
	assert_false(contact_allow(&f.c, NS_PER_S + 501 * NS_PER_MS, &f.from));
	for (n = 0; n < 100 && contact_allow(&f.c, NS_PER_S, &v6); n++)
		v6.addr[15]++; /* nor is another address of the same /64 */
	assert_int_equal(n, 16);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knock_and_cookie),
		cmocka_unit_test(long_silence),
		cmocka_unit_test(strangers),
		cmocka_unit_test(allowance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
