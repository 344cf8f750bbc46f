/* SPDX-License-Identifier: Apache-2.0 */
/* x0 identity, x0 node. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <time.h>

#include "cli/cli.h"
#include "daemon/config.h"

static const char *date(int64_t t, char to[32])
{
	time_t tt = (time_t)t;
	struct tm tm;

	gmtime_r(&tt, &tm);
	strftime(to, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return to;
}

int cli_identity_show(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *o, *b, *r;
	char text[32];
	size_t i, n;
	int rc = cli_call(c, "GET", "/identity", NULL, 5, &d, e);

	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply_doc(c, d);
		yyjson_doc_free(d);
		return 0;
	}
	o = yyjson_doc_get_root(d);
	b = yyjson_obj_get(o, "bundle");
	printf("id          %s\naddress     %s\n", cli_str(o, "id"), cli_str(o, "address"));
	printf("expires     %s\n", date((int64_t)cli_num(o, "not_after"), text));
	printf("renewal     %s\n", date((int64_t)cli_num(o, "renew_at"), text));
	printf("link key    %s  %s\n", cli_str(yyjson_obj_get(o, "link"), "key_sha256"),
	       cli_str(yyjson_obj_get(o, "link"), "algorithm"));
	printf("spiffe key  %s  %s\n", cli_str(yyjson_obj_get(o, "spiffe"), "key_sha256"),
	       cli_str(yyjson_obj_get(o, "spiffe"), "algorithm"));
	printf("bundle      number %.0f, %.0f link roots, %.0f spiffe roots\n", cli_num(b, "number"),
	       cli_num(b, "link_roots"), cli_num(b, "spiffe_roots"));
	yyjson_arr_foreach(yyjson_obj_get(b, "revoked"), i, n, r)
		printf("revoked     %s\n", yyjson_get_str(r));
	yyjson_doc_free(d);
	return 0;
}

int cli_identity_renew(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	int rc = cli_call(c, "POST", "/identity/renew", "{}", 60, &d, e);

	if (rc < 0)
		return rc;
	cli_reply_doc(c, d);
	yyjson_doc_free(d);
	return 0;
}

/* Without the daemon: what is on disk, checked as a peer would. */
int cli_identity_verify(struct cli *c, struct err *e)
{
	struct config *cfg;
	struct node_identity *ni = NULL;
	struct svid_info info;
	char text[32], addr[INET6_ADDRSTRLEN];
	const struct bundle *b;
	int64_t now = (int64_t)(clock_wall_ns() / NS_PER_S);
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	rc = crypto_init(e);
	rc = rc ? rc : node_identity_load(cfg->identity_dir, &ni, e);
	config_free(cfg);
	if (rc < 0)
		return rc;
	b = ni->bundle;
	rc = svid_verify(&b, 1, SVID_LINK, &ni->link, 1, now, &info, e);
	if (rc < 0)
		err_prefix(e, "link SVID");
	else if ((rc = svid_verify(&b, 1, SVID_SPIFFE, &ni->spiffe, 1, now, &info, e)) < 0)
		err_prefix(e, "spiffe SVID");
	if (rc == 0 && c->json) {
		cli_reply(c, "IdentityVerified");
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "id", info.id.uri);
		yyjson_mut_obj_add_int(c->doc, c->root, "not_after", ni->not_after);
	} else if (rc == 0) {
		inet_ntop(AF_INET6, ni->addr, addr, sizeof(addr));
		printf("%s\nvalid until %s, address %s, bundle %llu\n", info.id.uri,
		       date(ni->not_after, text), addr, (unsigned long long)b->number);
	}
	node_identity_free(ni);
	return rc < 0 ? err_set(e, ERR_CHECK, "%s", strdupa(e->what)) : 0;
}

/* On an issuer the list of what it issued, elsewhere the peers. */
int cli_node_list(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *p;
	struct cli_table t;
	char text[32];
	size_t i, n;
	bool issuer = true;
	int rc = cli_call(c, "GET", "/nodes", NULL, 15, &d, e);

	if (rc == ERR_UNSUPPORTED) {
		issuer = false;
		rc = cli_call(c, "GET", "/peers", NULL, 5, &d, e);
	}
	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply_doc(c, d);
		yyjson_doc_free(d);
		return 0;
	}
	cli_table_init(&t, "NAME", "STATE", "ADDRESS", "SVID UNTIL", "ID", NULL);
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(d), issuer ? "nodes" : "peers"), i, n, p) {
		int64_t until = (int64_t)cli_num(p, issuer ? "not_after" : "svid_not_after");

		cli_table_cell(&t, "%s", cli_str(p, "name"));
		cli_table_cell(&t, "%s%s", cli_str(p, "state"),
			       yyjson_get_bool(yyjson_obj_get(p, "ephemeral")) ? ", ephemeral" : "");
		cli_table_cell(&t, "%s", cli_str(p, "address"));
		cli_table_cell(&t, "%s", until ? date(until, text) : "-");
		cli_table_cell(&t, "%s", cli_str(p, "id"));
	}
	cli_table_print(&t, stdout);
	yyjson_doc_free(d);
	return 0;
}
