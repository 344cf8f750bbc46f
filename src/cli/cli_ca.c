/* SPDX-License-Identifier: Apache-2.0 */
/* x0 ca: init and restore work on files as root; the rest asks the running issuer, through the daemon. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/daemon.h"
#include "daemon/issuer.h"
#include "wire/wire.h"

static int64_t now_s(void)
{
	return (int64_t)(clock_wall_ns() / NS_PER_S);
}

/* As it would arrive: read back from its encoding, which is what the signature covers. */
static int request(EVP_PKEY *k, X509_REQ **ret, struct err *e)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = csr_new(k, &p, &n, e);

	rc = rc ? rc : csr_from_der(p, n, ret, e);
	free(p);
	return rc;
}

/* This node's own identity, from its own authority. */
static int issue_self(struct authority *a, const struct spiffe_id *id, int64_t ttl, struct node_identity *ni,
		      struct err *e)
{
	const struct bundle *b = authority_bundle(a);
	X509_REQ *link_csr = NULL, *spiffe_csr = NULL;
	int rc;

	ni->id = *id;
	overlay_addr(id, ni->addr);
	rc = key_new(KEY_MLDSA65, &ni->link_key, e);
	rc = rc ? rc : key_new(KEY_P256, &ni->spiffe_key, e);
	if (rc < 0)
		return rc;
	rc = request(ni->link_key, &link_csr, e);
	rc = rc ? rc : request(ni->spiffe_key, &spiffe_csr, e);
	rc = rc ? rc : authority_issue(a, id, link_csr, spiffe_csr, ttl, now_s(), &ni->link, &ni->spiffe, e);
	rc = rc ? rc : bundle_decode(b->encoded, b->encoded_n, NULL, NULL, &ni->bundle, e);
	X509_REQ_free(link_csr);
	X509_REQ_free(spiffe_csr);
	return rc;
}

static int first_issuer(const struct config *cfg, const struct spiffe_id *id, const char *domain,
			const char *password, int64_t ttl, struct err *e)
{
	struct node_identity *ni = calloc(1, sizeof(*ni));
	struct authority *a = NULL;
	int rc = ni ? authority_init(cfg->authority_dir, domain, password, now_s(), e)
		    : err_set(e, ERR_NOMEM, "no memory");

	/* An authority without an identity is what an interrupted init left: go on with it. */
	if (rc == ERR_CONFLICT)
		rc = 0;
	rc = rc ? rc : authority_open(cfg->authority_dir, password, &a, e);
	if (rc == 0 && strcmp(authority_bundle(a)->trust_domain, domain))
		rc = err_set(e, ERR_CONFLICT, "there is an authority of %s already",
			     authority_bundle(a)->trust_domain);
	rc = rc ? rc : issue_self(a, id, ttl, ni, e);
	authority_free(a);
	rc = rc ? rc : daemon_identity_install(cfg, ni, NULL, e);
	node_identity_free(ni);
	return rc;
}

static int default_name(struct cli *c, const struct config *cfg, char to[NODE_NAME_MAX + 1], struct err *e)
{
	const char *s = cli_opt(c, "name");
	char host[256] = "";

	if (!s && *cfg->name)
		s = cfg->name;
	if (!s) {
		gethostname(host, sizeof(host) - 1);
		host[strcspn(host, ".")] = 0;
		s = host;
	}
	if (str_fmt(to, NODE_NAME_MAX + 1, "%s", s) < 0)
		return err_set(e, ERR_USAGE, "the name %.80s is too long", s);
	return 0;
}

