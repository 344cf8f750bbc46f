/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and ending the processes. */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"
#include "cli/cli.h"
#include "cli/proc.h"
#include "daemon/daemon.h"

/* The broker beside this program, else in the lib/x0 beside its directory, where it is installed. */
static int broker_binary(char to[PATH_MAX], struct err *e)
{
	static const char *const places[] = { "x0-broker", "../lib/x0/x0-broker" };
	ssize_t n = readlink("/proc/self/exe", to, PATH_MAX - 32);
	char *name = NULL;

	if (n > 0) {
		to[n] = 0;
		name = strrchr(to, '/');
	}
	for (size_t i = 0; name && i < ARRAY_SIZE(places); i++) {
		strcpy(name + 1, places[i]);
		if (access(to, X_OK) == 0)
			return 0;
	}
	err_set(e, ERR_NOT_FOUND, "x0-broker is neither beside x0 nor in ../lib/x0");
	return err_todo(e, "make build, or install the package again");
}

static int self_binary(char to[PATH_MAX], struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", to, PATH_MAX - 1);

	if (n <= 0)
		return err_sys(e, "cannot find this program's own path");
	to[n] = 0;
	return 0;
}

/* Waits until `path` is a socket that belongs to the process, or the process ended. */
static int wait_socket(const struct config *cfg, const char *name, const char *path, uint64_t until,
		       struct err *e)
{
	struct stat st;

	while (stat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		if (!proc_find(cfg->run_dir, name)) {
			proc_why(cfg->run_dir, name, e);
			return e->code;
		}
		if (clock_mono_ns() > until)
			return err_set(e, ERR_TIMEOUT, "%s did not start in time", name);
		usleep(1000);
	}
	return 0;
}

static int start_broker(const struct config *cfg, uint64_t until, struct err *e)
{
	char binary[PATH_MAX], uid_text[16], prefix[16];
	uid_t uid;
	gid_t gid;
	pid_t pid;
	int rc;

	if (proc_find(cfg->run_dir, "broker"))
		return 0;
	rc = broker_binary(binary, e);
	rc = rc ? rc : config_user(cfg->user, &uid, &gid, e);
	if (rc < 0)
		return rc;
	snprintf(uid_text, sizeof(uid_text), "%u", (unsigned)uid);
	snprintf(prefix, sizeof(prefix), "%s", "x0");
	unlink(cfg->broker_socket);
	rc = proc_start(cfg->run_dir, "broker",
			(char *const[]){ binary, "--socket", (char *)cfg->broker_socket, "--user", uid_text,
					 "--name", prefix, "--log",
					 cfg->log_format == LOG_JSON ? "json" : "text", NULL },
			&pid, e);
	return rc ? rc : wait_socket(cfg, "broker", cfg->broker_socket, until, e);
}

/* x0 itself as `what`, with our configuration if there is a file. */
static int start_self(struct cli *c, const struct config *cfg, const char *self, const char *what,
		      struct err *e)
{
	char *argv[] = { (char *)self, (char *)what, "--config", (char *)c->config, NULL };
	pid_t pid;

	if (!c->config_given && access(c->config, F_OK))
		argv[2] = NULL;
	return proc_start(cfg->run_dir, what, argv, &pid, e);
}

static int start_issuer(struct cli *c, const struct config *cfg, const char *self, uint64_t until,
			struct err *e)
{
	int rc;

	if (access(cfg->authority_dir, F_OK) || proc_find(cfg->run_dir, "issuer"))
		return 0;
	unlink(cfg->issuer_socket);
	rc = start_self(c, cfg, self, "issuer", e);
	return rc ? rc : wait_socket(cfg, "issuer", cfg->issuer_socket, until, e);
}

static int wait_ready(const struct config *cfg, uint64_t until, struct err *e)
{
	struct err why = { 0 };

	for (;;) {
		yyjson_doc *doc = NULL;

		if (cli_call_at(cfg->api_socket, "GET", "/readyz", NULL, 2, &doc, &why) == 0) {
			yyjson_doc_free(doc);
			return 0;
		}
		if (!proc_find(cfg->run_dir, "daemon")) {
			proc_why(cfg->run_dir, "daemon", e);
			return e->code;
		}
		if (clock_mono_ns() > until) {
			err_set(e, ERR_TIMEOUT, "the daemon is not ready: %s", why.what);
			return err_todo(e, "its log: %s/daemon.log", cfg->run_dir);
		}
		usleep(2000);
	}
}

/* A broker that answers and is not ours was started by a service manager: whose processes end and whose
 * sockets go is its business. */
