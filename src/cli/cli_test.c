/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/proc.h"

/* Runs a command line with its output caught; returns the exit status. */
static char out[1 << 17], said[8192];

static void slurp(FILE *f, char *to, size_t cap)
{
	size_t n;

	rewind(f);
	n = fread(to, 1, cap - 1, f);
	to[n] = 0;
	fclose(f);
}

static int run(const char *line)
{
	char buf[512], *argv[32], *save = NULL;
	int argc = 0, status, o = dup(STDOUT_FILENO), r = dup(STDERR_FILENO);
	FILE *fo = tmpfile(), *fe = tmpfile();

	snprintf(buf, sizeof(buf), "x0 %s", line);
	for (char *w = strtok_r(buf, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	fflush(NULL);
	dup2(fileno(fo), STDOUT_FILENO);
	dup2(fileno(fe), STDERR_FILENO);
	status = cli_main(argc, argv);
	fflush(NULL);
	dup2(o, STDOUT_FILENO);
	dup2(r, STDERR_FILENO);
	close(o);
	close(r);
	slurp(fo, out, sizeof(out));
	slurp(fe, said, sizeof(said));
	return status;
}

static void says(const char *where, const char *what)
{
	if (!strstr(where, what))
		fail_msg("'%.300s' does not say '%s'", where, what);
}

static void usage_errors(void **state)
{
	static const struct {
		const char *line;
		int status;
		const char *says;
	} t[] = {
		{ "statsu", 2, "did you mean 'x0 status'" },
		{ "ca tkoen x", 2, "did you mean 'x0 ca token'" },
		{ "zzzzzzzzz", 2, "unknown command 'x0 zzzzzzzzz'" },
		{ "ca", 2, "needs a verb" },
		{ "", 2, "usage: x0 COMMAND" },
		{ "ping", 2, "takes NAME, 0 given" },
		{ "ping a b", 2, "takes NAME, 2 given" },
		{ "status extra", 2, "takes no arguments" },
		{ "ping --cuont 3 a", 2, "did you mean '--count'" },
		{ "ping -z a", 2, "unknown option '-z'" },
		{ "ping a --count", 2, "needs a value (N)" },
		{ "status --json=1", 2, "takes no value" },
		{ "ping -c 0 a", 2, "from 1 to 100" },
		{ "ping -c 3x a", 2, "from 1 to 100" },
		{ "ca token a --ttl 5y", 2, "no duration" },
		{ "ca token a --ttl 40d", 2, "--ttl must be" },
		{ "help nothing", 4, "no command" },
		{ "config check /nonexistent/x0.yaml", 4, "/nonexistent/x0.yaml" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		int status = run(t[i].line);

		if (status != t[i].status)
			fail_msg("x0 %s: exit status %d, not %d", t[i].line, status, t[i].status);
		says(said, t[i].says);
		assert_string_equal(out, "");
	}
}

/* With --json, wherever it stands, an error is one object on stdout with the stable code. */
static void json_errors(void **state)
{
	static const char *const lines[] = { "--json statsu", "ping --json", "ping --cuont 3 a --json",
					     "--json", "ca --json" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		yyjson_doc *d;
		yyjson_val *o;

		assert_int_equal(run(lines[i]), 2);
		assert_string_equal(strchr(out, '\n') ? strchr(out, '\n') + 1 : "", "");
		d = yyjson_read(out, strlen(out), 0);
		assert_non_null(d);
		o = yyjson_doc_get_root(d);
		assert_string_equal(cli_str(o, "api"), "x0/v1");
		assert_string_equal(cli_str(o, "kind"), "Error");
		assert_false(yyjson_get_bool(yyjson_obj_get(o, "ok")));
		assert_string_equal(cli_str(yyjson_obj_get(o, "error"), "code"), "usage");
		assert_true(*cli_str(yyjson_obj_get(o, "error"), "message"));
		yyjson_doc_free(d);
	}
}

static void unreachable_daemon(void **state)
{
	char path[] = "/tmp/x0-cli-test-XXXXXX", line[128];
	int fd = mkstemp(path);

	(void)state;
	dprintf(fd, "run_dir: /nonexistent\n");
	close(fd);
	snprintf(line, sizeof(line), "--config %s status", path);
	assert_int_equal(run(line), 3);
	says(said, "x0 up");
	snprintf(line, sizeof(line), "peers --json --config=%s", path);
	assert_int_equal(run(line), 3);
	says(out, "\"code\":\"unreachable\"");
	unlink(path);
	assert_int_equal(run(line), 4); /* named, so it must exist */
}

static void configs(void **state)
{
	char path[] = "/tmp/x0-cli-test-XXXXXX", line[128];
	int fd = mkstemp(path);

	(void)state;
	dprintf(fd, "name: n\nlistn: 1\n");
	snprintf(line, sizeof(line), "config check %s", path);
	assert_int_equal(run(line), 9);
	says(said, ":2:1");
	says(said, "listen");
	assert_int_equal(ftruncate(fd, 8), 0);
	assert_int_equal(run(line), 0);
	says(out, "fine");
	snprintf(line, sizeof(line), "config show %s", path);
	assert_int_equal(run(line), 0);
	says(out, "listen: ");
	snprintf(line, sizeof(line), "config show %s --json", path);
	assert_int_equal(run(line), 0);
	says(out, "\"kind\":\"Config\"");
	close(fd);
	unlink(path);
}

/* Whatever a log holds by mistake, and wherever its tail is cut, the bundle shows no secret. */
static void bundle_scrubs(void **state)
{
	static const char token[] = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwxyz234567";
	static const char body[] = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nc2VjcmV0IGJvZHkgb2YgYSBrZXk=";
	static const char key[] = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n";
	char dir[] = "/tmp/x0-cli-test-XXXXXX", conf[64], logs[64], line[160];
	struct stat st;
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(conf, sizeof(conf), "%s/x0.yaml", dir);
	snprintf(logs, sizeof(logs), "%s/daemon.log", dir);
	f = fopen(conf, "w");
	fprintf(f, "run_dir: %s\n", dir);
	fclose(f);
	snprintf(line, sizeof(line), "debug bundle --config %s", conf);

	f = fopen(logs, "w");
	fprintf(f, "first\njoin x0t1.%s failed\njoin X0T1.%s failed\n", token, token);
	fprintf(f, key, body);
	fprintf(f, "between\n");
	fprintf(f, key, body);
	fprintf(f, "last\n");
	fclose(f);
	assert_int_equal(run(line), 0);
	assert_null(strcasestr(out, token));
	assert_null(strstr(out, "MIIEvQ"));
	assert_null(strstr(out, "c2VjcmV0"));
	says(out, "first\njoin x0t1.****");
	says(out, "\nbetween\n");
	says(out, "\nlast\n");
	says(out, "no daemon answers");

	/* The window of 64 KiB starts inside a token, and inside a key. */
	for (int i = 0; i < 2; i++) {
		f = fopen(logs, "w");
		if (i == 0)
			fprintf(f, "join x0t1.%s\n", token);
		else
			fprintf(f, key, body);
		for (long n = (64 << 10) - (i == 0 ? 20 : 66); n > 0; n--)
			fputc(n % 64 ? '.' : '\n', f);
		fclose(f);
		assert_int_equal(run(line), 0);
		assert_null(strstr(out, "234567"));
		assert_null(strstr(out, "c2VjcmV0"));
		says(out, "......");
	}

	/* To a file: only its owner reads it, and nothing is overwritten. */
	snprintf(line, sizeof(line), "debug bundle %s/b --json --config %s", dir, conf);
	assert_int_equal(run(line), 0);
	says(out, "\"kind\":\"DebugBundle\"");
	snprintf(logs, sizeof(logs), "%s/b", dir);
	assert_int_equal(stat(logs, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(run(line), 1);
	says(out, "nothing is overwritten");
	unlink(logs);
	snprintf(logs, sizeof(logs), "%s/daemon.log", dir);
	unlink(logs);
	unlink(conf);
	assert_int_equal(rmdir(dir), 0);
}

/* Every command and option is in help and completion; all of it comes from the table. */
static void generated(void **state)
{
	(void)state;
	assert_int_equal(run("help"), 0);
	for (size_t i = 0; i < cli_ncmds; i++)
		says(out, cli_cmds[i].path);
	assert_int_equal(run("ca token --help"), 0);
	says(out, "usage: x0 ca token NAME");
	says(out, "--ephemeral");
	says(out, "--json");
	assert_int_equal(run("help ca"), 0);
	says(out, "ca token NAME");
	assert_null(strstr(out, "peers"));
	for (int i = 0; i < 3; i++) {
		const char *const shell[] = { "completion bash", "completion zsh", "completion fish" };

		assert_int_equal(run(shell[i]), 0);
		says(out, "status");
		says(out, "add-issuer");
		says(out, "password-file");
	}
	assert_int_equal(run("version --json"), 0);
	says(out, "\"kind\":\"Version\"");
}

static void tables(void **state)
{
	struct cli_table t;
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	(void)state;
	cli_table_init(&t, "A", ">N", "Z", NULL);
	cli_table_cell(&t, "long cell");
	cli_table_cell(&t, "%d", 5);
	cli_table_cell(&t, "z");
	cli_table_cell(&t, "x");
	cli_table_cell(&t, "%d", 12345);
	cli_table_print(&t, f); /* the last row is not full */
	fclose(f);
	assert_string_equal(text, "A              N  Z\nlong cell      5  z\nx          12345  \n");
	free(text);
}

static void amounts(void **state)
{
	char a[16], b[24];
	int64_t s;
	struct err e = { 0 };

	(void)state;
	assert_string_equal(cli_bytes(999, a), "999 B");
	assert_string_equal(cli_bytes(1500, a), "1.5 kB");
	assert_string_equal(cli_bytes(999950, a), "1.0 MB");
	assert_string_equal(cli_bytes(UINT64_MAX, a), "18447 PB");
	assert_string_equal(cli_ago(-5, b), "0s");
	assert_string_equal(cli_ago(61, b), "1m 1s");
	assert_string_equal(cli_ago(90061, b), "1d 1h");
	assert_int_equal(cli_duration_parse("90", &s, &e), 0);
	assert_int_equal(s, 90);
	assert_int_equal(cli_duration_parse("2h", &s, &e), 0);
	assert_int_equal(s, 7200);
	for (int i = 0; i < 5; i++) {
		const char *const bad[] = { "", "h", "-1s", "1hh", "99999999999999999999" };

		assert_int_equal(cli_duration_parse(bad[i], &s, &e), ERR_USAGE);
	}
}

/* A daemon that answers nonsense, or nothing, ends in an error and never in a hang. */
static int answer(const char *text, yyjson_doc **d, struct err *e)
{
	char path[] = "/tmp/x0-cli-sock-XXXXXX";
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int l = socket(AF_UNIX, SOCK_STREAM, 0), rc, fd = mkstemp(path);
	pid_t pid;

	close(fd);
	unlink(path);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	assert_int_equal(bind(l, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(l, 1), 0);
	pid = fork();
	if (pid == 0) {
		char buf[1024];
		int s = accept(l, NULL, NULL);

		_exit(read(s, buf, sizeof(buf)) > 0 &&
		      (!text ? (int)sleep(5) : (int)write(s, text, strlen(text))) > 0);
	}
	rc = cli_call_at(path, "GET", "/status", NULL, 1, d, e);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(l);
	unlink(path);
	return rc;
}

static void client(void **state)
{
	struct err e = { 0 };
	yyjson_doc *d = NULL;

	(void)state;
	assert_int_equal(answer("HTTP/1.1 200 OK\r\n\r\n{\"a\":1}", &d, &e), 0);
	assert_true(cli_num(yyjson_doc_get_root(d), "a") == 1);
	yyjson_doc_free(d);
	assert_int_equal(
		answer("HTTP/1.1 409 x\r\n\r\n{\"code\":\"conflict\",\"message\":\"m\",\"todo\":\"t\"}", &d,
		       &e),
		ERR_CONFLICT);
	assert_string_equal(e.what, "m");
	assert_string_equal(e.todo, "t");
	assert_int_equal(answer("HTTP/1.1 500 x\r\n\r\n{\"code\":\"who knows\"}", &d, &e), ERR_FAILED);
	assert_int_equal(answer("HTTP/1.1 200 OK\r\n\r\n{", &d, &e), ERR_FAILED);
	assert_int_equal(answer("garbage", &d, &e), ERR_FAILED);
	assert_int_equal(answer("", &d, &e), ERR_FAILED);
	assert_int_equal(answer(NULL, &d, &e), ERR_TIMEOUT);
	assert_int_equal(cli_call_at("/nonexistent", "GET", "/", NULL, 1, &d, &e), ERR_UNREACHABLE);
}

static void processes(void **state)
{
	char dir[] = "/tmp/x0-proc-test-XXXXXX", path[64];
	struct err e = { 0 };
	pid_t pid = 0, me = getpid();

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(proc_find(dir, "p"), 0);
	assert_int_equal(proc_start(dir, "p", (char *const[]){ "/bin/sleep", "60", NULL }, &pid, &e), 0);
	assert_int_equal(proc_find(dir, "p"), pid);
	assert_int_equal(proc_end(dir, "p", 2000, &e), 0);
	assert_int_equal(proc_find(dir, "p"), 0);
	assert_int_equal(kill(pid, 0), -1);
	/* A file that names a living process with another start time names nobody. */
	snprintf(path, sizeof(path), "%s/p.pid", dir);
	for (int i = 0; i < 4; i++) {
		const char *const tail[] = { " 1\n", "\n", " junk", " -5" };
		char text[64];

		snprintf(text, sizeof(text), "%d%s", (int)me, tail[i]);
		assert_int_equal(file_write(path, text, strlen(text), 0600, &e), 0);
		assert_int_equal(proc_find(dir, "p"), 0);
	}
	assert_int_equal(proc_end(dir, "p", 100, &e), 0);
	/* What cannot run says so in its log. */
	assert_int_equal(proc_start(dir, "q", (char *const[]){ "/nonexistent", NULL }, &pid, &e), 0);
	waitpid(pid, NULL, 0);
	assert_int_equal(proc_find(dir, "q"), 0);
	proc_why(dir, "q", &e);
	says(e.what, "cannot run /nonexistent");
	assert_int_equal(proc_end(dir, "q", 100, &e), 0);
	snprintf(path, sizeof(path), "%s/p.log", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/q.log", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usage_errors),
		cmocka_unit_test(json_errors),
		cmocka_unit_test(unreachable_daemon),
		cmocka_unit_test(configs),
		cmocka_unit_test(bundle_scrubs),
		cmocka_unit_test(generated),
		cmocka_unit_test(tables),
		cmocka_unit_test(amounts),
		cmocka_unit_test(client),
		cmocka_unit_test(processes),
	};

	unsetenv("X0_CONFIG");
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