static int init(struct cli *c, const struct config *cfg, const char *password, struct err *e)
{
	const char *domain = cli_opt(c, "domain") ? cli_opt(c, "domain") : cfg->trust_domain;
	struct node_identity *have = NULL;
	struct spiffe_id id = { 0 };
	char name[NODE_NAME_MAX + 1];
	int64_t ttl;
	int rc = cli_opt_duration(c, "ttl", cfg->identity_ttl, 1, SVID_TTL_MAX, &ttl, e);

	rc = rc ? rc : crypto_init(e);
	rc = rc ? rc : dir_make(cfg->state_dir, 0755, e);
	if (rc < 0)
		return rc;
	if (node_identity_load(cfg->identity_dir, &have, NULL) == 0) {
		/* A node of a mesh becomes a further issuer of it. */
		rc = authority_init_joining(cfg->authority_dir, have->bundle, password, now_s(), e);
		rc = rc ? rc : daemon_dirs(cfg, e);
		id = have->id;
		node_identity_free(have);
		if (rc == 0 && !c->json)
			fprintf(stderr, "This authority issues nothing until the mesh trusts it:\n"
					"  here:            x0 down, x0 up, x0 ca roots > roots.pem\n"
					"  on an issuer:    x0 ca add-issuer roots.pem\n");
	} else {
		rc = default_name(c, cfg, name, e);
		if (rc == 0 && !*domain) {
			err_set(e, ERR_USAGE, "a new mesh needs a trust domain");
			rc = err_todo(e, "x0 ca init --domain corp.example, or trust_domain: in x0.yaml");
		}
		rc = rc ? rc : spiffe_id_node(domain, name, &id, e);
		rc = rc ? rc : first_issuer(cfg, &id, domain, password, ttl, e);
	}
	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply(c, "Authority");
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "id", id.uri);
	} else {
		printf("%s\n", id.uri);
	}
	return 0;
}

int cli_ca_init(struct cli *c, struct err *e)
{
	struct config *cfg;
	char *password = NULL;
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	if (!cli_is_root("x0 ca init", e))
		rc = ERR_DENIED;
	rc = rc ? rc
		: password_read(cli_opt(c, "password-file") ? cli_opt(c, "password-file")
							    : cfg->password_file,
				&password, e);
	rc = rc ? rc : init(c, cfg, password, e);
	if (rc == 0 && cli_opt(c, "password-file") && !*cfg->password_file)
		fprintf(stderr,
			"The issuer needs the password at every start: set issuer.password_file in %s\n",
			c->config);
	if (password)
		secret_wipe(password, strlen(password));
	free(password);
	config_free(cfg);
	return rc;
}

/* ---- tokens ---- */

/* "host:port" with a name for the host: the first address it has. */
static int resolve(const char *s, struct endpoint *ret, struct err *e)
{
	struct addrinfo hint = { .ai_socktype = SOCK_DGRAM }, *ai = NULL;
	const char *colon = strrchr(s, ':');
	char host[256], port[8];
	int rc;

	if (endpoint_parse(s, X0_PORT, ret, NULL) == 0)
		return 0;
	snprintf(port, sizeof(port), "%s", colon ? colon + 1 : "7430");
	if (str_fmt(host, sizeof(host), "%.*s", colon ? (int)(colon - s) : (int)strlen(s), s) < 0)
		return err_set(e, ERR_USAGE, "the address %.80s is too long", s);
	rc = getaddrinfo(host, port, &hint, &ai);
	if (rc || !ai) {
		err_set(e, ERR_USAGE, "the address %.80s is not understood: %s", s, gai_strerror(rc));
		return err_todo(e, "write it as 192.0.2.1:7430 or [2001:db8::1]:7430");
	}
	endpoint_from_sockaddr(ret, ai->ai_addr);
	freeaddrinfo(ai);
	return 0;
}

/* Up to four addresses of this host that others may reach, with the port we listen on. */
static unsigned own_addresses(const struct config *cfg, struct endpoint to[TOKEN_ADDRS])
{
	struct ifaddrs *list = NULL;
	unsigned n = 0;

	if (getifaddrs(&list) < 0)
		return 0;
	for (struct ifaddrs *i = list; i && n < TOKEN_ADDRS; i = i->ifa_next) {
		struct endpoint ep = { 0 };

		if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK) ||
		    (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6) ||
		    !strcmp(i->ifa_name, cfg->tun_name))
			continue;
		endpoint_from_sockaddr(&ep, i->ifa_addr);
		if (!endpoint_is_v4(&ep) && ep.addr[0] == 0xfe && (ep.addr[1] & 0xc0) == 0x80)
			continue; /* link-local: of no use elsewhere */
		ep.port = cfg->listen.port;
		ep.scope_id = 0;
		to[n++] = ep;
	}
	freeifaddrs(list);
	return n;
}

