/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: x0-broker, the program
 *
 * Options, hardening, signals. Everything that needs more than CAP_NET_ADMIN (the socket's owner) is done
 * before the rest of the capabilities goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/service.h"
#include "broker/broker_int.h"

#ifndef X0_VERSION
#define X0_VERSION "dev"
#endif

static int capabilities_read(struct __user_cap_data_struct to[2])
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &h, to) < 0 ? -1 : 0;
}

static int capabilities_drop(struct err *e)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct c[2] = { { 0 } };

	/* The bounding set first: that takes CAP_SETPCAP. EINVAL ends the list of this kernel. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap != CAP_NET_ADMIN && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EPERM)
			return err_sys(e, "cannot drop capability %d from the bounding set", cap);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_sys(e, "cannot clear the ambient capabilities");
	c[0].effective = c[0].permitted = 1u << CAP_NET_ADMIN;
	return syscall(SYS_capset, &h, c) < 0 ? err_sys(e, "cannot drop capabilities") : 0;
}

int broker_harden(struct err *e)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(e, "cannot set no_new_privs");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, "cannot forbid core dumps");
	return capabilities_drop(e);
}

static int may_run(struct err *e)
{
	struct __user_cap_data_struct c[2] = { { 0 } };

	if (capabilities_read(c) < 0)
		return err_sys(e, "cannot read the capabilities");
	if (!(c[0].effective & 1u << CAP_NET_ADMIN)) {
		err_set(e, ERR_DENIED, "x0-broker needs CAP_NET_ADMIN to make the TUN device");
		return err_todo(e, "run it as root: systemctl start x0-broker");
	}
	return 0;
}

static int user_parse(const char *s, uint32_t *ret, struct err *e)
{
	const struct passwd *pw;
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(s, &end, 10);
	if (s[0] >= '0' && s[0] <= '9' && !*end) {
		if (errno || n >= UINT32_MAX) /* (uid_t)-1 is no user */
			return err_set(e, ERR_USAGE, "%s is not a uid", s);
		*ret = (uint32_t)n;
		return 0;
	}
	pw = getpwnam(s);
	if (!pw) {
		err_set(e, ERR_NOT_FOUND, "there is no user \"%s\"", s);
		return err_todo(e, "make it: useradd --system --no-create-home %s", s);
	}
	*ret = pw->pw_uid;
	return 0;
}

static int prefix_check(const char *s, struct err *e)
{
	size_t n = strlen(s);

	if (n < 1 || n > 15 || strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != n)
		return err_set(e, ERR_USAGE, "--name takes 1-15 of a-z, 0-9, '-' and '_'");
	return 0;
}

static void usage(FILE *to)
{
	fputs("usage: x0-broker --socket PATH --user UID|NAME [--name PREFIX] [--log text|json]\n"
	      "Makes the TUN device, its addresses and routes, and the UDP sockets for x0, which runs "
	      "without rights.\n\n"
	      "  --socket PATH    where x0 connects; made with mode 0600 for the user\n"
	      "  --user UID|NAME  the only user that may connect\n"
	      "  --name PREFIX    what names of interfaces must start with (default x0)\n"
	      "  --log FORMAT     text (default) or json, on stderr\n"
	      "  --version\n",
	      to);
}

/* 1: done (--help, --version). */
static int options(int argc, char **argv, struct broker_options *o, struct err *e)
{
	static const struct option list[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "user", required_argument, NULL, 'u' },
		{ "name", required_argument, NULL, 'n' },
		{ "log", required_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	bool user = false;
	int c, rc = 0;

	*o = (struct broker_options){ .socket = "", .prefix = "x0" };
	optind = 0;
	while (!rc && (c = getopt_long(argc, argv, "", list, NULL)) != -1) {
		if (c == 's') {
			o->socket = optarg;
		} else if (c == 'u') {
			rc = user_parse(optarg, &o->uid, e);
			user = true;
		} else if (c == 'n') {
			o->prefix = optarg;
			rc = prefix_check(optarg, e);
		} else if (c == 'l') {
			if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
				return err_set(e, ERR_USAGE, "--log takes text or json");
			log_init(STDERR_FILENO, *optarg == 'j' ? LOG_JSON : LOG_TEXT, LOG_INFO);
		} else if (c == 'h') {
			usage(stdout);
			return 1;
		} else if (c == 'v') {
			puts("x0-broker " X0_VERSION);
			return 1;
		} else {
			return err_set(e, ERR_USAGE, "unknown option, or one without its value");
		}
	}
	if (!rc && (optind != argc || !o->socket[0] || !user))
		return err_set(e, ERR_USAGE, "--socket and --user are needed, and nothing but options");
	return rc;
}

static int serve(const struct broker_options *o, struct err *e)
{
	sigset_t set;
	int stop, fd = -1, rc;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	stop = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (stop < 0)
		return err_sys(e, "cannot make a signalfd");
	rc = service_open(e);
	rc = rc ? rc : broker_listen(o, &fd, e);
	if (!rc) {
		rc = broker_harden(e);
		if (!rc) {
			service_ready();
			log_info("broker", "ready", LS("socket", o->socket), LU("uid", o->uid));
			rc = broker_serve(o, fd, stop, e);
		}
		close(fd);
		if (unlink(o->socket) < 0)
			log_debug("broker", "the socket stays", LS("path", o->socket),
				  LS("why", strerror(errno)));
	}
	close(stop);
	return rc;
}

int broker_run(int argc, char **argv)
{
	struct broker_options o;
	struct err e = { 0 };
	int rc;

	close_range(3, ~0u, 0);
	umask(0077);
	rc = options(argc, argv, &o, &e);
	if (rc == 1)
		return 0;
	rc = rc ? rc : may_run(&e);
	rc = rc ? rc : serve(&o, &e);
	if (!rc)
		return 0;
	fprintf(stderr, "x0-broker: %s\n", e.what);
	if (e.todo[0])
		fprintf(stderr, "  %s\n", e.todo);
	if (rc == ERR_USAGE)
		usage(stderr);
	return err_exit_status(rc);
}
