/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/loop.h"
#include "base/util.h"

enum { P_NAME, P_AT, P_VIA };
static const struct conf_key peer_keys[] = {
	CONF_ROW(NAME, "name", STR, NULL, 1, 16, true, "the peer's name")
		CONF_ROW(AT, "endpoints", ENDPOINTS, "", 0, 4, true, "where it is")
			CONF_ROW(VIA, "via", MAPS, "", 0, 0, true, "nested")
};
enum { V_PORT };
static const struct conf_key via_keys[] = { CONF_ROW(PORT, "nat.port", INT, "7", 1, 9, true, "a number") };
static const struct conf_schema via_schema = { .keys = via_keys, .n = 1 };
static const struct conf_sub peer_subs[] = { { "via", &via_schema } };
static const struct conf_schema peer_schema = { peer_keys, ARRAY_SIZE(peer_keys), peer_subs, 1 };

#define KEYS                                                                                                 \
	X(NAME, "name", STR, "", 1, 16, false, "name of the node")                                           \
	X(LEVEL, "log.level", CHOICE, "info|error|warn|debug", 0, 0, true, "how much is logged")             \
	X(COLOUR, "log.colour", BOOL, "true", 0, 0, true, "colours")                                         \
	X(PORT, "listen.port", INT, "7430", 1, 65535, false, "port")                                         \
	X(BACKLOG, "listen.backlog", INT, "-1", 0, 0, false, "any number")                                   \
	X(ADDR, "listen.address", ENDPOINT, "0.0.0.0:7430", 1, 65535, false, "where to listen")              \
	X(TTL, "identity.ttl", DURATION, "24h", NS_PER_S, 30 * 86400 * NS_PER_S, true, "lifetime")           \
	X(BUF, "tunnel.limits.buffer", SIZE, "1MiB", 1024, 0, true, "buffer")                                \
	X(SEEDS, "seeds", LIST, "a, b", 0, 3, true, "seeds")                                                 \
	X(VIA, "relays", ENDPOINTS, "", 1, 2, true, "relays")                                                \
	X(PEERS, "peers", MAPS, "", 0, 3, true, "peers")

enum {
#define X(id, ...) K_##id,
	KEYS
#undef X
};
static const struct conf_key keys[] = {
#define X CONF_ROW
	KEYS
#undef X
};
static const struct conf_sub subs[] = { { "peers", &peer_schema } };
static const struct conf_schema schema = { keys, ARRAY_SIZE(keys), subs, ARRAY_SIZE(subs) };

static struct yaml_problems problems;

static struct conf *good(const char *text)
{
	struct conf *c = NULL;

	if (conf_parse(&schema, text, strlen(text), &c, &problems) != 0)
		fail_msg("%u:%u: %s\n%s", problems.at[0].line, problems.at[0].column, problems.at[0].text,
			 text);
	assert_int_equal(problems.n, 0);
	return c;
}

/* All problems, one a line, as "line:column: text". */
static const char *bad_bytes(const void *text, size_t n)
{
	static char all[YAML_PROBLEMS * 360];
	struct conf *c = (struct conf *)&all; /* untouched on failure */

	all[0] = '\0';
	if (conf_parse(&schema, text, n, &c, &problems) != ERR_CONFIG)
		fail_msg("accepted: %s", (const char *)text);
	assert_ptr_equal(c, &all);
	assert_true(problems.n > 0);
	for (size_t i = 0; i < problems.n && i < YAML_PROBLEMS; i++)
		sprintf(all + strlen(all), "%u:%u: %s\n", problems.at[i].line, problems.at[i].column,
			problems.at[i].text);
	return all;
}

static const char *bad(const char *text)
{
	return bad_bytes(text, strlen(text));
}

static void assert_has(const char *all, const char *part)
{
	if (!strstr(all, part))
		fail_msg("\"%s\" is not in\n%s", part, all);
}