static int token_addresses(struct cli *c, yyjson_mut_doc *d, yyjson_mut_val *arr, struct err *e)
{
	struct endpoint ep[TOKEN_ADDRS];
	char text[ENDPOINT_TEXT];
	struct config *cfg;
	unsigned n = 0;
	const char *s;
	int rc;

	while ((s = cli_opt_nth(c, "addr", n))) {
		if (n == TOKEN_ADDRS)
			return err_set(e, ERR_USAGE, "a token takes at most %d addresses", TOKEN_ADDRS);
		rc = resolve(s, &ep[n], e);
		if (rc < 0)
			return rc;
		n++;
	}
	if (!n) {
		rc = cli_config(c, &cfg, e);
		if (rc < 0)
			return rc;
		n = own_addresses(cfg, ep);
		config_free(cfg);
	}
	if (!n) {
		err_set(e, ERR_USAGE, "this host has no address that others could reach");
		return err_todo(e, "name one: --addr 192.0.2.1:7430");
	}
	for (unsigned i = 0; i < n; i++)
		yyjson_mut_arr_add_strcpy(d, arr, endpoint_text(&ep[i], text));
	return 0;
}

/* Writes and frees a JSON document, POSTs it; the answer is the reply. */
static int post(struct cli *c, const char *path, yyjson_mut_doc *body, yyjson_doc **ret, struct err *e)
{
	char *s = yyjson_mut_write(body, 0, NULL);
	int rc;

	yyjson_mut_doc_free(body);
	if (!s)
		return err_set(e, ERR_USAGE, "an argument is no UTF-8");
	rc = cli_call(c, "POST", path, s, 30, ret, e);
	free(s);
	return rc;
}

static yyjson_mut_doc *body_new(const char *key, const char *value)
{
	yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(d);

	yyjson_mut_doc_set_root(d, root);
	yyjson_mut_obj_add_strcpy(d, root, key, value);
	return d;
}

int cli_ca_token(struct cli *c, struct err *e)
{
	yyjson_mut_doc *b;
	yyjson_mut_val *root;
	yyjson_doc *d;
	int64_t ttl;
	int rc = cli_opt_duration(c, "ttl", 3600, 1, 30 * 86400, &ttl, e);

	if (rc < 0)
		return rc;
	b = body_new("name", c->argv[0]);
	root = yyjson_mut_doc_get_root(b);
	yyjson_mut_obj_add_int(b, root, "ttl", ttl);
	yyjson_mut_obj_add_bool(b, root, "ephemeral", cli_opt(c, "ephemeral") != NULL);
	rc = token_addresses(c, b, yyjson_mut_obj_add_arr(b, root, "addresses"), e);
	if (rc < 0) {
		yyjson_mut_doc_free(b);
		return rc;
	}
	rc = post(c, "/ca/tokens", b, &d, e);
	if (rc < 0)
		return rc;
	if (c->json)
		cli_reply_doc(c, d);
	else
		puts(cli_str(yyjson_doc_get_root(d), "token"));
	yyjson_doc_free(d);
	return 0;
}

static int post_name(struct cli *c, const char *path, struct err *e)
{
	yyjson_doc *d;
	int rc = post(c, path, body_new("name", c->argv[0]), &d, e);

	if (rc < 0)
		return rc;
	if (c->json)
		cli_reply_doc(c, d);
	else
		printf("bundle %.0f is in force\n", cli_num(yyjson_doc_get_root(d), "bundle"));
	yyjson_doc_free(d);
	return 0;
}

int cli_ca_revoke(struct cli *c, struct err *e)
{
	return post_name(c, "/ca/revocations", e);
}

int cli_node_remove(struct cli *c, struct err *e)
{
	return post_name(c, "/nodes/remove", e);
}

int cli_ca_roots(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	int rc = cli_call(c, "GET", "/ca/roots", NULL, 15, &d, e);

	if (rc < 0)
		return rc;
	if (c->json)
		cli_reply_doc(c, d);
	else
		fputs(cli_str(yyjson_doc_get_root(d), "roots"), stdout);
	yyjson_doc_free(d);
	return 0;
}

