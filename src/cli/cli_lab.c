/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "lab/lab.h"

/* The binary that runs is the one the hosts of the lab run. */
static int own_path(char to[256], struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", to, 255);

	if (n <= 0)
		return err_sys(e, "find own binary");
	to[n] = 0;
	return 0;
}

int cli_demo(struct cli *c, struct err *e)
{
	struct demo_opts o = { .once = cli_opt(c, "once") != NULL,
			       .json = c->json,
			       .scene = cli_opt(c, "scene") };
	char x0[256];
	int rc = own_path(x0, e);

	o.colour = !c->json && cli_colour(stdout);
	if (rc == 0)
		rc = demo_run(x0, &o, e);
	/* The scenes said which failed; with --json the last line must stay theirs. */
	if (rc == ERR_CHECK)
		c->printed = true;
	return rc;
}

int cli_lab_up(struct cli *c, struct err *e)
{
	struct lab lab = { 0 };
	int rc = own_path(lab.x0, e);

	if (rc == 0)
		rc = lab_load(c->argc > 0 ? c->argv[0] : "a-b a-c b-c", &lab, e);
	if (rc != 0)
		return rc; /* what ran still runs */
	rc = lab_down(lab.x0, e);
	if (rc == 0)
		rc = lab_make(&lab, e);
	if (rc == 0)
		rc = lab_start(&lab, e);
	if (rc != 0)
		lab_down(lab.x0, NULL);
	else if (!c->json)
		printf("%u hosts, %u links; x0 lab exec HOST -- COMMAND\n", lab.nhosts, lab.nlinks);
	else
		cli_reply(c, "Lab");
	return rc;
}

static void link_json(struct cli *c, yyjson_mut_val *links, const char *from, const char *at,
		      const struct lab_impaired *i)
{
	yyjson_mut_val *o = yyjson_mut_arr_add_obj(c->doc, links);
	const struct {
		const char *key;
		uint64_t v;
	} n[] = { { "mtu", i->mtu },
		  { "loss_ppm", i->is.loss_ppm },
		  { "reorder_ppm", i->is.reorder_ppm },
		  { "delay_ns", i->is.delay_ns },
		  { "rate_bps", i->is.rate_bps },
		  { "seen", i->seen },
		  { "lost", i->lost },
		  { "held", i->held },
		  { "overtook", i->overtook },
		  { "merged", i->merged } };

	yyjson_mut_obj_add_strcpy(c->doc, o, "from", from);
	yyjson_mut_obj_add_strcpy(c->doc, o, "to", at);
	for (size_t k = 0; k < ARRAY_SIZE(n); k++)
		yyjson_mut_obj_add_uint(c->doc, o, n[k].key, n[k].v);
}

static void link_row(struct cli_table *t, const char *from, const char *at, const struct lab_impaired *i)
{
	cli_table_cell(t, "%s > %s", from, at);
	cli_table_cell(t, "%u", i->mtu);
	cli_table_cell(t, "%g%%", i->is.loss_ppm / 1e4);
	cli_table_cell(t, "%g%%", i->is.reorder_ppm / 1e4);
	cli_table_cell(t, "%g ms", (double)i->is.delay_ns / 1e6);
	cli_table_cell(t, i->is.rate_bps ? "%g Mbit/s" : "-", (double)i->is.rate_bps / 1e6);
	cli_table_cell(t, "%llu", (unsigned long long)i->seen);
	cli_table_cell(t, "%llu", (unsigned long long)i->lost);
	cli_table_cell(t, "%llu", (unsigned long long)i->held);
}

/* Both directions of a link, or of all links (a and b NULL); with --json into the reply. */
static int show_links(struct cli *c, const char *a, const char *b, struct err *e)
{
	char host[LAB_HOSTS][LAB_NAME];
	int n = lab_list(host, LAB_HOSTS, e);
	yyjson_mut_val *links = c->json ? yyjson_mut_obj_add_arr(c->doc, c->root, "links") : NULL;
	struct cli_table t;

	if (!c->json)
		cli_table_init(&t, "LINK", ">MTU", ">LOSS", ">REORDER", ">DELAY", ">RATE", ">SEEN", ">LOST",
			       ">HELD", NULL);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < n; k++) {
			const char *from = host[i], *at = host[k];
			struct lab_impaired is;

			if (i == k || (a && !(!strcmp(from, a) && !strcmp(at, b)) &&
				       !(!strcmp(from, b) && !strcmp(at, a))))
				continue;
			if (lab_impair_get(from, at, &is, NULL) != 0)
				continue; /* these two have no link */
			if (c->json)
				link_json(c, links, from, at, &is);
			else
				link_row(&t, from, at, &is);
		}
	if (!c->json)
		cli_table_print(&t, stdout);
	return n < 0 ? n : 0;
}

