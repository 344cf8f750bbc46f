/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the main process gives up its rights
 *
 * The process that parses what strangers send holds keys and nothing else: no user of weight, no
 * capabilities, no files but its own, no way to start a program or to make memory executable.
 *
 * Invariants: each step is verified after it was taken, not believed; a step that cannot be taken whole is an
 * error; restrictions that cover only the calling thread are refused when there are more.
 *
 * Source: landlock(7), seccomp(2), capabilities(7), libseccomp and libcap-ng manuals.
 */
#include "daemon/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

enum { LANDLOCK_ABI = 6, PW_BUF = 16384 };

/* A task directory has one entry, so one more link, for each thread. */
static int one_thread(const char *what, struct err *e)
{
	struct stat st;

	if (stat("/proc/self/task", &st) < 0)
		return err_sys(e, "cannot count the threads");
	if (st.st_nlink != 3)
		return err_set(e, ERR_CONFLICT, "%s must come before the first thread", what);
	return 0;
}

/* ---- user ---- */

static int find_user(const char *user, uid_t *ret_uid, gid_t *ret_gid, struct err *e)
{
	struct passwd pw, *found = NULL;
	char *buf;
	int rc;

	/* A number needs no account: uid and gid are both it (labs, containers). */
	if (*user && strspn(user, "0123456789") == strlen(user)) {
		unsigned long n = strtoul(user, NULL, 10);

		if (n == 0 || n >= UINT32_MAX)
			return err_set(e, ERR_CONFIG, "user %s is root or no user: choose one without rights",
				       user);
		*ret_uid = (uid_t)n;
		*ret_gid = (gid_t)n;
		return 0;
	}
	buf = malloc(PW_BUF);
	if (!buf)
		return err_set(e, ERR_NOMEM, "no memory to look user \"%s\" up", user);
	rc = getpwnam_r(user, &pw, buf, PW_BUF, &found);
	if (!found) {
		errno = rc;
		rc = rc ? err_sys(e, "cannot look user \"%s\" up", user)
			: err_set(e, ERR_NOT_FOUND, "there is no user \"%s\"", user);
		err_todo(e, "make it: useradd --system --no-create-home %s", user);
		free(buf);
		return rc;
	}
	*ret_uid = pw.pw_uid;
	*ret_gid = pw.pw_gid;
	free(buf);
	if (*ret_uid == 0 || *ret_gid == 0)
		return err_set(e, ERR_CONFIG,
			       "user \"%s\" is root or of root's group: choose one without rights", user);
	return 0;
}

static int check_dropped(uid_t uid, gid_t gid, struct err *e)
{
	uid_t u[3];
	gid_t g[3];

	if (getresuid(&u[0], &u[1], &u[2]) || getresgid(&g[0], &g[1], &g[2]))
		return err_sys(e, "cannot read the ids");
	for (int i = 0; i < 3; i++)
		if (u[i] != uid || g[i] != gid)
			return err_set(e, ERR_FAILED, "an id did not change");
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_get_caps_process() || capng_have_capabilities(CAPNG_SELECT_CAPS) > CAPNG_NONE ||
	    capng_have_capabilities(CAPNG_SELECT_AMBIENT) > CAPNG_NONE)
		return err_set(e, ERR_FAILED, "capabilities are left");
	return 0;
}

