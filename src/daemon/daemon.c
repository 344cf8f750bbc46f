/* SPDX-License-Identifier: Apache-2.0 */
/* Starts the modules in order, runs the control loop, stops them in reverse. */
#include <stdlib.h>
#include <unistd.h>

#include "base/service.h"
#include "daemon/control.h"
#include "daemon/daemon.h"

static void on_stop_timer(void *arg, uint64_t now)
{
	struct control *c = arg;

	(void)now;
	loop_stop(c->loop);
}

void control_stop_soon(struct control *c)
{
	c->ready = false;
	loop_timer_init(&c->stop_timer, on_stop_timer, c);
	loop_timer_set(c->loop, &c->stop_timer, loop_now(c->loop) + 50 * NS_PER_MS);
}

static int run(struct control *c, struct err *e)
{
	uint64_t t0 = clock_mono_ns();
	size_t n = 0;
	int rc = 0;

	while (n < nmodules && rc == 0) {
		uint64_t t = clock_mono_ns();

		rc = modules[n].start(c, e);
		log_debug("daemon", "started", LS("module", modules[n].name), LI("code", rc),
			  LF("ms", (double)(clock_mono_ns() - t) / 1e6));
		n += rc == 0;
	}
	if (rc == 0) {
		c->ready = true;
		log_info("daemon", "ready", LS("id", c->self->id.uri), LS("device", c->tun.name),
			 LB("adopted", c->tun.kept), LU("workers", c->cfg->workers),
			 LF("ms", (double)(clock_mono_ns() - t0) / 1e6));
		service_ready();
		loop_run(c->loop);
		c->ready = false;
	}
	while (n--)
		if (modules[n].stop)
			modules[n].stop(c);
	return rc;
}

int daemon_main(const char *config_path, bool must_exist, struct err *e)
{
	struct control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_set(e, ERR_NOMEM, "no memory");
	c->config_path = config_path;
	c->config_must_exist = must_exist;
	rc = config_load(config_path, must_exist, &c->cfg, e);
	if (rc == 0) {
		log_init(STDERR_FILENO, c->cfg->log_format, c->cfg->log_level);
		rc = run(c, e);
		if (rc < 0)
			log_error("daemon", "cannot start", LS("why", e->what), LS("todo", e->todo));
	}
	config_free(c->cfg);
	config_free(c->before);
	free(c);
	return rc;
}
