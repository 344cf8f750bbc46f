/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the authority
 *
 * An issuing node's power to make identities. A directory (0700) of its own user holds:
 *	authority.key	both root keys and certificates, sealed (seal.c); its presence says that there is an
 *authority seal.key	only without a password: the random key that seals it bundle		the signed
 *bundle in force, as this issuer knows it issued.log	SVIDs given out (authority_store.c) tokens.log	join
 *tokens and what became of them lock		held while open: two writers would give one token away twice
 *
 * Invariants: nothing leaves before it is on disk; the bundle in memory is the one on disk; its number only
 *grows; an SVID is signed only while this issuer's roots are in the bundle, so that others can verify it.
 *
 * authority_store.c: the journals. authority_admin.c: revocation, issuers, tokens, listing. authority_join.c:
 *joining and renewal. authority_backup.c: backup and restore.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/internal.h"

enum { SEALED_MAX = 1 << 17, SEAL_KEY_LEN = 32 };
static const char keys_magic[4] = "x0ak";

/* ---- the sealed file ---- */

static int put_der(struct wr *w, const void *p, size_t n)
{
	if (n > UINT16_MAX)
		return ERR_LIMIT;
	wr_u16(w, (uint16_t)n);
	wr_bytes(w, p, n);
	return wr_ok(w) ? 0 : ERR_LIMIT;
}

static int put_pair(struct wr *w, const EVP_PKEY *key, X509 *root, struct err *e)
{
	struct secret der = { 0 };
	uint8_t *cert = NULL;
	size_t cert_n = 0;
	int rc = key_to_der(key, &der, e);

	if (!rc && cert_der(root, &cert, &cert_n))
		rc = err_set(e, ERR_FAILED, "the root certificate cannot be encoded");
	if (!rc && (put_der(w, der.p, der.n) || put_der(w, cert, cert_n)))
		rc = err_set(e, ERR_LIMIT, "the root is too large");
	secret_fini(&der);
	free(cert);
	return rc;
}

static int keys_encode(const struct authority *a, struct secret *ret, struct err *e)
{
	struct secret s = { 0 };
	struct wr w;
	int rc;

	if (secret_init(&s, SEALED_MAX))
		return err_set(e, ERR_NOMEM, "out of memory");
	w = wr_init(s.p, s.n);
	wr_u8(&w, (uint8_t)strlen(a->trust_domain));
	wr_bytes(&w, a->trust_domain, strlen(a->trust_domain));
	rc = put_pair(&w, a->link_key, a->link_root, e);
	if (!rc)
		rc = put_pair(&w, a->spiffe_key, a->spiffe_root, e);
	if (!rc && secret_set(ret, s.p, wr_len(&w)))
		rc = err_set(e, ERR_NOMEM, "out of memory");
	secret_fini(&s);
	return rc;
}

static int get_pair(struct rd *r, EVP_PKEY **ret_key, X509 **ret_root, struct err *e)
{
	size_t key_n = rd_u16(r);
	const uint8_t *key = rd_bytes(r, key_n);
	size_t cert_n = rd_u16(r);
	const uint8_t *cert = rd_bytes(r, cert_n);
	int rc;

	if (!cert)
		return err_set(e, ERR_PARSE, "the authority's keys are cut short");
	rc = key_from_der(key, key_n, ret_key, e);
	if (!rc)
		rc = cert_from_der(cert, cert_n, ret_root, e);
	if (!rc && X509_check_private_key(*ret_root, *ret_key) != 1)
		rc = err_set(e, ERR_PARSE, "a root's key and certificate do not belong together");
	return rc;
}

static int keys_decode(struct authority *a, const struct secret *s, struct err *e)
{
	struct rd r = rd_init(s->p, s->n);
	size_t n = rd_u8(&r);
	const uint8_t *td = rd_bytes(&r, n);
	int rc;

	if (!td || !n)
		return err_set(e, ERR_PARSE, "the authority's keys are cut short");
	memcpy(a->trust_domain, td, n);
	a->trust_domain[n] = 0;
	rc = get_pair(&r, &a->link_key, &a->link_root, e);
	if (!rc)
		rc = get_pair(&r, &a->spiffe_key, &a->spiffe_root, e);
	if (!rc && !rd_done(&r))
		rc = err_set(e, ERR_PARSE, "the authority's keys have bytes left over");
	return rc;
}

