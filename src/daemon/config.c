/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"

enum {
#define X(id, ...) K_##id,
#include "../../schema/config.def"
#undef X
};
enum {
#define X(id, ...) P_##id,
#include "../../schema/config_peer.def"
#undef X
};

static const struct conf_key keys[] = {
#define X CONF_ROW
#include "../../schema/config.def"
#undef X
};
static const struct conf_key peer_keys[] = {
#define X CONF_ROW
#include "../../schema/config_peer.def"
#undef X
};
static const struct conf_schema peer_schema = { peer_keys, ARRAY_SIZE(peer_keys), NULL, 0 };
static const struct conf_sub subs[] = { { "peers", &peer_schema } };
const struct conf_schema config_schema = { keys, ARRAY_SIZE(keys), subs, ARRAY_SIZE(subs) };

static bool is_number(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

int config_user(const char *user, uid_t *ret_uid, gid_t *ret_gid, struct err *e)
{
	const struct passwd *pw;

	if (is_number(user)) {
		unsigned long n = strtoul(user, NULL, 10);

		if (n == 0 || n >= UINT32_MAX)
			return err_set(e, ERR_CONFIG, "user %s is not possible: choose one without rights",
				       user);
		*ret_uid = (uid_t)n;
		*ret_gid = (gid_t)n;
		return 0;
	}
	errno = 0;
	pw = getpwnam(user);
	if (!pw) {
		err_set(e, ERR_CONFIG, "there is no user '%s'", user);
		return err_todo(e, "make it: useradd --system --no-create-home %s; or set user: to a number",
				user);
	}
	if (pw->pw_uid == 0)
		return err_set(e, ERR_CONFIG, "user '%s' is root: choose one without rights", user);
	*ret_uid = pw->pw_uid;
	*ret_gid = pw->pw_gid;
	return 0;
}

static unsigned cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return n < 1 ? 1 : n > 16 ? 16 : (unsigned)n;
}

/* Checks beyond the schema; each adds a problem with its place. */
static void check(struct config *c, struct yaml_problems *pr)
{
	const struct conf *f = c->conf;
	const char *m = conf_str(f, K_METRICS);
	struct err e = { 0 };
	struct spiffe_id id;
	int64_t mtu = conf_int(f, K_TUN_MTU);

	if (*c->trust_domain && spiffe_id_node(c->trust_domain, *c->name ? c->name : "x", &id, &e) < 0)
		conf_problem(f, K_TRUST_DOMAIN, pr, "trust_domain or name: %s", e.what);
	if (strncmp(c->tun_name, "x0", 2))
		conf_problem(f, K_TUN_NAME, pr, "tun.name must start with x0");
	if (mtu && mtu < 1280)
		conf_problem(f, K_TUN_MTU, pr, "tun.mtu must be at least 1280 (or 0)");
	if (conf_dur(f, K_S_STOP) <= conf_dur(f, K_S_REKEY))
		conf_problem(f, K_S_STOP, pr, "session.hard_stop must be longer than session.rekey_after");
	if (conf_dur(f, K_S_RETRY_MAX) < conf_dur(f, K_S_RETRY_MIN))
		conf_problem(f, K_S_RETRY_MAX, pr,
			     "session.dial_retry_max is shorter than session.dial_retry_min");
	if (*c->state_dir != '/')
		conf_problem(f, K_STATE_DIR, pr, "state_dir must be an absolute path");
	if (*c->run_dir != '/')
		conf_problem(f, K_RUN_DIR, pr, "run_dir must be an absolute path");
	if (!strcmp(m, "off") || !*m)
		return;
	if (endpoint_parse(m, 9430, &c->metrics, &e) < 0)
		conf_problem(f, K_METRICS, pr, "metrics.listen: %s", e.what);
	else if (!(endpoint_is_v4(&c->metrics) ? c->metrics.addr[12] == 127
					       : !memcmp(c->metrics.addr, &in6addr_loopback, 16)))
		conf_problem(f, K_METRICS, pr,
			     "metrics.listen must be a loopback address: it has no authentication");
}