static int change_user(uid_t uid, gid_t gid, struct err *e)
{
	/* NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): an enum of flags */
	const capng_flags_t flags = CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT;
	int rc;

	capng_clear(CAPNG_SELECT_ALL);
	rc = capng_change_id((int)uid, (int)gid, flags);
	if (rc)
		return err_set(e, ERR_FAILED, "cannot become uid %u (libcap-ng %d)", (unsigned)uid, rc);
	if (getgroups(0, NULL) != 0)
		return err_set(e, ERR_FAILED, "supplementary groups are left");
	for (int cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			return err_set(e, ERR_FAILED, "capability %d is left in the bounding set", cap);
	return 0;
}

int sandbox_drop_user(const char *user, struct err *e)
{
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	int rc = one_thread("giving up root", e);

	rc = rc ? rc : find_user(user, &uid, &gid, e);
	if (rc)
		return rc;
	if (geteuid() != 0 && (getuid() != uid || geteuid() != uid)) {
		err_set(e, ERR_DENIED, "only root can become user \"%s\"", user);
		return err_todo(e, "start x0 as root, or as %s", user);
	}
	if (geteuid() == 0) {
		rc = change_user(uid, gid, e);
		if (rc)
			return rc;
	} else {
		gid = getgid();
		capng_clear(CAPNG_SELECT_ALL);
		if (capng_apply(CAPNG_SELECT_CAPS) || capng_apply(CAPNG_SELECT_AMBIENT))
			return err_set(e, ERR_FAILED, "cannot drop capabilities");
	}
	/* After the ids: changing them resets it. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, "cannot set no_new_privs and forbid core dumps");
	return check_dropped(uid, gid, e);
}

/* ---- files ---- */

/* Rights that make sense on a file; a rule for a file with others is refused by the kernel. */
#define FILE_READ  LANDLOCK_ACCESS_FS_READ_FILE
#define FILE_WRITE (FILE_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)
#define DIR_READ   (FILE_READ | LANDLOCK_ACCESS_FS_READ_DIR)
#define DIR_WRITE                                                                                            \
	(FILE_WRITE | DIR_READ | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |            \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |          \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)

/* All that this ABI can restrict; what is in here and in no rule is refused: execution, devices, outgoing
 * TCP. */
static struct landlock_ruleset_attr handled(int abi)
{
	struct landlock_ruleset_attr a = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };

	if (abi >= 2)
		a.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		a.handled_access_fs |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 4)
		a.handled_access_net = LANDLOCK_ACCESS_NET_CONNECT_TCP;
	if (abi >= 5)
		a.handled_access_fs |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	if (abi >= 6)
		a.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL;
	return a;
}

static int allow(int ruleset, const char *path, bool write, uint64_t handled_fs, struct err *e)
{
	struct landlock_path_beneath_attr rule = { .parent_fd = open(path, O_PATH | O_CLOEXEC) };
	struct stat st;
	int rc = 0;

	if (rule.parent_fd < 0) {
		if (errno != ENOENT)
			return err_sys(e, "cannot open %s to allow it", path);
		return write ? err_set(e, ERR_NOT_FOUND, "%s does not exist, but must be writable", path) : 0;
	}
	if (fstat(rule.parent_fd, &st) < 0) {
		rc = err_sys(e, "cannot look at %s", path);
	} else {
		bool dir = S_ISDIR(st.st_mode);

		rule.allowed_access = (write ? (dir ? DIR_WRITE : FILE_WRITE)
					     : (dir ? DIR_READ : FILE_READ)) &
				      handled_fs;
		if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
			rc = err_sys(e, "cannot allow %s", path);
	}
	close(rule.parent_fd);
	return rc;
}

int sandbox_landlock(const char *const *ro, size_t nro, const char *const *rw, size_t nrw, int *ret_abi,
		     struct err *e)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr a;
	int fd, rc;

	if (abi < 1) {
		err_set(e, ERR_UNSUPPORTED, "this kernel has no Landlock: %s", strerror(errno));
		return err_todo(e, "use Linux 5.13 or later with landlock among its lsm= ");
	}
	rc = one_thread("Landlock", e);
	if (rc)
		return rc;
	a = handled(abi > LANDLOCK_ABI ? LANDLOCK_ABI : (int)abi);
	fd = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
	if (fd < 0)
		return err_sys(e, "cannot make a Landlock rule set");
	for (size_t i = 0; !rc && i < nro; i++)
		rc = allow(fd, ro[i], false, a.handled_access_fs, e);
	for (size_t i = 0; !rc && i < nrw; i++)
		rc = allow(fd, rw[i], true, a.handled_access_fs, e);
#ifdef X0_COVERAGE_DIR
	/* Builds that measure themselves write their counts at exit; no other build has this. */
	rc = rc ? rc : allow(fd, X0_COVERAGE_DIR, true, a.handled_access_fs, e);
#endif
	if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		rc = err_sys(e, "cannot set no_new_privs");
	if (!rc && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		rc = err_sys(e, "cannot apply the Landlock rules");
	close(fd);
	if (!rc)
		*ret_abi = (int)abi;
	return rc;
}
