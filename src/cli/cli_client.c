/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's API from the command's side: one request, one answer, one connection. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/config.h"

enum { ANSWER_MAX = 64 << 20 };

const char *cli_str(yyjson_val *obj, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(obj, key));

	return s ? s : "";
}

double cli_num(yyjson_val *obj, const char *key)
{
	return yyjson_get_num(yyjson_obj_get(obj, key));
}

int cli_config(struct cli *c, struct config **ret, struct err *e)
{
	return config_load(c->config, c->config_given, ret, e);
}

/* Whole lines of the file that say where the daemon is; "" if there are none. The caller's. */
static char *place_lines(const char *path)
{
	static const char *const keys[] = { "run_dir:", "state_dir:" };
	uint8_t *text = NULL;
	size_t n = 0, put = 0;
	char *to, *save = NULL;

	if (file_read(path, CONFIG_TEXT_MAX, &text, &n, NULL))
		return strdup("");
	to = calloc(1, n + 2);
	for (char *l = strtok_r((char *)text, "\n", &save); to && l; l = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
			if (!strncmp(l, keys[i], strlen(keys[i])))
				put += (size_t)sprintf(to + put, "%s\n", l);
	free(text);
	return to;
}

int cli_config_place(struct cli *c, struct config **ret, struct err *why, struct err *e)
{
	char *lines;
	int rc = cli_config(c, ret, why);

	if (rc != ERR_CONFIG) {
		if (rc)
			*e = *why;
		return rc;
	}
	lines = place_lines(c->config);
	rc = lines ? config_parse(c->config, lines, strlen(lines), ret, NULL) : ERR_NOMEM;
	free(lines);
	return rc ? config_parse("defaults", "", 0, ret, e) : 0;
}

bool cli_is_root(const char *what, struct err *e)
{
	if (geteuid() == 0)
		return true;
	err_set(e, ERR_DENIED, "%s needs root", what);
	err_todo(e, "run it with sudo");
	return false;
}

static int dial(const char *path, struct err *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	if (str_fmt(sun.sun_path, sizeof(sun.sun_path), "%s", path) < 0) {
		close(fd);
		return err_set(e, ERR_CONFIG, "the API socket's path is too long: %s", path);
	}
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	if (errno == EACCES) {
		err_set(e, ERR_DENIED, "no permission for %s", path);
		err_todo(e, "run it as root, or join the group of api.group");
	} else {
		err_set(e, ERR_UNREACHABLE, "no daemon answers on %s: %s", path, strerror(errno));
		err_todo(e, "start it: x0 up; what is wrong: x0 doctor");
	}
	close(fd);
	return e ? e->code : ERR_UNREACHABLE;
}

static int wait_for(int fd, short events, uint64_t until, struct err *e)
{
	for (;;) {
		uint64_t now = clock_mono_ns();
		struct pollfd p = { .fd = fd, .events = events };
		int n = now < until ? poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) : 0;

		if (n > 0)
			return 0;
		if (n == 0)
			return err_set(e, ERR_TIMEOUT, "the daemon did not answer in time");
		if (errno != EINTR)
			return err_sys(e, "cannot wait for the daemon");
	}
}

static int send_all(int fd, const char *p, size_t n, uint64_t until, struct err *e)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

		if (k < 0 && errno == EAGAIN) {
			int rc = wait_for(fd, POLLOUT, until, e);

			if (rc < 0)
				return rc;
			continue;
		}
		if (k < 0 && errno != EINTR)
			return err_set(e, ERR_UNREACHABLE, "the daemon hung up: %s", strerror(errno));
		if (k > 0) {
			p += k;
			n -= (size_t)k;
		}
	}
	return 0;
}

