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
		rc = lab_parse(c->argc > 0 ? c->argv[0] : "a-b a-c b-c", &lab, e);
	if (rc == 0)
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
		return 0;
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
	return 0;
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
