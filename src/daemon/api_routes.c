/* SPDX-License-Identifier: Apache-2.0 */
/* The API's table of routes, and those that only read. All of it runs on the control thread. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/api_actions.h"
#include "daemon/control.h"

#ifndef X0_VERSION
#define X0_VERSION "dev"
#endif

static void add_addr(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const uint8_t addr[16])
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, addr, text, sizeof(text));
	yyjson_mut_obj_add_strcpy(d, o, key, text);
}

/* ---- peers ---- */

struct count {
	unsigned state[SESS_FAILED + 1];
};

static void count_peer(void *arg, const struct sess_peer_info *p)
{
	struct count *k = arg;

	k->state[p->state]++;
}

struct list {
	struct control *c;
	yyjson_mut_doc *doc;
	yyjson_mut_val *arr;
};

static void add_text(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const char *v)
{
	yyjson_mut_obj_add_strcpy(d, o, key, v ? v : "");
}

static void add_peer(void *arg, const struct sess_peer_info *p)
{
	static const char *const state[] = { "idle", "dialing", "handshake", "up", "failed" };
	struct list *l = arg;
	yyjson_mut_doc *d = l->doc;
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, l->arr);
	const char *name = spiffe_id_node_name(&p->id);
	struct dp_session_stats st = { 0 };
	char path[ENDPOINT_TEXT] = "";
	uint64_t now = loop_now(l->c->loop);
	bool up = p->session != 0;

	if (up)
		dp_session_stats(l->c->dp, p->session, &st);
	if (p->path.port)
		endpoint_text(&p->path, path);
	add_text(d, o, "name", name ? name : p->id.uri);
	add_text(d, o, "id", p->id.uri);
	add_addr(d, o, "address", p->addr);
	add_text(d, o, "state", state[p->state]);
	add_text(d, o, "path", path);
	yyjson_mut_obj_add_uint(d, o, "frame_max", p->frame_max);
	yyjson_mut_obj_add_real(d, o, "rtt_ms", (double)p->rtt_ns / 1e6);
	yyjson_mut_obj_add_real(d, o, "handshake_ms", (double)p->handshake_ns / 1e6);
	add_text(d, o, "group", up ? p->group : "");
	add_text(d, o, "signature", up ? p->signature : "");
	add_text(d, o, "cipher", up ? p->cipher : "");
	yyjson_mut_obj_add_uint(d, o, "session", p->session);
	yyjson_mut_obj_add_uint(d, o, "epoch", p->epoch);
	yyjson_mut_obj_add_real(d, o, "up_s",
				up && now > p->up_since ? (double)(now - p->up_since) / 1e9 : 0);
	yyjson_mut_obj_add_uint(d, o, "tx_packets", st.tx_packets);
	yyjson_mut_obj_add_uint(d, o, "tx_bytes", st.tx_bytes);
	yyjson_mut_obj_add_uint(d, o, "rx_packets", st.rx_packets);
	yyjson_mut_obj_add_uint(d, o, "rx_bytes", st.rx_bytes);
	yyjson_mut_obj_add_uint(d, o, "replays", st.replays);
	yyjson_mut_obj_add_uint(d, o, "auth_failures", st.auth_failures);
	yyjson_mut_obj_add_int(d, o, "svid_not_after", p->svid_not_after);
	add_text(d, o, "last_error", p->last_error);
}

static void get_peers(struct control *c, struct api_request *r)
{
	struct list l = { .c = c };
	yyjson_mut_val *root;

	l.doc = api_doc("Peers", &root);
	l.arr = yyjson_mut_obj_add_arr(l.doc, root, "peers");
	sess_peers(c->sess, add_peer, &l);
	api_reply_json(r, 200, l.doc);
}

/* ---- status ---- */

static void add_counters(struct control *c, yyjson_mut_doc *d, yyjson_mut_val *root)
{
	yyjson_mut_val *o = yyjson_mut_obj_add_obj(d, root, "tunnel");
	struct dp_counters dc;
	struct sess_counters sc;

	dp_counters(c->dp, &dc);
#define X(name, metric, help) yyjson_mut_obj_add_uint(d, o, #name, dc.name);
#include "tunnel/counters.def"
#undef X
	sess_counters(c->sess, &sc);
	o = yyjson_mut_obj_add_obj(d, root, "sessions");
#define X(name, metric, help) yyjson_mut_obj_add_uint(d, o, #name, sc.name);
#include "session/counters.def"
#undef X
}

