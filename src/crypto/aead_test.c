/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "crypto/crypto.h"

static const uint8_t key[AEAD_KEY] = { 1, 2, 3 }, iv[AEAD_IV] = { 9, 8, 7, 6, 5, 4, 3, 2, 1 };
static const enum aead_suite suites[] = { AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305 };

static void pair(enum aead_suite suite, struct aead *seal, struct aead *open)
{
	assert_int_equal(aead_init(seal, suite, key, iv, true, NULL), 0);
	assert_int_equal(aead_init(open, suite, key, iv, false, NULL), 0);
}

static void round_trip_of_every_size(void **state)
{
	uint8_t in[200], out[216];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7);
	for (size_t s = 0; s < ARRAY_SIZE(suites); s++) {
		struct aead seal, open;

		pair(suites[s], &seal, &open);
		for (size_t n = 0; n <= sizeof(in); n++) {
			size_t head = n / 3;

			assert_int_equal(aead_seal(&seal, n, in, n % 5, in, head, in + head, n - head, out),
					 0);
			if (n > 8)
				assert_memory_not_equal(out, in, n);
			assert_int_equal(aead_open(&open, n, in, n % 5, out, n + AEAD_TAG), 0);
			assert_memory_equal(out, in, n);
		}
		aead_fini(&seal);
		aead_fini(&open);
	}
}

/* The nonce is the static IV xor the counter in its last 8 bytes: checked against the one-shot cipher. */
static void nonce_is_iv_xor_counter(void **state)
{
	const uint64_t counters[] = { 0, 1, 0xff, 0x0102030405060708ull, UINT64_MAX };
	const char *const ciphers[] = { "AES-256-GCM", "ChaCha20-Poly1305" };
	uint8_t nonce[AEAD_IV], a[5 + AEAD_TAG], b[5 + AEAD_TAG];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(suites); s++) {
		struct aead seal;

		assert_int_equal(aead_init(&seal, suites[s], key, iv, true, NULL), 0);
		for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
			memcpy(nonce, iv, sizeof(nonce));
			for (int k = 0; k < 8; k++)
				nonce[4 + k] ^= (uint8_t)(counters[i] >> (56 - 8 * k));
			assert_int_equal(aead_seal(&seal, counters[i], "ad", 2, NULL, 0, "hello", 5, a), 0);
			assert_int_equal(
				aead_seal_once(ciphers[s], key, 32, nonce, 12, "ad", 2, "hello", 5, b), 0);
			assert_memory_equal(a, b, sizeof(a));
		}
		aead_fini(&seal);
	}
}

static void seals_in_place_without_head(void **state)
{
	struct aead seal, open;
	uint8_t buf[64 + AEAD_TAG] = "the same memory for input and output";
	char before[64];

	(void)state;
	memcpy(before, buf, sizeof(before));
	pair(AEAD_AES_256_GCM, &seal, &open);
	assert_int_equal(aead_seal(&seal, 1, NULL, 0, NULL, 0, buf, 64, buf), 0);
	assert_int_equal(aead_open(&open, 1, NULL, 0, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, before, sizeof(before));
	aead_fini(&seal);
	aead_fini(&open);
}

/* Every flipped bit, a wrong counter, wrong associated data, a cut: refused, and nothing of the plaintext
 * stays. */
static void refuses_what_was_changed(void **state)
{
	const uint8_t zero[64] = { 0 };
	uint8_t good[20 + AEAD_TAG], bad[sizeof(good)];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(suites); s++) {
		struct aead seal, open;

		pair(suites[s], &seal, &open);
		assert_int_equal(aead_seal(&seal, 5, "ad", 2, NULL, 0, "twenty bytes of text", 20, good), 0);
		for (size_t bit = 0; bit < 8 * sizeof(good); bit++) {
			memcpy(bad, good, sizeof(good));
			bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(aead_open(&open, 5, "ad", 2, bad, sizeof(bad)), ERR_AUTH);
			assert_memory_equal(bad, zero, 20);
		}
		memcpy(bad, good, sizeof(good));
		assert_int_equal(aead_open(&open, 6, "ad", 2, bad, sizeof(bad)), ERR_AUTH);
		memcpy(bad, good, sizeof(good));
		assert_int_equal(aead_open(&open, 5, "AD", 2, bad, sizeof(bad)), ERR_AUTH);
		memcpy(bad, good, sizeof(good));
		assert_int_equal(aead_open(&open, 5, "ad", 2, bad, sizeof(bad) - 1), ERR_AUTH);
		for (size_t n = 0; n < AEAD_TAG; n++) {
			memcpy(bad, good, sizeof(good));
			assert_int_equal(aead_open(&open, 5, "ad", 2, bad, n), ERR_AUTH);
		}
		/* A failure does not poison the context. */
		assert_int_equal(aead_open(&open, 5, "ad", 2, good, sizeof(good)), 0);
		assert_memory_equal(good, "twenty bytes of text", 20);
		aead_fini(&seal);
		aead_fini(&open);
	}
}

