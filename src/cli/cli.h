/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: cli
 *
 * The frame of the commands. A command is a line in schema/commands.def and a function
 *
 *	int cli_foo(struct cli *c, struct err *e)
 *
 * that returns 0 or ERR_* with `e` filled. The frame has parsed the options and checked the number of
 *arguments; it prints errors (text on stderr, or one JSON object on stdout with --json) and turns codes into
 *exit statuses.
 *
 * Output: a command writes text to stdout unless c->json, and with c->json fills the object of cli_reply(),
 *which the frame prints on one line. Either way data goes to stdout and everything else to stderr.
 */
#ifndef X0_CLI_CLI_H
#define X0_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>
#include <yyjson.h>

#include "base/base.h"

#define CLI_API		   "x0/v1"
#define CLI_CONFIG_DEFAULT "/etc/x0/x0.yaml"

enum { CLI_OPTS = 32 };

struct cli;

struct cli_cmd {
	const char *path, *args, *help;
	int (*fn)(struct cli *c, struct err *e);
};

struct cli_opt {
	const char *path, *name;
	char letter;
	const char *arg, *help;
};

struct cli {
	const struct cli_cmd *cmd;
	bool json;
	const char *config; /* --config, else $X0_CONFIG, else the default path */
	bool config_given;  /* by option or environment: then it must exist */
	int argc;	    /* arguments that are no options */
	char **argv;
	struct {
		const char *name, *value;
	} opt[CLI_OPTS]; /* as given, in order */
	unsigned nopts;
	yyjson_mut_doc *doc; /* owned; the reply, made by cli_reply() */
	yyjson_mut_val *root;
	bool printed; /* an error is already told: set only the exit status */
};

/* Options: value of the n-th time the option was given, "" for flags, NULL if it was not. */
const char *cli_opt(const struct cli *c, const char *name);
const char *cli_opt_nth(const struct cli *c, const char *name, unsigned n);
/* Number in [min, max], or the default if the option was not given. Fractions are allowed: "0.2". */
int cli_opt_num(const struct cli *c, const char *name, double def, double min, double max, double *ret,
		struct err *e);
/* Duration ("90", "90s", "15m", "24h", "30d") in seconds within [min, max]. */
int cli_opt_duration(const struct cli *c, const char *name, int64_t def, int64_t min, int64_t max,
		     int64_t *ret, struct err *e);
int cli_duration_parse(const char *s, int64_t *ret, struct err *e);

/* ---- output ---- */
/* Starts the reply: {"api":"x0/v1","kind":kind,"ok":true}; returns the root to add fields to. Needed only if
 * c->json. */
yyjson_mut_val *cli_reply(struct cli *c, const char *kind);
/* The daemon's answer as the reply, unchanged. */
void cli_reply_doc(struct cli *c, yyjson_doc *doc);
void cli_reply_ok(struct cli *c,
		  bool ok); /* for checks: the reply says "ok": false, and the command returns ERR_CHECK */
bool cli_colour(FILE *f);   /* a terminal, and NO_COLOR is not set */

enum { CLI_COLS = 16 };
struct cli_table {
	unsigned ncols, nrows, next; /* next: column of the next cell */
	bool right[CLI_COLS];
	char **cell; /* owned; row-major, header first */
};
/* Heads end with NULL; a head that starts with '>' names a right-aligned column. */
void cli_table_init(struct cli_table *t, ...) __attribute__((sentinel));
void cli_table_cell(struct cli_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(struct cli_table *t, FILE *f); /* and frees */

const char *cli_bytes(uint64_t n, char to[16]);	  /* "12.3 MB" */
const char *cli_ago(double seconds, char to[24]); /* "2h 5m" */

/* ---- the daemon ---- */
/*
 * One request to the daemon's API socket. 0: *ret is the parsed answer, caller frees with yyjson_doc_free().
 * Errors of the daemon (problem+json) come back as their own code; ERR_UNREACHABLE if nobody answers,
 * ERR_TIMEOUT after `timeout_s` seconds. `body` NULL: none; else JSON text.
 */
int cli_call(struct cli *c, const char *method, const char *path, const char *body, int timeout_s,
	     yyjson_doc **ret, struct err *e);
/* The same on a socket path of one's own (several nodes on one host: the lab). */
int cli_call_at(const char *sock, const char *method, const char *path, const char *body, int timeout_s,
		yyjson_doc **ret, struct err *e);

struct config;
/* The configuration in c->config: the caller frees it with config_free(). Where none was named, a missing
 * file is fine. */
int cli_config(struct cli *c, struct config **ret, struct err *e);
/*
 * For commands that only have to find the daemon: a broken file (told in `why`, why->code is 0 if it is fine)
 * yields the defaults, with its run_dir and state_dir if these can be read.
 */
int cli_config_place(struct cli *c, struct config **ret, struct err *why, struct err *e);
bool cli_is_root(const char *what, struct err *e); /* sets ERR_DENIED with the remedy if not */
/* Fields of the daemon's answers; "" or 0 if they are missing. */
const char *cli_str(yyjson_val *obj, const char *key);
double cli_num(yyjson_val *obj, const char *key);

/* The tables, for help and completion. */
extern const struct cli_cmd cli_cmds[];
extern const size_t cli_ncmds;
extern const struct cli_opt cli_opts[];
extern const size_t cli_nopts;
extern const struct cli_opt cli_globals[];
extern const size_t cli_nglobals;

void cli_help_cmd(FILE *f, const struct cli_cmd *cmd);
void cli_help_all(FILE *f);

/* Runs argv; returns the exit status. main() is this and nothing else; tests call it too. */
int cli_main(int argc, char **argv);

#define CMD(path, args, fn, help) int fn(struct cli *c, struct err *e);
#define OPT(path, name, letter, arg, help)
#include "../../schema/commands.def"
#undef CMD
#undef OPT

#endif
