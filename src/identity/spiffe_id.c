/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: SPIFFE IDs and overlay addresses
 *
 * SPIFFE-ID.md section 2, without leniency: an ID that is not canonical is refused, never normalised, so that
 * equal IDs are equal bytes and a policy prefix cannot be reached through "..", an escape or a second
 * spelling. A node's overlay address is a function of its ID alone; everyone recomputes it.
 */
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"

static const char scheme[] = "spiffe://";
enum { SCHEME_N = sizeof(scheme) - 1 };

static bool td_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool path_char(char c)
{
	return td_char(c) || (c >= 'A' && c <= 'Z');
}

static int path_check(const char *s, size_t n, struct err *e)
{
	size_t start = 1, i;

	/* s[0] is '/'; each round ends one segment. */
	for (i = 1; i <= n; i++) {
		size_t len = i - start;

		if (i < n && s[i] != '/') {
			if (!path_char(s[i]))
				return err_set(e, ERR_PARSE,
					       "SPIFFE ID: byte 0x%02x is not allowed in a path",
					       (unsigned)(unsigned char)s[i]);
			continue;
		}
		if (len == 0)
			return err_set(e, ERR_PARSE,
				       "SPIFFE ID: a path segment is empty (\"//\" or a slash at the end)");
		if ((len == 1 || len == 2) && s[start] == '.' && s[start + len - 1] == '.')
			return err_set(e, ERR_PARSE, "SPIFFE ID: \".\" and \"..\" are not allowed in a path");
		start = i + 1;
	}
	return 0;
}

int spiffe_id_parse(const char *s, size_t n, struct spiffe_id *ret, struct err *e)
{
	size_t td_n = 0;

	if (n > SPIFFE_ID_MAX)
		return err_set(e, ERR_PARSE, "SPIFFE ID: %zu bytes, at most %d are allowed", n,
			       SPIFFE_ID_MAX);
	if (n < SCHEME_N || memcmp(s, scheme, SCHEME_N) != 0)
		return err_set(e, ERR_PARSE, "SPIFFE ID: does not start with \"%s\"", scheme);
	while (SCHEME_N + td_n < n && s[SCHEME_N + td_n] != '/') {
		char c = s[SCHEME_N + td_n];

		if (!td_char(c))
			return err_set(e, ERR_PARSE,
				       "SPIFFE ID: byte 0x%02x is not allowed in a trust domain",
				       (unsigned)(unsigned char)c);
		td_n++;
	}
	if (td_n == 0)
		return err_set(e, ERR_PARSE, "SPIFFE ID: the trust domain is empty");
	if (td_n > TRUST_DOMAIN_MAX)
		return err_set(e, ERR_PARSE,
			       "SPIFFE ID: the trust domain has %zu bytes, at most %d are allowed", td_n,
			       TRUST_DOMAIN_MAX);
	if (SCHEME_N + td_n < n) {
		int code = path_check(s + SCHEME_N + td_n, n - SCHEME_N - td_n, e);

		if (code)
			return code;
	}
	memcpy(ret->uri, s, n);
	ret->uri[n] = 0;
	ret->td_off = SCHEME_N;
	ret->td_len = (uint16_t)td_n;
	ret->path_off = (uint16_t)(SCHEME_N + td_n);
	return 0;
}

bool spiffe_id_in(const struct spiffe_id *id, const char *trust_domain)
{
	return strlen(trust_domain) == id->td_len &&
	       memcmp(id->uri + id->td_off, trust_domain, id->td_len) == 0;
}

static bool node_name_ok(const char *name, size_t n)
{
	if (n == 0 || n > NODE_NAME_MAX || name[0] == '-' || name[n - 1] == '-')
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return true;
}

int spiffe_id_node(const char *trust_domain, const char *name, struct spiffe_id *ret, struct err *e)
{
	char uri[SCHEME_N + TRUST_DOMAIN_MAX + 6 + NODE_NAME_MAX + 1];
	size_t td_n = strlen(trust_domain);

	if (!node_name_ok(name, strlen(name))) {
		err_set(e, ERR_PARSE, "\"%.80s\" is not a node name", name);
		return err_todo(e, "use 1 to %d of a-z, 0-9 and '-', with no '-' at either end",
				NODE_NAME_MAX);
	}
	/* Checked before the URI is put together: a slash in the trust domain would otherwise become a path.
	 */
	if (td_n == 0 || td_n > TRUST_DOMAIN_MAX)
		return err_set(e, ERR_PARSE, "a trust domain has 1 to %d bytes, not %zu", TRUST_DOMAIN_MAX,
			       td_n);
	for (size_t i = 0; i < td_n; i++) {
		if (!td_char(trust_domain[i]))
			return err_set(e, ERR_PARSE, "byte 0x%02x is not allowed in a trust domain",
				       (unsigned)(unsigned char)trust_domain[i]);
	}
	str_fmt(uri, sizeof(uri), "%s%s/node/%s", scheme, trust_domain, name);
	return spiffe_id_parse(uri, strlen(uri), ret, e);
}

const char *spiffe_id_node_name(const struct spiffe_id *id)
{
	const char *path = id->uri + id->path_off;

	if (strncmp(path, "/node/", 6) != 0 || !node_name_ok(path + 6, strlen(path + 6)))
		return NULL;
	return path + 6;
}

/* A hash that fails means a libcrypto that cannot hash: no address would be true, and there is no way to go
 * on. */
static void must_hash(const void *p, size_t n, uint8_t out[SHA256_LEN])
{
	if (sha256(p, n, out))
		abort();
}

void overlay_prefix(const char *trust_domain, uint8_t ret[16])
{
	uint8_t h[SHA256_LEN];

	must_hash(trust_domain, strlen(trust_domain), h);
	memset(ret, 0, 16);
	ret[0] = 0xfd;
	memcpy(ret + 1, h, 5);
}

void overlay_addr(const struct spiffe_id *id, uint8_t ret[16])
{
	char td[TRUST_DOMAIN_MAX + 1];
	uint8_t h[SHA256_LEN];

	memcpy(td, id->uri + id->td_off, id->td_len);
	td[id->td_len] = 0;
	overlay_prefix(td, ret);
	must_hash(id->uri, strlen(id->uri), h);
	memcpy(ret + 6, h, 10);
}

uint64_t overlay_label(const uint8_t addr[16])
{
	return get_u64(addr + 8);
}
