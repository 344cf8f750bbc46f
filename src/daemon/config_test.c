/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <unistd.h>

#include "daemon/config.h"

static struct config *good(const char *text)
{
	struct config *c = NULL;
	struct err e = { 0 };

	if (config_parse("x0.yaml", text, strlen(text), &c, &e) != 0)
		fail_msg("%s", e.what);
	return c;
}

/* The error names place and remedy. */
static void bad(const char *text, const char *says)
{
	struct config *c = NULL;
	struct err e = { 0 };

	assert_int_equal(config_parse("x0.yaml", text, strlen(text), &c, &e), ERR_CONFIG);
	assert_null(c);
	if (!strstr(e.what, says) && !strstr(e.todo, says))
		fail_msg("'%s' does not say '%s'", e.what, says);
}

static void defaults(void **state)
{
	struct config *c = good("");

	(void)state;
	assert_string_equal(c->state_dir, "/var/lib/x0");
	assert_string_equal(c->identity_dir, "/var/lib/x0/node/identity");
	assert_string_equal(c->api_socket, "/run/x0/api.sock");
	assert_string_equal(c->user, "x0");
	assert_string_equal(c->issuer_user, "x0-issuer");
	assert_int_equal(c->listen.port, 7430);
	assert_int_equal(c->metrics.port, 9430);
	assert_in_range(c->workers, 1, 16);
	assert_int_equal(c->udp_payload, 1452);
	assert_int_equal(c->tun_mtu, 1452 - DATA_OVERHEAD);
	assert_int_equal(c->identity_ttl, 86400);
	assert_int_equal(c->session.rekey_after, 120 * NS_PER_S);
	assert_int_equal(c->npeers, 0);
	config_free(c);
}

static void values(void **state)
{
	struct config *c = good(
		"state_dir: /s\nrun_dir: /r\nuser: \"64500\"\nlisten: 192.0.2.1:9999\nworkers: 3\n"
		"tun: {name: x0b, mtu: 1300}\nlink: {mtu: 1280}\nlog: {level: warn, format: json}\n"
		"metrics: {listen: 'off'}\nidentity: {ttl: 20s}\nsession: {rekey_after: 1s, hard_stop: 3s}\n"
		"api: {socket: /tmp/s, group: 7}\n"
		"peers:\n  - {name: b, endpoints: ['192.0.2.2:7430', '[2001:db8::1]:1'], keep: true}\n  - "
		"name: c\n");

	(void)state;
	assert_string_equal(c->issuer_user, "64501");
	assert_string_equal(c->broker_socket, "/r/broker.sock");
	assert_string_equal(c->api_socket, "/tmp/s");
	assert_int_equal(c->api_group, 7);
	assert_int_equal(c->listen.port, 9999);
	assert_int_equal(c->workers, 3);
	assert_int_equal(c->tun_mtu, 1300);
	assert_int_equal(c->udp_payload, 1232);
	assert_int_equal(c->log_level, LOG_WARN);
	assert_int_equal(c->log_format, LOG_JSON);
	assert_int_equal(c->metrics.port, 0);
	assert_int_equal(c->identity_ttl, 20);
	assert_int_equal(c->session.rekey_after, NS_PER_S);
	assert_int_equal(c->npeers, 2);
	assert_string_equal(c->peers[0].name, "b");
	assert_int_equal(c->peers[0].nendpoints, 2);
	assert_int_equal(c->peers[0].endpoint[1].port, 1);
	assert_true(c->peers[0].keep);
	assert_int_equal(c->peers[1].nendpoints, 0);
	assert_false(c->peers[1].keep);
	config_free(c);
}

/* Inner IPv6 keeps its 1280 on any underlay. */
static void small_underlay(void **state)
{
	struct config *c = good("link: {mtu: 1280}\n");

	(void)state;
	assert_int_equal(c->tun_mtu, 1280);
	config_free(c);
}

