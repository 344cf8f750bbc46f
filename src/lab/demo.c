/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yyjson.h>

#include "identity/identity.h"
#include "wire/wire.h"
#include "lab/flow.h"
#include "lab/lab.h"

/*
 * DOC: demo
 *
 * Three hosts join by token and link up; then each scene asserts one thing a user relies on and prints what
 * it measured. A scene passes only if it saw what it claims: no line is printed before its check. The scenes
 * run in a child, the parent cleans up whatever happens to it.
 */

#define TUN "x0"

struct demo {
	struct lab lab;
	struct demo_opts o;
	char addr[3][INET6_ADDRSTRLEN]; /* overlay addresses of the three hosts */
	unsigned passed, failed;
	yyjson_mut_doc *doc;
	yyjson_mut_val *scenes;
};

struct scene_result {
	double value;
	const char *unit;
	char detail[400];
};

static const char *const colour_ok = "\033[32m", *const colour_bad = "\033[31m",
			 *const colour_off = "\033[0m";

static void scene_print(struct demo *d, const char *name, bool ok, const struct scene_result *r)
{
	yyjson_mut_val *v = yyjson_mut_arr_add_obj(d->doc, d->scenes);

	*(ok ? &d->passed : &d->failed) += 1;
	yyjson_mut_obj_add_strcpy(d->doc, v, "name", name);
	yyjson_mut_obj_add_bool(d->doc, v, "ok", ok);
	yyjson_mut_obj_add_real(d->doc, v, "value", r->value);
	yyjson_mut_obj_add_strcpy(d->doc, v, "unit", r->unit ? r->unit : "");
	yyjson_mut_obj_add_strcpy(d->doc, v, "detail", r->detail);
	printf("%s%-4s%s %-12s %s\n", d->o.colour ? (ok ? colour_ok : colour_bad) : "", ok ? "ok" : "FAIL",
	       d->o.colour ? colour_off : "", name, r->detail);
	fflush(stdout);
}

/* One sample of the host's /metrics by its full name with labels; negative if it is not there. */
static double metric(const char *host, const char *name)
{
	static char buf[256 * 1024];
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(9430),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = lab_socket(host, AF_INET, SOCK_STREAM, NULL);
	const char get[] = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
	size_t n = 0, len = strlen(name);
	ssize_t k;

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && write(fd, get, sizeof(get) - 1) > 0)
		while (n < sizeof(buf) - 1 && (k = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
			n += (size_t)k;
	close(fd);
	buf[n] = 0;
	for (const char *s = buf; (s = strstr(s, name)) != NULL; s += len)
		if ((s == buf || s[-1] == '\n') && s[len] == ' ')
			return strtod(s + len, NULL);
	return -1;
}

static yyjson_doc *ask(struct demo *d, unsigned host, const char *noun, struct err *e)
{
	static char out[LAB_OUT];
	yyjson_doc *doc;

	if (lab_x0(&d->lab, d->lab.host[host], out, sizeof(out), e, noun, "--json", NULL) != 0)
		return NULL;
	doc = yyjson_read(out, strlen(out), 0);
	if (!doc)
		err_set(e, ERR_PARSE, "x0 %s --json printed no JSON", noun);
	return doc;
}

static const char *text(yyjson_val *v, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(v, key));

	return s ? s : "";
}

/* Waits until every host has an open session with every other. */
static int wait_links(struct demo *d, unsigned timeout_ms, struct err *e)
{
	uint64_t end = clock_mono_ns() + timeout_ms * NS_PER_MS;

	for (;;) {
		unsigned up = 0;

		for (unsigned i = 0; i < d->lab.nhosts; i++) {
			yyjson_doc *doc = ask(d, i, "peers", e);
			size_t k, max;
			yyjson_val *p;

			yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "peers"), k, max, p)
				up += strcmp(text(p, "state"), "up") == 0;
			yyjson_doc_free(doc);
		}
		if (up == d->lab.nhosts * (d->lab.nhosts - 1))
			return 0;
		if (clock_mono_ns() > end)
			return err_set(e, ERR_TIMEOUT, "%u of %u sessions came up", up,
				       d->lab.nhosts * (d->lab.nhosts - 1));
		usleep(20 * 1000);
	}
}

