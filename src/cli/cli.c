/* SPDX-License-Identifier: Apache-2.0 */
/* The frame: finds the command, parses its options, runs it, prints its reply or its error. */
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"

#define OPT(path, name, letter, arg, help)
#define CMD(path, args, fn, help) { path, args, help, fn },
const struct cli_cmd cli_cmds[] = {
#include "../../schema/commands.def"
};
#undef CMD
#undef OPT
const size_t cli_ncmds = ARRAY_SIZE(cli_cmds);

#define CMD(path, args, fn, help)
#define OPT(path, name, letter, arg, help) { path, name, letter, arg, help },
const struct cli_opt cli_opts[] = {
#include "../../schema/commands.def"
};
#undef CMD
#undef OPT
const size_t cli_nopts = ARRAY_SIZE(cli_opts);

const struct cli_opt cli_globals[] = {
	{ "", "json", 0, "", "One JSON object instead of text, for errors too" },
	{ "", "config", 0, "FILE", "Configuration file (default $X0_CONFIG or " CLI_CONFIG_DEFAULT ")" },
	{ "", "help", 'h', "", "Help on the command" },
};
const size_t cli_nglobals = ARRAY_SIZE(cli_globals);

/* The number of words of `path` that argv starts with, 0 if not all of them. */
static int path_matches(const char *path, int argc, char **argv)
{
	int i = 0;

	while (*path) {
		size_t n = strcspn(path, " ");

		if (i == argc || strlen(argv[i]) != n || strncmp(argv[i], path, n))
			return 0;
		path += n;
		path += *path == ' ';
		i++;
	}
	return i;
}

static bool is_group(const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < cli_ncmds; i++)
		if (!strncmp(cli_cmds[i].path, word, n) && cli_cmds[i].path[n] == ' ')
			return true;
	return false;
}

static int unknown_command(int argc, char **argv, struct err *e)
{
	const char *paths[256];
	char given[256], firsts[256][32];
	size_t n = 0;
	const char *near;

	if (argc >= 2 && is_group(argv[0])) {
		snprintf(given, sizeof(given), "%s %s", argv[0], argv[1]);
	} else {
		snprintf(given, sizeof(given), "%s", argv[0]);
	}
	for (size_t i = 0; i < cli_ncmds && n < ARRAY_SIZE(paths); i++) {
		if (strchr(given, ' ')) {
			paths[n++] = cli_cmds[i].path;
			continue;
		}
		snprintf(firsts[n], sizeof(firsts[n]), "%.*s", (int)strcspn(cli_cmds[i].path, " "),
			 cli_cmds[i].path);
		paths[n] = firsts[n];
		n++;
	}
	near = str_nearest(given, paths, n);
	if (argc == 1 && is_group(argv[0]))
		err_set(e, ERR_USAGE, "'x0 %s' needs a verb", argv[0]);
	else
		err_set(e, ERR_USAGE, "unknown command 'x0 %s'%s%s%s", given,
			near ? "; did you mean 'x0 " : "", near ? near : "", near ? "'?" : "");
	return err_todo(e, "x0 help%s%s lists what there is", is_group(argv[0]) ? " " : "",
			is_group(argv[0]) ? argv[0] : "");
}

static const struct cli_opt *find_opt(const char *path, const char *name, size_t n, char letter)
{
	for (size_t i = 0; i < cli_nopts + cli_nglobals; i++) {
		const struct cli_opt *o = i < cli_nopts ? &cli_opts[i] : &cli_globals[i - cli_nopts];

		if (*o->path && (!path || strcmp(o->path, path)))
			continue;
		if (letter ? o->letter == letter : strlen(o->name) == n && !strncmp(o->name, name, n))
			return o;
	}
	return NULL;
}

static int unknown_opt(const char *path, const char *arg, struct err *e)
{
	const char *names[64];
	char name[64];
	size_t n = 0;
	const char *near;

	for (size_t i = 0; i < cli_nopts + cli_nglobals && n < ARRAY_SIZE(names); i++) {
		const struct cli_opt *o = i < cli_nopts ? &cli_opts[i] : &cli_globals[i - cli_nopts];

		if (!*o->path || (path && !strcmp(o->path, path)))
			names[n++] = o->name;
	}
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(arg + 2, "="), arg[1] == '-' ? arg + 2 : "");
	near = arg[1] == '-' ? str_nearest(name, names, n) : NULL;
	err_set(e, ERR_USAGE, "unknown option '%.80s'%s%s%s", arg, near ? "; did you mean '--" : "",
		near ? near : "", near ? "'?" : "");
	return err_todo(e, "x0%s%s --help lists its options", path ? " " : "", path ? path : "");
}

/* Takes argv[i] (and maybe argv[i + 1]) as an option. Returns how many it took, or an error. */
static int take_opt(struct cli *c, const char *path, int i, int argc, char **argv, struct err *e)
{
	const char *a = argv[i], *value = "";
	const struct cli_opt *o;
	size_t n = 0;
	int took = 1;

	if (a[1] == '-') {
		n = strcspn(a + 2, "=");
		o = find_opt(path, a + 2, n, 0);
	} else {
		o = a[2] ? NULL : find_opt(path, NULL, 0, a[1]);
	}
	if (!o)
		return unknown_opt(path, a, e);
	if (*o->arg) {
		if (n && a[2 + n] == '=') {
			value = a + 2 + n + 1;
		} else if (i + 1 < argc) {
			value = argv[i + 1];
			took = 2;
		} else {
			return err_set(e, ERR_USAGE, "option --%s needs a value (%s)", o->name, o->arg);
		}
	} else if (n && a[2 + n] == '=') {
		return err_set(e, ERR_USAGE, "option --%s takes no value", o->name);
	}
	if (c->nopts == CLI_OPTS)
		return err_set(e, ERR_USAGE, "more than %d options", CLI_OPTS);
	c->opt[c->nopts].name = o->name;
	c->opt[c->nopts++].value = value;
	return took;
}

