/* SPDX-License-Identifier: Apache-2.0 */
/* What there is: status, peers, top, ping, version. */
#include <event2/event.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "wire/wire.h"

#ifndef X0_VERSION
#define X0_VERSION "dev"
#endif

int cli_version(struct cli *c, struct err *e)
{
	(void)e;
	if (c->json) {
		cli_reply(c, "Version");
		yyjson_mut_obj_add_str(c->doc, c->root, "version", X0_VERSION);
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "openssl",
					  OpenSSL_version(OPENSSL_VERSION_STRING));
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "libevent", event_get_version());
		yyjson_mut_obj_add_uint(c->doc, c->root, "protocol", X0_PROTO);
		return 0;
	}
	printf("x0 %s (protocol %d, OpenSSL %s, libevent %s)\n", X0_VERSION, X0_PROTO,
	       OpenSSL_version(OPENSSL_VERSION_STRING), event_get_version());
	return 0;
}

static void line(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *what, const char *fmt, ...)
{
	va_list ap;

	printf("%-12s", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

int cli_status(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *o, *t;
	char a[24], b[16], b2[16];
	double left;
	int rc = cli_call(c, "GET", "/status", NULL, 5, &d, e);

	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply_doc(c, d);
		yyjson_doc_free(d);
		return 0;
	}
	o = yyjson_doc_get_root(d);
	t = yyjson_obj_get(o, "tunnel");
	left = cli_num(o, "svid_expires_s");
	line("node", "%s", cli_str(o, "id"));
	line("address", "%s on %s, MTU %.0f", cli_str(o, "address"), cli_str(o, "device"), cli_num(o, "mtu"));
	line("listen", "%s, %.0f workers", cli_str(o, "listen"), cli_num(o, "workers"));
	line("SVID", left > 0 ? "expires in %s" : "expired %s ago", cli_ago(left < 0 ? -left : left, a));
	line("bundle", "number %.0f, %.0f revocations%s", cli_num(o, "bundle"), cli_num(o, "revocations"),
	     yyjson_get_bool(yyjson_obj_get(o, "issuer")) ? ", this node is an issuer" : "");
	line("peers", "%.0f of %.0f up", cli_num(o, "peers_up"), cli_num(o, "peers"));
	line("sent", "%s in %.0f packets", cli_bytes((uint64_t)cli_num(t, "tx_bytes"), b),
	     cli_num(t, "tx_packets"));
	line("received", "%s in %.0f packets", cli_bytes((uint64_t)cli_num(t, "rx_bytes"), b2),
	     cli_num(t, "rx_packets"));
	line("up for", "%s", cli_ago(cli_num(o, "uptime_s"), a));
	if (yyjson_get_bool(yyjson_obj_get(o, "config_unconfirmed")))
		line("config", "waits for x0 config confirm");
	yyjson_doc_free(d);
	return 0;
}

static void ms(char to[24], double v)
{
	if (v <= 0)
		strcpy(to, "-");
	else
		snprintf(to, 24, v < 10 ? "%.2f ms" : "%.0f ms", v);
}

int cli_peers(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *p;
	struct cli_table t;
	size_t i, n;
	int rc = cli_call(c, "GET", "/peers", NULL, 5, &d, e);

	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply_doc(c, d);
		yyjson_doc_free(d);
		return 0;
	}
	cli_table_init(&t, "NAME", "STATE", "ADDRESS", "PATH", ">RTT", "KEYS", "CIPHER", ">EPOCH", ">AGE",
		       ">SENT", ">RECEIVED", ">FRAME", "LAST ERROR", NULL);
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(d), "peers"), i, n, p) {
		bool up = !strcmp(cli_str(p, "state"), "up");
		char rtt[24], age[24], tx[16], rx[16];

		ms(rtt, cli_num(p, "rtt_ms"));
		cli_table_cell(&t, "%s", cli_str(p, "name"));
		cli_table_cell(&t, "%s", cli_str(p, "state"));
		cli_table_cell(&t, "%s", cli_str(p, "address"));
		cli_table_cell(&t, "%s", *cli_str(p, "path") ? cli_str(p, "path") : "-");
		cli_table_cell(&t, "%s", rtt);
		cli_table_cell(&t, "%s%s%s", up ? cli_str(p, "group") : "-", up ? " " : "",
			       up ? cli_str(p, "signature") : "");
		cli_table_cell(&t, "%s", up ? cli_str(p, "cipher") : "-");
		cli_table_cell(&t, "%.0f", cli_num(p, "epoch"));
		cli_table_cell(&t, "%s", up ? cli_ago(cli_num(p, "up_s"), age) : "-");
		cli_table_cell(&t, "%s", cli_bytes((uint64_t)cli_num(p, "tx_bytes"), tx));
		cli_table_cell(&t, "%s", cli_bytes((uint64_t)cli_num(p, "rx_bytes"), rx));
		cli_table_cell(&t, "%.0f", cli_num(p, "frame_max"));
		cli_table_cell(&t, "%s", up ? "" : cli_str(p, "last_error"));
	}
	if (n)
		cli_table_print(&t, stdout);
	else
		puts("no peers: name some in x0.yaml, or join a mesh");
	yyjson_doc_free(d);
	return 0;
}

