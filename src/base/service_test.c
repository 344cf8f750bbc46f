/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/service.h"

static void offer(const char *fds)
{
	char pid[24];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", fds, 1);
}

/* In a child: descriptor 3 is the protocol's, and here it may be anyone's. Returns what `fn` did. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int put_listener(int type)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, type, 0);

	/* The family alone: the kernel chooses an abstract name. */
	if (s < 0 || bind(s, (struct sockaddr *)&sa, sizeof(sa.sun_family)) < 0 || listen(s, 1) < 0 ||
	    dup2(s, 3) < 0)
		return -1;
	return 0;
}

static int takes_it(void)
{
	struct err e = { 0 };
	int fd;

	if (put_listener(SOCK_STREAM) < 0)
		return 9;
	offer("1");
	if (service_socket(&fd, &e) != 0 || fd != 3 || !(fcntl(3, F_GETFD) & FD_CLOEXEC) ||
	    !(fcntl(3, F_GETFL) & O_NONBLOCK) || getenv("LISTEN_FDS"))
		return 1;
	return service_socket(&fd, &e) == 0 && fd == -1 ? 0 : 2; /* once */
}

static int refuses_others(void)
{
	struct err e = { 0 };
	int fd;

	if (put_listener(SOCK_SEQPACKET) < 0)
		return 9;
	offer("1");
	if (service_socket(&fd, &e) != ERR_CONFIG || fd != -1)
		return 1;
	if (put_listener(SOCK_STREAM) < 0)
		return 9;
	offer("2");
	if (service_socket(&fd, &e) != ERR_CONFIG || fd != -1)
		return 2;
	close(3);
	offer("1");
	if (service_socket(&fd, &e) != ERR_CONFIG || fd != -1)
		return 3;
	setenv("LISTEN_PID", "1", 1);
	setenv("LISTEN_FDS", "1", 1);
	return service_socket(&fd, &e) == 0 && fd == -1 ? 0 : 4; /* another process's */
}

static void passed_socket(void **state)
{
	(void)state;
	assert_int_equal(in_child(takes_it), 0);
	assert_int_equal(in_child(refuses_others), 0);
}

static void ready_is_said_once(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t n = sizeof(sa);
	char name[128], got[64];
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(bind(s, (struct sockaddr *)&sa, sizeof(sa.sun_family)), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&sa, &n), 0);
	snprintf(name, sizeof(name), "@%.*s", (int)(n - offsetof(struct sockaddr_un, sun_path) - 1),
		 sa.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(service_open(&e), 0);
	assert_null(getenv("NOTIFY_SOCKET"));
	service_ready();
	service_ready();
	assert_int_equal(recv(s, got, sizeof(got), 0), 7);
	assert_memory_equal(got, "READY=1", 7);
	assert_int_equal(recv(s, got, sizeof(got), 0), -1);
	close(s);

	assert_int_equal(service_open(&e), 0); /* nobody asked */
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(service_open(&e), ERR_CONFIG);
	setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	assert_int_equal(service_open(&e), ERR_SYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passed_socket),
		cmocka_unit_test(ready_is_said_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