int cli_ca_add_issuer(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	uint8_t *pem;
	size_t n;
	int rc = file_read(c->argv[0], 48 << 10, &pem, &n, e);

	if (rc < 0)
		return rc;
	rc = post(c, "/ca/issuers", body_new("roots", (char *)pem), &d, e);
	free(pem);
	if (rc < 0)
		return rc;
	if (c->json)
		cli_reply_doc(c, d);
	else
		printf("bundle %.0f is in force\n", cli_num(yyjson_doc_get_root(d), "bundle"));
	yyjson_doc_free(d);
	return 0;
}

/* ---- backup and restore ---- */

struct backup {
	struct loop *loop;
	const char *path;
	struct err e;
	int rc;
};

static void got_backup(void *arg, const uint8_t *body, size_t n, const struct err *e)
{
	struct backup *k = arg;

	if (e) {
		k->e = *e;
		k->rc = e->code;
	} else {
		k->rc = file_write(k->path, body, n, 0600, &k->e);
	}
	loop_stop(k->loop);
}

/* The issuer itself makes it, if it runs: it holds the authority's lock. */
static int backup_running(const struct config *cfg, const char *path, const char *password, struct err *e)
{
	struct backup k = { .loop = loop_new_event(e), .path = path };
	struct issuer_client *ic = k.loop ? issuer_client_new(k.loop, cfg->issuer_socket) : NULL;
	uint8_t buf[1100];
	struct wr w = wr_init(buf, sizeof(buf));
	int rc = ic ? 0 : err_set(e, ERR_NOMEM, "no memory");

	iss_put_text(&w, password);
	if (!rc && (!wr_ok(&w) || strlen(password) > 1000))
		rc = err_set(e, ERR_USAGE, "the password is longer than 1000 bytes");
	rc = rc ? rc : issuer_call(ic, ISS_BACKUP, buf, wr_len(&w), got_backup, &k, e);
	secret_wipe(buf, sizeof(buf));
	if (rc == 0) {
		loop_run(k.loop);
		rc = k.rc;
		if (rc < 0)
			*e = k.e;
	}
	issuer_client_free(ic);
	loop_free(k.loop);
	return rc;
}

static int need_password(struct cli *c, char **ret, struct err *e)
{
	if (!cli_opt(c, "password-file")) {
		err_set(e, ERR_USAGE, "a backup is encrypted: its password is needed");
		return err_todo(e, "--password-file FILE");
	}
	return password_read(cli_opt(c, "password-file"), ret, e);
}

static int backup(struct cli *c, const struct config *cfg, const char *password, struct err *e)
{
	struct authority *a = NULL;
	char *ca_password = NULL;
	int rc;

	if (access(cfg->issuer_socket, F_OK) == 0) {
		rc = backup_running(cfg, c->argv[0], password, e);
		if (rc != ERR_UNREACHABLE)
			return rc;
	}
	rc = password_read(cfg->password_file, &ca_password, e);
	rc = rc ? rc : authority_open(cfg->authority_dir, ca_password, &a, e);
	rc = rc ? rc : authority_backup(a, c->argv[0], password, e);
	authority_free(a);
	if (ca_password)
		secret_wipe(ca_password, strlen(ca_password));
	free(ca_password);
	return rc;
}

static int with_password(struct cli *c, bool restore, struct err *e)
{
	struct config *cfg;
	char *password = NULL;
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	if (!cli_is_root(restore ? "x0 ca restore" : "x0 ca backup", e))
		rc = ERR_DENIED;
	rc = rc ? rc : crypto_init(e);
	rc = rc ? rc : need_password(c, &password, e);
	if (rc == 0 && restore) {
		rc = dir_make(cfg->state_dir, 0755, e);
		rc = rc ? rc : authority_restore(c->argv[0], password, cfg->authority_dir, e);
		rc = rc ? rc : daemon_dirs(cfg, e);
	} else if (rc == 0) {
		rc = backup(c, cfg, password, e);
	}
	if (password)
		secret_wipe(password, strlen(password));
	free(password);
	config_free(cfg);
	if (rc == 0 && c->json)
		cli_reply(c, restore ? "Restored" : "Backup");
	return rc;
}

int cli_ca_backup(struct cli *c, struct err *e)
{
	return with_password(c, false, e);
}

int cli_ca_restore(struct cli *c, struct err *e)
{
	return with_password(c, true, e);
}