static void refused(void **state)
{
	static const struct {
		const char *text, *says;
	} t[] = {
		{ "listn: 1\n", "listen" },
		{ "name: a\nname: b\n", "x0.yaml:2:1" },
		{ "workers: 17\n", "x0.yaml:1:10" },
		{ "workers: many\n", "x0.yaml:1:10" },
		{ "tun: {name: eth0}\n", "x0" },
		{ "tun: {mtu: 1000}\n", "1280" },
		{ "metrics: {listen: 0.0.0.0:9430}\n", "loopback" },
		{ "metrics: {listen: nonsense}\n", "metrics.listen" },
		{ "state_dir: var\n", "absolute" },
		{ "run_dir: run\n", "absolute" },
		{ "session: {rekey_after: 10s, hard_stop: 10s}\n", "hard_stop" },
		{ "session: {rekey_after: 100ms}\n", "rekey_after" },
		{ "session: {dial_retry_min: 2s, dial_retry_max: 1s}\n", "dial_retry_max" },
		{ "peers: [{name: a}, {name: a}]\n", "twice" },
		{ "peers: [{name: A_B}]\n", "node name" },
		{ "peers: [{endpoints: []}]\n", "name" },
		{ "peers: [{name: a, endpoints: ['example.org:1']}]\n", "x0.yaml:1:" },
		{ "trust_domain: Bad_Domain!\n", "trust_domain" },
		{ "identity: {ttl: 400d}\n", "ttl" },
		{ "\t- x", "x0.yaml:1:" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		bad(t[i].text, t[i].says);
}

static void load(void **state)
{
	char path[] = "/tmp/x0-config-test-XXXXXX";
	int fd = mkstemp(path);
	struct config *c = NULL;
	struct err e = { 0 };

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "name: n\n", 8), 8);
	close(fd);
	assert_int_equal(config_load(path, true, &c, &e), 0);
	assert_string_equal(c->name, "n");
	config_free(c);
	unlink(path);
	assert_int_equal(config_load(path, true, &c, &e), ERR_NOT_FOUND);
	assert_int_equal(config_load(path, false, &c, &e), 0);
	assert_string_equal(c->name, "");
	config_free(c);
	config_free(NULL);
}

static void diff(void **state)
{
	struct config *a = good("peers: [{name: b}]\n"),
		      *b = good("peers: [{name: c}]\nlog: {level: debug}\n");
	struct config *w = good("peers: [{name: b}]\nworkers: 2\n");
	struct config_diff d[8];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(config_diff(a, a, d, 8), 0);
	assert_int_equal(config_diff(a, b, d, 8), 2);
	assert_string_equal(d[0].path, "log.level");
	assert_string_equal(d[0].after, "debug");
	assert_true(d[0].reloadable && d[1].reloadable);
	assert_int_equal(config_reloadable(a, b, &e), 0);
	assert_int_equal(config_reloadable(a, w, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.what, "workers"));
	assert_non_null(strstr(e.what, "restart"));
	config_free(a);
	config_free(b);
	config_free(w);
}

/* What is printed is itself a configuration with the same meaning. */
static void print(void **state)
{
	struct config *a = good("listen: 192.0.2.1:1\npeers: [{name: b, keep: true}]\n");
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	(void)state;
	config_print(a, f);
	fclose(f);
	assert_non_null(strstr(text, "listen: 192.0.2.1:1\n"));
	assert_non_null(strstr(text, "workers: 0\n"));
	assert_non_null(strstr(text, "keep: true"));
	free(text);
	config_free(a);
}

static void users(void **state)
{
	uid_t uid = 0;
	gid_t gid = 0;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(config_user("64500", &uid, &gid, &e), 0);
	assert_int_equal(uid, 64500);
	assert_int_equal(gid, 64500);
	assert_int_equal(config_user("nobody", &uid, &gid, &e), 0);
	assert_int_equal(config_user("root", &uid, &gid, &e), ERR_CONFIG);
	assert_int_equal(config_user("0", &uid, &gid, &e), ERR_CONFIG);
	assert_int_equal(config_user("4294967295", &uid, &gid, &e), ERR_CONFIG);
	assert_int_equal(config_user("x0-no-such-user", &uid, &gid, &e), ERR_CONFIG);
	assert_non_null(strstr(e.todo, "useradd"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults), cmocka_unit_test(values), cmocka_unit_test(small_underlay),
		cmocka_unit_test(refused),  cmocka_unit_test(load),   cmocka_unit_test(diff),
		cmocka_unit_test(print),    cmocka_unit_test(users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