static int not_managed(const struct config *cfg, const char *verb, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, rc;

	if (proc_find(cfg->run_dir, "broker") ||
	    str_fmt(sa.sun_path, sizeof(sa.sun_path), "%s", cfg->broker_socket) < 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	rc = connect(fd, (struct sockaddr *)&sa, sizeof(sa));
	close(fd);
	if (rc < 0)
		return 0;
	err_set(e, ERR_CONFLICT, "x0-broker runs, but x0 up did not start it");
	return err_todo(e, "if systemd did: systemctl %s x0", verb);
}

/* What can be said before anything is started. */
static int check_before(const struct config *cfg, struct err *e)
{
	struct node_identity *ni = NULL;
	int rc;

	if (access("/dev/net/tun", F_OK)) {
		err_set(e, ERR_UNSUPPORTED, "/dev/net/tun is not there");
		return err_todo(e, "modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN");
	}
	rc = crypto_init(e);
	rc = rc ? rc : node_identity_load(cfg->identity_dir, &ni, e);
	node_identity_free(ni);
	if (rc == ERR_NOT_FOUND) {
		err_set(e, ERR_NOT_FOUND, "this node has no identity in %s", cfg->identity_dir);
		return err_todo(e, "join a mesh: x0 join TOKEN; or start one: x0 ca init");
	}
	return rc;
}

static int up(struct cli *c, const struct config *cfg, uint64_t until, struct err *e)
{
	static char config[PATH_MAX];
	char self[PATH_MAX];
	bool running = proc_find(cfg->run_dir, "daemon") != 0;
	int rc = self_binary(self, e);

	/* The processes run in "/": their path must be absolute. */
	if (rc == 0 && access(c->config, F_OK) == 0) {
		if (!realpath(c->config, config))
			return err_sys(e, "cannot find %s", c->config);
		c->config = config;
	}
	rc = rc ? rc : not_managed(cfg, "start", e);
	rc = rc ? rc : check_before(cfg, e);
	rc = rc ? rc : daemon_dirs(cfg, e);
	rc = rc ? rc : start_broker(cfg, until, e);
	rc = rc ? rc : start_issuer(c, cfg, self, until, e);
	if (rc == 0 && !running) {
		unlink(cfg->api_socket);
		rc = start_self(c, cfg, self, "daemon", e);
	}
	rc = rc ? rc : wait_ready(cfg, until, e);
	if (rc == 0 && c->json) {
		cli_reply(c, "Up");
		yyjson_mut_obj_add_int(c->doc, c->root, "pid", proc_find(cfg->run_dir, "daemon"));
		yyjson_mut_obj_add_bool(c->doc, c->root, "was_running", running);
	}
	return rc;
}

int cli_up(struct cli *c, struct err *e)
{
	struct config *cfg;
	double wait;
	int rc;

	rc = cli_opt_num(c, "wait", 10, 0.1, 600, &wait, e);
	rc = rc ? rc : cli_config(c, &cfg, e);
	if (rc < 0)
		return rc;
	if (!cli_is_root("x0 up", e))
		rc = ERR_DENIED;
	else
		rc = up(c, cfg, clock_mono_ns() + (uint64_t)(wait * 1e9), e);
	config_free(cfg);
	return rc;
}

/* The broker itself removes what it keeps; it answers its client only, so ask with the daemon's uid. */
static int broker_clean(const struct config *cfg)
{
	struct broker *b = NULL;
	uid_t uid;
	gid_t gid;
	int status = 1;
	pid_t pid;

	if (!proc_find(cfg->run_dir, "broker") || config_user(cfg->user, &uid, &gid, NULL) < 0)
		return 0;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setresgid(gid, gid, gid) || setresuid(uid, uid, uid) ||
		    broker_connect(cfg->broker_socket, &b, NULL) < 0)
			_exit(1);
		_exit(broker_down(b, NULL) < 0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	return status == 0 ? 0 : ERR_FAILED;
}

int cli_down(struct cli *c, struct err *e)
{
	struct config *cfg;
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	if (!cli_is_root("x0 down", e)) {
		config_free(cfg);
		return ERR_DENIED;
	}
	rc = not_managed(cfg, "stop", e);
	if (rc < 0) {
		config_free(cfg);
		return rc;
	}
	rc = proc_end(cfg->run_dir, "daemon", 3000, e);
	rc = rc ? rc : proc_end(cfg->run_dir, "issuer", 3000, e);
	if (rc == 0 && !cli_opt(c, "keep")) {
		if (broker_clean(cfg) < 0)
			fprintf(stderr, "x0: the broker did not answer; it is ended anyway\n");
		rc = proc_end(cfg->run_dir, "broker", 3000, e);
		unlink(cfg->broker_socket);
	}
	unlink(cfg->api_socket);
	unlink(cfg->issuer_socket);
	config_free(cfg);
	if (rc == 0 && c->json)
		cli_reply(c, "Down");
	return rc;
}

int cli_daemon(struct cli *c, struct err *e)
{
	int rc = daemon_main(c->config, c->config_given, e);

	c->printed = rc < 0 && !c->json; /* the log has it */
	return rc;
}

int cli_issuer(struct cli *c, struct err *e)
{
	struct config *cfg;
	int rc = cli_config(c, &cfg, e);

	if (rc < 0)
		return rc;
	log_init(STDERR_FILENO, cfg->log_format, cfg->log_level);
	rc = issuer_main(cfg, e);
	config_free(cfg);
	return rc;
}
