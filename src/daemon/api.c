/* SPDX-License-Identifier: Apache-2.0 */
/* The API's thread: libevent's HTTP server, credentials, limits, and the way to the control thread and back.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/api.h"

struct api {
	struct api_config cfg;
	struct loop *loop; /* of the API thread */
	pthread_t thread;
	struct evhttp *unix_http, *tcp_http;
	struct api_request *head;
	unsigned pending; /* API thread only */
	bool stopping;
	struct loop_task stop_task;
};

int api_http_status(int code)
{
	switch (code) {
	case ERR_USAGE:
	case ERR_PARSE:
	case ERR_CONFIG:
		return 400;
	case ERR_DENIED:
	case ERR_AUTH:
	case ERR_EXPIRED:
	case ERR_REVOKED:
		return 403;
	case ERR_NOT_FOUND:
		return 404;
	case ERR_CONFLICT:
		return 409;
	case ERR_LIMIT:
	case ERR_UNREACHABLE:
		return 503;
	case ERR_TIMEOUT:
		return 504;
	case ERR_UNSUPPORTED:
		return 501;
	default:
		return 500;
	}
}

yyjson_mut_doc *api_doc(const char *kind, yyjson_mut_val **ret_root)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);

	*ret_root = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, *ret_root);
	yyjson_mut_obj_add_str(doc, *ret_root, "api", "x0/v1");
	yyjson_mut_obj_add_str(doc, *ret_root, "kind", kind);
	yyjson_mut_obj_add_bool(doc, *ret_root, "ok", true);
	return doc;
}

static yyjson_mut_doc *problem(int status, const struct err *e)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);

	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_strcpy(doc, o, "type", "about:blank");
	yyjson_mut_obj_add_strcpy(doc, o, "title", err_title(e->code));
	yyjson_mut_obj_add_int(doc, o, "status", status);
	yyjson_mut_obj_add_strcpy(doc, o, "detail", e->what);
	yyjson_mut_obj_add_strcpy(doc, o, "code", err_name(e->code));
	yyjson_mut_obj_add_strcpy(doc, o, "message", e->what);
	yyjson_mut_obj_add_strcpy(doc, o, "todo", e->todo);
	return doc;
}

static char *render(yyjson_mut_doc *doc, size_t *ret_n)
{
	char *s = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE | YYJSON_WRITE_NEWLINE_AT_END,
				   ret_n);

	yyjson_mut_doc_free(doc);
	return s;
}

/* ---- API thread ---- */

static void unlink_request(struct api_request *r)
{
	if (r->prev) {
		*r->prev = r->next;
		if (r->next)
			r->next->prev = r->prev;
		r->prev = NULL;
		r->api->pending--;
	}
	loop_timer_cancel(r->api->loop, &r->timer);
}

static void request_free(struct api_request *r)
{
	free(r->body);
	if (r->answer)
		secret_wipe(r->answer, r->answer_n); /* it may be a token */
	free(r->answer);
	free(r);
}

static void send_answer(struct evhttp_request *http, int status, const char *type, const char *p, size_t n)
{
	struct evbuffer *out = evbuffer_new();
	struct evkeyvalq *h = evhttp_request_get_output_headers(http);

	evhttp_add_header(h, "Content-Type", type);
	evhttp_add_header(h, "Cache-Control", "no-store");
	evhttp_add_header(h, "X-Content-Type-Options", "nosniff");
	if (status == 503)
		evhttp_add_header(h, "Retry-After", "1");
	if (out && n)
		evbuffer_add(out, p, n);
	evhttp_send_reply(http, status, NULL, out);
	if (out)
		evbuffer_free(out);
}

static void send_error(struct evhttp_request *http, int status, int code, const char *what)
{
	struct err e = { 0 };
	size_t n = 0;
	char *s;

	err_set(&e, code, "%s", what);
	s = render(problem(status, &e), &n);
	send_answer(http, status, "application/problem+json", s ? s : "{}", s ? n : 2);
	free(s);
}

/* The client hung up before its answer: evhttp frees the request. */
static void on_close(struct evhttp_connection *conn, void *arg)
{
	struct api_request *r = arg;

	(void)conn;
	r->http = NULL;
}

static void detach(struct api_request *r)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(r->http);

	if (conn)
		evhttp_connection_set_closecb(conn, NULL, NULL);
	r->http = NULL;
}

static void on_answered(void *arg)
{
	struct api_request *r = arg;
	struct evhttp_request *http = r->http;

	unlink_request(r);
	if (http) {
		detach(r);
		if (r->allow[0])
			evhttp_add_header(evhttp_request_get_output_headers(http), "Allow", r->allow);
		send_answer(http, r->status, r->type, r->answer, r->answer_n);
	}
	request_free(r);
}