static void session_params(struct config *c)
{
	const struct conf *f = c->conf;

	sess_params_default(&c->session);
	c->session.rekey_after = conf_dur(f, K_S_REKEY);
	c->session.rekey_idle = conf_dur(f, K_S_IDLE);
	c->session.hard_stop = conf_dur(f, K_S_STOP);
	c->session.old_keys_live = conf_dur(f, K_S_OLD);
	c->session.keepalive = conf_dur(f, K_S_ALIVE);
	c->session.dead_after = conf_dur(f, K_S_DEAD);
	c->session.dial_retry_min = conf_dur(f, K_S_RETRY_MIN);
	c->session.dial_retry_max = conf_dur(f, K_S_RETRY_MAX);
}

static int read_peers(struct config *c, struct yaml_problems *pr, struct err *e)
{
	struct spiffe_id id;

	c->npeers = conf_count(c->conf, K_PEERS);
	c->peers = calloc(c->npeers + 1, sizeof(*c->peers));
	if (!c->peers)
		return err_set(e, ERR_NOMEM, "no memory for the peers");
	for (size_t i = 0; i < c->npeers; i++) {
		const struct conf *m = conf_maps_at(c->conf, K_PEERS, i);
		struct config_peer *p = &c->peers[i];

		p->name = conf_str(m, P_NAME);
		p->keep = conf_bool(m, P_KEEP);
		p->nendpoints = (unsigned)conf_count(m, P_ENDPOINTS);
		for (unsigned k = 0; k < p->nendpoints; k++)
			p->endpoint[k] = *conf_endpoints_at(m, P_ENDPOINTS, k);
		if (spiffe_id_node("x", p->name, &id, NULL) < 0)
			conf_problem(m, P_NAME, pr, "'%s' is no node name: 1-63 of a-z, 0-9 and '-'",
				     p->name);
		for (size_t k = 0; k < i; k++)
			if (!strcmp(c->peers[k].name, p->name))
				conf_problem(m, P_NAME, pr, "peer '%s' is there twice", p->name);
	}
	return 0;
}

static void resolve(struct config *c)
{
	static const enum log_level level[] = { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
	static const char *const names[] = { "error", "warn", "info", "debug" };
	const struct conf *f = c->conf;
	unsigned long payload = (unsigned long)conf_int(f, K_LINK_MTU) - 48; /* IPv6 and UDP headers */
	const char *user = conf_str(f, K_ISSUER_USER);

	c->trust_domain = conf_str(f, K_TRUST_DOMAIN);
	c->name = conf_str(f, K_NAME);
	c->state_dir = conf_str(f, K_STATE_DIR);
	c->run_dir = conf_str(f, K_RUN_DIR);
	c->user = conf_str(f, K_USER);
	c->tun_name = conf_str(f, K_TUN_NAME);
	c->password_file = conf_str(f, K_ISSUER_PASSWORD);
	if (*user)
		snprintf(c->issuer_user, sizeof(c->issuer_user), "%s", user);
	else if (is_number(c->user))
		snprintf(c->issuer_user, sizeof(c->issuer_user), "%lu", strtoul(c->user, NULL, 10) + 1);
	else
		snprintf(c->issuer_user, sizeof(c->issuer_user), "x0-issuer");
	/* The schema bounds both directories so that these fit, sockets in 107 bytes too. */
	snprintf(c->identity_dir, CONFIG_PATH, "%s/node/identity", c->state_dir);
	snprintf(c->authority_dir, CONFIG_PATH, "%s/authority", c->state_dir);
	snprintf(c->seeds, CONFIG_PATH, "%s/node/seeds", c->state_dir);
	snprintf(c->issuer_socket, CONFIG_PATH, "%s/issuer.sock", c->run_dir);
	snprintf(c->broker_socket, CONFIG_PATH, "%s/broker.sock", c->run_dir);
	if (*conf_str(f, K_API_SOCKET))
		snprintf(c->api_socket, CONFIG_PATH, "%s", conf_str(f, K_API_SOCKET));
	else
		snprintf(c->api_socket, CONFIG_PATH, "%s/api.sock", c->run_dir);
	c->listen = *conf_endpoint(f, K_LISTEN);
	c->workers = conf_int(f, K_WORKERS) ? (unsigned)conf_int(f, K_WORKERS) : cores();
	c->udp_payload = payload > FRAME_MAX ? FRAME_MAX : (unsigned)payload;
	c->tun_mtu = (unsigned)conf_int(f, K_TUN_MTU);
	if (!c->tun_mtu)
		c->tun_mtu = c->udp_payload - DATA_OVERHEAD;
	if (c->tun_mtu < 1280)
		c->tun_mtu = 1280; /* IPv6 needs it; such packets travel as two frames */
	c->log_format = !strcmp(conf_str(f, K_LOG_FORMAT), "json") ? LOG_JSON : LOG_TEXT;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(conf_str(f, K_LOG_LEVEL), names[i]))
			c->log_level = level[i];
	c->identity_ttl = (int64_t)(conf_dur(f, K_ID_TTL) / NS_PER_S);
	c->api_group = (uint32_t)conf_int(f, K_API_GROUP);
	session_params(c);
}