static void defaults(void **state)
{
	static const char *const empty[] = { "",     "# nothing\n", "---\n",
					     "{}\n", "log: {}\n",   "\xef\xbb\xbf# BOM\n" };
	char text[ENDPOINT_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
		struct conf *c = good(empty[i]);

		assert_string_equal(conf_str(c, K_NAME), "");
		assert_string_equal(conf_str(c, K_LEVEL), "info");
		assert_true(conf_bool(c, K_COLOUR));
		assert_int_equal(conf_int(c, K_PORT), 7430);
		assert_int_equal(conf_int(c, K_BACKLOG), -1);
		assert_string_equal(endpoint_text(conf_endpoint(c, K_ADDR), text), "0.0.0.0:7430");
		assert_true(conf_dur(c, K_TTL) == 86400 * NS_PER_S);
		assert_int_equal(conf_size(c, K_BUF), 1 << 20);
		assert_int_equal(conf_count(c, K_SEEDS), 2);
		assert_string_equal(conf_list_at(c, K_SEEDS, 0), "a");
		assert_string_equal(conf_list_at(c, K_SEEDS, 1), "b");
		assert_int_equal(conf_count(c, K_VIA), 0);
		assert_int_equal(conf_count(c, K_PEERS), 0);
		assert_false(conf_given(c, K_PORT));
		assert_string_equal(conf_text(c, K_TTL), "1d");
		assert_string_equal(conf_text(c, K_SEEDS), "[a, b]");
		assert_string_equal(conf_text(c, K_PEERS), "[]");
		assert_string_equal(conf_text(c, K_NAME), "\"\"");
		assert_null(conf_free(c));
	}
	assert_null(conf_free(NULL));
}

static void everything_written(void **state)
{
	struct conf *c = good(
		"name: \"node a\"\n"
		"log:\n"
		"  level: debug\n"
		"  colour: false\n"
		"listen: {port: 1, backlog: -9223372036854775807, address: \"[2001:DB8::1]:9\"}\n"
		"identity:\n"
		"  ttl: 1h30m\n"
		"tunnel: {limits: {buffer: 64KiB}}\n"
		"seeds:\n"
		"- one\n"
		"- 2\n"
		"- \"null\"\n"
		"relays: [192.0.2.1:5, \"[::1]:6\"]\n"
		"peers:\n"
		"- name: b\n"
		"  endpoints: [192.0.2.2:7430]\n"
		"  via:\n"
		"  - nat: {port: 8}\n"
		"  - {}\n"
		"- {name: c}\n");
	char text[ENDPOINT_TEXT];
	const struct conf *p;

	(void)state;
	assert_string_equal(conf_str(c, K_NAME), "node a");
	assert_string_equal(conf_str(c, K_LEVEL), "debug");
	assert_false(conf_bool(c, K_COLOUR));
	assert_int_equal(conf_int(c, K_PORT), 1);
	assert_true(conf_int(c, K_BACKLOG) == -INT64_MAX);
	assert_string_equal(endpoint_text(conf_endpoint(c, K_ADDR), text), "[2001:db8::1]:9");
	assert_true(conf_dur(c, K_TTL) == 5400 * NS_PER_S);
	assert_int_equal(conf_size(c, K_BUF), 65536);
	assert_int_equal(conf_count(c, K_SEEDS), 3);
	assert_string_equal(conf_list_at(c, K_SEEDS, 2), "null");
	assert_int_equal(conf_count(c, K_VIA), 2);
	assert_string_equal(endpoint_text(conf_endpoints_at(c, K_VIA, 1), text), "[::1]:6");
	assert_int_equal(conf_count(c, K_PEERS), 2);
	p = conf_maps_at(c, K_PEERS, 0);
	assert_string_equal(conf_str(p, P_NAME), "b");
	assert_string_equal(endpoint_text(conf_endpoints_at(p, P_AT, 0), text), "192.0.2.2:7430");
	assert_int_equal(conf_count(p, P_VIA), 2);
	assert_int_equal(conf_int(conf_maps_at(p, P_VIA, 0), V_PORT), 8);
	assert_int_equal(conf_int(conf_maps_at(p, P_VIA, 1), V_PORT), 7);
	p = conf_maps_at(c, K_PEERS, 1);
	assert_string_equal(conf_str(p, P_NAME), "c");
	assert_int_equal(conf_count(p, P_AT), 0);
	assert_true(conf_given(c, K_PORT));
	assert_string_equal(conf_text(c, K_TTL), "90m");
	assert_string_equal(conf_text(c, K_ADDR), "\"[2001:db8::1]:9\"");
	assert_string_equal(conf_text(c, K_SEEDS), "[one, 2, \"null\"]");
	assert_string_equal(conf_text(c, K_PEERS), "[{name: b, endpoints: [192.0.2.2:7430], "
						   "via: [{nat: {port: 8}}, {}]}, {name: c}]");
	conf_free(c);
}