static void refuses_misuse(void **state)
{
	struct aead none = { 0 };
	struct err e = { 0 };
	uint8_t buf[32] = { 0 };

	(void)state;
	assert_int_equal(aead_init(&none, (enum aead_suite)7, key, iv, true, &e), ERR_UNSUPPORTED);
	assert_null(none.ctx);
	assert_int_equal(aead_seal(&none, 0, NULL, 0, NULL, 0, buf, 4, buf), ERR_FAILED);
	assert_int_equal(aead_open(&none, 0, NULL, 0, buf, sizeof(buf)), ERR_FAILED);
	aead_fini(&none);
}

static void one_shot_takes_only_known_sizes(void **state)
{
	uint8_t out[64], nonce[200] = { 1 };

	(void)state;
	assert_int_equal(aead_seal_once("AES-128-GCM", key, 16, nonce, 8, NULL, 0, "abc", 3, out), 0);
	assert_int_equal(aead_open_once("AES-128-GCM", key, 16, nonce, 8, NULL, 0, out, 19, out + 20), 0);
	assert_memory_equal(out + 20, "abc", 3);
	assert_int_equal(aead_open_once("AES-128-GCM", key, 16, nonce, 9, NULL, 0, out, 19, out + 20),
			 ERR_AUTH);
	assert_memory_equal(out + 20, "\0\0\0", 3);
	assert_int_equal(aead_open_once("AES-128-GCM", key, 16, nonce, 8, NULL, 0, out, 15, out + 20),
			 ERR_AUTH);
	assert_int_equal(aead_seal_once("AES-128-GCM", key, 32, nonce, 12, NULL, 0, "abc", 3, out),
			 ERR_UNSUPPORTED);
	assert_int_equal(aead_seal_once("AES-256-GCM", key, 32, nonce, 0, NULL, 0, "abc", 3, out),
			 ERR_UNSUPPORTED);
	assert_int_equal(aead_seal_once("AES-256-GCM", key, 32, nonce, 129, NULL, 0, "abc", 3, out),
			 ERR_UNSUPPORTED);
	assert_int_equal(aead_seal_once("ChaCha20-Poly1305", key, 32, nonce, 11, NULL, 0, "abc", 3, out),
			 ERR_UNSUPPORTED);
	assert_int_equal(aead_seal_once("AES-256-CBC", key, 32, nonce, 16, NULL, 0, "abc", 3, out),
			 ERR_UNSUPPORTED);
	assert_int_equal(aead_open_once("AES-256-CBC", key, 32, nonce, 16, NULL, 0, out, 32, out),
			 ERR_UNSUPPORTED);
}

static void best_suite_is_one_of_two(void **state)
{
	enum aead_suite s = aead_best_suite();

	(void)state;
	assert_true(s == AEAD_AES_256_GCM || s == AEAD_CHACHA20_POLY1305);
#if defined(__x86_64__)
	assert_int_equal(s == AEAD_AES_256_GCM,
			 !!__builtin_cpu_supports("aes") && !!__builtin_cpu_supports("pclmul"));
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip_of_every_size),
		cmocka_unit_test(nonce_is_iv_xor_counter),
		cmocka_unit_test(seals_in_place_without_head),
		cmocka_unit_test(refuses_what_was_changed),
		cmocka_unit_test(refuses_misuse),
		cmocka_unit_test(one_shot_takes_only_known_sizes),
		cmocka_unit_test(best_suite_is_one_of_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