int config_parse(const char *file, const void *text, size_t n, struct config **ret, struct err *e)
{
	struct config *c = calloc(1, sizeof(*c));
	struct yaml_problems pr = { 0 };
	int rc;

	if (!c || !(c->text = malloc(n + 1))) {
		free(c);
		return err_set(e, ERR_NOMEM, "no memory for the configuration");
	}
	memcpy(c->text, text, n);
	c->text[n] = 0;
	c->text_n = n;
	rc = conf_parse(&config_schema, text, n, &c->conf, &pr);
	if (!rc) {
		resolve(c);
		rc = read_peers(c, &pr, e);
		check(c, &pr);
	}
	yaml_problems_sort(&pr);
	if (pr.n)
		rc = yaml_problems_err(&pr, file, e);
	if (rc) {
		if (e && !e->code)
			err_set(e, rc, "cannot read %s", file);
		config_free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int config_load(const char *path, bool must_exist, struct config **ret, struct err *e)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc;

	if (!must_exist && access(path, F_OK) && errno == ENOENT)
		return config_parse(path, "", 0, ret, e);
	rc = file_read(path, CONFIG_TEXT_MAX, &p, &n, e);
	if (rc)
		return rc;
	rc = config_parse(path, p, n, ret, e);
	free(p);
	return rc;
}

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	conf_free(c->conf);
	free(c->text);
	free(c->peers);
	free(c);
	return NULL;
}

size_t config_diff(const struct config *a, const struct config *b, struct config_diff *to, size_t cap)
{
	struct conf_change ch[ARRAY_SIZE(keys)];
	size_t n = conf_diff(a->conf, b->conf, ch, ARRAY_SIZE(ch));

	for (size_t i = 0; i < n && i < cap; i++)
		to[i] = (struct config_diff){ ch[i].key->path, ch[i].before, ch[i].after,
					      ch[i].key->reloadable };
	return n;
}

int config_reloadable(const struct config *from, const struct config *to, struct err *e)
{
	struct config_diff d[ARRAY_SIZE(keys)];
	size_t n = config_diff(from, to, d, ARRAY_SIZE(d));

	for (size_t i = 0; i < n; i++)
		if (!d[i].reloadable) {
			err_set(e, ERR_CONFLICT,
				"%s needs a restart to change (%.80s to %.80s); nothing was applied",
				d[i].path, d[i].before, d[i].after);
			return err_todo(e, "change the file and run x0 down, then x0 up");
		}
	return 0;
}

void config_print(const struct config *c, FILE *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		fprintf(f, "%s: %s\n", keys[i].path, conf_text(c->conf, i));
}
