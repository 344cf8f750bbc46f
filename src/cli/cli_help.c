/* SPDX-License-Identifier: Apache-2.0 */
/* Help and completion, both from the table of commands; the manual page too: tools/man.py. */
#include "cli/cli.h"

static void opt_text(const struct cli_opt *o, char *to, size_t cap)
{
	char letter[8] = "";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(to, cap, "%s--%s%s%s", letter, o->name, *o->arg ? " " : "", o->arg);
}

static void print_opts(FILE *f, const struct cli_opt *opts, size_t n, const char *path)
{
	char text[80];

	for (size_t i = 0; i < n; i++)
		if (!strcmp(opts[i].path, path)) {
			opt_text(&opts[i], text, sizeof(text));
			fprintf(f, "  %-26s %s\n", text, opts[i].help);
		}
}

void cli_help_cmd(FILE *f, const struct cli_cmd *cmd)
{
	fprintf(f, "usage: x0 %s%s%s [options]\n\n%s.\n\noptions:\n", cmd->path, *cmd->args ? " " : "",
		cmd->args, cmd->help);
	print_opts(f, cli_opts, cli_nopts, cmd->path);
	print_opts(f, cli_globals, cli_nglobals, "");
}

static void print_cmds(FILE *f, const char *group)
{
	char text[80];
	size_t n = group ? strlen(group) : 0;

	for (size_t i = 0; i < cli_ncmds; i++) {
		const struct cli_cmd *k = &cli_cmds[i];

		if (group && (strncmp(k->path, group, n) || (k->path[n] && k->path[n] != ' ')))
			continue;
		snprintf(text, sizeof(text), "%s%s%s", k->path, *k->args ? " " : "", k->args);
		fprintf(f, "  %-26s %s\n", text, k->help);
	}
}

void cli_help_all(FILE *f)
{
	fputs("x0: a post-quantum zero-trust mesh\n\nusage: x0 COMMAND [options]\n\ncommands:\n", f);
	print_cmds(f, NULL);
	fputs("\noptions of every command:\n", f);
	print_opts(f, cli_globals, cli_nglobals, "");
	fputs("\nexit status: 0 ok", f);
#define X(name, code, exit_status, title)                                                                    \
	if ((code) >= -9)                                                                                    \
		fprintf(f, ", %d %s", exit_status, title);
#include "base/err.def"
#undef X
	fputs("\n", f);
}

int cli_help(struct cli *c, struct err *e)
{
	char path[128] = "";
	const char *group;
	size_t n = 0;

	if (!c->argc) {
		cli_help_all(stdout);
		return 0;
	}
	for (int i = 0; i < c->argc; i++) {
		int m = snprintf(path + n, sizeof(path) - n, "%s%s", i ? " " : "", c->argv[i]);

		n = n + (size_t)m < sizeof(path) ? n + (size_t)m : sizeof(path) - 1;
	}
	group = c->argv[0];
	for (size_t i = 0; i < cli_ncmds; i++)
		if (!strcmp(cli_cmds[i].path, path)) {
			cli_help_cmd(stdout, &cli_cmds[i]);
			return 0;
		}
	for (size_t i = 0; i < cli_ncmds; i++)
		if (!strncmp(cli_cmds[i].path, group, strlen(group)) &&
		    cli_cmds[i].path[strlen(group)] == ' ') {
			print_cmds(stdout, group);
			return 0;
		}
	return err_set(e, ERR_NOT_FOUND, "no command 'x0 %s'", path);
}

/* ---- completion ---- */

/* Words that may come next after `prefix` ("" for the first word), each once, separated by spaces. */
static void next_words(FILE *f, const char *group)
{
	const char *last = "";
	size_t last_n = 0;

	for (size_t i = 0; i < cli_ncmds; i++) {
		const char *p = cli_cmds[i].path;
		size_t n = strcspn(p, " ");

		if (*group) {
			if (strncmp(p, group, strlen(group)) || p[strlen(group)] != ' ')
				continue;
			fprintf(f, "%s ", p + strlen(group) + 1);
			continue;
		}
		if (n == last_n && !strncmp(p, last, n))
			continue;
		fprintf(f, "%.*s ", (int)n, p);
		last = p;
		last_n = n;
	}
}

static void opt_words(FILE *f, const char *path)
{
	for (size_t i = 0; i < cli_nopts; i++)
		if (!strcmp(cli_opts[i].path, path))
			fprintf(f, "--%s ", cli_opts[i].name);
	for (size_t i = 0; i < cli_nglobals; i++)
		fprintf(f, "--%s ", cli_globals[i].name);
}

