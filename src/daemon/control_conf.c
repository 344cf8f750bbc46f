/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of the configuration while running: parse, diff, apply all or nothing. With a time to confirm, the
 * old one is kept and comes back by itself, so that an apply that cuts the operator's own link is undone. The
 * file on disk is written by the CLI only once the change is kept; whatever happens in between, a restart
 * finds the old one.
 */
#include "daemon/control.h"

static void put_in_force(struct control *c, struct config *next)
{
	control_peers_set(c, c->cfg, next);
	log_set_level(next->log_level);
}

static void on_unconfirmed(void *arg, uint64_t now)
{
	struct control *c = arg;
	struct config *bad = c->cfg;

	(void)now;
	if (!c->before)
		return;
	put_in_force(c, c->before);
	c->cfg = c->before;
	c->before = NULL;
	config_free(bad);
	log_warn("control", "configuration not confirmed in time: the one before is in force again");
}

void control_conf_init(struct control *c)
{
	loop_timer_init(&c->confirm_timer, on_unconfirmed, c);
}

static int apply(struct control *c, struct config *next, uint64_t confirm_ns, struct err *e)
{
	int rc = config_reloadable(c->cfg, next, e);

	if (rc < 0)
		return rc;
	put_in_force(c, next);
	if (confirm_ns) {
		c->before = c->cfg;
		loop_timer_set(c->loop, &c->confirm_timer, loop_now_fresh(c->loop) + confirm_ns);
	} else {
		config_free(c->cfg);
	}
	c->cfg = next;
	log_info("control", "configuration applied", LU("confirm_s", confirm_ns / NS_PER_S));
	return 0;
}

static int refuse_while_pending(struct control *c, struct err *e)
{
	if (!c->before)
		return 0;
	err_set(e, ERR_CONFLICT, "a configuration waits for confirmation");
	return err_todo(e, "x0 config confirm keeps it; else it is undone when its time is up");
}

int control_apply(struct control *c, const char *text, size_t n, uint64_t confirm_ns, struct err *e)
{
	struct config *next = NULL;
	int rc = refuse_while_pending(c, e);

	rc = rc ? rc : config_parse("configuration", text, n, &next, e);
	rc = rc ? rc : apply(c, next, confirm_ns, e);
	if (rc < 0)
		config_free(next);
	return rc;
}

int control_confirm(struct control *c, struct err *e)
{
	if (!c->before) {
		err_set(e, ERR_CONFLICT, "no configuration waits for confirmation");
		return err_todo(e, "it may have been undone already: x0 config show");
	}
	loop_timer_cancel(c->loop, &c->confirm_timer);
	c->before = config_free(c->before);
	log_info("control", "configuration confirmed");
	return 0;
}

void control_reload(struct control *c)
{
	struct config *next = NULL;
	struct err e = { 0 };
	int rc = refuse_while_pending(c, &e);

	rc = rc ? rc : config_load(c->config_path, c->config_must_exist, &next, &e);
	rc = rc ? rc : apply(c, next, 0, &e);
	if (rc < 0) {
		config_free(next);
		log_error("control", "configuration not reloaded; the one in force stays", LS("why", e.what));
	}
}