static int scene_handshake(struct demo *d, struct scene_result *r, struct err *e)
{
	yyjson_doc *doc;
	yyjson_val *p;
	size_t k, max;
	int rc = 0;

	if (wait_links(d, 10000, e) != 0)
		return e->code;
	doc = ask(d, 0, "peers", e);
	if (!doc)
		return e->code;
	r->unit = "ms";
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "peers"), k, max, p) {
		const char *group = text(p, "group"), *sig = text(p, "signature");

		r->value = yyjson_get_num(yyjson_obj_get(p, "handshake_ms"));
		if (strcmp(group, "X25519MLKEM768") != 0 || strcasecmp(sig, "mldsa65") != 0)
			rc = err_set(e, ERR_CHECK, "%s negotiated %s and %s", text(p, "name"), group, sig);
		str_fmt(r->detail, sizeof(r->detail), "a with %s: %s, %s, %s, %.1f ms", text(p, "id"), group,
			sig, text(p, "cipher"), r->value);
	}
	if (max != 2)
		rc = err_set(e, ERR_CHECK, "host a has %zu peers, not 2", max);
	yyjson_doc_free(doc);
	return rc;
}

static int scene_ping(struct demo *d, struct scene_result *r, struct err *e)
{
	struct flow_pings over = { 0 }, bare = { 0 };
	uint8_t needle[16] = "x0 demo ping";
	char addr[24];
	int rc = flow_ping("a", "b", d->addr[1], 5000, 1000, needle, NULL, NULL, &over, e);

	if (rc == 0)
		rc = lab_underlay(&d->lab, "a", "b", addr);
	if (rc == 0)
		rc = flow_ping("a", "b", addr, 5000, 500, needle, NULL, NULL, &bare, e);
	if (rc != 0)
		return rc;
	r->value = over.rtt_ms * 1000;
	r->unit = "us";
	str_fmt(r->detail, sizeof(r->detail),
		"%u of %u answered, median round trip %.0f us (bare link %.0f us)", over.received, over.sent,
		over.rtt_ms * 1000, bare.rtt_ms * 1000);
	return over.sent > 100 && over.received == over.sent
		       ? 0
		       : err_set(e, ERR_CHECK, "%u of %u pings answered", over.received, over.sent);
}

static int scene_throughput(struct demo *d, struct scene_result *r, struct err *e)
{
	double over = 0, bare = 0;
	char addr[24];
	int rc = lab_underlay(&d->lab, "a", "b", addr);

	if (rc == 0)
		rc = flow_tcp("a", "b", addr, 1500, &bare, e);
	if (rc == 0)
		rc = flow_tcp("a", "b", d->addr[1], 3000, &over, e);
	if (rc != 0)
		return rc;
	r->value = over;
	r->unit = "Gbit/s";
	str_fmt(r->detail, sizeof(r->detail),
		"TCP, one stream, every byte checked: %.2f Gbit/s (bare link %.2f)", over, bare);
	return 0;
}

static bool keep_none(const struct cap_frame *f)
{
	(void)f;
	return false;
}

static int scene_opaque(struct demo *d, struct scene_result *r, struct err *e)
{
	struct flow_pings p = { 0 };
	uint8_t needle[16];
	struct cap wire = { .fd = -1, .needle = needle, .needle_n = 16, .keep_if = keep_none };
	struct cap tun = { .fd = -1, .needle = needle, .needle_n = 16, .keep_if = keep_none };
	struct rng rng;
	int rc;

	rng_init_system(&rng);
	rng_fill(&rng, needle, sizeof(needle));
	rc = cap_open(&wire, "a", "u-b", e);
	if (rc == 0)
		rc = cap_open(&tun, "a", TUN, e);
	if (rc == 0)
		rc = flow_ping("a", "b", d->addr[1], 2000, 500, needle, NULL, NULL, &p, e);
	if (rc == 0) {
		cap_drain(&wire);
		cap_drain(&tun);
		r->value = wire.frames;
		r->unit = "frames";
		str_fmt(r->detail, sizeof(r->detail),
			"known payload: in %u of %u packets on the TUN, in %u of %u frames on the wire",
			tun.hits, tun.frames, wire.hits, wire.frames);
		if (tun.hits < p.received || wire.hits != 0 || wire.frames < p.received || p.received == 0)
			rc = err_set(e, ERR_CHECK, "%s", r->detail);
	}
	cap_close(&wire);
	cap_close(&tun);
	return rc;
}