static void unknown_keys_get_a_suggestion(void **state)
{
	(void)state;
	assert_string_equal(bad("name: a\nlisetn:\n  port: 1\n"),
			    "2:1: unknown key \"lisetn\"; did you mean \"listen\"?\n");
	assert_string_equal(bad("listen:\n  prot: 1\n"),
			    "2:3: unknown key \"listen.prot\"; did you mean \"listen.port\"?\n");
	assert_string_equal(
		bad("tunnel: {limits: {bufer: 1}}\n"),
		"1:19: unknown key \"tunnel.limits.bufer\"; did you mean \"tunnel.limits.buffer\"?\n");
	/* Right name, wrong place. */
	assert_string_equal(bad("ttl: 1h\n"), "1:1: unknown key \"ttl\"; did you mean \"identity.ttl\"?\n");
	assert_has(bad("listen.port: 1\n"), "1:1: unknown key \"listen.port\": the dot stands for a map");
	assert_string_equal(bad("listen:\n  completely-else: 1\n"),
			    "2:3: unknown key \"listen.completely-else\"\n");
	assert_string_equal(bad("peers: [{name: a, endpoint: []}]\n"),
			    "1:19: unknown key \"endpoint\"; did you mean \"endpoints\"?\n");
	assert_string_equal(bad("peers: [{name: a, via: [{nat: {prot: 1}}]}]\n"),
			    "1:32: unknown key \"nat.prot\"; did you mean \"nat.port\"?\n");
	assert_has(bad("? \"a\\u2028b\"\n: 1\n<<: 2\n"), "3:1: unknown key \"<<\"");
}

static void duplicates(void **state)
{
	(void)state;
	assert_string_equal(bad("name: a\nseeds: []\nname: b\n"),
			    "3:1: duplicate key \"name\": the first is in line 1\n");
	assert_has(bad("listen:\n  port: 1\n  port: 1\n"),
		   "3:3: duplicate key \"port\": the first is in line 2\n");
	assert_has(bad("listen: {port: 1}\nlisten: {backlog: 1}\n"), "2:1: duplicate key \"listen\"");
	assert_has(bad("peers: [{name: a, name: b}]\n"), "1:19: duplicate key \"name\"");
}

