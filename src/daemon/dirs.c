/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who owns what on disk: state_dir and run_dir are root's, so that no process without rights can put a file
 * in another's way; <state>/node is the daemon's, <state>/authority the issuer's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"

/* What is right already is left alone: a disk that became read-only must not keep the node from starting. */
static int give_file(int at, const char *name, uid_t uid, gid_t gid)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == uid && st.st_gid == gid)
		return 0;
	return fchownat(at, name, uid, gid, AT_SYMLINK_NOFOLLOW);
}

static int give_dir(int fd, uid_t uid, gid_t gid)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	if ((st.st_uid != uid || st.st_gid != gid) && fchown(fd, uid, gid) < 0)
		return -1;
	return (st.st_mode & 07777) == 0700 ? 0 : fchmod(fd, 0700);
}

/* A directory and the files in it, two levels deep; never follows links. */
static int give(int at, const char *name, uid_t uid, gid_t gid, int depth, struct err *e)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	struct dirent *f;
	DIR *d;

	if (fd < 0)
		return err_sys(e, "cannot open %s", name);
	if (give_dir(fd, uid, gid) < 0)
		rc = err_sys(e, "cannot give %s to uid %u", name, (unsigned)uid);
	d = rc ? NULL : fdopendir(fd);
	if (!d) {
		close(fd);
		return rc;
	}
	while (!rc && (f = readdir(d))) {
		if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, ".."))
			continue;
		if (f->d_type == DT_DIR && depth < 2)
			rc = give(dirfd(d), f->d_name, uid, gid, depth + 1, e);
		else if (give_file(dirfd(d), f->d_name, uid, gid) < 0)
			rc = err_sys(e, "cannot give %s to uid %u", f->d_name, (unsigned)uid);
	}
	closedir(d);
	return rc;
}

int daemon_dirs(const struct config *cfg, struct err *e)
{
	char node[CONFIG_PATH];
	uid_t uid, issuer_uid;
	gid_t gid, issuer_gid;
	int rc = config_user(cfg->user, &uid, &gid, e);

	snprintf(node, sizeof(node), "%s/node", cfg->state_dir); /* the schema bounds state_dir */
	rc = rc ? rc : dir_make(cfg->state_dir, 0755, e);
	rc = rc ? rc : dir_make(cfg->run_dir, 0755, e);
	rc = rc ? rc : dir_make(node, 0700, e);
	if (rc || geteuid() != 0)
		return rc;
	rc = give(AT_FDCWD, node, uid, gid, 0, e);
	if (rc == 0 && access(cfg->authority_dir, F_OK) == 0) {
		rc = config_user(cfg->issuer_user, &issuer_uid, &issuer_gid, e);
		rc = rc ? rc : give(AT_FDCWD, cfg->authority_dir, issuer_uid, issuer_gid, 0, e);
	}
	return rc;
}

int password_read(const char *path, char **ret, struct err *e)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc;

	if (!path || !*path)
		return 0;
	rc = file_read(path, 4096, &p, &n, e);
	if (rc < 0)
		return rc;
	p[strcspn((char *)p, "\r\n")] = 0;
	if (!*p) {
		free(p);
		return err_set(e, ERR_CONFIG, "the password file %s is empty", path);
	}
	*ret = (char *)p;
	return 0;
}

int daemon_identity_install(const struct config *cfg, const struct node_identity *ni, const char *seeds,
			    struct err *e)
{
	int rc = daemon_dirs(cfg, e);

	rc = rc ? rc : node_identity_save(cfg->identity_dir, ni, e);
	if (rc == 0 && seeds)
		rc = file_write(cfg->seeds, seeds, strlen(seeds), 0600, e);
	return rc ? rc : daemon_dirs(cfg, e);
}
