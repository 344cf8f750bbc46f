/* SPDX-License-Identifier: Apache-2.0 */
/* x0 config: check, show, diff, apply, confirm. The daemon applies; the file is written when the change is
 * kept. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/config.h"

static int load_arg(struct cli *c, struct config **ret, struct err *e)
{
	return c->argc ? config_load(c->argv[0], true, ret, e) : cli_config(c, ret, e);
}

int cli_config_check(struct cli *c, struct err *e)
{
	const char *path = c->argc ? c->argv[0] : c->config;
	struct config *cfg;
	int rc = load_arg(c, &cfg, e);

	if (rc < 0)
		return rc;
	if (c->json) {
		cli_reply(c, "ConfigCheck");
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "file", path);
	} else {
		printf("%s: fine\n", path);
	}
	config_free(cfg);
	return 0;
}

int cli_config_show(struct cli *c, struct err *e)
{
	struct config *cfg;
	char *text = NULL;
	size_t n = 0;
	FILE *f;
	int rc = load_arg(c, &cfg, e);

	if (rc < 0)
		return rc;
	f = c->json ? open_memstream(&text, &n) : stdout;
	if (f)
		config_print(cfg, f);
	if (c->json && f) {
		fclose(f);
		cli_reply(c, "Config");
		yyjson_mut_obj_add_strcpy(c->doc, c->root, "effective", text);
	}
	free(text);
	config_free(cfg);
	return 0;
}

/* What runs if a daemon answers, else the file. */
static int current(struct cli *c, struct config **ret, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *text;
	int rc = cli_call(c, "GET", "/config", NULL, 5, &d, e);

	if (rc == ERR_UNREACHABLE || rc == ERR_DENIED) {
		*e = (struct err){ 0 };
		return cli_config(c, ret, e);
	}
	if (rc < 0)
		return rc;
	text = yyjson_obj_get(yyjson_doc_get_root(d), "text");
	rc = config_parse("the running configuration", cli_str(yyjson_doc_get_root(d), "text"),
			  yyjson_get_len(text), ret, e);
	yyjson_doc_free(d);
	return rc;
}

int cli_config_diff(struct cli *c, struct err *e)
{
	struct config *was, *now;
	struct config_diff diff[64];
	yyjson_mut_val *arr = NULL;
	size_t n;
	int rc = config_load(c->argv[0], true, &now, e);

	if (rc < 0)
		return rc;
	rc = current(c, &was, e);
	if (rc < 0) {
		config_free(now);
		return rc;
	}
	n = config_diff(was, now, diff, ARRAY_SIZE(diff));
	if (c->json)
		arr = yyjson_mut_obj_add_arr(c->doc, cli_reply(c, "ConfigDiff"), "changes");
	for (size_t i = 0; i < n && i < ARRAY_SIZE(diff); i++) {
		if (c->json) {
			yyjson_mut_val *o = yyjson_mut_arr_add_obj(c->doc, arr);

			yyjson_mut_obj_add_strcpy(c->doc, o, "key", diff[i].path);
			yyjson_mut_obj_add_strcpy(c->doc, o, "before", diff[i].before);
			yyjson_mut_obj_add_strcpy(c->doc, o, "after", diff[i].after);
			yyjson_mut_obj_add_bool(c->doc, o, "reloadable", diff[i].reloadable);
		} else {
			printf("%s:%s\n- %s\n+ %s\n", diff[i].path,
			       diff[i].reloadable ? "" : " (needs a restart)", diff[i].before, diff[i].after);
		}
	}
	if (!n && !c->json)
		puts("no difference");
	config_free(was);
	config_free(now);
	return 0;
}

/* JSON text of {"text": ..., "confirm_s": ...}; the caller's. */
static char *apply_body(const struct config *cfg, int64_t confirm)
{
	yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(d);
	char *s;

	yyjson_mut_doc_set_root(d, root);
	yyjson_mut_obj_add_strn(d, root, "text", cfg->text, cfg->text_n);
	yyjson_mut_obj_add_int(d, root, "confirm_s", confirm);
	s = yyjson_mut_write(d, 0, NULL);
	yyjson_mut_doc_free(d);
	return s;
}

/* Before anything is applied: will it be possible to keep it? */
static int may_write(const char *path, struct err *e)
{
	char dir[512], *slash;

	if (str_fmt(dir, sizeof(dir), "%s", path) < 0)
		return err_set(e, ERR_USAGE, "the configuration's path is too long");
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	else
		strcpy(dir, ".");
	if (access(dir, W_OK) == 0)
		return 0;
	err_set(e, ERR_DENIED, "%s cannot be written, so the change could not be kept: %s", path,
		strerror(errno));
	return err_todo(e, "run it as root");
}

static int keep(const char *path, const char *text, size_t n, struct err *e)
{
	struct stat st;
	int rc = file_write(path, text, n, stat(path, &st) == 0 ? st.st_mode & 0777 : 0644, e);

	if (rc < 0)
		err_prefix(e, "applied, but not kept for the next start");
	return rc;
}

int cli_config_apply(struct cli *c, struct err *e)
{
	struct config *cfg;
	yyjson_doc *d = NULL;
	int64_t confirm;
	char *body;
	int rc = cli_opt_duration(c, "confirm", 0, 1, 86400, &confirm, e);

	rc = rc ? rc : config_load(c->argv[0], true, &cfg, e);
	if (rc < 0)
		return rc;
	rc = may_write(c->config, e);
	body = rc ? NULL : apply_body(cfg, confirm);
	if (!rc && !body)
		rc = err_set(e, ERR_CONFIG, "%s is no UTF-8", c->argv[0]);
	rc = rc ? rc : cli_call(c, "POST", "/config", body, 15, &d, e);
	if (rc == 0 && !confirm)
		rc = keep(c->config, cfg->text, cfg->text_n, e);
	if (rc == 0 && c->json)
		cli_reply_doc(c, d);
	else if (rc == 0 && confirm)
		printf("applied; it is undone in %lld s unless you run: x0 config confirm\n",
		       (long long)confirm);
	yyjson_doc_free(d);
	free(body);
	config_free(cfg);
	return rc;
}

int cli_config_confirm(struct cli *c, struct err *e)
{
	yyjson_doc *d;
	yyjson_val *text;
	int rc = may_write(c->config, e);

	rc = rc ? rc : cli_call(c, "POST", "/config/confirm", "{}", 15, &d, e);
	if (rc < 0)
		return rc;
	text = yyjson_obj_get(yyjson_doc_get_root(d), "text");
	rc = keep(c->config, yyjson_get_str(text), yyjson_get_len(text), e);
	yyjson_doc_free(d);
	if (rc == 0 && c->json)
		cli_reply(c, "ConfigConfirmed");
	else if (rc == 0)
		printf("kept in %s\n", c->config);
	return rc;
}
