/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the issuer process
 *
 * Holds the authority's keys and nothing else: its own user, no network (only the Unix socket it listens on),
 * seccomp, Landlock on its own directory. The daemon asks it over that socket; a daemon that was taken over
 * can therefore have SVIDs made while it lasts, but never takes the keys away.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/service.h"
#include "daemon/daemon.h"
#include "daemon/issuer.h"
#include "daemon/sandbox.h"
#include "wire/wire.h"

enum { CLIENTS = 8, OUT_MAX = 4 << 20 };

struct issuer;

struct client {
	struct issuer *is;
	int fd; /* -1: free */
	bool root;
	struct loop_io io;
	struct ctl_reader in;
	uint8_t *out; /* owned; not yet written */
	size_t out_n;
};

struct issuer {
	struct loop *loop;
	struct authority *a;
	struct rng rng;
	uid_t client_uid;
	char backup_path[CONFIG_PATH + 16];
	int listen_fd, signal_fd;
	struct loop_io listen_io, signal_io;
	struct client client[CLIENTS];
};

static void client_close(struct client *k)
{
	loop_io_del(k->is->loop, &k->io);
	close(k->fd);
	k->fd = -1;
	ctl_reader_fini(&k->in);
	if (k->out)
		secret_wipe(k->out, k->out_n); /* it may hold a token */
	free(k->out);
	k->out = NULL;
	k->out_n = 0;
}

static int client_flush(struct client *k)
{
	while (k->out_n) {
		ssize_t n = send(k->fd, k->out, k->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0)
			return ERR_SYS;
		secret_wipe(k->out, (size_t)n);
		memmove(k->out, k->out + n, k->out_n - (size_t)n);
		k->out_n -= (size_t)n;
	}
	return loop_io_mod(k->is->loop, &k->io, k->out_n ? LOOP_READ | LOOP_WRITE : LOOP_READ);
}

static int on_request(void *arg, uint16_t type, const uint8_t *value, size_t len)
{
	struct client *k = arg;
	struct issuer_context ctx = { .a = k->is->a,
				      .rng = &k->is->rng,
				      .now = (int64_t)(clock_wall_ns() / NS_PER_S),
				      .backup_path = k->root ? k->is->backup_path : NULL };
	uint8_t *p = NULL, *grown;
	size_t n = 0;
	int rc = issuer_answer(&ctx, type, value, len, &p, &n);

	if (rc < 0)
		return rc;
	grown = k->out_n + n + CTL_HEAD <= OUT_MAX ? realloc(k->out, k->out_n + n + CTL_HEAD) : NULL;
	if (!grown) {
		secret_wipe(p, n);
		free(p);
		return ERR_LIMIT;
	}
	k->out = grown;
	put_u16(k->out + k->out_n, ISS_REPLY);
	put_u32(k->out + k->out_n + 2, (uint32_t)n);
	memcpy(k->out + k->out_n + CTL_HEAD, p, n);
	k->out_n += n + CTL_HEAD;
	secret_wipe(p, n);
	free(p);
	return 0;
}

static void on_client(void *arg, int fd, unsigned events)
{
	struct client *k = arg;
	uint8_t buf[16384];
	ssize_t n;

	if (events & LOOP_READ) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
		    (n > 0 && ctl_feed(&k->in, buf, (size_t)n, on_request, k) != 0)) {
			client_close(k);
			return;
		}
	}
	if (client_flush(k) < 0)
		client_close(k);
}

static void on_connect(void *arg, int fd, unsigned events)
{
	struct issuer *is = arg;
	int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct client *k = NULL;

	(void)events;
	if (s < 0)
		return;
	for (unsigned i = 0; i < CLIENTS && !k; i++)
		if (is->client[i].fd < 0)
			k = &is->client[i];
	if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    (cred.uid != 0 && cred.uid != is->client_uid)) {
		log_warn("issuer", "connection refused", LU("uid", cred.uid));
		close(s);
		return;
	}
	if (!k) {
		log_warn("issuer", "too many connections");
		close(s);
		return;
	}
	k->fd = s;
	k->root = cred.uid == 0;
	k->in = (struct ctl_reader){ .max = ISS_MAX };
	if (loop_io_add(is->loop, &k->io, s, LOOP_READ, on_client, k, NULL) < 0)
		client_close(k);
}

static void on_signal(void *arg, int fd, unsigned events)
{
	struct issuer *is = arg;
	struct signalfd_siginfo si;

	(void)events;
	if (read(fd, &si, sizeof(si)) == sizeof(si))
		loop_stop(is->loop);
}

