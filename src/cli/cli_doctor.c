/* SPDX-License-Identifier: Apache-2.0 */
/* x0 doctor: the host's checks here, the daemon's from the daemon. */
#include <stdlib.h>

#include "cli/cli.h"
#include "daemon/doctor.h"

static void add_config(struct cli *c, struct doctor *d, struct config **ret)
{
	struct err why = { 0 }, e = { 0 };

	if (cli_config_place(c, ret, &why, &e) == 0 && !why.code) {
		doctor_add(d, "config", DOCTOR_OK, "", "%.150s", c->config);
		return;
	}
	doctor_add(d, "config", DOCTOR_FAIL, "correct it; x0 config check shows everything that is wrong",
		   "%.190s", why.code ? why.what : e.what);
	if (!*ret) /* the host is checked with the defaults then */
		config_parse("defaults", "", 0, ret, NULL);
}

static void add_daemon(struct doctor *d, const struct config *cfg)
{
	struct err e = { 0 };
	yyjson_doc *doc;
	yyjson_val *k;
	size_t i, n;

	if (cli_call_at(cfg->api_socket, "GET", "/doctor", NULL, 5, &doc, &e) < 0) {
		doctor_add(d, "daemon", DOCTOR_FAIL, e.todo, "%.190s", e.what);
		return;
	}
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "checks"), i, n, k) {
		const char *s = cli_str(k, "status");

		doctor_add(d, cli_str(k, "name"),
			   !strcmp(s, "ok")	? DOCTOR_OK
			   : !strcmp(s, "warn") ? DOCTOR_WARN
						: DOCTOR_FAIL,
			   cli_str(k, "todo"), "%s", cli_str(k, "detail"));
	}
	yyjson_doc_free(doc);
}

static void print(const struct doctor *d)
{
	static const char *const colour[] = { "\033[32m", "\033[33m", "\033[31m" };
	bool on = cli_colour(stdout);

	for (unsigned i = 0; i < d->n; i++) {
		const struct doctor_check *k = &d->check[i];

		printf("%s%-4s%s  %-12s  %s\n", on ? colour[k->status] : "", doctor_status_name(k->status),
		       on ? "\033[0m" : "", k->name, k->detail);
		if (k->todo[0])
			printf("                    -> %s\n", k->todo);
	}
}

int cli_doctor(struct cli *c, struct err *e)
{
	struct doctor *d = calloc(1, sizeof(*d));
	struct config *cfg = NULL;
	unsigned failed = 0;

	if (!d)
		return err_set(e, ERR_NOMEM, "no memory");
	add_config(c, d, &cfg);
	if (cfg) {
		doctor_host(d, cfg);
		add_daemon(d, cfg);
	}
	config_free(cfg);
	for (unsigned i = 0; i < d->n; i++)
		failed += d->check[i].status == DOCTOR_FAIL;
	if (c->json) {
		yyjson_mut_val *root = cli_reply(c, "Doctor"),
			       *arr = yyjson_mut_obj_add_arr(c->doc, root, "checks");

		cli_reply_ok(c, !failed);
		for (unsigned i = 0; i < d->n; i++) {
			yyjson_mut_val *o = yyjson_mut_arr_add_obj(c->doc, arr);

			yyjson_mut_obj_add_strcpy(c->doc, o, "name", d->check[i].name);
			yyjson_mut_obj_add_str(c->doc, o, "status", doctor_status_name(d->check[i].status));
			yyjson_mut_obj_add_strcpy(c->doc, o, "detail", d->check[i].detail);
			yyjson_mut_obj_add_strcpy(c->doc, o, "todo", d->check[i].todo);
		}
	} else {
		print(d);
	}
	free(d);
	c->printed = true;
	return failed ? err_set(e, ERR_CHECK, "%u checks failed", failed) : 0;
}