static void nap(double s)
{
	struct timespec ts = { .tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9) };

	nanosleep(&ts, NULL);
}

struct pings {
	unsigned sent, answered;
	double min, max, sum;
	yyjson_mut_val *arr;
};

static int ping_once(struct cli *c, const char *body, struct pings *k, struct err *e)
{
	yyjson_doc *d = NULL;
	double rtt;
	int rc = cli_call(c, "POST", "/ping", body, 15, &d, e);

	k->sent++;
	if (rc < 0)
		return rc;
	rtt = cli_num(yyjson_doc_get_root(d), "rtt_ms");
	k->answered++;
	k->sum += rtt;
	k->min = k->answered == 1 || rtt < k->min ? rtt : k->min;
	k->max = rtt > k->max ? rtt : k->max;
	if (c->json)
		yyjson_mut_arr_add_real(c->doc, k->arr, rtt);
	else
		printf("%s: %u: %.3f ms\n", cli_str(yyjson_doc_get_root(d), "id"), k->sent, rtt);
	fflush(stdout);
	yyjson_doc_free(d);
	return 0;
}

int cli_ping(struct cli *c, struct err *e)
{
	struct pings k = { 0 };
	double count, interval;
	yyjson_mut_doc *bd;
	yyjson_mut_val *root;
	char *body;
	int rc = cli_opt_num(c, "count", 4, 1, 100, &count, e);

	rc = rc ? rc : cli_opt_num(c, "interval", 1, 0.01, 60, &interval, e);
	if (rc < 0)
		return rc;
	bd = yyjson_mut_doc_new(NULL);
	root = yyjson_mut_obj(bd);
	yyjson_mut_doc_set_root(bd, root);
	yyjson_mut_obj_add_strcpy(bd, root, "peer", c->argv[0]);
	body = yyjson_mut_write(bd, 0, NULL);
	yyjson_mut_doc_free(bd);
	if (!body)
		return err_set(e, ERR_USAGE, "the name is no UTF-8");
	if (c->json) {
		cli_reply(c, "Ping");
		k.arr = yyjson_mut_obj_add_arr(c->doc, c->root, "rtt_ms");
	}
	for (unsigned i = 0; i < (unsigned)count; i++) {
		if (i)
			nap(interval);
		rc = ping_once(c, body, &k, e);
		/* Only silence is worth another try. */
		if (rc < 0 && rc != ERR_TIMEOUT)
			break;
		if (rc < 0 && !c->json)
			printf("%u: %s\n", k.sent, e->what);
	}
	free(body);
	if (rc < 0 && !k.answered)
		return rc;
	if (c->json) {
		yyjson_mut_obj_add_uint(c->doc, c->root, "sent", k.sent);
		yyjson_mut_obj_add_uint(c->doc, c->root, "answered", k.answered);
		cli_reply_ok(c, k.answered == k.sent);
	} else {
		printf("%u sent, %u answered; min/avg/max %.3f/%.3f/%.3f ms\n", k.sent, k.answered, k.min,
		       k.sum / k.answered, k.max);
	}
	c->printed = true;
	return k.answered == k.sent ? 0 : ERR_CHECK;
}

struct rates {
	char id[256];
	double tx, rx;
};
enum { TOP_PEERS = 256 };

static const struct rates *before(const struct rates *r, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(r[i].id, id))
			return &r[i];
	return NULL;
}

/* Bytes a second. A re-key starts the counters again: what they show since is at least what there was. */
static double rate(double now, double was, double s)
{
	return s > 0 ? (now >= was ? now - was : now) / s : 0;
}

