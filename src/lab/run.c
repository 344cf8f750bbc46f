/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab/lab.h"

int lab_enter(const char *host, struct err *e)
{
	char ns[32], path[64];
	int fd, rc;

	lab_ns(host, ns);
	if (str_fmt(path, sizeof(path), "/run/netns/%s", ns) < 0)
		return err_set(e, ERR_USAGE, "host name %s is too long", host);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, ERR_NOT_FOUND, "no host %s in the lab", host);
	rc = setns(fd, CLONE_NEWNET);
	close(fd);
	return rc == 0 ? 0 : err_sys(e, "enter namespace %s", ns);
}

int lab_visit(const char *host, int *home, struct err *e)
{
	int rc;

	*home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (*home < 0)
		return err_sys(e, "open own network namespace");
	rc = lab_enter(host, e);
	if (rc != 0)
		close(*home);
	return rc;
}

int lab_leave(int home, struct err *e)
{
	int rc = setns(home, CLONE_NEWNET) == 0 ? 0 : err_sys(e, "return to own network namespace");

	close(home);
	return rc;
}

int lab_socket(const char *host, int family, int type, struct err *e)
{
	int home, fd, rc = lab_visit(host, &home, e);

	if (rc != 0)
		return rc;
	fd = socket(family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		rc = err_sys(e, "socket on host %s", host);
	if (lab_leave(home, rc == 0 ? e : NULL) != 0 && rc == 0)
		rc = ERR_SYS;
	if (rc == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return rc;
}

static void child(const char *host, const char *const *argv, int out, int err)
{
	struct err e = { 0 };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (host && lab_enter(host, &e) != 0) {
		dprintf(err, "%s\n", e.what);
		_exit(126);
	}
	/* A group of its own: Ctrl-C reaches the demo, which then ends what it started in order. */
	setpgid(0, 0);
	if (null >= 0)
		dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	execvp(argv[0], (char *const *)argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Appends what is there to read; false when the writers have gone. */
static bool take(int fd, char *to, size_t cap, size_t *n)
{
	char sink[4096];
	bool full = *n + 1 >= cap;
	ssize_t k = read(fd, full ? sink : to + *n, full ? sizeof(sink) : cap - 1 - *n);

	if (k < 0)
		return errno == EINTR || errno == EAGAIN;
	if (k > 0 && !full)
		*n += (size_t)k;
	return k > 0;
}

int lab_run(const char *host, const char *const *argv, unsigned timeout_ms, char *out, size_t cap,
	    struct err *e)
{
	char none[1], said[256];
	size_t n = 0, nsaid = 0;
	int po[2], pe[2], status = 0;
	uint64_t end = clock_mono_ns() + timeout_ms * NS_PER_MS;
	bool killed = false, open_out = true, open_err = true;
	pid_t pid;

	if (!out) {
		out = none;
		cap = sizeof(none);
	}
	if (pipe2(po, O_CLOEXEC) != 0)
		return err_sys(e, "pipe");
	if (pipe2(pe, O_CLOEXEC) != 0) {
		close(po[0]);
		close(po[1]);
		return err_sys(e, "pipe");
	}
	pid = fork();
	if (pid == 0)
		child(host, argv, po[1], pe[1]);
	close(po[1]);
	close(pe[1]);
	while (pid > 0 && (open_out || open_err)) {
		uint64_t now = clock_mono_ns();
		struct pollfd p[2] = { { .fd = open_out ? po[0] : -1, .events = POLLIN },
				       { .fd = open_err ? pe[0] : -1, .events = POLLIN } };

		if (now >= end) {
			killed = true;
			kill(-pid, SIGKILL);
			break;
		}
		if (poll(p, 2, (int)((end - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			open_out = take(po[0], out, cap, &n);
		if (p[1].revents)
			open_err = take(pe[0], said, sizeof(said), &nsaid);
		/* Daemons that the command left behind keep the pipes open: its own end counts. */
		if (waitpid(pid, &status, WNOHANG) == pid) {
			fcntl(po[0], F_SETFL, O_NONBLOCK);
			fcntl(pe[0], F_SETFL, O_NONBLOCK);
			take(po[0], out, cap, &n);
			take(pe[0], said, sizeof(said), &nsaid);
			pid = -2;
		}
	}
	close(po[0]);
	close(pe[0]);
	out[n] = 0;
	said[nsaid] = 0;
	for (char *s = said; *s; s++)
		if (*s == '\n')
			*s = ' ';
	if (pid == -1)
		return err_sys(e, "start %s", argv[0]);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (killed)
		return err_set(e, ERR_TIMEOUT, "%s %s took longer than %u ms", argv[0],
			       argv[1] ? argv[1] : "", timeout_ms);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(e, ERR_FAILED, "%s %s on %s: exit status %d: %s", argv[0],
			       argv[1] ? argv[1] : "", host ? host : "this machine",
			       WIFEXITED(status) ? WEXITSTATUS(status) : -1, nsaid ? said : out);
	return 0;
}

int lab_x0(const struct lab *lab, const char *host, char *out, size_t cap, struct err *e, ...)
{
	const char *argv[24] = { lab->x0, "--config" };
	char config[64];
	unsigned n = 3;
	va_list ap;

	lab_config(host, config);
	argv[2] = config;
	va_start(ap, e);
	while (n < ARRAY_SIZE(argv) - 1 && (argv[n] = va_arg(ap, const char *)) != NULL)
		n++;
	va_end(ap);
	argv[n] = NULL;
	return lab_run(host, argv, 20000, out, cap, e);
}