static int write_in(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
	char *path;
	int rc = authority_path(dir, name, &path, e);

	if (rc)
		return rc;
	rc = file_write(path, p, n, 0600, e);
	if (rc)
		err_todo(e, "free space on that file system, or make %.120s writable", dir);
	free(path);
	return rc;
}

static int read_in(const char *dir, const char *name, size_t max, uint8_t **ret_p, size_t *ret_n,
		   struct err *e)
{
	char *path;
	int rc = authority_path(dir, name, &path, e);

	if (rc)
		return rc;
	rc = file_read(path, max, ret_p, ret_n, e);
	free(path);
	return rc;
}

static int keys_save(const struct authority *a, const char *password, struct err *e)
{
	uint8_t key[SEAL_KEY_LEN], *blob = NULL;
	struct secret s = { 0 };
	size_t blob_n = 0;
	int rc = keys_encode(a, &s, e);

	if (rc)
		return rc;
	if (password) {
		rc = seal_password(keys_magic, password, s.p, s.n, &blob, &blob_n, e);
	} else if (RAND_bytes(key, sizeof(key)) != 1) {
		rc = err_set(e, ERR_FAILED, "no random bytes");
	} else {
		rc = write_in(a->dir, "seal.key", key, sizeof(key), e);
		if (!rc)
			rc = seal_key(keys_magic, key, s.p, s.n, &blob, &blob_n, e);
		secret_wipe(key, sizeof(key));
	}
	secret_fini(&s);
	if (!rc) /* last: this file makes the directory an authority */
		rc = write_in(a->dir, "authority.key", blob, blob_n, e);
	free(blob);
	return rc;
}

static int keys_load(struct authority *a, const char *password, struct err *e)
{
	uint8_t *blob = NULL, *key = NULL;
	size_t blob_n = 0, key_n = 0;
	struct secret s = { 0 };
	int rc = read_in(a->dir, "authority.key", SEALED_MAX * 2, &blob, &blob_n, e), mode;

	if (rc == ERR_NOT_FOUND) {
		err_set(e, ERR_NOT_FOUND, "there is no authority in %.200s", a->dir);
		return err_todo(e, "make one with `x0 ca init`, or `x0 ca restore` a backup");
	}
	if (rc)
		return rc;
	mode = seal_mode_of(keys_magic, blob, blob_n);
	if (mode == SEAL_KEY) {
		if (password)
			rc = err_set(e, ERR_AUTH,
				     "this authority is sealed with its seal.key, not with a password");
		else
			rc = read_in(a->dir, "seal.key", SEAL_KEY_LEN, &key, &key_n, e);
		if (!rc && key_n != SEAL_KEY_LEN)
			rc = err_set(e, ERR_PARSE, "%.200s/seal.key is cut short", a->dir);
	}
	if (!rc)
		rc = seal_open(keys_magic, password, key, blob, blob_n, &s, e);
	if (!rc)
		rc = keys_decode(a, &s, e);
	if (rc)
		err_prefix(e, "the authority in %.120s", a->dir);
	secret_fini(&s);
	if (key)
		secret_wipe(key, key_n);
	free(key);
	free(blob);
	return rc;
}

/* ---- making, opening ---- */

int authority_lock(const char *dir, int *ret_fd, struct err *e)
{
	char *path;
	int fd, rc = authority_path(dir, "lock", &path, e);

	if (rc)
		return rc;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		rc = err_sys(e, "cannot open %.200s", path);
	} else if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK) {
			rc = err_set(e, ERR_CONFLICT, "the authority in %.200s is in use by another process",
				     dir);
			err_todo(e, "ask the running issuer (x0 ca ...), or stop it");
		} else {
			rc = err_sys(e, "cannot lock %.200s", path);
		}
		close(fd);
	} else {
		*ret_fd = fd;
	}
	free(path);
	return rc;
}

static struct authority *authority_new(const char *dir, struct err *e)
{
	struct authority *a = calloc(1, sizeof(*a));

	if (a) {
		a->lock_fd = a->issued_log.fd = a->token_log.fd = -1;
		a->ttl = SVID_TTL_DEFAULT;
		a->dir = strdup(dir);
	}
	if (!a || !a->dir) {
		err_set(e, ERR_NOMEM, "out of memory");
		return authority_free(a);
	}
	return a;
}