/* Ends the host's daemon as a crash would; waits until it is gone. */
static int kill_daemon(const char *host, struct err *e)
{
	pid_t pid = lab_daemon_pid(host);

	if (pid == 0)
		return err_set(e, ERR_NOT_FOUND, "no daemon runs on host %s", host);
	kill(pid, SIGKILL);
	for (int i = 0; i < 200 && lab_daemon_pid(host) != 0; i++)
		usleep(10 * 1000);
	return lab_daemon_pid(host) == 0
		       ? 0
		       : err_set(e, ERR_TIMEOUT, "the daemon of host %s does not end", host);
}

static int scene_restart(struct demo *d, struct scene_result *r, struct err *e)
{
	struct flow_pings p = { 0 };
	uint8_t needle[16] = "x0 demo restart";
	uint64_t t0;
	int rc = kill_daemon("b", e);

	if (rc != 0)
		return rc;
	t0 = clock_mono_ns();
	rc = lab_x0(&d->lab, "b", NULL, 0, e, "up", NULL);
	while (rc == 0 && p.received == 0 && clock_mono_ns() < t0 + 15 * NS_PER_S)
		rc = flow_ping("a", "b", d->addr[1], 2000, 20, needle, NULL, NULL, &p, e);
	if (rc != 0)
		return rc;
	r->value = (double)(clock_mono_ns() - t0) / 1e6;
	r->unit = "ms";
	str_fmt(r->detail, sizeof(r->detail), "daemon of b killed and started: traffic again after %.0f ms",
		r->value);
	return p.received > 0 ? 0 : err_set(e, ERR_TIMEOUT, "no traffic within 15 s of the restart");
}

enum { REPLAYED = 200 };

/* Small DATA frames over IPv4: Ethernet 14, IPv4 20, UDP 8. */
static bool keep_data(const struct cap_frame *f)
{
	return f->n > 42 + DATA_OVERHEAD && f->n < 400 && f->p[12] == 0x08 && f->p[13] == 0x00 &&
	       f->p[23] == 17 && f->p[42] == FRAME_DATA;
}

struct replay {
	struct cap_frame *f;
	unsigned n;
	int sent;
	struct err *e;
};

static void inject(void *arg)
{
	struct replay *x = arg;

	x->sent = cap_inject("a", "u-b", x->f, x->n, x->e);
}

static int scene_replay(struct demo *d, struct scene_result *r, struct err *e)
{
	const char *const name = "x0_tunnel_drops_total{reason=\"replay\"}";
	struct cap_frame *kept = calloc(REPLAYED, sizeof(*kept));
	struct cap wire = { .fd = -1, .keep = kept, .room = REPLAYED, .keep_if = keep_data };
	struct flow_pings p = { 0 }, q = { 0 };
	uint8_t needle[16] = "x0 demo replay";
	double before, after = 0;
	struct replay x = { .f = kept, .e = e };
	int rc = kept ? cap_open(&wire, "a", "u-b", e) : err_set(e, ERR_NOMEM, "out of memory");

	if (rc == 0)
		rc = flow_ping("a", "b", d->addr[1], 1000, 1000, needle, NULL, NULL, &p, e);
	if (rc == 0)
		cap_drain(&wire);
	/* Only those a sent: their source is a's end, their Ethernet source the same as the first's. */
	for (unsigned i = 0; rc == 0 && kept && i < wire.kept; i++) {
		struct cap_frame f = kept[i];

		if (f.p[29] != 1) /* 10.77.k.1 is a */
			continue;
		f.p[40] = f.p[41] =
			0; /* the captured UDP checksum is the unfinished one; over IPv4 zero means none */
		kept[x.n++] = f;
	}
	before = metric("b", name);
	if (rc == 0 && (x.n == 0 || before < 0))
		rc = err_set(e, ERR_CHECK, "captured %u frames, replay counter %.0f", x.n, before);
	if (rc == 0)
		rc = flow_ping("a", "b", d->addr[1], 1000, 1000, needle, inject, &x, &q, e);
	for (int i = 0; rc == 0 && i < 50 && (after = metric("b", name)) - before < x.n; i++)
		usleep(20 * 1000);
	if (rc == 0) {
		r->value = after - before;
		r->unit = "drops";
		str_fmt(r->detail, sizeof(r->detail),
			"%d frames replayed, %.0f dropped as replays; meanwhile %u of %u pings answered",
			x.sent, r->value, q.received, q.sent);
		if (x.sent != (int)x.n || after - before != x.sent || q.received != q.sent)
			rc = err_set(e, ERR_CHECK, "%s", r->detail);
	}
	cap_close(&wire);
	free(kept);
	return rc;
}