static void wrong_types(void **state)
{
	(void)state;
	assert_has(bad("name: [a]\n"), "1:7: name is not a text");
	assert_has(bad("name: {a: b}\n"), "1:7: name is not a text");
	assert_has(bad("name: null\n"), "1:7: name has no value");
	assert_has(bad("name: ~\n"), "name has no value");
	assert_has(bad("name:\nlog: {}\n"), "1:6: name has no value");
	assert_has(bad("seeds:\n"), "write [] for none");
	assert_has(bad("name: aaaaaaaaaaaaaaaaa\n"), "1:7: name: the text has 17 bytes, must have 1 to 16");
	assert_has(bad("name: ''\n"), "must have 1 to 16");
	assert_has(bad("name: \"a\\nb\"\n"), "one line without tabs");
	assert_has(bad("name: |\n  a\n"), "one line without tabs");
	assert_has(bad("name: \"a\\x1b[2J\"\n"), "1:7: the text contains a control character");
	assert_has(bad("name: \"a\\0b\"\n"), "1:7: the text contains a control character");
	assert_has(bad("log: {level: dbug}\n"),
		   "1:14: log.level: \"dbug\" is none of info|error|warn|debug; did you mean \"debug\"?");
	assert_has(bad("log: {level: completely}\n"), "\"completely\" is none of info|error|warn|debug\n");
	assert_has(bad("log: {colour: yes}\n"), "1:15: log.colour: \"yes\" is not true or false");
	assert_has(bad("log: {colour: \"true\"}\n"), "is not true or false");
	assert_has(bad("log: {colour: True}\n"), "is not true or false");
	assert_has(bad("log: 3\n"), "1:6: log is a map of keys, not a single value");
	assert_has(bad("log: [3]\n"), "1:6: log is a map of keys, not a list");
	assert_has(bad("log:\nname: a\n"), "log is a map of keys");
	assert_has(bad("- a\n"), "1:1: a configuration is a map");
	assert_has(bad("just text\n"), "1:1: a configuration is a map");
	assert_has(bad("seeds: a\n"), "1:8: seeds is not a list");
	assert_has(bad("seeds: {a: b}\n"), "seeds is not a list");
	assert_has(bad("seeds: [a, [b], {c: d}]\n"), "1:12: seeds: its items are texts, not lists");
	assert_has(bad("seeds: [a, [b], {c: d}]\n"), "1:17: seeds: its items are texts, not maps");
	assert_has(bad("seeds: [a, '']\n"), "each item is a text");
	assert_has(bad("seeds: [a, null]\n"), "each item is a text");
	assert_has(bad("seeds: [a, ~]\n"), "each item is a text");
	assert_has(bad("seeds: [a, b, c, d]\n"), "1:8: seeds has 4 items, must have 0 to 3");
	assert_has(bad("relays: []\n"), "relays has 0 items, must have 1 to 2");
	assert_has(bad("relays: [192.0.2.1]\n"), "relays: \"192.0.2.1\" has no port");
	assert_has(bad("relays: [192.0.2.1:0]\n"), "port 0 is not between 1 and 65535");
	assert_has(bad("peers: [a]\n"), "1:9: peers: its items are maps");
	assert_has(bad("peers: [{}]\n"), "1:9: name is missing: the peer's name");
	assert_has(bad("peers: [{name: a, endpoints: [x:1]}]\n"),
		   "1:31: endpoints: \"x:1\" is not an IP address");
	assert_has(bad("listen: {address: 1.2.3.4}\n"),
		   "1:19: listen.address: \"1.2.3.4\" has no port; write");
	assert_has(bad("listen: {address: \"1.2.3.4:0\"}\n"), "port 0 is not between 1 and 65535");
}