struct authority *authority_free(struct authority *a)
{
	if (!a)
		return NULL;
	authority_free_logs(a);
	bundle_free(a->bundle);
	EVP_PKEY_free(a->link_key);
	EVP_PKEY_free(a->spiffe_key);
	X509_free(a->link_root);
	X509_free(a->spiffe_root);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	free(a->dir);
	free(a);
	return NULL;
}

static int make_roots(struct authority *a, int64_t now, struct err *e)
{
	int rc = key_new(KEY_MLDSA65, &a->link_key, e);

	if (!rc)
		rc = key_new(KEY_P256, &a->spiffe_key, e);
	if (!rc)
		rc = cert_root(a->trust_domain, a->link_key, now, &a->link_root, e);
	if (!rc)
		rc = cert_root(a->trust_domain, a->spiffe_key, now, &a->spiffe_root, e);
	return rc;
}

static int first_bundle(struct authority *a, struct err *e)
{
	int rc;

	a->bundle = bundle_new(a->trust_domain);
	if (!a->bundle)
		return err_set(e, ERR_NOMEM, "out of memory");
	a->bundle->number = 1;
	rc = bundle_add_root(a->bundle, SVID_LINK, a->link_root, e);
	if (!rc)
		rc = bundle_add_root(a->bundle, SVID_SPIFFE, a->spiffe_root, e);
	if (!rc)
		rc = bundle_sign(a->bundle, a->link_root, a->link_key, e);
	return rc;
}

int authority_absent(const char *dir, struct err *e)
{
	char *path;
	int rc = authority_path(dir, "authority.key", &path, e);

	if (rc)
		return rc;
	if (!access(path, F_OK)) {
		rc = err_set(e, ERR_CONFLICT, "there is an authority in %.200s already", dir);
		err_todo(e, "use it, or give another directory: its keys would be lost");
	} else if (errno != ENOENT) {
		rc = err_sys(e, "cannot look at %.200s", path);
	}
	free(path);
	return rc;
}

static int init(const char *dir, const char *trust_domain, const struct bundle *mesh, const char *password,
		int64_t now, struct err *e)
{
	static const uint8_t empty_journal[] = { 'x', '0', 'j', 'l' };
	struct authority *a;
	int rc = dir_make(dir, 0700, e);

	if (rc)
		return rc;
	a = authority_new(dir, e);
	if (!a)
		return ERR_NOMEM;
	memcpy(a->trust_domain, trust_domain, strlen(trust_domain) + 1);
	rc = authority_lock(dir, &a->lock_fd, e);
	if (!rc)
		rc = authority_absent(dir, e);
	if (!rc)
		rc = make_roots(a, now, e);
	if (!rc && !mesh)
		rc = first_bundle(a, e);
	if (!rc)
		rc = write_in(dir, "issued.log", empty_journal, sizeof(empty_journal), e);
	if (!rc)
		rc = write_in(dir, "tokens.log", empty_journal, sizeof(empty_journal), e);
	if (!rc)
		rc = write_in(dir, "bundle", mesh ? mesh->encoded : a->bundle->encoded,
			      mesh ? mesh->encoded_n : a->bundle->encoded_n, e);
	if (!rc)
		rc = keys_save(a, password, e);
	authority_free(a);
	return rc;
}

int authority_init(const char *dir, const char *trust_domain, const char *password, int64_t now,
		   struct err *e)
{
	char text[sizeof("spiffe://") + TRUST_DOMAIN_MAX];
	struct spiffe_id id;
	int rc;

	if (str_fmt(text, sizeof(text), "spiffe://%s", trust_domain) < 0)
		return err_set(e, ERR_USAGE, "the trust domain is longer than %d characters",
			       TRUST_DOMAIN_MAX);
	rc = spiffe_id_parse(text, strlen(text), &id, e);
	if (rc)
		return rc;
	if (!spiffe_id_in(&id, trust_domain) || id.uri[id.path_off])
		return err_set(e, ERR_USAGE, "\"%.100s\" is not a trust domain: give a name as example.org",
			       trust_domain);
	if (password && !password[0])
		return err_set(e, ERR_USAGE, "an empty password protects nothing");
	return init(dir, trust_domain, NULL, password, now, e);
}

int authority_init_joining(const char *dir, const struct bundle *mesh, const char *password, int64_t now,
			   struct err *e)
{
	if (!mesh->encoded)
		return err_set(e, ERR_USAGE, "the mesh's bundle must be a signed one");
	if (password && !password[0])
		return err_set(e, ERR_USAGE, "an empty password protects nothing");
	return init(dir, mesh->trust_domain, mesh, password, now, e);
}

