/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a node's own identity on disk
 *
 * One directory (0700): link.key, link.crt, spiffe.key, spiffe.crt (DER; keys PKCS#8, 0600) and the signed
 * bundle. A key, its certificate and the bundle they verify against must change together, so a new identity
 * is written whole into <dir>.new, made durable, and exchanged with <dir> by one renameat2(RENAME_EXCHANGE).
 * Whatever moment kill -9 or a power cut chooses, <dir> is the old one or the new one; a left-over <dir>.new
 * is removed by the next save.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { KEY_FILE_MAX = 1 << 14 };

static int write_in(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
	char *path;
	int rc = authority_path(dir, name, &path, e);

	if (rc)
		return rc;
	rc = file_write(path, p, n, 0600, e);
	free(path);
	return rc;
}

static int write_pair(const char *dir, const char *key_name, const EVP_PKEY *key, const char *crt_name,
		      X509 *crt, struct err *e)
{
	struct secret s = { 0 };
	uint8_t *der = NULL;
	size_t n = 0;
	int rc = key_to_der(key, &s, e);

	if (!rc)
		rc = write_in(dir, key_name, s.p, s.n, e);
	if (!rc && cert_der(crt, &der, &n))
		rc = err_set(e, ERR_FAILED, "the certificate cannot be encoded");
	if (!rc)
		rc = write_in(dir, crt_name, der, n, e);
	secret_fini(&s);
	free(der);
	return rc;
}

/* Removes a flat directory of ours; absent is fine. */
static int dir_remove(const char *path, struct err *e)
{
	DIR *d = opendir(path);
	struct dirent *f;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open %.200s", path);
	while (!rc && (f = readdir(d)))
		if (strcmp(f->d_name, ".") && strcmp(f->d_name, "..") && unlinkat(dirfd(d), f->d_name, 0) &&
		    errno != ENOENT)
			rc = err_sys(e, "cannot remove %.100s/%.100s", path, f->d_name);
	closedir(d);
	if (!rc && rmdir(path) && errno != ENOENT)
		rc = err_sys(e, "cannot remove %.200s", path);
	return rc;
}

static int parent_sync(const char *dir, struct err *e)
{
	const char *slash = strrchr(dir, '/');
	char *parent = slash == dir ? strdup("/") : slash ? strndup(dir, (size_t)(slash - dir)) : strdup(".");
	int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, rc = 0;

	if (fd < 0 || fsync(fd))
		rc = err_sys(e, "cannot make %.200s durable", dir);
	if (fd >= 0)
		close(fd);
	free(parent);
	return rc;
}

/* Puts `fresh` in the place of `dir` in one step; what was there is then at `fresh`. */
static int exchange(const char *fresh, const char *dir, struct err *e)
{
	if (!renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, RENAME_NOREPLACE))
		return parent_sync(dir, e);
	if (errno == EEXIST && !renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, RENAME_EXCHANGE))
		return parent_sync(dir, e);
	if (errno == EINVAL || errno == ENOSYS) {
		err_sys(e, "the file system of %.200s cannot exchange two directories in one step", dir);
		return err_todo(e, "put the state directory on ext4, xfs, btrfs or tmpfs");
	}
	return err_sys(e, "cannot replace %.200s", dir);
}

int node_identity_save(const char *dir, const struct node_identity *ni, struct err *e)
{
	char *fresh = NULL;
	int rc;

	if (!ni->bundle || !ni->bundle->encoded)
		return err_set(e, ERR_USAGE, "an identity is stored with its signed bundle");
	if (X509_check_private_key(ni->link, ni->link_key) != 1 ||
	    X509_check_private_key(ni->spiffe, ni->spiffe_key) != 1)
		return err_set(e, ERR_USAGE, "a certificate does not belong to its key");
	if (asprintf(&fresh, "%s.new", dir) < 0)
		return err_set(e, ERR_NOMEM, "out of memory");
	rc = dir_remove(fresh, e);
	if (!rc)
		rc = dir_make(fresh, 0700, e);
	if (!rc)
		rc = write_pair(fresh, "link.key", ni->link_key, "link.crt", ni->link, e);
	if (!rc)
		rc = write_pair(fresh, "spiffe.key", ni->spiffe_key, "spiffe.crt", ni->spiffe, e);
	if (!rc)
		rc = write_in(fresh, "bundle", ni->bundle->encoded, ni->bundle->encoded_n, e);
	if (!rc)
		rc = exchange(fresh, dir, e);
	if (!rc)
		dir_remove(fresh, NULL); /* the old one; if this fails the next save does it */
	else
		err_todo(e, "free space there, or make it writable; the identity in use is unchanged");
	free(fresh);
	return rc;
}