static void wrong_numbers(void **state)
{
	static const char *const ints[] = { "x",
					    "0x10",
					    "010",
					    "+1",
					    "1.0",
					    "1e3",
					    "1_000",
					    "-0",
					    "--1",
					    "1-",
					    "\"1\"",
					    "1 2",
					    "99999999999999999999",
					    "9223372036854775808",
					    "-" };
	static const char *const durations[] = { "20",
						 "s",
						 "1.5s",
						 "20 s",
						 "-1s",
						 "1h1h",
						 "1s1m",
						 "1hh",
						 "20S",
						 "0",
						 "1sx",
						 "01s",
						 "1msms",
						 "99999999999999999999s",
						 "9223372036854775808ns",
						 "300y" };
	static const char *const sizes[] = {
		"x",   "1K", "1KB", "1 KiB", "-1", "1.5MiB", "0x10", "99999999999999999999", "9000000000GiB",
		"KiB", "01"
	};
	char text[100];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ints); i++) {
		snprintf(text, sizeof(text), "listen: {backlog: %s}\n", ints[i]);
		assert_has(bad(text), "is not a whole number");
	}
	assert_has(bad("listen: {backlog: \"1\"}\n"), "(it is in quotes)");
	for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
		snprintf(text, sizeof(text), "identity: {ttl: %s}\n", durations[i]);
		assert_has(bad(text), "is not a duration; write a whole number with a unit");
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(text, sizeof(text), "tunnel: {limits: {buffer: %s}}\n", sizes[i]);
		assert_has(bad(text), "is not a size; write a whole number of bytes");
	}
	assert_has(bad("listen: {port: 0}\n"), "1:16: listen.port: 0 is not between 1 and 65535");
	assert_has(bad("listen: {port: 65536}\n"), "65536 is not between 1 and 65535");
	assert_has(bad("listen: {port: -1}\n"), "-1 is not between 1 and 65535");
	assert_has(bad("identity: {ttl: 999ms}\n"), "1:17: identity.ttl: 999ms is not between 1s and 30d");
	assert_has(bad("identity: {ttl: 31d}\n"), "31d is not between 1s and 30d");
	assert_has(bad("tunnel: {limits: {buffer: 1023}}\n"), "1023 is not at least 1KiB");
	conf_free(good("listen: {port: 65535}\n"));
	conf_free(good("identity: {ttl: 30d}\n"));
	conf_free(good("identity: {ttl: 1000ms}\n"));
	conf_free(good("tunnel: {limits: {buffer: 1KiB}}\n"));
}