static void on_timeout(void *arg, uint64_t now)
{
	struct api_request *r = arg;
	struct evhttp_request *http = r->http;

	(void)now;
	if (http) {
		detach(r);
		send_error(http, 503, ERR_TIMEOUT, "the daemon did not answer in time");
	}
	/* The control thread still holds it: on_answered() frees it. */
}

/* Control thread. */
static void on_control(void *arg)
{
	struct api_request *r = arg;

	r->api->cfg.route(r->api->cfg.arg, r);
}

static bool may(const struct api *api, struct evhttp_request *http)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(http);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);
	struct ucred cred = { .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t n = sizeof(cred);

	if (getsockopt(bufferevent_getfd(bev), SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
		return false;
	return cred.uid == 0 || cred.uid == api->cfg.uid || (api->cfg.gid && cred.gid == api->cfg.gid);
}

static const char *method_name(enum evhttp_cmd_type t)
{
	switch (t) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_PUT:
		return "PUT";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	default:
		return "";
	}
}

/* Copies the request out of libevent's hands and posts it to the control thread. */
static void submit(struct api *api, struct evhttp_request *http)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL,
		   *query = uri ? evhttp_uri_get_query(uri) : NULL;
	struct evbuffer *in = evhttp_request_get_input_buffer(http);
	struct api_request *r;

	if (api->stopping || api->pending >= API_PENDING) {
		send_error(http, 503, ERR_LIMIT, "too many requests are under way");
		return;
	}
	r = calloc(1, sizeof(*r));
	if (r) {
		r->body_n = evbuffer_get_length(in);
		r->body = malloc(r->body_n + 1);
	}
	if (!r || !r->body || !path || str_fmt(r->path, sizeof(r->path), "%s", path) < 0 ||
	    str_fmt(r->query, sizeof(r->query), "%s", query ? query : "") < 0) {
		send_error(http, path ? 414 : 400, ERR_USAGE, "the request's path is missing or too long");
		if (r)
			request_free(r);
		return;
	}
	evbuffer_remove(in, r->body, r->body_n);
	r->body[r->body_n] = 0;
	str_fmt(r->method, sizeof(r->method), "%s", method_name(evhttp_request_get_command(http)));
	r->api = api;
	r->http = http;
	r->next = api->head;
	if (r->next)
		r->next->prev = &r->next;
	r->prev = &api->head;
	api->head = r;
	api->pending++;
	evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_close, r);
	loop_timer_init(&r->timer, on_timeout, r);
	loop_timer_set(api->loop, &r->timer, loop_now(api->loop) + API_TIMEOUT * NS_PER_S);
	r->task = (struct loop_task){ .fn = on_control, .arg = r };
	loop_post(api->cfg.control, &r->task);
}

static void on_unix(struct evhttp_request *http, void *arg)
{
	struct api *api = arg;

	if (!may(api, http)) {
		send_error(http, 403, ERR_DENIED, "only root and the daemon's user may use this socket");
		return;
	}
	submit(api, http);
}

/* Loopback TCP has no credentials: numbers for Prometheus only. */
static void on_tcp(struct evhttp_request *http, void *arg)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;

	if (!path || strcmp(path, "/metrics") || evhttp_request_get_command(http) != EVHTTP_REQ_GET) {
		send_error(http, 404, ERR_NOT_FOUND, "there is only GET /metrics here");
		return;
	}
	submit(arg, http);
}

static void nodelay(struct evconnlistener *l, int fd)
{
	int one = 1;

	(void)l;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* inherited by what is accepted */
}

static struct evhttp *server(struct api *api, int fd, void (*fn)(struct evhttp_request *, void *))
{
	struct evhttp *h = evhttp_new(loop_event_base(api->loop));
	struct evconnlistener *l;

