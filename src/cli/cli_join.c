/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x0 join: a node that is nobody yet asks an issuer, over a socket of its own, to make it somebody. The keys
 * are made here and never leave; the token pins the issuer before anything is said to it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/daemon.h"
#include "session/session.h"

struct join {
	struct loop *loop;
	struct rng rng;
	struct sess_mgr *m;
	int fd, family;
	struct loop_io io;
	struct loop_timer timer;
	struct token token;
	struct node_identity *ni; /* owned; filled by the reply */
	char seeds[SPIFFE_ID_MAX + 1 + TOKEN_ADDRS * ENDPOINT_TEXT];
	struct err e;
	bool done;
};

static void on_send(void *arg, const struct endpoint *to, const void *p, size_t n)
{
	struct join *j = arg;
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(to, j->family, &ss);

	while (sendto(j->fd, p, n, MSG_DONTWAIT, (struct sockaddr *)&ss, len) < 0 && errno == EINTR)
		;
}

static uint32_t on_index_new(void *arg, unsigned lane)
{
	struct join *j = arg;

	return (uint32_t)(rng_u64(&j->rng) << 8) | lane;
}

/* A join makes no data keys. */
static int on_keys(void *arg, struct sess_keys *k, struct err *e)
{
	(void)arg;
	(void)k;
	return err_set(e, ERR_UNSUPPORTED, "not joined yet");
}

static const struct sess_ops ops = { .send = on_send, .index_new = on_index_new, .keys = on_keys };

static void on_udp(void *arg, int fd, unsigned events)
{
	struct join *j = arg;
	uint8_t buf[2048];

	(void)events;
	for (int i = 0; i < 64 && !j->done; i++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&ss, &len);
		struct endpoint from;

		if (n <= 0)
			return;
		endpoint_from_sockaddr(&from, (struct sockaddr *)&ss);
		sess_input(j->m, &from, buf, (size_t)n);
	}
}

static void on_timeout(void *arg, uint64_t now)
{
	struct join *j = arg;

	(void)now;
	err_set(&j->e, ERR_TIMEOUT, "no issuer of the token answered");
	err_todo(&j->e,
		 "check its addresses and that UDP gets through; strangers and expired tokens get no answer");
	j->done = true;
	loop_stop(j->loop);
}

static int on_request(void *arg, const uint8_t exporter[32], uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	struct join *j = arg;

	return join_request(&j->token, exporter, j->ni->link_key, j->ni->spiffe_key, ret_p, ret_n, e);
}

/* u16 length | SPIFFE ID of the issuing node | reply (daemon/control_id.c): the issuer is our first peer. */
static int take(struct join *j, const uint8_t *reply, size_t n, struct err *e)
{
	struct rd r = rd_init(reply, n);
	size_t k = rd_u16(&r), at;
	const uint8_t *uri = rd_bytes(&r, k);
	struct node_identity *ni = j->ni;
	char text[ENDPOINT_TEXT];
	struct spiffe_id issuer;
	struct joined got = { 0 };
	struct tm tm;
	int rc;

	if (!uri || spiffe_id_parse((const char *)uri, k, &issuer, e) < 0 ||
	    !spiffe_id_in(&issuer, j->token.trust_domain))
		return err_set(e, ERR_PARSE, "the issuer did not answer the request");
	rc = join_reply(&j->token, r.p, rd_left(&r), ni->link_key, ni->spiffe_key,
			(int64_t)(clock_wall_ns() / NS_PER_S), &got, e);
	rc = rc ? rc : spiffe_id_node(j->token.trust_domain, j->token.name, &ni->id, e);
	if (rc < 0) {
		joined_fini(&got);
		return rc;
	}
	overlay_addr(&ni->id, ni->addr);
	ni->link = got.link;
	ni->spiffe = got.spiffe;
	ni->bundle = got.bundle;
	if (ASN1_TIME_to_tm(X509_get0_notAfter(ni->link), &tm) == 1)
		ni->not_after = (int64_t)timegm(&tm);
	at = (size_t)snprintf(j->seeds, sizeof(j->seeds), "%s", issuer.uri);
	for (unsigned i = 0; i < j->token.naddrs; i++)
		at += (size_t)snprintf(j->seeds + at, sizeof(j->seeds) - at, " %s",
				       endpoint_text(&j->token.addr[i], text));
	return 0;
}

static void on_done(void *arg, const uint8_t *reply, size_t n, const struct err *e)
{
	struct join *j = arg;

	if (e)
		j->e = *e;
	else
		take(j, reply, n, &j->e);
	j->done = true;
	loop_stop(j->loop);
}

static const struct sess_join_ops join_ops = { .request = on_request, .done = on_done };