static void get_status(struct control *c, struct api_request *r)
{
	const struct bundle *b = c->self->bundle;
	const char *name = spiffe_id_node_name(&c->self->id);
	char text[ENDPOINT_TEXT];
	struct count n = { 0 };
	yyjson_mut_val *root;
	yyjson_mut_doc *d = api_doc("Status", &root);

	sess_peers(c->sess, count_peer, &n);
	add_text(d, root, "version", X0_VERSION);
	add_text(d, root, "name", name);
	add_text(d, root, "id", c->self->id.uri);
	add_text(d, root, "trust_domain", b->trust_domain);
	add_addr(d, root, "address", c->self->addr);
	yyjson_mut_obj_add_int(d, root, "svid_not_after", c->self->not_after);
	yyjson_mut_obj_add_int(d, root, "svid_expires_s", c->self->not_after - control_wall(c));
	yyjson_mut_obj_add_uint(d, root, "bundle", b->number);
	yyjson_mut_obj_add_uint(d, root, "revocations", b->nrevoked + (b->also ? b->also->nrevoked : 0));
	yyjson_mut_obj_add_bool(d, root, "issuer", c->issuer != NULL);
	add_text(d, root, "device", c->tun.name);
	yyjson_mut_obj_add_uint(d, root, "mtu", c->cfg->tun_mtu);
	add_text(d, root, "listen", endpoint_text(&c->cfg->listen, text));
	yyjson_mut_obj_add_uint(d, root, "workers", c->cfg->workers);
	yyjson_mut_obj_add_bool(d, root, "adopted", c->tun.kept);
	yyjson_mut_obj_add_real(d, root, "uptime_s", (double)(loop_now(c->loop) - c->started) / 1e9);
	yyjson_mut_obj_add_bool(d, root, "config_unconfirmed", c->before != NULL);
	yyjson_mut_obj_add_uint(d, root, "peers_up", n.state[SESS_UP]);
	yyjson_mut_obj_add_uint(d, root, "peers",
				n.state[SESS_IDLE] + n.state[SESS_DIALING] + n.state[SESS_HANDSHAKE] +
					n.state[SESS_UP] + n.state[SESS_FAILED]);
	add_counters(c, d, root);
	api_reply_json(r, 200, d);
}

static void add_serial(yyjson_mut_doc *d, yyjson_mut_val *o, X509 *x)
{
	char *s = i2s_ASN1_INTEGER(NULL, X509_get0_serialNumber(x));
	uint8_t hash[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];

	add_text(d, o, "serial", s);
	OPENSSL_free(s);
	add_text(d, o, "algorithm", OBJ_nid2sn(X509_get_signature_nid(x)));
	if (key_pub_hash(X509_get0_pubkey(x), hash) == 0) {
		hex_encode(hex, hash, SHA256_LEN);
		add_text(d, o, "key_sha256", hex);
	}
}

static void get_identity(struct control *c, struct api_request *r)
{
	const struct bundle *b = c->self->bundle;
	char hex[2 * SHA256_LEN + 1];
	yyjson_mut_val *root, *o, *a;
	yyjson_mut_doc *d = api_doc("Identity", &root);

	add_text(d, root, "id", c->self->id.uri);
	add_addr(d, root, "address", c->self->addr);
	yyjson_mut_obj_add_int(d, root, "not_after", c->self->not_after);
	yyjson_mut_obj_add_int(d, root, "expires_s", c->self->not_after - control_wall(c));
	yyjson_mut_obj_add_int(d, root, "renew_at", node_identity_renew_at(c->self));
	add_serial(d, yyjson_mut_obj_add_obj(d, root, "link"), c->self->link);
	add_serial(d, yyjson_mut_obj_add_obj(d, root, "spiffe"), c->self->spiffe);
	o = yyjson_mut_obj_add_obj(d, root, "bundle");
	yyjson_mut_obj_add_uint(d, o, "number", b->number);
	hex_encode(hex, b->hash, SHA256_LEN);
	add_text(d, o, "sha256", hex);
	yyjson_mut_obj_add_uint(d, o, "link_roots", b->nlink_roots);
	yyjson_mut_obj_add_uint(d, o, "spiffe_roots", b->nspiffe_roots);
	a = yyjson_mut_obj_add_arr(d, o, "revoked");
	for (const struct bundle *x = b; x; x = x->also)
		for (size_t i = 0; i < x->nrevoked; i++)
			yyjson_mut_arr_add_strcpy(d, a, x->revoked[i].uri);
	api_reply_json(r, 200, d);
}

static void get_live(struct control *c, struct api_request *r)
{
	yyjson_mut_val *root;

	(void)c;
	api_reply_json(r, 200, api_doc("Live", &root));
}

static void get_ready(struct control *c, struct api_request *r)
{
	struct err e = { 0 };
	yyjson_mut_val *root;

	if (c->ready && c->self->not_after > control_wall(c)) {
		api_reply_json(r, 200, api_doc("Ready", &root));
		return;
	}
	err_set(&e, ERR_UNREACHABLE, "%s", c->ready ? "this node's SVID has expired" : "starting");
	api_reply_err(r, &e);
}

static void get_config(struct control *c, struct api_request *r)
{
	yyjson_mut_val *root;
	yyjson_mut_doc *d = api_doc("Config", &root);
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (f) {
		config_print(c->cfg, f);
		fclose(f);
	}
	add_text(d, root, "text", c->cfg->text);
	add_text(d, root, "effective", text);
	yyjson_mut_obj_add_bool(d, root, "unconfirmed", c->before != NULL);
	free(text);
	api_reply_json(r, 200, d);
}

