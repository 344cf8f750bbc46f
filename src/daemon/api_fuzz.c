/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any method, path, query and body to the routes of a daemon that has all its parts: a session manager, a
 * data path, an authority. Each request is answered exactly once, with a status and JSON.
 *
 * input: method SP path [?query] LF body. What libevent does before (HTTP) is its own; api_test talks to it
 * over the socket. The authority is asked directly instead of over the issuer's socket.
 */
#include "daemon/api.c" /* to hand over a request without a client */

#include <ftw.h>
#include <sys/socket.h>

#include "daemon/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define NOW 1800000000ll
enum { FRESH_AFTER = 64 }; /* requests that changed the authority before the next one takes its place */

static char dir[] = "/dev/shm/x0-api-fuzz-XXXXXX", ca[64];
static const char config_text[] = "run_dir: /r\nstate_dir: /s\ntrust_domain: t.example\nname: a\n"
				  "peers:\n  - {name: b, endpoints: ['192.0.2.2:7430']}\n";
static struct authority *authority;
static struct rng rng;
static struct api the_api;
static struct control con;
static unsigned changes;

#define must(cond)                                                                                           \
	do {                                                                                                 \
		if (!(cond)) {                                                                               \
			fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                   \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* ---- issuer_client.c without its socket ---- */
struct issuer_client {
	char unused;
};
static struct issuer_client client;

struct issuer_client *issuer_client_new(struct loop *loop, const char *path)
{
	(void)loop;
	(void)path;
	return &client;
}

struct issuer_client *issuer_client_free(struct issuer_client *ic)
{
	(void)ic;
	return NULL;
}

bool issuer_client_up(const struct issuer_client *ic)
{
	return ic;
}

struct answered {
	struct loop_task task;
	issuer_fn *fn;
	void *arg;
	uint8_t *reply;
	size_t n;
};

static void on_issuer(void *arg)
{
	struct answered *k = arg;
	struct err e = { 0 };
	int code = -(int)get_u32(k->reply + 4);

	if (code)
		err_set(&e, code, "%s", (const char *)k->reply + 8);
	k->fn(k->arg, k->reply + 8, k->n - 8, code ? &e : NULL);
	free(k->reply);
	free(k);
}

int issuer_call(struct issuer_client *ic, uint16_t type, const void *p, size_t n, issuer_fn *fn, void *arg,
		struct err *e)
{
	struct issuer_context ctx = { .a = authority, .rng = &rng, .now = NOW };
	struct answered *k = calloc(1, sizeof(*k));
	uint8_t *value = calloc(1, n + 4);

	(void)ic;
	(void)e;
	must(k && value && n + 4 <= ISS_MAX);
	if (n)
		memcpy(value + 4, p, n);
	must(issuer_answer(&ctx, type, value, n + 4, &k->reply, &k->n) == 0);
	free(value);
	changes += get_u32(k->reply + 4) == 0 && type != ISS_BUNDLE && type != ISS_NODES && type != ISS_ROOTS;
	k->fn = fn;
	k->arg = arg;
	k->task = (struct loop_task){ .fn = on_issuer, .arg = k };
	loop_post(con.loop, &k->task); /* later, as over the socket */
	return 0;
}

/* ---- a daemon ---- */
static void op_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	(void)arg;
	(void)to;
	(void)p;
	(void)n;
}

static uint32_t op_index(void *arg, unsigned lane)
{
	(void)arg;
	return (uint32_t)rng_u64(&rng) << 8 | lane;
}

static int op_keys(void *arg, struct sess_keys *k, struct err *e)
{
	(void)arg;
	(void)k;
	return err_set(e, ERR_LIMIT, "no session here");
}

static int remove_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
	(void)sb;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static struct node_identity *identity(struct err *e)
{
	struct node_identity *ni = calloc(1, sizeof(*ni));
	const struct bundle *b = authority_bundle(authority);
	X509_REQ *req[2];
	EVP_PKEY *k[2];
	unsigned char *der;
	const unsigned char *q;
	long len;
	int rc;

	must(ni && spiffe_id_node("t.example", "a", &ni->id, e) == 0);
	overlay_addr(&ni->id, ni->addr);
	for (int i = 0; i < 2; i++) {
		must(key_new(i ? KEY_P256 : KEY_MLDSA65, &k[i], e) == 0);
		req[i] = X509_REQ_new();
		X509_REQ_set_pubkey(req[i], k[i]);
		must(X509_REQ_sign(req[i], k[i], i ? EVP_sha256() : NULL) > 0);
		/* Through DER, as it comes from another host. */
		der = NULL;
		len = i2d_X509_REQ(req[i], &der);
		q = der;
		X509_REQ_free(req[i]);
		req[i] = d2i_X509_REQ(NULL, &q, len);
		OPENSSL_free(der);
	}
	ni->link_key = k[0];
	ni->spiffe_key = k[1];
	rc = authority_issue(authority, &ni->id, req[0], req[1], 3600, NOW, &ni->link, &ni->spiffe, e);
	X509_REQ_free(req[0]);
	X509_REQ_free(req[1]);
	if (rc)
		fprintf(stderr, "%s\n", e->what);
	must(rc == 0 && bundle_decode(b->encoded, b->encoded_n, NULL, NULL, &ni->bundle, e) == 0);
	ni->not_after = NOW + 3600;
	return ni;
}

static int parts(struct err *e)
{
	static const struct sess_ops ops = { .send = op_send, .index_new = op_index, .keys = op_keys };
	static const struct dp_ops dp_ops;
	static int tun[2], udp;
	struct sess_config sc = { .rng = &con.rng,
				  .nlanes = 1,
				  .suite = AEAD_AES_256_GCM,
				  .mtu = 1452,
				  .wall_offset = con.wall_offset,
				  .ops = &ops };
	struct dp_config dc = { .nworkers = 1,
				.tun_fd = tun,
				.udp_fd = &udp,
				.udp_family = AF_INET,
				.tun_mtu = 1400,
				.control = con.loop,
				.ops = &dp_ops };
	int rc = config_parse("x0.yaml", config_text, sizeof(config_text) - 1, &con.cfg, e);

	if (rc)
		return rc;
	sc.loop = con.loop;
	sc.self = con.self;
	sc.params = con.cfg->session;
	memcpy(dc.self, con.self->addr, 16);
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tun) == 0);
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	close(tun[1]);
	rc = sess_new(&sc, &con.sess, e);
	rc = rc ? rc : dp_new(&dc, &con.dp, e);
	close(tun[0]);
	close(udp);
	rc = rc ? rc : control_peers_start(&con, e);
	return rc ? rc : control_id_start(&con, e);
}

