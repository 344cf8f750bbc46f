/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: x0 daemon
 *
 * The main process, in the order it starts; it stops in reverse. Until `user` it may be root (and needs it
 * only to open what belongs to root); after `sandbox` it can do nothing but move packets and write below
 * <state>/node.
 *
 * Threads: this one (control), one per packet worker (tunnel/), one for the API. Sources: DESIGN sections 4,
 * 5, 11.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/service.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/sandbox.h"

/* ---- as root ---- */

struct listening {
	int api, metrics;
};
static struct listening listening = { -1, -1 };

static int start_listen(struct control *c, struct err *e)
{
	uid_t uid;
	gid_t gid;
	int rc = config_user(c->cfg->user, &uid, &gid, e);

	rc = rc ? rc : service_open(e);
	rc = rc ? rc : service_socket(&listening.api, e);
	if (rc == 0 && listening.api < 0)
		rc = api_listen_unix(c->cfg->api_socket, uid, c->cfg->api_group ? c->cfg->api_group : gid,
				     &listening.api, e);
	if (rc == 0 && c->cfg->metrics.port)
		rc = api_listen_tcp(&c->cfg->metrics, &listening.metrics, e);
	return rc;
}

/* ---- as the user ---- */

static int start_user(struct control *c, struct err *e)
{
	/* The broker knows its client by the uid it connects with; so do the files it reads. */
	return sandbox_drop_user(c->cfg->user, e);
}

static int start_crypto(struct control *c, struct err *e)
{
	rng_init_system(&c->rng);
	return crypto_init(e);
}

static int start_identity(struct control *c, struct err *e)
{
	int rc = node_identity_load(c->cfg->identity_dir, &c->self, e);

	if (rc == ERR_NOT_FOUND) {
		err_set(e, ERR_NOT_FOUND, "this node has no identity in %s", c->cfg->identity_dir);
		return err_todo(e, "join a mesh: x0 join TOKEN; or start one: x0 ca init");
	}
	if (rc == 0 && *c->cfg->trust_domain && strcmp(c->cfg->trust_domain, c->self->bundle->trust_domain)) {
		err_set(e, ERR_CONFIG, "trust_domain is %s, but this node's identity is of %s",
			c->cfg->trust_domain, c->self->bundle->trust_domain);
		err_todo(e, "correct trust_domain, or join again with another state_dir");
		c->self = node_identity_free(c->self);
		return ERR_CONFIG;
	}
	return rc;
}

static void stop_identity(struct control *c)
{
	c->self = node_identity_free(c->self);
}

static int start_loop(struct control *c, struct err *e)
{
	c->loop = loop_new_event(e);
	if (!c->loop)
		return e && e->code ? e->code : ERR_SYS;
	c->started = loop_now(c->loop);
	c->wall_offset = (int64_t)(clock_wall_ns() - clock_mono_ns());
	control_conf_init(c);
	return 0;
}

static void stop_loop(struct control *c)
{
	c->loop = loop_free(c->loop);
}

static void close_fds(int *fd, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fd[i]);
}

/* Device, addresses, routes, sockets: what was there from an earlier main is handed over as it is. */
static int start_broker(struct control *c, struct err *e)
{
	const struct config *cfg = c->cfg;
	struct ip_prefix self = { .len = 128 }, net = { .len = 48 };
	int rc;

	memcpy(self.addr, c->self->addr, 16);
	overlay_prefix(c->self->bundle->trust_domain, net.addr);
	rc = broker_connect(cfg->broker_socket, &c->broker, e);
	if (rc < 0) {
		err_prefix(e, "x0-broker");
		return err_todo(e, "x0 up starts it (as root)");
	}
	/* The unreachable route first: from here on nothing to the overlay can leave in clear. */
	rc = broker_route(c->broker, &net, true, true, e);
	rc = rc ? rc : broker_udp(c->broker, &cfg->listen, cfg->workers, &c->udp, e);
	rc = rc ? rc : broker_tun(c->broker, cfg->tun_name, cfg->workers, cfg->tun_mtu, &c->tun, e);
	rc = rc ? rc : broker_addr(c->broker, &self, true, e);
	rc = rc ? rc : broker_route(c->broker, &net, false, true, e);
	if (rc == 0 && (c->udp.nfds != cfg->workers + 1 || c->tun.nfds != cfg->workers))
		rc = err_set(e, ERR_CONFLICT,
			     "x0-broker keeps sockets for another number of workers; x0 down, then x0 up");
	if (rc < 0) {
		close_fds(c->udp.fd, c->udp.nfds);
		close_fds(c->tun.fd, c->tun.nfds);
		c->broker = broker_close(c->broker);
	}
	return rc;
}

static void stop_broker(struct control *c)
{
	close_fds(c->udp.fd, c->udp.nfds);
	close_fds(c->tun.fd, c->tun.nfds);
	c->broker = broker_close(c->broker);
}

