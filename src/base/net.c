/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: addresses
 *
 * One value for IPv4 and IPv6 (IPv4 as ::ffff:a.b.c.d, RFC 4291 2.5.5.2), so that tables need one key and
 * comparisons one memcmp. Text is RFC 5952 with the port as in RFC 3986. Names are never resolved here.
 */
#include "base/net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

static const uint8_t v4_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static bool addr_is_v4(const uint8_t a[16])
{
	return memcmp(a, v4_mapped, sizeof(v4_mapped)) == 0;
}

/* fe80::/10 and the multicast scopes that mean an interface (ff01, ff02). */
static bool addr_is_link_local(const uint8_t a[16])
{
	if (a[0] == 0xff)
		return (a[1] & 0x0f) == 1 || (a[1] & 0x0f) == 2;
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

bool endpoint_is_v4(const struct endpoint *ep)
{
	return addr_is_v4(ep->addr);
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->addr, b->addr, sizeof(a->addr)) == 0 && a->port == b->port &&
	       a->scope_id == b->scope_id;
}

void endpoint_from_sockaddr(struct endpoint *ep, const struct sockaddr *sa)
{
	*ep = (struct endpoint){ .port = 0 };
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		memcpy(ep->addr, v4_mapped, sizeof(v4_mapped));
		memcpy(ep->addr + 12, &in.sin_addr, 4);
		ep->port = ntohs(in.sin_port);
	} else if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		memcpy(ep->addr, &in6.sin6_addr, 16);
		ep->port = ntohs(in6.sin6_port);
		if (addr_is_link_local(ep->addr))
			ep->scope_id = in6.sin6_scope_id;
	}
}

socklen_t endpoint_to_sockaddr(const struct endpoint *ep, int family, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (family == AF_INET && addr_is_v4(ep->addr)) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(ep->port) };

		memcpy(&in.sin_addr, ep->addr + 12, 4);
		memcpy(ss, &in, sizeof(in));
		return sizeof(in);
	}
	if (family == AF_INET6) {
		struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(ep->port) };

		memcpy(&in6.sin6_addr, ep->addr, 16);
		in6.sin6_scope_id = ep->scope_id;
		memcpy(ss, &in6, sizeof(in6));
		return sizeof(in6);
	}
	return 0;
}

/* Either family; mapped form in `to`. */
static bool addr_parse(const char *s, uint8_t to[16])
{
	struct in_addr in;

	if (inet_pton(AF_INET, s, &in) == 1) {
		memcpy(to, v4_mapped, sizeof(v4_mapped));
		memcpy(to + 12, &in, 4);
		return true;
	}
	return inet_pton(AF_INET6, s, to) == 1;
}

/* Decimal digits only, at most `max`. */
static bool number_parse(const char *s, uint32_t max, uint32_t *to)
{
	uint64_t v = 0;
	size_t n = 0;

	for (; s[n]; n++) {
		if (s[n] < '0' || s[n] > '9' || n >= 10)
			return false;
		v = v * 10 + (uint64_t)(s[n] - '0');
	}
	if (n == 0 || v > max)
		return false;
	*to = (uint32_t)v;
	return true;
}

/* Cuts "host", "host:port", "[host]:port" or bare IPv6 in place; *port is NULL if there is none. */
static bool host_port_split(char *s, char **host, char **port)
{
	char *colon;

	*host = s;
	*port = NULL;
	if (*s == '[') {
		char *close = strchr(s, ']');

		if (!close || (close[1] != '\0' && close[1] != ':'))
			return false;
		if (close[1] == ':')
			*port = close + 2;
		*close = '\0';
		*host = s + 1;
		return strchr(*host, ':') != NULL; /* brackets are for IPv6 */
	}
	colon = strchr(s, ':');
	if (colon && !strchr(colon + 1, ':')) {
		*colon = '\0';
		*port = colon + 1;
	}
	return true;
}

static int scope_parse(const char *s, struct endpoint *ep, struct err *e)
{
	uint32_t index;

	if (!addr_is_link_local(ep->addr))
		return err_set(e, ERR_PARSE, "\"%%%s\": only link-local IPv6 addresses have an interface", s);
	/* Numbers first: the text form of an endpoint must read back without asking the kernel. */
	if (!number_parse(s, INT32_MAX, &index))
		index = if_nametoindex(s);
	if (index == 0)
		return err_set(e, ERR_PARSE, "no network interface \"%s\"", s);
	ep->scope_id = index;
	return 0;
}