static int scene_leak(struct demo *d, struct scene_result *r, struct err *e)
{
	struct flow_pings p = { 0 };
	uint8_t needle[16];
	struct cap wire[2] = { { .fd = -1, .needle = needle, .needle_n = 16, .keep_if = keep_none },
			       { .fd = -1, .needle = needle, .needle_n = 16, .keep_if = keep_none } };
	struct rng rng;
	int rc;

	rng_init_system(&rng);
	rng_fill(&rng, needle, sizeof(needle));
	rc = kill_daemon("a", e);
	if (rc == 0)
		rc = cap_open(&wire[0], "a", "u-b", e);
	if (rc == 0)
		rc = cap_open(&wire[1], "a", "u-c", e);
	if (rc == 0)
		rc = flow_ping("a", "b", d->addr[1], 2000, 500, needle, NULL, NULL, &p, e);
	if (rc == 0) {
		cap_drain(&wire[0]);
		cap_drain(&wire[1]);
		r->value = wire[0].hits + wire[1].hits;
		r->unit = "frames";
		str_fmt(r->detail, sizeof(r->detail),
			"daemon of a killed, %u packets sent: %.0f in clear among %u frames on its links",
			p.sent, r->value, wire[0].frames + wire[1].frames);
		if (r->value != 0 || p.received != 0 || p.sent < 100)
			rc = err_set(e, ERR_CHECK, "%s", r->detail);
	}
	cap_close(&wire[0]);
	cap_close(&wire[1]);
	if (lab_x0(&d->lab, "a", NULL, 0, rc == 0 ? e : NULL, "up", NULL) != 0 && rc == 0)
		rc = e->code;
	return rc;
}

static const struct scene {
	const char *name;
	int (*run)(struct demo *d, struct scene_result *r, struct err *e);
} scenes[] = {
	{ "handshake", scene_handshake }, { "ping", scene_ping },	{ "throughput", scene_throughput },
	{ "wire-opaque", scene_opaque },  { "restart", scene_restart }, { "replay", scene_replay },
	{ "leak", scene_leak },
};

static int demo_start(struct demo *d, struct err *e)
{
	struct scene_result r = { .unit = "ms" };
	uint64_t t0 = clock_mono_ns();
	int rc = lab_parse("a-b a-c b-c", &d->lab, e);

	if (rc == 0)
		rc = lab_down(d->lab.x0, e);
	if (rc == 0)
		rc = lab_make(&d->lab, e);
	if (rc == 0)
		rc = lab_start(&d->lab, e);
	for (unsigned i = 0; i < d->lab.nhosts && rc == 0; i++) {
		struct spiffe_id id;
		uint8_t addr[16];

		rc = spiffe_id_node(LAB_DOMAIN, d->lab.host[i], &id, e);
		if (rc == 0) {
			overlay_addr(&id, addr);
			inet_ntop(AF_INET6, addr, d->addr[i], sizeof(d->addr[i]));
		}
	}
	if (rc == 0)
		rc = wait_links(d, 10000, e);
	r.value = (double)(clock_mono_ns() - t0) / 1e6;
	str_fmt(r.detail, sizeof(r.detail), "%s%.0f ms: three hosts, two joined by token, all links up",
		rc == 0 ? "" : "failed after ", r.value);
	if (rc != 0)
		str_fmt(r.detail, sizeof(r.detail), "%.390s", e->what);
	scene_print(d, "join", rc == 0, &r);
	return rc;
}