static int open_socket(struct join *j, struct err *e)
{
	int off = 0;

	j->family = AF_INET6;
	j->fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (j->fd >= 0 && setsockopt(j->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0)
		return 0;
	if (j->fd >= 0)
		close(j->fd);
	j->family = AF_INET;
	j->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return j->fd < 0 ? err_sys(e, "cannot make a UDP socket") : 0;
}

static int talk(struct join *j, const struct config *cfg, double timeout, struct err *e)
{
	struct sess_config sc = { .rng = &j->rng,
				  .nlanes = 1,
				  .suite = aead_best_suite(),
				  .mtu = cfg->udp_payload,
				  .wall_offset = (int64_t)(clock_wall_ns() - clock_mono_ns()),
				  .params = cfg->session,
				  .ops = &ops,
				  .arg = j };
	int rc = open_socket(j, e);

	if (rc < 0)
		return rc;
	j->loop = sc.loop = loop_new_event(e);
	rc = j->loop ? sess_new(&sc, &j->m, e) : ERR_SYS;
	rc = rc ? rc : loop_io_add(j->loop, &j->io, j->fd, LOOP_READ, on_udp, j, e);
	rc = rc ? rc : sess_join(j->m, &j->token, &join_ops, j, e);
	if (rc == 0) {
		loop_timer_init(&j->timer, on_timeout, j);
		loop_timer_set(j->loop, &j->timer, loop_now(j->loop) + (uint64_t)(timeout * 1e9));
		loop_run(j->loop);
		loop_timer_cancel(j->loop, &j->timer);
		rc = j->e.code;
		if (rc < 0)
			*e = j->e;
	}
	if (j->loop)
		loop_io_del(j->loop, &j->io);
	sess_free(j->m);
	if (j->loop)
		loop_free(j->loop);
	close(j->fd);
	return rc;
}

/* The first line of standard input, without blanks around it. */
static int read_token(char to[TOKEN_TEXT], struct err *e)
{
	size_t n = 0, skip;
	ssize_t k;

	do {
		k = read(STDIN_FILENO, to + n, TOKEN_TEXT - 1 - n);
		n += k > 0 ? (size_t)k : 0;
	} while (n < TOKEN_TEXT - 1 && !memchr(to, '\n', n) && (k > 0 || (k < 0 && errno == EINTR)));
	to[n] = 0;
	skip = strspn(to, " \t\r");
	memmove(to, to + skip, n + 1 - skip);
	to[strcspn(to, " \t\r\n")] = 0;
	if (*to)
		return 0;
	err_set(e, ERR_USAGE, "no token on standard input");
	return err_todo(e, "on the issuer: x0 ca token NAME; give its output to x0 join - here");
}

static int take_token(struct join *j, const struct cli *c, struct err *e)
{
	char text[TOKEN_TEXT];
	int rc;

	if (strcmp(c->argv[0], "-") != 0)
		return token_decode(c->argv[0], &j->token, e);
	rc = read_token(text, e);
	rc = rc ? rc : token_decode(text, &j->token, e);
	secret_wipe(text, sizeof(text));
	return rc;
}

static int join(struct join *j, struct cli *c, const struct config *cfg, double timeout, struct err *e)
{
	struct node_identity *have = NULL;
	int rc = crypto_init(e);

	rc = rc ? rc : take_token(j, c, e);
	if (rc == 0 && node_identity_load(cfg->identity_dir, &have, NULL) == 0) {
		bool same = spiffe_id_in(&have->id, j->token.trust_domain) &&
			    spiffe_id_node_name(&have->id) &&
			    !strcmp(spiffe_id_node_name(&have->id), j->token.name);

		/* The same name again replaces an identity that expired or was revoked. */
		if (!same) {
			err_set(e, ERR_CONFLICT, "this node is %s already", have->id.uri);
			rc = err_todo(e, "use another state_dir, or remove %s first", cfg->identity_dir);
		}
		node_identity_free(have);
	}
	rng_init_system(&j->rng);
	j->ni = calloc(1, sizeof(*j->ni));
	if (rc == 0 && !j->ni)
		rc = err_set(e, ERR_NOMEM, "no memory");
	rc = rc ? rc : key_new(KEY_MLDSA65, &j->ni->link_key, e);
	rc = rc ? rc : key_new(KEY_P256, &j->ni->spiffe_key, e);
	rc = rc ? rc : talk(j, cfg, timeout, e);
	return rc ? rc : daemon_identity_install(cfg, j->ni, j->seeds, e);
}

int cli_join(struct cli *c, struct err *e)
{
	struct join *j = calloc(1, sizeof(*j));
	struct config *cfg = NULL;
	char addr[INET6_ADDRSTRLEN];
	double timeout;
	int rc = j ? cli_opt_num(c, "timeout", 30, 0.1, 3600, &timeout, e)
		   : err_set(e, ERR_NOMEM, "no memory");

	rc = rc ? rc : cli_config(c, &cfg, e);
	if (rc == 0 && !cli_is_root("x0 join", e))
		rc = ERR_DENIED;
	rc = rc ? rc : join(j, c, cfg, timeout, e);
	if (rc == 0) {
		inet_ntop(AF_INET6, j->ni->addr, addr, sizeof(addr));
		if (c->json) {
			cli_reply(c, "Joined");
			yyjson_mut_obj_add_strcpy(c->doc, c->root, "id", j->ni->id.uri);
			yyjson_mut_obj_add_strcpy(c->doc, c->root, "address", addr);
		} else {
			printf("%s\n%s\n", j->ni->id.uri, addr);
		}
	}
	if (j) {
		token_wipe(&j->token);
		node_identity_free(j->ni);
	}
	free(j);
	config_free(cfg);
	return rc;
}