int cli_lab_list(struct cli *c, struct err *e)
{
	char host[LAB_HOSTS][LAB_NAME];
	int n = lab_list(host, LAB_HOSTS, e);
	struct cli_table t;

	if (n < 0)
		return n;
	if (c->json) {
		yyjson_mut_val *root = cli_reply(c, "Lab"),
			       *a = yyjson_mut_obj_add_arr(c->doc, root, "hosts");

		for (int i = 0; i < n; i++)
			yyjson_mut_arr_add_strcpy(c->doc, a, host[i]);
		return show_links(c, NULL, NULL, e);
	}
	cli_table_init(&t, "HOST", "NAMESPACE", ">DAEMON", NULL);
	for (int i = 0; i < n; i++) {
		char ns[32];

		lab_ns(host[i], ns);
		cli_table_cell(&t, "%s", host[i]);
		cli_table_cell(&t, "%s", ns);
		cli_table_cell(&t, "%d", (int)lab_daemon_pid(host[i]));
	}
	cli_table_print(&t, stdout);
	if (n == 0)
		return 0;
	printf("\n");
	return show_links(c, NULL, NULL, e);
}

/* Both ends of "a-b"; the text is the caller's. */
static int link_ends(char *link, const char **a, const char **b, struct err *e)
{
	char *dash = strchr(link, '-');

	if (!dash || dash == link || !dash[1]) {
		err_set(e, ERR_USAGE, "'%.40s' is no link", link);
		return err_todo(e, "name both its hosts, as in a-b; x0 lab list shows the links");
	}
	*dash = 0;
	*a = link;
	*b = dash + 1;
	return 0;
}

int cli_lab_link(struct cli *c, struct err *e)
{
	const char *a = NULL, *b = NULL, *loss = cli_opt(c, "loss"), *reorder = cli_opt(c, "reorder"),
		   *delay = cli_opt(c, "delay"), *rate = cli_opt(c, "rate");
	struct lab_impaired now;
	int rc = link_ends(c->argv[0], &a, &b, e);

	if (rc == 0)
		rc = lab_impair_get(a, b, &now, e);
	if (rc == 0 && loss)
		rc = lab_ppm_parse(loss, &now.is.loss_ppm, e);
	if (rc == 0 && reorder)
		rc = lab_ppm_parse(reorder, &now.is.reorder_ppm, e);
	if (rc == 0 && delay && (rc = conf_duration_parse(delay, &now.is.delay_ns, e)) != 0)
		rc = err_prefix(e, "--delay");
	if (rc == 0 && rate)
		rc = lab_rate_parse(rate, &now.is.rate_bps, e);
	if (rc == 0 && (loss || reorder || delay || rate))
		rc = lab_impair_set(a, b, &now.is, e);
	if (rc != 0)
		return rc;
	if (c->json)
		cli_reply(c, "Lab");
	return show_links(c, a, b, e);
}

int cli_lab_exec(struct cli *c, struct err *e)
{
	char config[64], *argv[64] = { NULL };
	int rc;

	if (c->argc < 2 || c->argc > (int)ARRAY_SIZE(argv))
		return err_set(e, ERR_USAGE, "a command has 1 to %zu words", ARRAY_SIZE(argv) - 1);
	for (int i = 1; i < c->argc; i++)
		argv[i - 1] = c->argv[i];
	rc = lab_enter(c->argv[0], e);
	if (rc != 0)
		return rc;
	lab_config(c->argv[0], config);
	setenv("X0_CONFIG", config, 1);
	execvp(argv[0], argv);
	return err_sys(e, "start %s", argv[0]);
}

int cli_lab_down(struct cli *c, struct err *e)
{
	char x0[256];
	int rc = own_path(x0, e);

	if (rc == 0)
		rc = lab_down(x0, e);
	if (rc == 0 && c->json)
		cli_reply(c, "Lab");
	return rc;
}