/* One screen; `was` are the counters of the last one, `s` seconds ago (0: there was none). */
static size_t top_print(FILE *f, yyjson_val *peers, const struct rates *was, size_t nwas, double s,
			struct rates *now)
{
	struct cli_table t;
	yyjson_val *p;
	size_t i, n, k = 0;

	cli_table_init(&t, "NAME", "STATE", ">RTT", ">SENDING", ">RECEIVING", ">SENT", ">RECEIVED",
		       ">REPLAYS", ">BAD TAGS", NULL);
	yyjson_arr_foreach(peers, i, n, p) {
		const char *id = cli_str(p, "id");
		const struct rates *w = before(was, nwas, id);
		double tx = cli_num(p, "tx_bytes"), rx = cli_num(p, "rx_bytes");
		char rtt[24], a[16], b[16], ta[16], tb[16];

		ms(rtt, cli_num(p, "rtt_ms"));
		cli_table_cell(&t, "%s", cli_str(p, "name"));
		cli_table_cell(&t, "%s", cli_str(p, "state"));
		cli_table_cell(&t, "%s", rtt);
		cli_table_cell(&t, "%s/s", cli_bytes(w ? (uint64_t)rate(tx, w->tx, s) : 0, a));
		cli_table_cell(&t, "%s/s", cli_bytes(w ? (uint64_t)rate(rx, w->rx, s) : 0, b));
		cli_table_cell(&t, "%s", cli_bytes((uint64_t)tx, ta));
		cli_table_cell(&t, "%s", cli_bytes((uint64_t)rx, tb));
		cli_table_cell(&t, "%.0f", cli_num(p, "replays"));
		cli_table_cell(&t, "%.0f", cli_num(p, "auth_failures"));
		if (k < TOP_PEERS) {
			snprintf(now[k].id, sizeof(now[k].id), "%s", id);
			now[k].tx = tx;
			now[k++].rx = rx;
		}
	}
	cli_table_print(&t, f);
	return k;
}

/* On a terminal the new screen is written over the old one, line by line: clearing it first would flicker. */
static void top_show(const char *text, bool screen)
{
	const char *end;

	if (!screen) {
		fputs(text, stdout);
		fflush(stdout);
		return;
	}
	fputs("\033[H", stdout);
	for (; (end = strchr(text, '\n')); text = end + 1)
		printf("%.*s\033[K\n", (int)(end - text), text);
	fputs("\033[J", stdout);
	fflush(stdout);
}

struct top {
	struct rates rates[2][TOP_PEERS];
	size_t n; /* of the last screen, in rates[turn] */
	unsigned turn;
	uint64_t at; /* when it was asked for, 0: never */
};

/* Asks once and shows it. A daemon that restarts is waited for, but not the first time. */
static int top_once(struct cli *c, struct top *t, bool screen, struct err *e)
{
	uint64_t was = t->at;
	char *text = NULL;
	yyjson_doc *d;
	size_t n = 0;
	FILE *f;
	int rc = cli_call(c, "GET", "/peers", NULL, 5, &d, e);

	if (rc < 0 && !was)
		return rc;
	f = open_memstream(&text, &n);
	if (!f) {
		if (rc == 0)
			yyjson_doc_free(d);
		return err_set(e, ERR_NOMEM, "no memory");
	}
	if (rc < 0) {
		fprintf(f, "%s\n", e->what);
		t->n = 0;
	} else {
		t->at = clock_mono_ns();
		t->n = top_print(f, yyjson_obj_get(yyjson_doc_get_root(d), "peers"), t->rates[t->turn], t->n,
				 was ? (double)(t->at - was) / 1e9 : 0, t->rates[!t->turn]);
		t->turn = !t->turn;
		yyjson_doc_free(d);
	}
	fclose(f);
	top_show(text, screen);
	free(text);
	return 0;
}

int cli_top(struct cli *c, struct err *e)
{
	static struct top t;
	bool once = cli_opt(c, "once") != NULL, screen = !once && isatty(STDOUT_FILENO);
	int rc;

	if (c->json)
		return cli_peers(c, e);
	if (screen)
		fputs("\033[2J", stdout);
	for (;;) {
		rc = top_once(c, &t, screen, e);
		if (rc < 0 || once || ferror(stdout))
			return rc;
		nap(1);
	}
}