static int check_args(const struct cli *c, struct err *e)
{
	int min = 0, max = 0;
	const char *s = c->cmd->args;

	while (*s) {
		size_t n = strcspn(s, " ");
		bool many = n > 3 && strstr(s, "...") && strstr(s, "...") < s + n;

		if (*s != '[')
			min++;
		max = many ? 1 << 20 : max + 1;
		s += n;
		s += *s == ' ';
	}
	if (c->argc >= min && c->argc <= max)
		return 0;
	err_set(e, ERR_USAGE, "'x0 %s' takes %s, %d given", c->cmd->path,
		*c->cmd->args ? c->cmd->args : "no arguments", c->argc);
	return err_todo(e, "usage: x0 %s%s%s [options]", c->cmd->path, *c->cmd->args ? " " : "",
			c->cmd->args);
}

/* Splits argv into options and words, finding the command on the way. Words are collected in place. */
static int parse(struct cli *c, int argc, char **argv, struct err *e)
{
	int nwords = 0, i = 1, r, depth;

	c->argv = argv;
	for (; i < argc; i += r) {
		r = 1;
		if (!c->cmd && nwords) {
			/* The path is complete when no longer path starts with these words. */
			for (size_t k = 0; k < cli_ncmds; k++)
				if (path_matches(cli_cmds[k].path, nwords, argv) == nwords)
					c->cmd = &cli_cmds[k];
		}
		if (!strcmp(argv[i], "--")) {
			for (i++; i < argc; i++)
				argv[nwords++] = argv[i];
			break;
		}
		if (argv[i][0] == '-' && argv[i][1]) {
			r = take_opt(c, c->cmd ? c->cmd->path : NULL, i, argc, argv, e);
			if (r < 0)
				return r;
			continue;
		}
		argv[nwords++] = argv[i];
	}
	for (size_t k = 0; k < cli_ncmds; k++) {
		depth = path_matches(cli_cmds[k].path, nwords, argv);
		if (depth) {
			c->cmd = &cli_cmds[k];
			c->argc = nwords - depth;
			c->argv = argv + depth;
			return 0;
		}
	}
	c->argc = nwords;
	return 0;
}

static void print_error(struct cli *c, const struct err *e)
{
	yyjson_mut_val *o;

	if (!c->json) {
		fprintf(stderr, "x0: %s\n", e->what[0] ? e->what : err_title(e->code));
		if (e->todo[0])
			fprintf(stderr, "    %s\n", e->todo);
		return;
	}
	yyjson_mut_doc_free(c->doc);
	c->doc = NULL;
	cli_reply(c, "Error");
	cli_reply_ok(c, false);
	o = yyjson_mut_obj_add_obj(c->doc, c->root, "error");
	yyjson_mut_obj_add_str(c->doc, o, "code", err_name(e->code));
	yyjson_mut_obj_add_str(c->doc, o, "message", e->what[0] ? e->what : err_title(e->code));
	yyjson_mut_obj_add_str(c->doc, o, "todo", e->todo);
}

static void print_reply(struct cli *c)
{
	char *s;

	if (!c->json || !c->doc)
		return;
	s = yyjson_mut_write(c->doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
	if (s) {
		puts(s);
		free(s);
	}
}

static int run(struct cli *c, int argc, char **argv, struct err *e)
{
	int r;

	/* --json counts wherever it stands, so that every error can be in that form; parse() moves argv. */
	for (int i = 1; i < argc && !c->json && strcmp(argv[i], "--"); i++)
		c->json = !strcmp(argv[i], "--json");
	r = parse(c, argc, argv, e);
	if (r < 0)
		return r;
	c->config = cli_opt(c, "config");
	if (!c->config)
		c->config = getenv("X0_CONFIG");
	c->config_given = c->config && *c->config;
	if (!c->config_given)
		c->config = CLI_CONFIG_DEFAULT;
	if (cli_opt(c, "help")) {
		if (c->cmd)
			cli_help_cmd(stdout, c->cmd);
		else
			cli_help_all(stdout);
		return 0;
	}
	if (!c->cmd) {
		if (c->argc)
			return unknown_command(c->argc, c->argv, e);
		cli_help_all(stderr);
		c->printed = !c->json;
		return err_set(e, ERR_USAGE, "no command given");
	}
	r = check_args(c, e);
	return r < 0 ? r : c->cmd->fn(c, e);
}

int cli_main(int argc, char **argv)
{
	struct cli c = { 0 };
	struct err e = { 0 };
	int r, status;

	r = run(&c, argc, argv, &e);
	status = r < 0 ? err_exit_status(r) : 0;
	if (r < 0 && !c.printed) {
		if (!e.code)
			e.code = r;
		print_error(&c, &e);
	}
	print_reply(&c);
	yyjson_mut_doc_free(c.doc);
	/* A full disk behind stdout must not look like success. */
	if (fflush(stdout) && !status) {
		fprintf(stderr, "x0: writing the output failed\n");
		status = err_exit_status(ERR_SYS);
	}
	return status;
}