static void durations_and_sizes(void **state)
{
	static const struct {
		const char *s;
		uint64_t ns;
	} d[] = { { "0s", 0 },
		  { "1ns", 1 },
		  { "1us", 1000 },
		  { "250ms", 250 * NS_PER_MS },
		  { "1h30m", 5400 * NS_PER_S },
		  { "2d3h4m5s6ms7us8ns", 183845006007008 },
		  { "9223372036854775807ns", INT64_MAX } };
	static const struct {
		const char *s;
		uint64_t bytes;
	} z[] = { { "0", 0 },	      { "7", 7 },	  { "7B", 7 },	       { "1kB", 1000 },
		  { "1KiB", 1024 },   { "3MB", 3000000 }, { "1MiB", 1 << 20 }, { "2GB", 2000000000 },
		  { "1GiB", 1 << 30 } };
	uint64_t v = 99;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(d); i++) {
		assert_int_equal(conf_duration_parse(d[i].s, &v, NULL), 0);
		assert_true(v == d[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(z); i++) {
		assert_int_equal(conf_size_parse(z[i].s, &v, NULL), 0);
		assert_true(v == z[i].bytes);
	}
	v = 99;
	assert_int_equal(conf_duration_parse("", &v, NULL), ERR_PARSE);
	assert_int_equal(conf_duration_parse("106752d", &v, NULL), ERR_PARSE);
	assert_int_equal(conf_size_parse("", &v, NULL), ERR_PARSE);
	assert_true(v == 99);
}

static void all_problems_at_once_in_order(void **state)
{
	char text[2000] = "", want[40];
	struct err e = { 0 };

	(void)state;
	assert_string_equal(bad("nmae: a\n"
				"listen:\n"
				"  port: 0\n"
				"  port: 70000\n"
				"peers:\n"
				"- {nam: x}\n"
				"seeds: &s [a]\n"
				"name: *s\n"),
			    "1:1: unknown key \"nmae\"; did you mean \"name\"?\n"
			    "3:9: listen.port: 0 is not between 1 and 65535\n"
			    "4:3: duplicate key \"port\": the first is in line 3\n"
			    "4:9: listen.port: 70000 is not between 1 and 65535\n"
			    "6:3: name is missing: the peer's name\n"
			    "6:4: unknown key \"nam\"; did you mean \"name\"?\n"
			    "7:8: anchors (&s) are not supported; write the value out\n"
			    "8:7: aliases (*s) are not supported; write the value out\n");
	assert_int_equal(problems.n, 8);
	assert_int_equal(yaml_problems_err(&problems, "x0.yaml", &e), ERR_CONFIG);
	assert_string_equal(e.what, "x0.yaml:1:1: unknown key \"nmae\"; did you mean \"name\"?");
	assert_has(e.todo, "the 7 other problems");
	for (int i = 0; i < 30; i++)
		sprintf(text + strlen(text), "key%d: 1\n", i);
	bad(text);
	assert_int_equal(problems.n, 30);
	snprintf(want, sizeof(want), "unknown key \"key%d\"", YAML_PROBLEMS - 1);
	assert_string_equal(problems.at[YAML_PROBLEMS - 1].text, want);
	bad("a: 1\nb: 1\n");
	yaml_problems_err(&problems, "f", &e);
	assert_has(e.todo, "the 1 other problem of");
	problems.n = 0;
	assert_int_equal(yaml_problems_err(&problems, "f", &e), 0);
}

static void hostile_yaml(void **state)
{
	char *big = malloc(YAML_TEXT_MAX + 100);
	size_t n;

	(void)state;
	/* The classic: a few lines that stand for 10^9 values. */
	assert_has(bad("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"), "1:4: anchors (&a)");
	assert_has(bad("seeds: [&a x]\n"), "anchors (&a)");
	assert_has(bad("peers: [&a {name: b}]\n"), "anchors (&a)");
	assert_has(bad("? *x\n: 1\n"), "aliases (*x)");
	assert_has(bad("name: !!str a\n"), "1:7: tags (tag:yaml.org,2002:str) are not supported");
	assert_has(bad("seeds: !x [a]\n"), "tags (!x)");
	assert_has(bad("peers: [!x {name: b}]\n"), "tags (!x)");
	assert_has(bad("name: a\n---\nname: b\n"), "2:1: a second document");
	assert_has(bad("? [a]\n: 1\n"), "1:3: keys are text");
	assert_has(bad("{a: 1}: 1\n"), "1:1: keys are text");
	assert_has(bad("\"\": 1\n"), "1:1: keys have 1 to 128 characters");
	assert_has(bad("\"a\\nb\": 1\n"), "keys have 1 to 128 characters, none of them control");
	assert_has(bad("name: \"a\n"),
		   "2:1: found unexpected end of stream while scanning a quoted scalar from line 1");
	assert_has(bad("name: a\n  b: c\n"), "2:4: mapping values are not allowed in this context\n");
	assert_has(bad("\tname: a\n"), "1:1: found character that cannot start any token");
	assert_has(bad("name: ]\n"), "1:7: did not find expected node content");
	assert_has(bad("seeds: [a\n"), "2:1: did not find expected ',' or ']' while parsing a flow sequence");
	assert_has(bad("%YAML 3.0\n---\nname: a\n"), "1:1: found incompatible YAML document");

	assert_has(bad_bytes("name: a\0b\n", 10), "1:8: control character U+0000");
	assert_has(bad("name: a\nseeds: [\x01]\n"), "2:9: control character U+0001");
	assert_has(bad("name: a\x7f\n"), "control character U+007F");
	assert_has(bad("name: \xc2\x84\n"), "control character U+0084");
	assert_has(bad("name: \xef\xbf\xbf\n"), "control character U+FFFF");
	assert_has(bad("name: \xe2\x82\xac \xff\n"), "1:9: byte 0xff is not UTF-8");
	assert_has(bad("name: \xe2\x82"), "1:7: byte 0xe2 is not UTF-8");
	assert_has(bad_bytes("\xff\xfen\0a\0", 6), "1:1: byte 0xff is not UTF-8");

	assert_has(bad("a: {b: {c: {d: {e: {f: {g: {h: {}}}}}}}}\n"), "1:32: nested deeper than 8 levels");
	memset(big, '[', 500000);
	assert_has(bad_bytes(big, 500000), "1:9: nested deeper than 8 levels");
	memset(big, '#', YAML_TEXT_MAX + 1);
	assert_has(bad_bytes(big, YAML_TEXT_MAX + 1),
		   "0:0: the file has 1048577 bytes, at most 1048576 are read");
	conf_free(good("#"));
	for (n = 0; n + 2 < YAML_TEXT_MAX; n += 2)
		memcpy(big + n, "-\n", 2);
	assert_has(bad_bytes(big, n), "50000:2: more than 50000 values in one file");
	n = 0;
	for (int i = 0; i < 2000; i++)
		n += (size_t)sprintf(big + n, "k%d: 1\n", i);
	assert_string_equal(bad_bytes(big, n), "1025:1: more than 1024 keys in one map\n");
	memset(big, 'k', 129);
	strcpy(big + 129, ": 1\n");
	assert_has(bad(big), "keys have 1 to 128 characters");
	free(big);
}

static void too_many_keys(void **state)
{
	char *big = malloc(100000);
	struct yaml_node *root = NULL;
	size_t n = 0;

	(void)state;
	for (int i = 0; i < YAML_KEYS_MAX; i++)
		n += (size_t)sprintf(big + n, "k%d: 1\n", i);
	problems.n = 0;
	assert_int_equal(yaml_tree_parse(big, n, &root, &problems), 0);
	assert_int_equal(root->n, YAML_KEYS_MAX);
	assert_string_equal(yaml_get(root, "k1000")->text, "1");
	assert_int_equal(yaml_get(root, "k1000")->line, 1001);
	assert_int_equal(yaml_get(root, "k1000")->column, 8);
	assert_null(yaml_get(root, "k"));
	assert_null(yaml_get(yaml_get(root, "k1"), "k"));
	assert_null(yaml_get(NULL, "k"));
	assert_null(yaml_tree_free(root));
	sprintf(big + n, "one-more: 1\n");
	root = NULL;
	assert_int_equal(yaml_tree_parse(big, strlen(big), &root, &problems), ERR_CONFIG);
	assert_null(root);
	assert_has(problems.at[0].text, "more than 1024 keys in one map");
	problems.n = 0;
	assert_int_equal(yaml_tree_parse("a: 1\na: 2\n", 10, &root, &problems), ERR_CONFIG);
	assert_null(root);
	free(big);
}

static void differences(void **state)
{
	struct conf *a = good("listen: {port: 1}\nidentity: {ttl: 60s}\nseeds: [a]\nname: x\n");
	struct conf *b = good("identity: {ttl: 1m}\nseeds: [a, b]\nname: \"x\"\npeers: [{name: p}]\n");
	struct conf_change c[ARRAY_SIZE(keys)];

	(void)state;
	assert_int_equal(conf_diff(a, a, c, ARRAY_SIZE(c)), 0);
	assert_int_equal(conf_diff(a, b, c, ARRAY_SIZE(c)), 3);
	assert_int_equal(c[0].id, K_PORT);
	assert_string_equal(c[0].key->path, "listen.port");
	assert_string_equal(c[0].before, "1");
	assert_string_equal(c[0].after, "7430");
	assert_false(c[0].key->reloadable);
	assert_int_equal(c[1].id, K_SEEDS);
	assert_string_equal(c[1].before, "[a]");
	assert_string_equal(c[1].after, "[a, b]");
	assert_true(c[1].key->reloadable);
	assert_string_equal(c[2].after, "[{name: p}]");
	memset(c, 0, sizeof(c));
	assert_int_equal(conf_diff(b, a, c, 1), 3);
	assert_string_equal(c[0].after, "1");
	assert_null(c[1].key);
	conf_free(a);
	conf_free(b);
}

static void checks_of_the_caller(void **state)
{
	struct conf *c = good("log:\n  level: warn\n");

	(void)state;
	conf_problem(c, K_LEVEL, &problems, "%s does not suit", conf_str(c, K_LEVEL));
	conf_problem(c, K_PORT, &problems, "port %d is taken", 7430);
	yaml_problems_sort(&problems);
	assert_int_equal(problems.n, 2);
	assert_int_equal(problems.at[0].line, 0); /* a default is nowhere in the file */
	assert_string_equal(problems.at[0].text, "listen.port: port 7430 is taken");
	assert_int_equal(problems.at[1].line, 2);
	assert_int_equal(problems.at[1].column, 10);
	assert_string_equal(problems.at[1].text, "log.level: warn does not suit");
	struct err e = { 0 };

	yaml_problems_err(&problems, "f.yaml", &e);
	assert_string_equal(e.what, "f.yaml: listen.port: port 7430 is taken");
	conf_free(c);
}

/* A default that cannot be read is our own fault and must not pass as a value. */
static void bad_defaults_are_told(void **state)
{
	static const struct conf_key k[] = { CONF_ROW(A, "a", DURATION, "20", 0, 0, true, "no unit") CONF_ROW(
		B, "b.c", INT, NULL, 0, 0, true, "must be given") };
	static const struct conf_schema s = { .keys = k, .n = ARRAY_SIZE(k) };
	struct conf *c = NULL;

	(void)state;
	assert_int_equal(conf_parse(&s, "", 0, &c, &problems), ERR_CONFIG);
	assert_null(c);
	assert_int_equal(problems.n, 2);
	assert_has(problems.at[0].text, "a: \"20\" is not a duration");
	assert_string_equal(problems.at[1].text, "b.c is missing: must be given");
	assert_int_equal(conf_parse(&s, "a: 1s\nb: {c: 1}\n", 16, &c, &problems), 0);
	conf_free(c);
}

/* Texts must survive being written out and read again, whatever is in them. */
static void canonical_text_reads_back(void **state)
{
	static const char *const names[] = {
		"a",  "true",	      "12",  "null", "~",  "-",	      "- a",	 "a: b", "a:",
		"#x", "x #y",	      "[a]", "{a}",  "\"", "'",	      "\\",	 "@a",	 "%a",
		"!a", "&a",	      "*a",  "|",    ">",  "a,b",     "/etc/x0", "::1",	 "*",
		"?",  "\xe2\x82\xac", "a b", " a ",  "-1", "\\u2028", "1.5",	 "=",	 "<<",
		"`",  "a@b",	      "...", "---",  ".",
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct conf *a, *b;
		const char *p = names[i];
		size_t n = (size_t)sprintf(text, "name: \"");

		for (; *p; p++) {
			if (*p == '"' || (*p == '\\' && p[1] != 'u'))
				text[n++] = '\\';
			text[n++] = *p;
		}
		strcpy(text + n, "\"\n");
		a = good(text);
		snprintf(text, sizeof(text), "{name: %s}\n", conf_text(a, K_NAME));
		b = good(text);
		assert_string_equal(conf_str(a, K_NAME), conf_str(b, K_NAME));
		conf_free(a);
		conf_free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(everything_written),
		cmocka_unit_test(unknown_keys_get_a_suggestion),
		cmocka_unit_test(duplicates),
		cmocka_unit_test(wrong_types),
		cmocka_unit_test(wrong_numbers),
		cmocka_unit_test(durations_and_sizes),
		cmocka_unit_test(all_problems_at_once_in_order),
		cmocka_unit_test(hostile_yaml),
		cmocka_unit_test(too_many_keys),
		cmocka_unit_test(differences),
		cmocka_unit_test(checks_of_the_caller),
		cmocka_unit_test(bad_defaults_are_told),
		cmocka_unit_test(canonical_text_reads_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