	if (!h)
		return NULL;
	evhttp_set_allowed_methods(h, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE);
	evhttp_set_max_headers_size(h, 8192);
	evhttp_set_max_body_size(h, API_BODY);
	evhttp_set_timeout(h, API_TIMEOUT + 5);
	evhttp_set_gencb(h, fn, api);
	l = evconnlistener_new(loop_event_base(api->loop), NULL, NULL,
			       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (!l || !evhttp_bind_listener(h, l)) {
		if (l)
			evconnlistener_free(l);
		evhttp_free(h);
		return NULL;
	}
	nodelay(l, fd);
	return h;
}

static void *run(void *arg)
{
	struct api *api = arg;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_setname_np(pthread_self(), "x0-api");
	loop_run(api->loop);
	return NULL;
}

int api_new(const struct api_config *cfg, struct api **ret, struct err *e)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return err_set(e, ERR_NOMEM, "no memory for the API");
	api->cfg = *cfg;
	api->loop = loop_new_event(e);
	if (api->loop) {
		api->unix_http = server(api, cfg->unix_fd, on_unix);
		if (cfg->metrics_fd >= 0)
			api->tcp_http = server(api, cfg->metrics_fd, on_tcp);
	}
	if (!api->unix_http || (cfg->metrics_fd >= 0 && !api->tcp_http) ||
	    pthread_create(&api->thread, NULL, run, api)) {
		if (api->unix_http)
			evhttp_free(api->unix_http);
		if (api->tcp_http)
			evhttp_free(api->tcp_http);
		loop_free(api->loop);
		free(api);
		return err_set(e, ERR_SYS, "cannot start the API's thread");
	}
	*ret = api;
	return 0;
}

/* API thread: refuse what is new, hang up on what waits, end. */
static void on_stop(void *arg)
{
	struct api *api = arg;

	api->stopping = true;
	loop_stop(api->loop);
}

struct api *api_free(struct api *api)
{
	if (!api)
		return NULL;
	api->stop_task = (struct loop_task){ .fn = on_stop, .arg = api };
	loop_post(api->loop, &api->stop_task);
	pthread_join(api->thread, NULL);
	/* One thread again. Detach before libevent frees the connections, so that no callback sees a request.
	 */
	for (struct api_request *r = api->head; r; r = r->next)
		if (r->http)
			detach(r);
	evhttp_free(api->unix_http);
	if (api->tcp_http)
		evhttp_free(api->tcp_http);
	while (api->head) {
		struct api_request *r = api->head;

		unlink_request(r);
		request_free(r);
	}
	loop_free(api->loop);
	free(api);
	return NULL;
}

/* ---- control thread ---- */

void api_reply(struct api_request *r, int status, const char *type, char *body, size_t n)
{
	r->status = status;
	str_fmt(r->type, sizeof(r->type), "%s", type);
	r->answer = body;
	r->answer_n = body ? n : 0;
	r->task = (struct loop_task){ .fn = on_answered, .arg = r };
	loop_post(r->api->loop, &r->task);
}

void api_reply_json(struct api_request *r, int status, yyjson_mut_doc *doc)
{
	size_t n = 0;
	char *s = render(doc, &n);

	api_reply(r, s ? status : 500, "application/json", s, n);
}

static void reply_problem(struct api_request *r, int status, const struct err *e)
{
	size_t n = 0;
	char *s = render(problem(status, e), &n);

	api_reply(r, status, "application/problem+json", s, n);
}

void api_reply_err(struct api_request *r, const struct err *e)
{
	reply_problem(r, api_http_status(e->code), e);
}

void api_reply_method(struct api_request *r)
{
	struct err e = { 0 };

	err_set(&e, ERR_USAGE, "%s does not take %s", r->path, *r->method ? r->method : "this method");
	reply_problem(r, 405, &e);
}

/* ---- listening sockets ---- */

int api_listen_unix(const char *path, uint32_t uid, uint32_t gid, int *ret_fd, struct err *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc = 0;

	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	unlink(path);
	if (str_fmt(sun.sun_path, sizeof(sun.sun_path), "%s", path) < 0)
		rc = err_set(e, ERR_CONFIG, "api.socket is too long for a socket's name");
	else if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || listen(fd, 64) < 0)
		rc = err_sys(e, "cannot listen on %s", path);
	else if ((geteuid() == 0 && chown(path, uid, gid) < 0) || chmod(path, 0660) < 0)
		rc = err_sys(e, "cannot set the owner of %s", path);
	if (rc < 0)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

/* A daemon that was killed a moment ago may still be on its way out with the port. */
static int bind_soon(int fd, const struct sockaddr *sa, socklen_t n)
{
	int rc = -1;

	for (int i = 0; i < 100 && (rc = bind(fd, sa, n)) < 0 && errno == EADDRINUSE; i++)
		usleep(10 * 1000);
	return rc;
}

int api_listen_tcp(const struct endpoint *at, int *ret_fd, struct err *e)
{
	int family = endpoint_is_v4(at) ? AF_INET : AF_INET6, one = 1, rc = 0;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_storage ss;
	socklen_t n = endpoint_to_sockaddr(at, family, &ss);
	char text[ENDPOINT_TEXT];

	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind_soon(fd, (struct sockaddr *)&ss, n) < 0 || listen(fd, 64) < 0) {
		rc = err_sys(e, "cannot listen on %s for metrics", endpoint_text(at, text));
		err_todo(e, "set metrics.listen to a free loopback port, or to off");
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}