/* The options that take a value, as a pattern of the shell's case. */
static void value_opts(FILE *f)
{
	const char *sep = "";

	for (size_t i = 0; i < cli_nopts + cli_nglobals; i++) {
		const struct cli_opt *o = i < cli_nopts ? &cli_opts[i] : &cli_globals[i - cli_nopts];

		if (!*o->arg)
			continue;
		fprintf(f, "%s--%s", sep, o->name);
		sep = "|";
		if (o->letter)
			fprintf(f, "|-%c", o->letter);
	}
}

static void bash(FILE *f)
{
	const char *last = "";

	/* What an option takes is no word of the command; bash splits --opt=value in three. */
	fputs("_x0() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words='' w path='' skip=''\n"
	      "\tfor w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	      "\t\t[[ -n $skip && $w == '=' ]] && continue\n"
	      "\t\t[[ -n $skip ]] && { skip=''; continue; }\n"
	      "\t\tcase $w in ",
	      f);
	value_opts(f);
	fputs(") skip=1 ;; -*) ;; *) path=\"${path:+$path }$w\" ;; esac\n\tdone\n"
	      "\tcase $path in\n\t'') words='",
	      f);
	next_words(f, "");
	opt_words(f, "");
	fputs("';;\n", f);
	for (size_t i = 0; i < cli_ncmds; i++) {
		const char *p = cli_cmds[i].path, *sp = strchr(p, ' ');
		char group[32];

		fprintf(f, "\t'%s'%s%s%s) words='", p, *cli_cmds[i].args ? "|'" : "",
			*cli_cmds[i].args ? p : "", *cli_cmds[i].args ? " '*" : "");
		opt_words(f, p);
		fputs("';;\n", f);
		if (!sp || (!strncmp(last, p, (size_t)(sp - p)) && last[sp - p] == ' ')) {
			last = p;
			continue;
		}
		last = p;
		snprintf(group, sizeof(group), "%.*s", (int)(sp - p), p);
		fprintf(f, "\t'%s') words='", group);
		next_words(f, group);
		fputs("';;\n", f);
	}
	fputs("\tesac\n\tif [[ ${COMP_WORDS[COMP_CWORD-1]} == --config || ${COMP_WORDS[COMP_CWORD-1]} == "
	      "*-file ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n\telse\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n\tfi\n}\n"
	      "complete -o default -F _x0 x0\n",
	      f);
}

static void fish(FILE *f)
{
	for (size_t i = 0; i < cli_ncmds; i++) {
		const char *p = cli_cmds[i].path, *sp = strchr(p, ' ');

		if (!sp)
			fprintf(f, "complete -c x0 -n __fish_use_subcommand -f -a %s -d '%s'\n", p,
				cli_cmds[i].help);
		else
			fprintf(f,
				"complete -c x0 -n __fish_use_subcommand -f -a %.*s\n"
				"complete -c x0 -n '__fish_seen_subcommand_from %.*s' -f -a %s -d '%s'\n",
				(int)(sp - p), p, (int)(sp - p), p, sp + 1, cli_cmds[i].help);
	}
	for (size_t i = 0; i < cli_nopts; i++) {
		const char *p = cli_opts[i].path, *sp = strrchr(p, ' ');

		fprintf(f, "complete -c x0 -n '__fish_seen_subcommand_from %s' -l %s%s -d '%s'\n",
			sp ? sp + 1 : p, cli_opts[i].name, *cli_opts[i].arg ? " -r" : "", cli_opts[i].help);
	}
	for (size_t i = 0; i < cli_nglobals; i++)
		fprintf(f, "complete -c x0 -l %s%s -d '%s'\n", cli_globals[i].name,
			*cli_globals[i].arg ? " -r" : "", cli_globals[i].help);
}

int cli_completion(struct cli *c, struct err *e)
{
	const char *shell = c->argv[0];

	if (!strcmp(shell, "bash")) {
		bash(stdout);
	} else if (!strcmp(shell, "zsh")) {
		fputs("#compdef x0\nautoload -U +X bashcompinit && bashcompinit\n", stdout);
		bash(stdout);
	} else if (!strcmp(shell, "fish")) {
		fish(stdout);
	} else {
		return err_set(e, ERR_USAGE, "no completion for '%.40s'; there is bash, zsh and fish", shell);
	}
	return 0;
}