/* Everything until the daemon hangs up (we asked it to): NUL-terminated, the caller's. */
static int receive(int fd, uint64_t until, char **ret, size_t *ret_n, struct err *e)
{
	char *buf = NULL;
	size_t n = 0, cap = 0;
	int rc = 0;

	for (;;) {
		if (cap - n < 4096) {
			char *grown = cap < ANSWER_MAX ? realloc(buf, cap = cap ? cap * 2 : 16384) : NULL;

			if (!grown) {
				rc = err_set(e, ERR_NOMEM, "no memory for the daemon's answer");
				break;
			}
			buf = grown;
		}
		ssize_t k = recv(fd, buf + n, cap - n - 1, 0);

		if (k == 0)
			break;
		if (k > 0)
			n += (size_t)k;
		else if (errno == EAGAIN)
			rc = wait_for(fd, POLLIN, until, e);
		else if (errno != EINTR)
			rc = err_set(e, ERR_UNREACHABLE, "the daemon hung up: %s", strerror(errno));
		if (rc < 0)
			break;
	}
	if (rc < 0) {
		free(buf);
		return rc;
	}
	buf[n] = 0;
	*ret = buf;
	*ret_n = n;
	return 0;
}

static int code_of(const char *name)
{
#define X(id, code, exit_status, title)                                                                      \
	if (!strcmp(name, err_name(code)))                                                                   \
		return code;
#include "base/err.def"
#undef X
	return ERR_FAILED;
}

static int parse(char *text, size_t n, yyjson_doc **ret, struct err *e)
{
	char *body = text ? strstr(text, "\r\n\r\n") : NULL;
	int status = 0;
	yyjson_doc *d;
	yyjson_val *root;

	if (!body || sscanf(text, "HTTP/1.%*d %d", &status) != 1)
		return err_set(e, ERR_FAILED, "the daemon's answer is no HTTP");
	body += 4;
	d = yyjson_read(body, n - (size_t)(body - text), 0);
	if (!d)
		return err_set(e, ERR_FAILED, "the daemon's answer is no JSON (status %d)", status);
	if (status >= 200 && status < 300) {
		*ret = d;
		return 0;
	}
	root = yyjson_doc_get_root(d);
	err_set(e, code_of(cli_str(root, "code")), "%s", cli_str(root, "message"));
	if (*cli_str(root, "todo"))
		err_todo(e, "%s", cli_str(root, "todo"));
	yyjson_doc_free(d);
	return e->code;
}

int cli_call_at(const char *sock, const char *method, const char *path, const char *body, int timeout_s,
		yyjson_doc **ret, struct err *e)
{
	uint64_t until = clock_mono_ns() + (uint64_t)timeout_s * NS_PER_S;
	size_t n = body ? strlen(body) : 0, answer_n = 0;
	char *request = NULL, *answer = NULL;
	int fd = dial(sock, e), rc;

	if (fd < 0)
		return fd;
	rc = asprintf(
		&request,
		"%s /api/v1%s HTTP/1.1\r\nHost: x0\r\nConnection: close\r\nContent-Type: application/json\r\n"
		"Content-Length: %zu\r\n\r\n%s",
		method, path, n, body ? body : "");
	rc = rc < 0 ? err_set(e, ERR_NOMEM, "no memory for a request")
		    : send_all(fd, request, (size_t)rc, until, e);
	rc = rc < 0 ? rc : receive(fd, until, &answer, &answer_n, e);
	rc = rc < 0 ? rc : parse(answer, answer_n, ret, e);
	if (answer)
		secret_wipe(answer, answer_n); /* a token, maybe */
	free(answer);
	free(request);
	close(fd);
	return rc;
}

int cli_call(struct cli *c, const char *method, const char *path, const char *body, int timeout_s,
	     yyjson_doc **ret, struct err *e)
{
	struct config *cfg;
	struct err why = { 0 };
	int rc = cli_config_place(c, &cfg, &why, e);

	if (rc < 0)
		return rc;
	if (why.code)
		fprintf(stderr, "x0: warning: %s; asking the daemon on %s\n", why.what, cfg->api_socket);
	rc = cli_call_at(cfg->api_socket, method, path, body, timeout_s, ret, e);
	config_free(cfg);
	return rc;
}
