/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x0 debug bundle: one text file with what a bug report needs. It holds what the API tells and the ends of
 * the logs; no key, no password and no token is ever in either, and what looks like a token or a PEM key is
 * scrubbed all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/config.h"

#ifndef X0_VERSION
#define X0_VERSION "dev"
#endif

enum { LOG_TAIL = 64 << 10 };

static void stars(char *from, const char *to)
{
	for (; from < to; from++)
		if (*from != '\n')
			*from = '*';
}

/* Tokens, in either case: they are read so too. */
static void scrub_tokens(char *s)
{
	char *p = s;

	while ((p = strcasestr(p, "x0t1."))) {
		char *word = p + 5;

		p = word + strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
		stars(word, p);
	}
}

/* Private keys; one whose beginning was cut off costs all that stands before its end. */
static void scrub_keys(char *s)
{
	static const char mark[] = "PRIVATE KEY-----";
	char *p = s, *at;

	while ((at = strstr(p, mark))) {
		char *dash = at, *after = at + strlen(mark), *end;

		while (dash > p && strncmp(dash, "-----", 5) != 0)
			dash--;
		if (strncmp(dash, "-----BEGIN ", 11) != 0) {
			stars(p, dash);
			p = after;
			continue;
		}
		end = strstr(after, "-----END ");
		stars(after, end ? end : after + strlen(after));
		end = end ? strstr(end, mark) : NULL;
		p = end ? end + strlen(mark) : after + strlen(after);
	}
}

static void part(FILE *f, const char *name, char *text)
{
	scrub_tokens(text);
	scrub_keys(text);
	fprintf(f, "==== %s\n%s%s", name, text, *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
}

static void from_daemon(FILE *f, const struct config *cfg, const char *path)
{
	struct err e = { 0 };
	yyjson_doc *d;
	char *text = NULL;

	if (cli_call_at(cfg->api_socket, "GET", path, NULL, 5, &d, &e) == 0) {
		text = yyjson_write(d, YYJSON_WRITE_PRETTY, NULL);
		yyjson_doc_free(d);
	}
	part(f, path, text ? text : e.what);
	free(text);
}

static void tail(FILE *f, const char *dir, const char *name)
{
	char path[256], *text;
	struct stat st;
	FILE *in;
	size_t n;

	if (str_fmt(path, sizeof(path), "%s/%s.log", dir, name) < 0 || !(in = fopen(path, "re")))
		return;
	text = malloc(LOG_TAIL + 1);
	if (text && fstat(fileno(in), &st) == 0 &&
	    fseek(in, st.st_size > LOG_TAIL ? -LOG_TAIL : 0, SEEK_END) == 0) {
		if (st.st_size <= LOG_TAIL)
			rewind(in);
		n = fread(text, 1, LOG_TAIL, in);
		text[n] = 0;
		/* Half a line may hold half a token, which nothing would recognize. */
		if (st.st_size > LOG_TAIL)
			stars(text, text + strcspn(text, "\n"));
		part(f, path, text);
	}
	free(text);
	fclose(in);
}

static void write_bundle(FILE *f, struct cli *c, const struct config *cfg)
{
	static const char *const paths[] = { "/status", "/peers", "/identity", "/doctor" };
	static const char *const logs[] = { "daemon", "broker", "issuer" };
	char text[512], *conf = NULL;
	struct utsname u;
	size_t n = 0;
	FILE *m;

	uname(&u);
	snprintf(text, sizeof(text), "x0 %s\n%s %s %s\nconfig %s\n", X0_VERSION, u.sysname, u.release,
		 u.machine, c->config);
	part(f, "version", text);
	m = open_memstream(&conf, &n);
	if (m) {
		config_print(cfg, m);
		fclose(m);
		part(f, "config", conf);
		free(conf);
	}
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		from_daemon(f, cfg, paths[i]);
	for (size_t i = 0; i < ARRAY_SIZE(logs); i++)
		tail(f, cfg->run_dir, logs[i]);
}

/* A new file that only its owner reads. */
static int create(const char *path, FILE **ret, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f) {
		err_sys(e, "cannot make %s", path);
		if (errno == EEXIST)
			err_todo(e, "name another file: nothing is overwritten");
		if (fd >= 0)
			close(fd);
		return ERR_SYS;
	}
	*ret = f;
	return 0;
}

int cli_debug_bundle(struct cli *c, struct err *e)
{
	struct config *cfg;
	FILE *f = stdout;
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	if (c->argc) {
		rc = create(c->argv[0], &f, e);
	} else if (c->json) {
		rc = err_set(e, ERR_USAGE, "with --json the bundle needs a FILE");
	}
	if (rc == 0) {
		write_bundle(f, c, cfg);
		if (f != stdout && fclose(f))
			rc = err_sys(e, "cannot write %s", c->argv[0]);
	}
	config_free(cfg);
	if (rc == 0 && c->json)
		cli_reply(c, "DebugBundle");
	return rc;
}
