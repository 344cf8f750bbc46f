/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the broker is willing to be asked
 *
 * The one place that decides which requests are acceptable, apart from their execution so that it can be
 * fuzzed.
 *
 * Invariants: a request that passes names an interface with the allowed prefix, at most BROKER_QUEUES queues
 * or workers, an unprivileged port, and overlay prefixes only: inside fd00::/8 (RFC 4193) or private IPv4
 * (RFC 1918, RFC 6598), never wide enough to be a default route.
 */
#include "broker/broker_proto.h"

#include <string.h>

enum { V4_BITS = 96, ROUTE_V6_MIN = 40, ROUTE_V4_MIN = V4_BITS + 16 };

size_t broker_req_len(unsigned op)
{
	switch (op) {
	case BROKER_OP_TUN:
		return sizeof(struct broker_req_tun);
	case BROKER_OP_MTU:
		return sizeof(struct broker_req_mtu);
	case BROKER_OP_ADDR:
	case BROKER_OP_ROUTE:
		return sizeof(struct broker_req_prefix);
	case BROKER_OP_UDP:
		return sizeof(struct broker_req_udp);
	case BROKER_OP_DOWN:
		return sizeof(struct broker_head);
	default:
		return 0;
	}
}

static bool v4_mapped(const uint8_t a[16])
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(a, head, sizeof(head));
}

static bool v4_private(const uint8_t a[16])
{
	return a[12] == 10 || (a[12] == 172 && (a[13] & 0xf0) == 16) || (a[12] == 192 && a[13] == 168) ||
	       (a[12] == 100 && (a[13] & 0xc0) == 64);
}

static bool host_bits_zero(const uint8_t a[16], unsigned len)
{
	for (unsigned bit = len; bit < 128; bit++)
		if (a[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

static int check_name(const char name[16], const char *prefix, struct err *e)
{
	size_t n = strnlen(name, 16);

	if (n == 0 || n == 16)
		return err_set(e, ERR_PARSE, "the interface name is empty or not terminated");
	for (size_t i = n; i < 16; i++)
		if (name[i])
			return err_set(e, ERR_PARSE, "bytes follow the end of the interface name");
	for (size_t i = 0; i < n; i++) {
		char c = name[i];

		/* '%' would let the kernel choose a name; '/', '.' and ':' have meanings in /sys and /proc.
		 */
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
			return err_set(e, ERR_DENIED, "an interface name holds a-z, 0-9, '-' and '_' only");
	}
	if (strncmp(name, prefix, strlen(prefix)) != 0) {
		err_set(e, ERR_DENIED, "interface \"%s\" does not start with \"%s\"", name, prefix);
		return err_todo(e, "start x0-broker with --name %s", name);
	}
	return 0;
}

static int check_mtu(uint32_t mtu, struct err *e)
{
	if (mtu < BROKER_MTU_MIN || mtu > BROKER_MTU_MAX)
		return err_set(e, ERR_DENIED, "an MTU of %u is outside %d-%d", mtu, BROKER_MTU_MIN,
			       BROKER_MTU_MAX);
	return 0;
}

static int check_tun(const struct broker_req_tun *r, const char *prefix, struct err *e)
{
	int rc = check_name(r->name, prefix, e);

	if (rc)
		return rc;
	if (r->queues < 1 || r->queues > BROKER_QUEUES)
		return err_set(e, ERR_LIMIT, "%u queues: 1-%d are possible", r->queues, BROKER_QUEUES);
	return check_mtu(r->mtu, e);
}

static int check_prefix(const struct broker_req_prefix *r, struct err *e)
{
	struct ip_prefix p = { .len = r->len };
	char text[IP_PREFIX_TEXT];
	bool v4 = v4_mapped(r->addr);
	bool route = r->head.op == BROKER_OP_ROUTE;
	unsigned min = route ? (v4 ? ROUTE_V4_MIN : ROUTE_V6_MIN) : 128;

	if (r->len > 128 || r->add > 1 || r->unreachable > 1 || r->zero || (!route && r->unreachable))
		return err_set(e, ERR_PARSE, "a flag or length of the prefix is out of range");
	memcpy(p.addr, r->addr, sizeof(p.addr));
	ip_prefix_text(&p, text);
	if (!(v4 ? v4_private(r->addr) : r->addr[0] == 0xfd)) {
		err_set(e, ERR_DENIED, "%s is not an overlay prefix", text);
		return err_todo(e,
				"use fd00::/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10");
	}
	if (r->len < min)
		return err_set(e, ERR_DENIED, "%s is too wide: the length must be at least %u", text,
			       v4 ? min - V4_BITS : min);
	if (!host_bits_zero(r->addr, r->len))
		return err_set(e, ERR_DENIED, "%s has host bits set", text);
	return 0;
}

static int check_udp(const struct broker_req_udp *r, struct err *e)
{
	if (r->nworkers < 1 || r->nworkers > BROKER_QUEUES)
		return err_set(e, ERR_LIMIT, "%u workers: 1-%d are possible", r->nworkers, BROKER_QUEUES);
	if (r->port < BROKER_PORT_MIN)
		return err_set(e, ERR_DENIED, "port %u is below %d", r->port, BROKER_PORT_MIN);
	if (r->addr[0] == 0xff || (v4_mapped(r->addr) && r->addr[12] >= 224))
		return err_set(e, ERR_DENIED, "a multicast or broadcast address cannot be bound");
	return 0;
}

int broker_parse(const void *p, size_t n, const char *prefix, union broker_req *ret, struct err *e)
{
	union broker_req r = { 0 };
	int rc;

	if (n < sizeof(r.head) || n > sizeof(r))
		return err_set(e, ERR_PARSE, "a request of %zu bytes", n);
	memcpy(&r, p, n);
	if (r.head.proto != BROKER_PROTO) {
		err_set(e, ERR_PARSE, "protocol version %u, this broker speaks %d", r.head.proto,
			BROKER_PROTO);
		return err_todo(e, "install x0 and x0-broker of one release");
	}
	if (broker_req_len(r.head.op) != n)
		return err_set(e, ERR_PARSE, "request %u of %zu bytes", r.head.op, n);
	if (r.head.seq == 0)
		return err_set(e, ERR_PARSE, "a request without a sequence number");
	switch (r.head.op) {
	case BROKER_OP_TUN:
		rc = check_tun(&r.tun, prefix, e);
		break;
	case BROKER_OP_MTU:
		rc = check_mtu(r.mtu.mtu, e);
		break;
	case BROKER_OP_ADDR:
	case BROKER_OP_ROUTE:
		rc = check_prefix(&r.prefix, e);
		break;
	case BROKER_OP_UDP:
		rc = check_udp(&r.udp, e);
		break;
	default: /* DOWN: the head is all of it */
		rc = 0;
	}
	if (!rc)
		*ret = r;
	return rc;
}