static int listen_at(const char *path, uid_t uid, gid_t gid, int *ret_fd, struct err *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc = 0;

	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	unlink(path);
	if (str_fmt(sun.sun_path, sizeof(sun.sun_path), "%s", path) < 0)
		rc = err_set(e, ERR_CONFIG, "run_dir is too long for a socket's name");
	else if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || listen(fd, CLIENTS) < 0)
		rc = err_sys(e, "cannot listen on %s", path);
	else if (geteuid() == 0 && (chown(path, uid, gid) < 0 || chmod(path, 0600) < 0))
		rc = err_sys(e, "cannot give %s to the daemon", path);
	if (rc < 0)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

static int stop_signals(int *ret_fd, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	*ret_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return *ret_fd < 0 ? err_sys(e, "cannot make a signalfd") : 0;
}

/* Everything that needs root, then nothing does: the socket, the password, the user, the walls. */
static int enter(struct issuer *is, const struct config *cfg, char **ret_password, struct err *e)
{
	const char *rw[] = { cfg->authority_dir };
	gid_t gid;
	int abi, rc;

	rc = config_user(cfg->user, &is->client_uid, &gid, e);
	rc = rc ? rc : service_open(e);
	rc = rc ? rc : service_socket(&is->listen_fd, e);
	if (rc == 0 && is->listen_fd < 0)
		rc = listen_at(cfg->issuer_socket, is->client_uid, gid, &is->listen_fd, e);
	rc = rc ? rc : password_read(cfg->password_file, ret_password, e);
	rc = rc ? rc : stop_signals(&is->signal_fd, e);
	rc = rc ? rc : crypto_init(e);
	if (rc)
		return rc;
	rc = sandbox_drop_user(cfg->issuer_user, e);
	if (rc)
		return rc;
	rc = sandbox_landlock(NULL, 0, rw, 1, &abi, e);
	if (rc == ERR_UNSUPPORTED)
		log_warn("issuer", "no Landlock on this kernel: files are protected by the user alone");
	return rc == ERR_UNSUPPORTED ? 0 : rc;
}

static int serve(struct issuer *is, struct err *e)
{
	int rc;

	is->loop = loop_new_event(e);
	if (!is->loop)
		return e->code;
	rc = sandbox_seccomp(SANDBOX_ERRNO, e);
	rc = rc ? rc : loop_io_add(is->loop, &is->listen_io, is->listen_fd, LOOP_READ, on_connect, is, e);
	rc = rc ? rc : loop_io_add(is->loop, &is->signal_io, is->signal_fd, LOOP_READ, on_signal, is, e);
	if (!rc) {
		log_info("issuer", "ready", LU("bundle", authority_bundle(is->a)->number));
		service_ready();
		loop_run(is->loop);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (is->client[i].fd >= 0)
			client_close(&is->client[i]);
	loop_io_del(is->loop, &is->listen_io);
	loop_io_del(is->loop, &is->signal_io);
	loop_free(is->loop);
	return rc;
}

/* An issuer that was killed a moment ago may still be on its way out with the lock. */
static int open_authority(struct issuer *is, const struct config *cfg, const char *password, struct err *e)
{
	int rc = ERR_CONFLICT;

	for (int i = 0; i < 100 && rc == ERR_CONFLICT; i++) {
		if (i)
			usleep(10 * 1000);
		rc = authority_open(cfg->authority_dir, password, &is->a, e);
	}
	return rc;
}

int issuer_main(const struct config *cfg, struct err *e)
{
	struct issuer *is = calloc(1, sizeof(*is));
	char *password = NULL;
	int rc;

	if (!is)
		return err_set(e, ERR_NOMEM, "no memory");
	is->listen_fd = is->signal_fd = -1;
	for (unsigned i = 0; i < CLIENTS; i++) {
		is->client[i].is = is;
		is->client[i].fd = -1;
	}
	rng_init_system(&is->rng);
	snprintf(is->backup_path, sizeof(is->backup_path), "%s/backup.out", cfg->authority_dir);
	rc = enter(is, cfg, &password, e);
	rc = rc ? rc : open_authority(is, cfg, password, e);
	if (password)
		secret_wipe(password, strlen(password));
	free(password);
	rc = rc ? rc : authority_set_ttl(is->a, cfg->identity_ttl, e);
	rc = rc ? rc : serve(is, e);
	authority_free(is->a);
	close(is->listen_fd);
	close(is->signal_fd);
	free(is);
	return rc;
}