/* Reads through an open directory, so that a save in the meantime cannot mix two identities. */
static int read_at(int dir_fd, const char *name, size_t max, uint8_t **ret_p, size_t *ret_n, struct err *e)
{
	char path[64];
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc;

	if (fd < 0)
		return err_sys(e, "cannot open %s", name);
	str_fmt(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = file_read(path, max, ret_p, ret_n, e);
	close(fd);
	return rc;
}

static int read_pair(int dir_fd, const char *key_name, EVP_PKEY **key, const char *crt_name, X509 **crt,
		     struct err *e)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = read_at(dir_fd, key_name, KEY_FILE_MAX, &p, &n, e);

	if (rc)
		return rc;
	rc = key_from_der(p, n, key, e);
	secret_wipe(p, n);
	free(p);
	if (rc)
		return err_prefix(e, "%s", key_name);
	rc = read_at(dir_fd, crt_name, CERT_MAX, &p, &n, e);
	if (rc)
		return rc;
	rc = cert_from_der(p, n, crt, e);
	free(p);
	if (rc)
		return err_prefix(e, "%s", crt_name);
	if (X509_check_private_key(*crt, *key) != 1)
		return err_set(e, ERR_PARSE, "%s does not belong to %s", crt_name, key_name);
	return 0;
}

static int read_all(int dir_fd, struct node_identity *ni, struct err *e)
{
	struct spiffe_id other;
	int64_t from;
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = read_pair(dir_fd, "link.key", &ni->link_key, "link.crt", &ni->link, e);

	if (!rc)
		rc = read_pair(dir_fd, "spiffe.key", &ni->spiffe_key, "spiffe.crt", &ni->spiffe, e);
	if (!rc)
		rc = read_at(dir_fd, "bundle", BUNDLE_MAX, &p, &n, e);
	if (!rc)
		rc = bundle_decode(p, n, NULL, NULL, &ni->bundle, e);
	free(p);
	if (!rc)
		rc = cert_id(ni->link, &ni->id, e);
	if (!rc)
		rc = cert_id(ni->spiffe, &other, e);
	if (rc)
		return rc;
	if (key_type_of(ni->link_key) != KEY_MLDSA65)
		return err_set(e, ERR_PARSE, "link.key is not an ML-DSA-65 key");
	if (strcmp(ni->id.uri, other.uri) || !spiffe_id_in(&ni->id, ni->bundle->trust_domain))
		return err_set(e, ERR_PARSE, "its certificates and its bundle are of different identities");
	if (cert_times(ni->link, &from, &ni->not_after))
		return err_set(e, ERR_PARSE, "link.crt has malformed times");
	overlay_addr(&ni->id, ni->addr);
	return 0;
}

int node_identity_load(const char *dir, struct node_identity **ret, struct err *e)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;
	struct node_identity *ni;

	if (fd < 0 && errno == ENOENT) {
		err_set(e, ERR_NOT_FOUND, "this host has not joined a mesh yet: there is no %.200s", dir);
		return err_todo(e, "`x0 join <token>`, with a token from `x0 ca token <name>` on an issuer");
	}
	if (fd < 0)
		return err_sys(e, "cannot open %.200s", dir);
	ni = calloc(1, sizeof(*ni));
	rc = ni ? read_all(fd, ni, e) : err_set(e, ERR_NOMEM, "out of memory");
	close(fd);
	if (rc) {
		err_prefix(e, "the identity in %.120s", dir);
		err_todo(e, "restore that directory from a backup, or remove it and join again");
		node_identity_free(ni);
		return rc;
	}
	*ret = ni;
	return 0;
}

struct node_identity *node_identity_free(struct node_identity *ni)
{
	if (!ni)
		return NULL;
	EVP_PKEY_free(ni->link_key);
	EVP_PKEY_free(ni->spiffe_key);
	X509_free(ni->link);
	X509_free(ni->spiffe);
	bundle_free(ni->bundle);
	free(ni);
	return NULL;
}

int64_t node_identity_renew_at(const struct node_identity *ni)
{
	int64_t from, to, life;
	uint8_t h[SHA256_LEN];
	unsigned n = sizeof(h);

	if (cert_times(ni->link, &from, &to) || X509_digest(ni->link, EVP_sha256(), h, &n) != 1)
		return 0; /* cannot be read: at once */
	if (to - from > SVID_BACKDATE)
		from += SVID_BACKDATE;
	life = to - from;
	/* 40 % to 60 % of the life, by 16 bits of the hash. */
	return from + life * 2 / 5 + life * get_u16(h) / 65535 / 5;
}
