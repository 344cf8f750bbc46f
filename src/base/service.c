/* SPDX-License-Identifier: Apache-2.0 */
#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 }; /* SD_LISTEN_FDS_START */

static int notify_fd = -1;

static int sock_int(int fd, int what)
{
	int v = -1;
	socklen_t n = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, what, &v, &n) < 0 ? -1 : v;
}

int service_socket(int *ret, struct err *e)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int fd = FIRST_FD, rc = 0;

	*ret = -1;
	if (!pid || !fds || strtol(pid, NULL, 10) != getpid())
		return 0; /* meant for a parent of ours */
	if (strcmp(fds, "1") != 0 || sock_int(fd, SO_DOMAIN) != AF_UNIX ||
	    sock_int(fd, SO_TYPE) != SOCK_STREAM || sock_int(fd, SO_ACCEPTCONN) != 1) {
		err_set(e, ERR_CONFIG,
			"what the service manager passed is not one listening Unix stream socket");
		rc = err_todo(e, "restore the .socket unit of the package");
	} else if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		rc = err_sys(e, "cannot set up the passed socket");
	} else {
		*ret = fd;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return rc;
}

int service_open(struct err *e)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int rc = 0;

	if (!n)
		return 0;
	if ((*path != '/' && *path != '@') || n >= sizeof(sa.sun_path)) {
		rc = err_set(e, ERR_CONFIG, "NOTIFY_SOCKET is not a socket's name");
	} else {
		memcpy(sa.sun_path, path, n);
		if (*path == '@')
			sa.sun_path[0] = 0; /* abstract */
		notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (notify_fd < 0 || connect(notify_fd, (struct sockaddr *)&sa,
					     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
			rc = err_sys(e, "cannot reach the service manager");
	}
	unsetenv("NOTIFY_SOCKET");
	return rc;
}

void service_ready(void)
{
	static const char text[] = "READY=1";

	if (notify_fd < 0)
		return;
	/* Unheard, the manager ends us after its time-out and says so. */
	(void)!send(notify_fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
	close(notify_fd);
	notify_fd = -1;
}
