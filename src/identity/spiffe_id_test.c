/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "identity/identity.h"

static bool ok(const char *s)
{
	struct spiffe_id id;

	return spiffe_id_parse(s, strlen(s), &id, NULL) == 0;
}

static void parts(void **state)
{
	struct spiffe_id id;
	const char *s = "spiffe://mesh.test/ns/a/sa/web";

	(void)state;
	assert_int_equal(spiffe_id_parse(s, strlen(s), &id, NULL), 0);
	assert_string_equal(id.uri, s);
	assert_int_equal(id.td_len, 9);
	assert_memory_equal(id.uri + id.td_off, "mesh.test", 9);
	assert_string_equal(id.uri + id.path_off, "/ns/a/sa/web");
	assert_int_equal(spiffe_id_parse("spiffe://mesh.test/x", 18, &id, NULL), 0); /* n rules, not a NUL */
	assert_string_equal(id.uri + id.path_off, "");
}

static void canonical_only(void **state)
{
	static const char *const good[] = { "spiffe://a", "spiffe://a/b", "spiffe://1.2-3_4/A.b_c-D/...",
					    "spiffe://a/..." };
	static const char *const bad[] = { "",
					   "spiffe:",
					   "spiffe://",
					   "spiffe:///a",
					   "Spiffe://a",
					   "spiffe://A/b",
					   "spiffe://a/",
					   "spiffe://a//b",
					   "spiffe://a/b/",
					   "spiffe://a/.",
					   "spiffe://a/..",
					   "spiffe://a/../b",
					   "spiffe://a/./b",
					   "spiffe://a/b/..",
					   "spiffe://a:1/b",
					   "spiffe://u@a/b",
					   "spiffe://a/b?c",
					   "spiffe://a/b#c",
					   "spiffe://a/%41",
					   "spiffe://a%41/b",
					   "spiffe://a b/c",
					   "spiffe://a/b c",
					   "spiffe://\xc3\xa4/b",
					   "spiffe://a/\xc3\xa4",
					   "spiffe://a/b\n",
					   " spiffe://a/b",
					   "spiffe://a/b\\c" };
	struct spiffe_id id = { .td_len = 77 };
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (!ok(good[i]))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (ok(bad[i]))
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(spiffe_id_parse("spiffe://a/b\0c", 14, &id, &e), ERR_PARSE);
	assert_int_equal(id.td_len, 77);
	assert_true(strstr(e.what, "0x00") != NULL);
}

static void limits(void **state)
{
	char s[SPIFFE_ID_MAX + 2];
	struct spiffe_id id;

	(void)state;
	memset(s, 'a', sizeof(s));
	memcpy(s, "spiffe://a/", 11);
	assert_int_equal(spiffe_id_parse(s, SPIFFE_ID_MAX, &id, NULL), 0);
	assert_int_equal(spiffe_id_parse(s, SPIFFE_ID_MAX + 1, &id, NULL), ERR_PARSE);
	s[10] = 'a';
	assert_int_equal(spiffe_id_parse(s, 9 + 255, &id, NULL), 0);
	assert_int_equal(spiffe_id_parse(s, 9 + 256, &id, NULL), ERR_PARSE);
	s[9 + 255] = '/';
	assert_int_equal(spiffe_id_parse(s, 9 + 257, &id, NULL), 0);
}

static void domain_is_exact(void **state)
{
	struct spiffe_id id;

	(void)state;
	assert_int_equal(spiffe_id_parse("spiffe://mesh.test/a", 20, &id, NULL), 0);
	assert_true(spiffe_id_in(&id, "mesh.test"));
	assert_false(spiffe_id_in(&id, "mesh.tes"));
	assert_false(spiffe_id_in(&id, "mesh.test2"));
	assert_false(spiffe_id_in(&id, ""));
	assert_false(spiffe_id_in(&id, "mesh.test/a"));
}

static void node_names(void **state)
{
	static const char *const good[] = {
		"a", "n1", "a-b", "0", "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij123"
	};
	static const char *const bad[] = {
		"",	    "-a",
		"a-",	    "A",
		"a.b",	    "a_b",
		"a/b",	    "..",
		"\xc3\xa4", "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij1234"
	};
	static const char *const not_nodes[] = { "spiffe://t",	       "spiffe://t/node",
						 "spiffe://t/nodes/a", "spiffe://t/node/a/b",
						 "spiffe://t/node/A",  "spiffe://t/x/node/a" };
	struct spiffe_id id;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(spiffe_id_node("t", good[i], &id, &e), 0);
		assert_string_equal(spiffe_id_node_name(&id), good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(spiffe_id_node("t", bad[i], &id, &e), ERR_PARSE);
		assert_true(e.todo[0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(not_nodes); i++) {
		assert_int_equal(spiffe_id_parse(not_nodes[i], strlen(not_nodes[i]), &id, NULL), 0);
		assert_null(spiffe_id_node_name(&id));
	}
	assert_int_equal(spiffe_id_node("", "a", &id, &e), ERR_PARSE);
	assert_int_equal(spiffe_id_node("t/x", "a", &id, &e), ERR_PARSE);
	assert_int_equal(spiffe_id_node("T", "a", &id, &e), ERR_PARSE);
	char td[257];
	memset(td, 'a', 256);
	td[256] = 0;
	assert_int_equal(spiffe_id_node(td, "a", &id, &e), ERR_PARSE);
	td[255] = 0;
	assert_int_equal(spiffe_id_node(td, "a", &id, &e), 0);
}

/* fd | 40 bits of SHA-256(trust domain) | 80 bits of SHA-256(ID), recomputed here from the definition. */
static void overlay_addresses(void **state)
{
	struct spiffe_id id;
	uint8_t a[16], p[16], h[32];

	(void)state;
	assert_int_equal(spiffe_id_node("mesh.test", "n1", &id, NULL), 0);
	overlay_addr(&id, a);
	assert_int_equal(a[0], 0xfd);
	sha256("mesh.test", 9, h);
	assert_memory_equal(a + 1, h, 5);
	sha256("spiffe://mesh.test/node/n1", 26, h);
	assert_memory_equal(a + 6, h, 10);
	overlay_prefix("mesh.test", p);
	assert_memory_equal(a, p, 6);
	assert_memory_equal(p + 6, "\0\0\0\0\0\0\0\0\0\0", 10);
	assert_true(overlay_label(a) == get_u64(h + 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts),      cmocka_unit_test(canonical_only),
		cmocka_unit_test(limits),     cmocka_unit_test(domain_is_exact),
		cmocka_unit_test(node_names), cmocka_unit_test(overlay_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