int endpoint_parse(const char *s, uint16_t default_port, struct endpoint *ret, struct err *e)
{
	struct endpoint ep = { .port = default_port };
	char text[128], *host, *port, *scope;
	size_t n = strlen(s);
	uint32_t number;

	if (n == 0 || n >= sizeof(text)) {
		err_set(e, ERR_PARSE, n ? "address is longer than any address" : "address is empty");
		return err_todo(e, "write 192.0.2.1:7430 or [2001:db8::1]:7430");
	}
	memcpy(text, s, n + 1);
	if (!host_port_split(text, &host, &port))
		goto bad;
	scope = strchr(host, '%');
	if (scope)
		*scope++ = '\0';
	if (!addr_parse(host, ep.addr))
		goto bad;
	if (scope) {
		int rc = scope_parse(scope, &ep, e);

		if (rc)
			return rc;
	}
	if (port) {
		if (!number_parse(port, UINT16_MAX, &number))
			return err_set(e, ERR_PARSE, "\"%s\": the port is a number from 0 to 65535", s);
		ep.port = (uint16_t)number;
	} else if (default_port == 0) {
		err_set(e, ERR_PARSE, "\"%s\" has no port", s);
		return err_todo(e, "write 192.0.2.1:7430 or [2001:db8::1]:7430");
	}
	*ret = ep;
	return 0;
bad:
	err_set(e, ERR_PARSE, "\"%s\" is not an IP address", s);
	return err_todo(e, "write 192.0.2.1:7430 or [2001:db8::1]:7430; names are not resolved here");
}

/* At most INET6_ADDRSTRLEN bytes. */
static void addr_text(const uint8_t a[16], char *to)
{
	if (addr_is_v4(a))
		inet_ntop(AF_INET, a + 12, to, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, a, to, INET6_ADDRSTRLEN);
}

const char *endpoint_text(const struct endpoint *ep, char to[ENDPOINT_TEXT])
{
	char a[INET6_ADDRSTRLEN];

	addr_text(ep->addr, a);
	if (addr_is_v4(ep->addr))
		snprintf(to, ENDPOINT_TEXT, "%s:%u", a, ep->port);
	else if (ep->scope_id)
		snprintf(to, ENDPOINT_TEXT, "[%s%%%u]:%u", a, ep->scope_id, ep->port);
	else
		snprintf(to, ENDPOINT_TEXT, "[%s]:%u", a, ep->port);
	return to;
}

/* Zero bits after the first `len`. */
static bool host_bits_zero(const uint8_t a[16], unsigned len)
{
	if (len % 8 && (a[len / 8] & (0xff >> len % 8)))
		return false;
	for (unsigned i = (len + 7) / 8; i < 16; i++)
		if (a[i])
			return false;
	return true;
}

int ip_prefix_parse(const char *s, struct ip_prefix *ret, struct err *e)
{
	char text[64];
	size_t n = strlen(s);
	struct ip_prefix p;
	uint32_t len;
	char *slash;
	bool v4;

	if (n >= sizeof(text))
		return err_set(e, ERR_PARSE, "prefix is longer than any prefix");
	memcpy(text, s, n + 1);
	slash = strchr(text, '/');
	if (!slash) {
		err_set(e, ERR_PARSE, "\"%s\" has no prefix length", s);
		return err_todo(e, "write 10.0.0.0/8 or fd00::/8");
	}
	*slash = '\0';
	v4 = !strchr(text, ':');
	if (!addr_parse(text, p.addr)) {
		err_set(e, ERR_PARSE, "\"%s\" is not an IP prefix", s);
		return err_todo(e, "write 10.0.0.0/8 or fd00::/8");
	}
	if (!number_parse(slash + 1, v4 ? 32 : 128, &len))
		return err_set(e, ERR_PARSE, "\"%s\": the prefix length is a number from 0 to %d", s,
			       v4 ? 32 : 128);
	p.len = (uint8_t)(v4 ? 96 + len : len);
	if (!host_bits_zero(p.addr, p.len)) {
		err_set(e, ERR_PARSE, "\"%s\" has host bits set", s);
		return err_todo(e, "write the network's first address, or /%d for one host", v4 ? 32 : 128);
	}
	*ret = p;
	return 0;
}

bool ip_prefix_has(const struct ip_prefix *p, const uint8_t addr[16])
{
	unsigned whole = p->len / 8, bits = p->len % 8;

	/* "::/0" means all of IPv6: that IPv4 is mapped into it is our representation, not the operator's
	 * intent. */
	if (p->len < 96 && addr_is_v4(addr))
		return false;
	if (memcmp(p->addr, addr, whole) != 0)
		return false;
	return !bits || ((p->addr[whole] ^ addr[whole]) & (0xff00 >> bits) & 0xff) == 0;
}

const char *ip_prefix_text(const struct ip_prefix *p, char to[IP_PREFIX_TEXT])
{
	char a[INET6_ADDRSTRLEN];
	bool v4 = p->len >= 96 && addr_is_v4(p->addr);

	addr_text(p->addr, a);
	snprintf(to, IP_PREFIX_TEXT, "%s/%d", a, v4 ? p->len - 96 : p->len);
	return to;
}
