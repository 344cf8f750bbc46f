/* SPDX-License-Identifier: Apache-2.0 */
/* Routes that act on this node: ping, re-key, renew, configuration, shutdown. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "daemon/api_actions.h"

#define PING_WAIT (5 * NS_PER_S) /* for a session, if there is none yet */
#define PING_POLL (2 * NS_PER_MS)

static void reply_ok(struct api_request *r, const char *kind)
{
	yyjson_mut_val *root;

	api_reply_json(r, 200, api_doc(kind, &root));
}

/* The request's object; NULL after answering that it is none. */
static yyjson_doc *body(struct api_request *r)
{
	yyjson_doc *d = yyjson_read(r->body, r->body_n, 0);
	struct err e = { 0 };

	if (d && yyjson_is_obj(yyjson_doc_get_root(d)))
		return d;
	yyjson_doc_free(d);
	err_set(&e, ERR_PARSE, "the request's body is no JSON object");
	api_reply_err(r, &e);
	return NULL;
}

static const char *text_of(yyjson_doc *d, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(d), key));

	return s ? s : "";
}

/* The peer named in the body by name, SPIFFE ID or overlay address. 0, or the request is answered. */
struct by_addr {
	uint8_t addr[16];
	struct spiffe_id *ret;
	bool found;
};

static void match_addr(void *arg, const struct sess_peer_info *p)
{
	struct by_addr *k = arg;

	if (!memcmp(p->addr, k->addr, 16)) {
		*k->ret = p->id;
		k->found = true;
	}
}

static int peer_of(struct control *c, struct api_request *r, struct spiffe_id *ret)
{
	yyjson_doc *d = body(r);
	struct by_addr k = { .ret = ret };
	struct sess_peer_info info;
	struct err e = { 0 };
	const char *name;
	int rc = 0;

	if (!d)
		return ERR_PARSE;
	name = text_of(d, "peer");
	if (inet_pton(AF_INET6, name, k.addr) == 1)
		sess_peers(c->sess, match_addr, &k);
	else
		rc = control_peer_id(c, name, ret, &e);
	if (rc == 0 && !k.found && (strchr(name, ':') && strncmp(name, "spiffe", 6)))
		rc = err_set(&e, ERR_NOT_FOUND, "no peer has the address %.60s", name);
	if (rc == 0 && control_peer_find(c, ret, &info) < 0) {
		rc = err_set(&e, ERR_NOT_FOUND, "there is no peer '%.100s'", name);
		err_todo(&e, "x0 peers lists them");
	}
	yyjson_doc_free(d);
	if (rc < 0)
		api_reply_err(r, &e);
	return rc;
}

/* ---- ping ---- */

struct ping {
	struct control *c;
	struct api_request *r;
	struct spiffe_id id;
	struct loop_timer timer;
	uint64_t until;
};

static void ping_failed(struct ping *p, int code, const char *why)
{
	struct err e = { 0 };

	err_set(&e, code, "%s: %s", spiffe_id_node_name(&p->id) ? spiffe_id_node_name(&p->id) : p->id.uri,
		why);
	err_todo(&e, "x0 peers shows its state and last error");
	api_reply_err(p->r, &e);
	free(p);
}

static void on_pong(void *arg, int code, uint64_t rtt_ns)
{
	struct ping *p = arg;
	yyjson_mut_val *root;
	yyjson_mut_doc *d;

	if (code < 0) {
		ping_failed(p, ERR_TIMEOUT, code == ERR_TIMEOUT ? "no answer" : "the session ended");
		return;
	}
	d = api_doc("Ping", &root);
	yyjson_mut_obj_add_strcpy(d, root, "id", p->id.uri);
	yyjson_mut_obj_add_real(d, root, "rtt_ms", (double)rtt_ns / 1e6);
	api_reply_json(p->r, 200, d);
	free(p);
}

static void ping_try(void *arg, uint64_t now)
{
	struct ping *p = arg;
	struct sess_peer_info info;

	if (control_peer_find(p->c, &p->id, &info) < 0) {
		ping_failed(p, ERR_NOT_FOUND, "the peer was removed");
		return;
	}
	if (info.state == SESS_UP && sess_ping(p->c->sess, info.session, on_pong, p) == 0)
		return;
	if (now >= p->until) {
		ping_failed(p, ERR_TIMEOUT, info.last_error[0] ? info.last_error : "no session came up");
		return;
	}
	loop_timer_set(p->c->loop, &p->timer, now + PING_POLL);
}

void action_ping(struct control *c, struct api_request *r)
{
	struct ping *p = calloc(1, sizeof(*p));
	struct spiffe_id id;
	uint8_t addr[16];
	struct err e = { 0 };

	if (!p) {
		err_set(&e, ERR_NOMEM, "no memory for a ping");
		api_reply_err(r, &e);
		return;
	}
	if (peer_of(c, r, &id) < 0) {
		free(p);
		return;
	}
	p->c = c;
	p->r = r;
	p->id = id;
	p->until = loop_now(c->loop) + PING_WAIT;
	overlay_addr(&id, addr);
	sess_want(c->sess, addr);
	loop_timer_init(&p->timer, ping_try, p);
	ping_try(p, loop_now(c->loop));
}

void action_rekey(struct control *c, struct api_request *r)
{
	struct sess_peer_info info;
	struct spiffe_id id;
	struct err e = { 0 };

	if (peer_of(c, r, &id) < 0)
		return;
	if (control_peer_find(c, &id, &info) < 0 || info.state != SESS_UP) {
		err_set(&e, ERR_NOT_FOUND, "there is no session with %s", id.uri);
		api_reply_err(r, &e);
		return;
	}
	sess_rekey(c->sess, info.session);
	reply_ok(r, "Rekey");
}

/* ---- renewal ---- */

static void on_renewed(void *arg, const struct err *e)
{
	if (e)
		api_reply_err(arg, e);
	else
		reply_ok(arg, "Renewal");
}

void action_renew(struct control *c, struct api_request *r)
{
	struct err e = { 0 };

	if (control_renew(c, on_renewed, r, &e) < 0)
		api_reply_err(r, &e);
}

/* ---- configuration ---- */

void action_config(struct control *c, struct api_request *r)
{
	yyjson_doc *d = body(r);
	struct err e = { 0 };
	yyjson_val *v;
	uint64_t s = 0;
	int rc;

	if (!d)
		return;
	v = yyjson_obj_get(yyjson_doc_get_root(d), "text");
	s = yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(d), "confirm_s"));
	if (!yyjson_is_str(v) || s > 86400)
		rc = err_set(&e, ERR_PARSE, "text (a string) and confirm_s (0 to 86400) are wanted");
	else
		rc = control_apply(c, yyjson_get_str(v), yyjson_get_len(v), s * NS_PER_S, &e);
	yyjson_doc_free(d);
	if (rc < 0)
		api_reply_err(r, &e);
	else
		reply_ok(r, "ConfigApplied");
}

void action_confirm(struct control *c, struct api_request *r)
{
	yyjson_mut_val *root;
	yyjson_mut_doc *d;
	struct err e = { 0 };

	if (control_confirm(c, &e) < 0) {
		api_reply_err(r, &e);
		return;
	}
	d = api_doc("ConfigConfirmed", &root);
	yyjson_mut_obj_add_strcpy(d, root, "text", c->cfg->text);
	api_reply_json(r, 200, d);
}

void action_shutdown(struct control *c, struct api_request *r)
{
	reply_ok(r, "Shutdown");
	control_stop_soon(c);
}
