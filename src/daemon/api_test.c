/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP side of the API with a route of our own: what clients can send, and what comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/api.h"

static char dir[] = "/tmp/x0-api-test-XXXXXX", path[64];
static struct loop *control;
static struct api *api;
static pthread_t thread;
static struct api_request *held[128];
static atomic_uint nheld;

/* "/echo" answers with what arrived, "/err" with a problem, "/hold" not yet. */
static void route(void *arg, struct api_request *r)
{
	struct err e = { 0 };
	yyjson_mut_val *root;
	yyjson_mut_doc *d;

	assert_ptr_equal(arg, control);
	if (!strcmp(r->path, "/hold")) {
		held[nheld] = r;
		nheld++; /* the test's thread waits for it */
	} else if (!strcmp(r->path, "/release")) {
		while (nheld)
			api_reply(held[--nheld], 200, "text/plain", strdup("late"), 4);
		api_reply(r, 200, "text/plain", NULL, 0);
	} else if (!strcmp(r->path, "/err")) {
		err_set(&e, ERR_CONFLICT, "no \"good\"");
		err_todo(&e, "do it");
		api_reply_err(r, &e);
	} else {
		d = api_doc("Echo", &root);
		yyjson_mut_obj_add_strcpy(d, root, "method", r->method);
		yyjson_mut_obj_add_strcpy(d, root, "path", r->path);
		yyjson_mut_obj_add_strcpy(d, root, "query", r->query);
		yyjson_mut_obj_add_strncpy(d, root, "body", r->body, r->body_n);
		api_reply_json(r, 200, d);
	}
}

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static int setup(void **state)
{
	struct api_config cfg = { .metrics_fd = -1, .uid = getuid(), .route = route };
	struct err e = { 0 };

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	control = cfg.control = cfg.arg = loop_new_event(&e);
	assert_int_equal(api_listen_unix(path, getuid(), getgid(), &cfg.unix_fd, &e), 0);
	assert_int_equal(api_new(&cfg, &api, &e), 0);
	pthread_create(&thread, NULL, run, control);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_stop(control);
	pthread_join(thread, NULL);
	api_free(api);
	loop_free(control);
	unlink(path);
	return rmdir(dir);
}

static int dial(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct timeval tv = { .tv_sec = 5 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static char answer[1 << 17];

/* Sends the bytes, reads until the server hangs up; the status, or -1. */
static int talk(const void *p, size_t n)
{
	int fd = dial(), status = -1;
	size_t at = 0;
	ssize_t k;

	k = send(fd, p, n, MSG_NOSIGNAL);
	while ((k = recv(fd, answer + at, sizeof(answer) - 1 - at, 0)) > 0)
		at += (size_t)k;
	answer[at] = 0;
	close(fd);
	return sscanf(answer, "HTTP/1.%*d %d", &status) == 1 ? status : -1;
}

static int get(const char *request)
{
	return talk(request, strlen(request));
}

static void echo(void **state)
{
	(void)state;
	assert_int_equal(get("POST /echo/x?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
			     "4\r\n\r\nbody"),
			 200);
	assert_non_null(strstr(
		answer,
		"{\"api\":\"x0/v1\",\"kind\":\"Echo\",\"ok\":true,\"method\":\"POST\",\"path\":\"/echo/x\","
		"\"query\":\"a=b\",\"body\":\"body\"}"));
	assert_non_null(strstr(answer, "Content-Type: application/json"));
	assert_non_null(strstr(answer, "no-store"));
}

static void problem(void **state)
{
	(void)state;
	assert_int_equal(get("GET /err HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 409);
	assert_non_null(strstr(answer, "application/problem+json"));
	assert_non_null(strstr(answer, "\"status\":409"));
	assert_non_null(
		strstr(answer, "\"code\":\"conflict\",\"message\":\"no \\\"good\\\"\",\"todo\":\"do it\""));
}

static void keep_alive(void **state)
{
	static const char two[] =
		"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

	(void)state;
	assert_int_equal(get(two), 200);
	assert_non_null(strstr(answer, "\"/1\""));
	assert_non_null(strstr(answer, "\"/2\""));
}

static void limits(void **state)
{
	static char big[API_BODY * 2];
	int n;

	(void)state;
	n = snprintf(big, sizeof(big), "GET /");
	memset(big + n, 'a', 9000);
	strcpy(big + n + 9000, " HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_in_range(get(big), 400, 431);
	n = snprintf(big, sizeof(big), "GET /");
	memset(big + n, 'a', API_PATH);
	strcpy(big + n + API_PATH, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	assert_int_equal(get(big), 414);
	n = snprintf(big, sizeof(big), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
		     API_BODY + 1);
	memset(big + n, 'b', API_BODY + 1);
	assert_int_equal(talk(big, (size_t)n + API_BODY + 1), 413);
	assert_int_equal(get("PATCH / HTTP/1.1\r\nHost: x\r\n\r\n"), 501);
	assert_int_equal(get("GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200);
}

/* Requests beyond API_PENDING are told to come again; those that wait are answered in the end; a client that
 * goes away while its request is under way harms nobody. */
static void full(void **state)
{
	static const char hold[] = "GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	int fd[API_PENDING], last;

	(void)state;
	for (int i = 0; i < API_PENDING; i++) {
		fd[i] = dial();
		assert_int_equal(send(fd[i], hold, strlen(hold), 0), strlen(hold));
	}
	for (int i = 0; i < 200 && nheld < API_PENDING; i++)
		usleep(10000);
	assert_int_equal(nheld, API_PENDING);
	assert_int_equal(get("GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 503);
	assert_non_null(strstr(answer, "Retry-After"));
	close(fd[0]);
	usleep(20000);
	/* The one that left still counts until the control thread has answered it. */
	assert_int_equal(get("GET /release HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 503);
	api_reply(held[--nheld], 200, "text/plain", strdup("late"), 4);
	usleep(50000);
	assert_int_equal(get("GET /release HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200);
	last = (int)recv(fd[1], answer, sizeof(answer) - 1, 0);
	assert_true(last > 0);
	for (int i = 1; i < API_PENDING; i++)
		close(fd[i]);
	assert_int_equal(get("GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200);
}

static void garbage(void **state)
{
	uint8_t junk[2048];
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 3);
	for (int i = 0; i < 50; i++) {
		int fd = dial();

		rng_fill(&r, junk, sizeof(junk));
		if (i & 1)
			memcpy(junk, "POST / HTTP/1.1\r\n", 17);
		send(fd, junk, 1 + rng_below(&r, sizeof(junk)), MSG_NOSIGNAL);
		close(fd);
	}
	assert_int_equal(get("GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200);
}

static void statuses(void **state)
{
	(void)state;
	assert_int_equal(api_http_status(ERR_USAGE), 400);
	assert_int_equal(api_http_status(ERR_REVOKED), 403);
	assert_int_equal(api_http_status(ERR_NOT_FOUND), 404);
	assert_int_equal(api_http_status(ERR_LIMIT), 503);
	assert_int_equal(api_http_status(ERR_TIMEOUT), 504);
	assert_int_equal(api_http_status(ERR_UNSUPPORTED), 501);
	assert_int_equal(api_http_status(ERR_NOMEM), 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echo),	    cmocka_unit_test(problem), cmocka_unit_test(keep_alive),
		cmocka_unit_test(limits),   cmocka_unit_test(full),    cmocka_unit_test(garbage),
		cmocka_unit_test(statuses),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