static void on_signal(void *arg, int fd, unsigned events)
{
	struct control *c = arg;
	struct signalfd_siginfo si;

	(void)events;
	if (read(fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGHUP) {
		log_info("control", "reload");
		control_reload(c);
	} else {
		log_info("control", "stopping", LU("signal", si.ssi_signo));
		loop_stop(c->loop);
	}
}

/* Blocked here, before the first thread, so that only the signalfd sees them. */
static int start_signals(struct control *c, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, "cannot block signals");
	signal(SIGPIPE, SIG_IGN);
	c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signal_fd < 0)
		return err_sys(e, "cannot make a signalfd");
	return loop_io_add(c->loop, &c->signal_io, c->signal_fd, LOOP_READ, on_signal, c, e);
}

static void stop_signals(struct control *c)
{
	loop_io_del(c->loop, &c->signal_io);
	close(c->signal_fd);
}

/* What this kernel lacks is said in the log, in x0 doctor and nowhere pretended. */
static int start_sandbox(struct control *c, struct err *e)
{
	char node[CONFIG_PATH], etc[512], *slash;
	const char *ro[] = { "/proc/self", "/sys/devices/system/cpu", etc };
	const char *rw[] = { node };
	int rc;

	if (str_fmt(node, sizeof(node), "%s/node", c->cfg->state_dir) < 0 ||
	    str_fmt(etc, sizeof(etc), "%s", c->config_path) < 0)
		return err_set(e, ERR_CONFIG, "a path is too long");
	slash = strrchr(etc, '/'); /* the directory: editors replace the file */
	if (slash && slash != etc)
		*slash = 0;
	rc = sandbox_landlock(ro, slash && slash != etc ? ARRAY_SIZE(ro) : ARRAY_SIZE(ro) - 1, rw, 1,
			      &c->landlock_abi, e);
	if (rc == ERR_UNSUPPORTED) {
		log_warn("sandbox", "no Landlock on this kernel: files are protected by the user alone");
		c->landlock_abi = 0;
		rc = 0;
	}
	rc = rc ? rc : sandbox_seccomp(SANDBOX_ERRNO, e);
	if (rc == ERR_UNSUPPORTED) {
		log_warn("sandbox", "no system call filter on this kernel");
		return 0;
	}
	c->sandboxed = rc == 0;
	return rc;
}

static void route(void *arg, struct api_request *r)
{
	api_route(arg, r);
}

static int start_api(struct control *c, struct err *e)
{
	struct api_config cfg = { .unix_fd = listening.api,
				  .metrics_fd = listening.metrics,
				  .uid = geteuid(),
				  .gid = c->cfg->api_group,
				  .control = c->loop,
				  .route = route,
				  .arg = c };

	return api_new(&cfg, &c->api, e);
}

static void stop_api(struct control *c)
{
	c->api = api_free(c->api);
}

static int start_issuer_client(struct control *c, struct err *e)
{
	struct stat st;

	if (stat(c->cfg->authority_dir, &st) < 0)
		return 0; /* not an issuer */
	c->issuer = issuer_client_new(c->loop, c->cfg->issuer_socket);
	return c->issuer ? 0 : err_set(e, ERR_NOMEM, "no memory for the issuer's client");
}

static void stop_issuer_client(struct control *c)
{
	c->issuer = issuer_client_free(c->issuer);
}

const struct module modules[] = {
	{ "listen", "the API's socket and the metrics port", start_listen, NULL },
	{ "user", "from here on no rights", start_user, NULL },
	{ "crypto", "OpenSSL's algorithms, fetched once", start_crypto, NULL },
	{ "identity", "our SVIDs and the bundle", start_identity, stop_identity },
	{ "loop", "the control thread's event loop", start_loop, stop_loop },
	{ "broker", "TUN queues and UDP sockets from x0-broker", start_broker, stop_broker },
	{ "moves", "changes of our own addresses, from netlink", control_moved_start, control_moved_stop },
	{ "signals", "SIGTERM ends, SIGHUP reloads", start_signals, stop_signals },
	{ "sandbox", "Landlock and seccomp, before the first thread", start_sandbox, NULL },
	{ "api", "HTTP on a thread of its own", start_api, stop_api },
	{ "path", "packet workers", control_path_start, control_path_stop },
	{ "issuer", "connection to the issuer process, on issuing nodes", start_issuer_client,
	  stop_issuer_client },
	{ "sessions", "QUIC sessions, links, keys", control_sessions_start, control_sessions_stop },
	{ "renewal", "our SVID at half life, the bundle", control_id_start, control_id_stop },
	{ "peers", "whom to know and to dial", control_peers_start, NULL },
};
const size_t nmodules = ARRAY_SIZE(modules);
