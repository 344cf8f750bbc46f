/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/proc.h"

/* Start time in clock ticks since boot: with it a process ID names one process for ever. 0: no such process.
 */
static unsigned long long start_time(pid_t pid)
{
	char path[64], *p, state = 0;
	uint8_t *text = NULL;
	size_t n = 0;
	unsigned long long t = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (file_read(path, 4096, &text, &n, NULL) < 0)
		return 0;
	p = strrchr((char *)text, ')'); /* the name may hold anything */
	if (!p ||
	    sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
		   &state, &t) != 2 ||
	    state == 'Z')
		t = 0;
	free(text);
	return t;
}

static int pid_path(const char *dir, const char *name, const char *ext, char to[256])
{
	return str_fmt(to, 256, "%s/%s.%s", dir, name, ext);
}

pid_t proc_find(const char *dir, const char *name)
{
	unsigned long long t = 0;
	uint8_t *text = NULL;
	char path[256];
	size_t n = 0;
	int pid = 0;

	if (pid_path(dir, name, "pid", path) < 0 || file_read(path, 128, &text, &n, NULL) < 0)
		return 0;
	if (sscanf((char *)text, "%d %llu", &pid, &t) != 2 || pid < 2 || !t || start_time(pid) != t)
		pid = 0;
	free(text);
	return pid;
}

static void child(const char *log, char *const argv[])
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	if (out < 0)
		out = null;
	if (out >= 0) {
		dup2(out, STDOUT_FILENO);
		dup2(out, STDERR_FILENO);
	}
	close_range(3, ~0U, 0);
	if (chdir("/") == 0)
		execv(argv[0], argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int proc_start(const char *dir, const char *name, char *const argv[], pid_t *ret, struct err *e)
{
	char log[256], path[256], text[64];
	pid_t pid;
	int rc;

	if (pid_path(dir, name, "log", log) < 0 || pid_path(dir, name, "pid", path) < 0)
		return err_set(e, ERR_CONFIG, "run_dir is too long");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return err_sys(e, "cannot start a process");
	if (pid == 0)
		child(log, argv);
	snprintf(text, sizeof(text), "%d %llu\n", (int)pid, start_time(pid));
	rc = file_write(path, text, strlen(text), 0644, e);
	if (rc < 0) {
		kill(pid, SIGTERM); /* nobody would find it again */
		return rc;
	}
	*ret = pid;
	return 0;
}

int proc_end(const char *dir, const char *name, unsigned ms, struct err *e)
{
	pid_t pid = proc_find(dir, name);
	int fd = pid ? pidfd_open(pid, 0) : -1, rc = 0;
	char path[256];

	/* The descriptor names the process for certain; look again that it is the one the file means. */
	if (fd >= 0 && proc_find(dir, name) == pid) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (pidfd_send_signal(fd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
			rc = err_sys(e, "cannot end %s (process %d)", name, (int)pid);
		else if (poll(&p, 1, (int)ms) == 0) {
			pidfd_send_signal(fd, SIGKILL, NULL, 0);
			poll(&p, 1, 2000);
		}
		waitpid(pid, NULL, WNOHANG);
	}
	if (fd >= 0)
		close(fd);
	if (rc == 0 && pid_path(dir, name, "pid", path) >= 0)
		unlink(path);
	return rc;
}

void proc_why(const char *dir, const char *name, struct err *e)
{
	char path[256], *text, *line;
	uint8_t *p = NULL;
	size_t n = 0;

	if (pid_path(dir, name, "log", path) < 0 || file_read(path, 16 << 20, &p, &n, NULL) < 0 || !n) {
		err_set(e, ERR_FAILED, "%s ended right away", name);
		free(p);
		return;
	}
	text = (char *)p;
	while (n && text[n - 1] == '\n')
		text[--n] = 0;
	line = strrchr(text, '\n');
	err_set(e, ERR_FAILED, "%s ended right away: %.200s", name, line ? line + 1 : text);
	err_todo(e, "its log: %s", path);
	free(p);
}
