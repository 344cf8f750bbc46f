/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's API: HTTP/1.1 and JSON under /api/v1 on a Unix socket with peer credentials, and /metrics on a
 * loopback TCP port. It has a thread and a loop of its own. A request travels to the control thread (at most
 * API_PENDING at a time, the rest is answered 503) and its answer back; so a slow client delays nobody, and
 * what no answer comes to in API_TIMEOUT seconds is answered 503.
 */
#ifndef X0_DAEMON_API_H
#define X0_DAEMON_API_H

#include <stdatomic.h>
#include <yyjson.h>

#include "base/base.h"

enum { API_PENDING = 64, API_BODY = 64 << 10, API_TIMEOUT = 60, API_PATH = 256 };

struct api;
struct evhttp_request;

struct api_request {
	/* for the control thread; constant while it has the request */
	char method[8], path[API_PATH], query[API_PATH]; /* path without the query; percent-decoded */
	char *body;					 /* owned; NUL-terminated */
	size_t body_n;
	/* the answer, set by api_reply() */
	int status;
	char type[48];
	char allow[24]; /* for 405: the methods there are, "GET, POST" (RFC 9110, 15.5.6) */
	char *answer;	/* owned */
	size_t answer_n;
	/* private */
	struct api *api;
	struct loop_task task;
	struct loop_timer timer;
	struct evhttp_request *http; /* API thread only; NULL: the client is gone or was answered */
	struct api_request *next;    /* API thread's list of those under way */
	struct api_request **prev;
};

struct api_config {
	int unix_fd;	/* listening; taken over */
	int metrics_fd; /* listening, or -1; taken over */
	uint32_t uid;	/* may use the API beside root */
	uint32_t gid;	/* and members whose primary group is this; 0: nobody */
	struct loop *control;
	/* Called on the control thread for each request; it answers with api_reply(), now or later, exactly
	 * once. */
	void (*route)(void *arg, struct api_request *r);
	void *arg;
};

int api_new(const struct api_config *cfg, struct api **ret, struct err *e); /* starts the thread */
/* Answers what is under way with 503 and ends the thread. No api_reply() may be outstanding that a route
 * promised: requests the control thread still holds are given back by api_reply() before this. */
struct api *api_free(struct api *api);

/* Control thread: gives the request back. `body` is taken over (malloc'ed) and may be NULL. */
void api_reply(struct api_request *r, int status, const char *type, char *body, size_t n);
/* JSON of a mutable document, which is freed. */
void api_reply_json(struct api_request *r, int status, yyjson_mut_doc *doc);
/* RFC 9457: application/problem+json with code, message, todo; the status follows from the code. */
void api_reply_err(struct api_request *r, const struct err *e);
/* 405: the path is there, and takes r->allow only. */
void api_reply_method(struct api_request *r);
int api_http_status(int code); /* HTTP status of an ERR_* */

/* {"api":"x0/v1","kind":kind,"ok":true} to add fields to. */
yyjson_mut_doc *api_doc(const char *kind, yyjson_mut_val **ret_root);

/* Listening sockets, made while the process may still. */
int api_listen_unix(const char *path, uint32_t uid, uint32_t gid, int *ret_fd, struct err *e);
int api_listen_tcp(const struct endpoint *at, int *ret_fd, struct err *e);

#endif