static void stop(void)
{
	if (con.loop) {
		control_id_stop(&con);
		dp_free(con.dp);
		sess_free(con.sess);
		node_identity_free(con.self);
		config_free(con.before);
		config_free(con.cfg);
		loop_free(con.loop);
		loop_free(the_api.loop);
	}
	con = (struct control){ 0 };
	authority = authority_free(authority);
	nftw(ca, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void clean(void)
{
	stop();
	rmdir(dir);
}

static void fresh(void)
{
	struct err e = { 0 };
	int rc;

	stop();
	con.loop = loop_new_virtual(NS_PER_S, 1);
	the_api.loop = loop_new_virtual(NS_PER_S, 1); /* its own, as the API's thread has */
	con.wall_offset = NOW * (int64_t)NS_PER_S;
	rng_init_seeded(&con.rng, 2);
	rc = authority_init(ca, "t.example", NULL, NOW, &e);
	rc = rc ? rc : authority_open(ca, NULL, &authority, &e);
	if (!rc) {
		con.self = identity(&e);
		rc = parts(&e);
	}
	if (rc) {
		fprintf(stderr, "%s\n", e.what);
		abort();
	}
	control_conf_init(&con);
	con.issuer = &client;
	con.ready = true;
	changes = 0;
}

/* ---- requests ---- */
static bool field(char *to, size_t cap, const char *p, size_t n)
{
	if (n >= cap || memchr(p, 0, n))
		return false;
	memcpy(to, p, n);
	to[n] = 0;
	return true;
}

/* What submit() makes of what libevent parsed. NULL: no such request. */
static struct api_request *request(const char *p, size_t n)
{
	const char *end = memchr(p, '\n', n), *sp = end ? memchr(p, ' ', (size_t)(end - p)) : NULL, *q;
	struct api_request *r = sp ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return NULL;
	q = memchr(sp, '?', (size_t)(end - sp));
	r->api = &the_api;
	r->body_n = n - (size_t)(end + 1 - p);
	r->body = malloc(r->body_n + 1);
	must(r->body);
	memcpy(r->body, end + 1, r->body_n);
	r->body[r->body_n] = 0;
	loop_timer_init(&r->timer, on_timeout, r);
	if (r->body_n > API_BODY || !field(r->method, sizeof(r->method), p, (size_t)(sp - p)) ||
	    !field(r->path, sizeof(r->path), sp + 1, (size_t)((q ? q : end) - sp - 1)) ||
	    (q && !field(r->query, sizeof(r->query), q + 1, (size_t)(end - q - 1)))) {
		request_free(r);
		return NULL;
	}
	return r;
}

static void check(struct api_request *r)
{
	bool json = !strcmp(r->type, "application/json"),
	     problem = !strcmp(r->type, "application/problem+json");
	yyjson_doc *d;

	must(r->status >= 200 && r->status < 600 && r->answer && r->answer_n);
	if (!json && !problem) {
		must(r->status == 200 && !strncmp(r->type, "text/plain", 10));
		return;
	}
	must(problem == (r->status >= 400));
	d = yyjson_read(r->answer, r->answer_n, YYJSON_READ_ALLOW_INVALID_UNICODE);
	must(d && (yyjson_obj_get(yyjson_doc_get_root(d), problem ? "message" : "kind") != NULL));
	yyjson_doc_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct api_request *r;

	if (!authority) {
		rng_init_seeded(&rng, 1);
		must(crypto_init(NULL) == 0 && mkdtemp(dir));
		snprintf(ca, sizeof(ca), "%s/ca", dir);
		atexit(clean);
		fresh();
	}
	r = request((const char *)p, n);
	if (!r)
		return -1;
	log_set_level(LOG_ERROR); /* a configuration may have changed it */
	api_route(&con, r);
	/* A ping waits for a session that never comes up; its answer is due before the client's patience
	 * ends. */
	for (uint64_t until = loop_now(con.loop) + API_TIMEOUT * NS_PER_S; !r->status;) {
		must(loop_now(con.loop) < until);
		loop_run_until(con.loop, loop_now(con.loop) + NS_PER_MS);
	}
	check(r);
	loop_run_until(the_api.loop, loop_now(the_api.loop) + NS_PER_MS); /* on_answered() frees it */
	if (changes > FRESH_AFTER || !con.ready)
		fresh();
	return 0;
}