static void get_doctor(struct control *c, struct api_request *r)
{
	struct doctor *doc = calloc(1, sizeof(*doc));
	yyjson_mut_val *root, *a;
	yyjson_mut_doc *d = api_doc("Doctor", &root);

	a = yyjson_mut_obj_add_arr(d, root, "checks");
	if (doc)
		doctor_daemon(doc, c);
	for (unsigned i = 0; doc && i < doc->n; i++) {
		yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, a);

		add_text(d, o, "name", doc->check[i].name);
		add_text(d, o, "status", doctor_status_name(doc->check[i].status));
		add_text(d, o, "detail", doc->check[i].detail);
		add_text(d, o, "todo", doc->check[i].todo);
	}
	free(doc);
	api_reply_json(r, 200, d);
}

/* ---- metrics ---- */

/* /proc/self/fd is closed to a process that may not be dumped. */
static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int i = 0; i < 1024; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

static uint64_t resident(void)
{
	unsigned long size, rss = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%lu %lu", &size, &rss) != 2)
			rss = 0;
		fclose(f);
	}
	return (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void get_metrics(struct control *c, struct api_request *r)
{
	struct metrics m = { .handshakes = c->handshakes,
			     .svid_not_after = c->self->not_after,
			     .bundle_number = c->self->bundle->number,
			     .uptime = (double)(loop_now(c->loop) - c->started) / 1e9,
			     .clock_offset = (double)c->clock_off_ns / 1e9,
			     .clock_known = c->clock_known,
			     .issuer = c->issuer != NULL,
			     .issuer_up = c->issuer && issuer_client_up(c->issuer),
			     .rss = resident(),
			     .open_fds = open_fds(),
			     .version = X0_VERSION };
	struct count n = { 0 };
	struct rusage u;
	struct err e = { 0 };
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f) {
		err_set(&e, ERR_NOMEM, "no memory for the metrics");
		api_reply_err(r, &e);
		return;
	}
	sess_counters(c->sess, &m.sess);
	dp_counters(c->dp, &m.dp);
	sess_peers(c->sess, count_peer, &n);
	memcpy(m.peers, n.state, sizeof(m.peers));
	getrusage(RUSAGE_SELF, &u);
	m.cpu_seconds = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
			(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	metrics_print(&m, f);
	fclose(f);
	api_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", text, len);
}

/* ---- dispatch ---- */

static const struct {
	const char *method, *path;
	void (*fn)(struct control *c, struct api_request *r);
	bool early; /* also before the daemon is ready */
} routes[] = {
	{ "GET", "/metrics", get_metrics, false },
	{ "GET", "/api/v1/metrics", get_metrics, false },
	{ "GET", "/api/v1/livez", get_live, true },
	{ "GET", "/api/v1/readyz", get_ready, true },
	{ "GET", "/api/v1/status", get_status, false },
	{ "GET", "/api/v1/peers", get_peers, false },
	{ "GET", "/api/v1/identity", get_identity, false },
	{ "GET", "/api/v1/config", get_config, false },
	{ "GET", "/api/v1/doctor", get_doctor, false },
	{ "GET", "/api/v1/nodes", action_nodes, false },
	{ "POST", "/api/v1/ping", action_ping, false },
	{ "POST", "/api/v1/peers/rekey", action_rekey, false },
	{ "POST", "/api/v1/identity/renew", action_renew, false },
	{ "POST", "/api/v1/ca/tokens", action_token, false },
	{ "POST", "/api/v1/ca/revocations", action_revoke, false },
	{ "POST", "/api/v1/ca/issuers", action_add_issuer, false },
	{ "GET", "/api/v1/ca/roots", action_roots, false },
	{ "POST", "/api/v1/nodes/remove", action_remove, false },
	{ "POST", "/api/v1/config", action_config, false },
	{ "POST", "/api/v1/config/confirm", action_confirm, false },
	{ "POST", "/api/v1/shutdown", action_shutdown, false },
};

void api_route(struct control *c, struct api_request *r)
{
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (strcmp(routes[i].path, r->path))
			continue;
		if (strcmp(routes[i].method, r->method)) {
			size_t n = strlen(r->allow);

			snprintf(r->allow + n, sizeof(r->allow) - n, "%s%s", n ? ", " : "", routes[i].method);
			continue;
		}
		r->allow[0] = 0;
		if (!c->ready && !routes[i].early) {
			err_set(&e, ERR_UNREACHABLE, "the daemon is starting or stopping");
			api_reply_err(r, &e);
			return;
		}
		routes[i].fn(c, r);
		return;
	}
	if (r->allow[0]) {
		api_reply_method(r);
		return;
	}
	err_set(&e, ERR_NOT_FOUND, "there is no %s", r->path);
	api_reply_err(r, &e);
}