static int demo_scenes(struct demo *d, struct err *e)
{
	bool any = false;
	int rc = demo_start(d, e);

	for (size_t i = 0; i < ARRAY_SIZE(scenes) && rc == 0; i++) {
		struct scene_result r = { 0 };
		struct err why = { 0 };

		if (d->o.scene && strcmp(d->o.scene, scenes[i].name) != 0)
			continue;
		any = true;
		bool ok = scenes[i].run(d, &r, &why) == 0;
		if (!ok)
			str_fmt(r.detail, sizeof(r.detail), "%.390s", why.what);
		scene_print(d, scenes[i].name, ok, &r);
	}
	if (rc == 0 && !any)
		rc = err_set(e, ERR_USAGE, "no scene is called %s", d->o.scene);
	return rc;
}

static void demo_close(struct demo *d)
{
	if (d->o.json) {
		yyjson_mut_val *root = yyjson_mut_obj(d->doc);
		char *s;

		yyjson_mut_doc_set_root(d->doc, root);
		yyjson_mut_obj_add_str(d->doc, root, "api", "x0/v1");
		yyjson_mut_obj_add_str(d->doc, root, "kind", "Demo");
		yyjson_mut_obj_add_bool(d->doc, root, "ok", d->failed == 0);
		yyjson_mut_obj_add_val(d->doc, root, "scenes", d->scenes);
		s = yyjson_mut_write(d->doc, 0, NULL);
		printf("%s\n", s ? s : "{}");
		free(s);
	} else {
		printf("%u passed, %u failed\n", d->passed, d->failed);
		if (!d->o.once && d->failed == 0)
			printf("The lab stays up. Try:\n"
			       "  x0 lab exec a -- ping -c 3 %s\n"
			       "  x0 lab exec a -- x0 --config " LAB_DIR "/a/x0.yaml peers\n"
			       "  x0 lab exec b -- x0 --config " LAB_DIR "/b/x0.yaml doctor\n"
			       "  x0 lab down\n",
			       d->addr[1]);
	}
	yyjson_mut_doc_free(d->doc);
	fflush(stdout);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

int demo_run(const char *x0, const struct demo_opts *o, struct err *e)
{
	struct sigaction sa = { .sa_handler = on_signal }, old[2];
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		err_set(e, ERR_DENIED, "the demo makes network namespaces, which needs root");
		err_todo(e, "run it as root, for example with sudo");
		return ERR_DENIED;
	}
	sigaction(SIGINT, &sa, &old[0]);
	sigaction(SIGTERM, &sa, &old[1]);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct demo d = { .o = *o, .doc = yyjson_mut_doc_new(NULL) };
		struct err why = { 0 };

		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		setpgid(0, 0);
		str_fmt(d.lab.x0, sizeof(d.lab.x0), "%s", x0);
		d.scenes = yyjson_mut_arr(d.doc);
		demo_scenes(&d, &why);
		demo_close(&d);
		_exit(d.failed == 0 && d.passed > 1 ? 0 : 1);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		if (interrupted)
			kill(-pid, SIGKILL);
	sigaction(SIGINT, &old[0], NULL);
	sigaction(SIGTERM, &old[1], NULL);
	bool ok = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	/* A failed demo leaves nothing behind either, but with --json a caller may want to look: --once
	 * decides there. */
	if ((!ok || o->once) && lab_down(x0, e) != 0)
		return e ? e->code : ERR_FAILED;
	if (interrupted)
		return err_set(e, ERR_FAILED, "interrupted");
	if (pid < 0)
		return err_sys(e, "fork");
	return ok ? 0 : err_set(e, ERR_CHECK, "a scene failed");
}