int authority_open(const char *dir, const char *password, struct authority **ret, struct err *e)
{
	struct authority *a = authority_new(dir, e);
	uint8_t *p = NULL;
	size_t n = 0;
	int rc;

	if (!a)
		return ERR_NOMEM;
	if (access(dir, F_OK) && errno == ENOENT) {
		rc = err_set(e, ERR_NOT_FOUND, "there is no authority in %.200s", dir);
		err_todo(e, "make one with `x0 ca init`, or `x0 ca restore` a backup");
	} else {
		rc = authority_lock(dir, &a->lock_fd, e);
	}
	if (!rc)
		rc = keys_load(a, password, e);
	if (!rc)
		rc = read_in(dir, "bundle", BUNDLE_MAX, &p, &n, e);
	if (!rc)
		rc = bundle_decode(p, n, NULL, NULL, &a->bundle, e);
	if (!rc && strcmp(a->bundle->trust_domain, a->trust_domain))
		rc = err_set(e, ERR_PARSE, "the bundle in %.120s is of another trust domain than its keys",
			     dir);
	if (!rc)
		rc = authority_load_logs(a, e);
	free(p);
	if (rc) {
		authority_free(a);
		return rc;
	}
	*ret = a;
	return 0;
}

const struct bundle *authority_bundle(const struct authority *a)
{
	return a->bundle;
}

X509 *authority_root(const struct authority *a, enum svid_profile profile)
{
	return profile == SVID_LINK ? a->link_root : a->spiffe_root;
}

int authority_set_ttl(struct authority *a, int64_t seconds, struct err *e)
{
	if (seconds < 1 || seconds > SVID_TTL_MAX)
		return err_set(e, ERR_USAGE, "the life of an SVID must be 1 to %d seconds", SVID_TTL_MAX);
	a->ttl = seconds;
	return 0;
}

static bool listed(const struct authority *a)
{
	bool link = false, spiffe = false;

	for (size_t i = 0; i < a->bundle->nlink_roots; i++)
		link |= !X509_cmp(a->bundle->link_roots[i], a->link_root);
	for (size_t i = 0; i < a->bundle->nspiffe_roots; i++)
		spiffe |= !X509_cmp(a->bundle->spiffe_roots[i], a->spiffe_root);
	return link && spiffe;
}

int authority_need_listed(const struct authority *a, struct err *e)
{
	if (listed(a))
		return 0;
	err_set(e, ERR_DENIED, "the mesh's bundle does not hold this issuer's roots yet");
	return err_todo(e, "run `x0 ca add-issuer` on an issuer that the mesh trusts");
}

int authority_publish(struct authority *a, struct bundle *b, int64_t now, struct err *e)
{
	int rc = authority_need_listed(a, e);

	bundle_drop_expired(b, now);
	if (!rc)
		rc = bundle_sign(b, a->link_root, a->link_key, e);
	/* No session would carry it: the mesh would go on with the old one, and nobody would know. */
	if (!rc && b->encoded_n > BUNDLE_SENT_MAX) {
		rc = err_set(
			e, ERR_LIMIT,
			"with this the bundle has %zu bytes and %zu revocations, more than the %d bytes that "
			"sessions carry: nothing was changed",
			b->encoded_n, b->nrevoked, BUNDLE_SENT_MAX);
		err_todo(e,
			 "revocations leave it %d days after they were made, removed nodes never: until then "
			 "stop the host itself, or move to a new trust domain",
			 SVID_TTL_MAX / 86400);
	}
	if (!rc)
		rc = write_in(a->dir, "bundle", b->encoded, b->encoded_n, e);
	if (rc) {
		bundle_free(b);
		return rc;
	}
	bundle_free(a->bundle);
	a->bundle = b;
	return 0;
}

int authority_take(struct authority *a, struct bundle *b, struct err *e)
{
	struct bundle *in_force = a->bundle;
	int rc;

	a->bundle = b;
	/* Not ours to sign yet, or no room for one more signature: it is good as it came. */
	rc = listed(a) ? bundle_sign(b, a->link_root, a->link_key, e) : 0;
	if (rc == ERR_LIMIT)
		rc = 0;
	if (!rc)
		rc = write_in(a->dir, "bundle", b->encoded, b->encoded_n, e);
	if (rc) {
		bundle_free(b);
		a->bundle = in_force;
		return rc;
	}
	bundle_free(in_force);
	return 0;
}
