/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: links, addresses and routes by rtnetlink
 *
 * Invariants: no message names an interface other than the ifindex of our own TUN device, or none
 * (unreachable routes); every route carries RTPROT_X0, and deletion matches on it, so the host's own routes
 * cannot be touched. An add that meets EEXIST counts as done only when what is there is ours: else the host's
 * route would carry overlay traffic in clear and nobody would know.
 *
 * Source: rtnetlink(7); Linux Documentation/userspace-api/netlink.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/broker_int.h"

enum { MSG_BUF = 1024, DUMP_BUF = 32768, TXQUEUE = 2000 };

struct rtnl {
	struct mnl_socket *sock;
	unsigned port;
	uint32_t seq;
};

/* One route of ours as the kernel tells it; also what a dump looks for. */
struct route {
	uint32_t oif, metric;
	struct ip_prefix dst;
	bool unreachable;
};

struct dump {
	struct route *route; /* RTNL_PREFIXES_MAX */
	unsigned n;	     /* all that were seen, also beyond the array */
	uint32_t ifindex;    /* addresses: of this interface only */
};

int rtnl_open(struct rtnl **ret, struct err *e)
{
	struct rtnl *r = calloc(1, sizeof(*r));
	int on = 1;

	if (!r)
		return err_set(e, ERR_NOMEM, "no memory for rtnetlink");
	r->sock = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!r->sock || mnl_socket_bind(r->sock, 0, MNL_SOCKET_AUTOPID) < 0) {
		err_sys(e, "cannot open rtnetlink");
		rtnl_close(r);
		return ERR_SYS;
	}
	/* The kernel then filters dumps itself: a full BGP table stays out of here. Older ones send all; we
	 * filter too. */
	mnl_socket_setsockopt(r->sock, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	mnl_socket_setsockopt(r->sock, NETLINK_CAP_ACK, &on, sizeof(on));
	r->port = mnl_socket_get_portid(r->sock);
	*ret = r;
	return 0;
}

struct rtnl *rtnl_close(struct rtnl *r)
{
	if (r) {
		if (r->sock)
			mnl_socket_close(r->sock);
		free(r);
	}
	return NULL;
}

static struct nlmsghdr *start(struct rtnl *r, char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = ++r->seq;
	return h;
}

/* Sends, and reads until the acknowledgement or the end of the dump. 0, or -1 with errno. */
static int talk(struct rtnl *r, struct nlmsghdr *h, mnl_cb_t fn, void *arg)
{
	static char buf[DUMP_BUF]; /* the broker has one thread */
	int rc = MNL_CB_OK;

	if (mnl_socket_sendto(r->sock, h, h->nlmsg_len) < 0)
		return -1;
	while (rc == MNL_CB_OK) {
		ssize_t n = mnl_socket_recvfrom(r->sock, buf, sizeof(buf));

		if (n < 0)
			return -1;
		rc = mnl_cb_run(buf, (size_t)n, h->nlmsg_seq, r->port, fn, arg);
	}
	return rc < 0 ? -1 : 0;
}

static int acked(struct rtnl *r, struct nlmsghdr *h)
{
	h->nlmsg_flags |= NLM_F_ACK;
	return talk(r, h, NULL, NULL);
}

static bool is_v4(const struct ip_prefix *p)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return p->len >= 96 && !memcmp(p->addr, head, sizeof(head));
}

static const uint8_t *bytes_of(const struct ip_prefix *p, size_t *ret_n)
{
	*ret_n = is_v4(p) ? 4 : 16;
	return is_v4(p) ? p->addr + 12 : p->addr;
}

static uint8_t bits_of(const struct ip_prefix *p)
{
	return is_v4(p) ? (uint8_t)(p->len - 96) : p->len;
}

static void prefix_of(struct ip_prefix *p, uint8_t family, uint8_t bits, const struct nlattr *addr)
{
	*p = (struct ip_prefix){ .len = bits };
	if (family == AF_INET) {
		p->addr[10] = p->addr[11] = 0xff;
		p->len = (uint8_t)(bits + 96);
	}
	if (addr && mnl_attr_get_payload_len(addr) == (family == AF_INET ? 4 : 16))
		memcpy(p->addr + (family == AF_INET ? 12 : 0), mnl_attr_get_payload(addr),
		       mnl_attr_get_payload_len(addr));
}

/* ---- the device ---- */

int rtnl_link_up(struct rtnl *r, uint32_t ifindex, uint32_t mtu, struct err *e)
{
	char buf[MSG_BUF];
	struct nlmsghdr *h;
	struct ifinfomsg *m;
	struct nlattr *spec, *inet6;

	/* No link-local address, and so no multicast chatter, on the overlay. Before the device comes up. */
	h = start(r, buf, RTM_NEWLINK, 0);
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifi_index = (int)ifindex;
	spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
	inet6 = mnl_attr_nest_start(h, AF_INET6);
	mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(h, inet6);
	mnl_attr_nest_end(h, spec);
	/* A host without IPv6 makes no such address anyway. */
	if (acked(r, h) < 0 && errno != EAFNOSUPPORT && errno != EOPNOTSUPP)
		return err_sys(e, "cannot turn link-local addresses off");

	h = start(r, buf, RTM_NEWLINK, 0);
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifi_index = (int)ifindex;
	m->ifi_flags = m->ifi_change = IFF_UP;
	mnl_attr_put_u32(h, IFLA_MTU, mtu);
	mnl_attr_put_u32(h, IFLA_TXQLEN, TXQUEUE);
	return acked(r, h) < 0 ? err_sys(e, "cannot bring the TUN device up with an MTU of %u", mtu) : 0;
}

int rtnl_link_del(struct rtnl *r, uint32_t ifindex, struct err *e)
{
	char buf[MSG_BUF];
	struct nlmsghdr *h = start(r, buf, RTM_DELLINK, 0);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_index = (int)ifindex;
	return acked(r, h) < 0 && errno != ENODEV ? err_sys(e, "cannot remove the TUN device") : 0;
}

/* ---- addresses ---- */

static int addr_seen(const struct nlmsghdr *h, void *arg)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct dump *d = arg;

	if (h->nlmsg_type == RTM_NEWADDR && m->ifa_index == d->ifindex)
		d->n++;
	return MNL_CB_OK;
}

/* Addresses on the interface, or -1 with errno. */
static int addr_count(struct rtnl *r, uint32_t ifindex, uint8_t family)
{
	struct dump d = { .ifindex = ifindex };
	char buf[MSG_BUF];
	struct nlmsghdr *h = start(r, buf, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifa_family = family;
	m->ifa_index = ifindex;
	return talk(r, h, addr_seen, &d) < 0 ? -1 : (int)d.n;
}

int rtnl_addr(struct rtnl *r, uint32_t ifindex, const struct ip_prefix *p, bool add, struct err *e)
{
	char buf[MSG_BUF], text[IP_PREFIX_TEXT];
	struct nlmsghdr *h;
	struct ifaddrmsg *m;
	const uint8_t *a;
	size_t n;
	int rc;

	ip_prefix_text(p, text);
	if (add) {
		rc = addr_count(r, ifindex, is_v4(p) ? AF_INET : AF_INET6);
		if (rc < 0)
			return err_sys(e, "cannot list the addresses of the TUN device");
		if (rc >= RTNL_PREFIXES_MAX)
			return err_set(e, ERR_LIMIT, "the TUN device has %d addresses already", rc);
	}
	h = start(r, buf, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifa_family = is_v4(p) ? AF_INET : AF_INET6;
	m->ifa_prefixlen = bits_of(p);
	m->ifa_index = ifindex;
	/* The address is derived from an identity: a duplicate is an alarm elsewhere, detection here only
	 * costs a second. */
	m->ifa_flags = is_v4(p) ? 0 : IFA_F_NODAD;
	m->ifa_scope = RT_SCOPE_UNIVERSE;
	a = bytes_of(p, &n);
	mnl_attr_put(h, IFA_LOCAL, n, a);
	mnl_attr_put(h, IFA_ADDRESS, n, a);
	if (acked(r, h) == 0 || (add && errno == EEXIST))
		return 0;
	if (!add && (errno == EADDRNOTAVAIL || errno == ENODEV))
		return err_set(e, ERR_NOT_FOUND, "%s is not on the TUN device", text);
	rc = err_sys(e, "cannot %s address %s", add ? "add" : "remove", text);
	return add && !is_v4(p) && errno == EACCES
		       ? err_todo(e, "IPv6 is switched off: sysctl net.ipv6.conf.default.disable_ipv6=0")
		       : rc;
}

/* ---- routes ---- */

static int route_attr(const struct nlattr *a, void *arg)
{
	const struct nlattr **to = arg;

	if (mnl_attr_get_type(a) <= RTA_PRIORITY)
		to[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static uint32_t attr_u32(const struct nlattr *a)
{
	return a && mnl_attr_validate(a, MNL_TYPE_U32) >= 0 ? mnl_attr_get_u32(a) : 0;
}

static int route_seen(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct dump *d = arg;
	const struct nlattr *a[RTA_PRIORITY + 1] = { 0 };
	struct route t = { .unreachable = m->rtm_type == RTN_UNREACHABLE };

	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_protocol != RTPROT_X0 || m->rtm_table != RT_TABLE_MAIN ||
	    m->rtm_flags & RTM_F_CLONED)
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), route_attr, a);
	t.oif = attr_u32(a[RTA_OIF]);
	t.metric = attr_u32(a[RTA_PRIORITY]);
	prefix_of(&t.dst, m->rtm_family, m->rtm_dst_len, a[RTA_DST]);
	if (d->n < RTNL_PREFIXES_MAX)
		d->route[d->n] = t;
	d->n++;
	return MNL_CB_OK;
}

/* Our routes of both families: their number (the array holds at most RTNL_PREFIXES_MAX), or -1 with errno. */
static int routes(struct rtnl *r, struct route to[RTNL_PREFIXES_MAX])
{
	static const uint8_t family[] = { AF_INET, AF_INET6 };
	struct dump d = { .route = to };

	for (size_t i = 0; i < ARRAY_SIZE(family); i++) {
		char buf[MSG_BUF];
		struct nlmsghdr *h = start(r, buf, RTM_GETROUTE, NLM_F_DUMP);
		struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

		m->rtm_family = family[i];
		m->rtm_protocol = RTPROT_X0;
		m->rtm_table = RT_TABLE_MAIN;
		if (talk(r, h, route_seen, &d) < 0 && !(family[i] == AF_INET6 && errno == EOPNOTSUPP))
			return -1;
	}
	return (int)d.n;
}

static int route_send(struct rtnl *r, uint32_t ifindex, const struct ip_prefix *dst, bool add)
{
	char buf[MSG_BUF];
	struct nlmsghdr *h = start(r, buf, add ? RTM_NEWROUTE : RTM_DELROUTE,
				   add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	const uint8_t *a;
	size_t n;

	m->rtm_family = is_v4(dst) ? AF_INET : AF_INET6;
	m->rtm_dst_len = bits_of(dst);
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_X0;
	m->rtm_scope = is_v4(dst) && ifindex ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	m->rtm_type = ifindex ? RTN_UNICAST : RTN_UNREACHABLE;
	a = bytes_of(dst, &n);
	mnl_attr_put(h, RTA_DST, n, a);
	if (ifindex)
		mnl_attr_put_u32(h, RTA_OIF, ifindex);
	else
		mnl_attr_put_u32(h, RTA_PRIORITY, UNREACHABLE_METRIC);
	return acked(r, h);
}

static bool route_is(const struct route *t, uint32_t ifindex, const struct ip_prefix *dst)
{
	if (t->dst.len != dst->len || memcmp(t->dst.addr, dst->addr, sizeof(dst->addr)) != 0)
		return false;
	return ifindex ? !t->unreachable && t->oif == ifindex
		       : t->unreachable && t->metric == UNREACHABLE_METRIC;
}

int rtnl_route(struct rtnl *r, uint32_t ifindex, const struct ip_prefix *dst, bool add, struct err *e)
{
	struct route have[RTNL_PREFIXES_MAX];
	char text[IP_PREFIX_TEXT];
	bool there = false;
	int n = routes(r, have);

	if (n < 0)
		return err_sys(e, "cannot list the routes");
	ip_prefix_text(dst, text);
	for (int i = 0; i < n && i < RTNL_PREFIXES_MAX; i++)
		there = there || route_is(&have[i], ifindex, dst);
	if (add && there)
		return 0;
	if (!add && !there)
		return err_set(e, ERR_NOT_FOUND, "there is no such route of ours to %s", text);
	if (add && n >= RTNL_PREFIXES_MAX)
		return err_set(e, ERR_LIMIT, "there are %d routes of ours already", n);
	if (route_send(r, ifindex, dst, add) == 0)
		return 0;
	if (add && errno == EEXIST) {
		err_set(e, ERR_CONFLICT, "this host already has another route to %s", text);
		return err_todo(e, "remove it (ip route show %s), or choose another overlay range", text);
	}
	return err_sys(e, "cannot %s the %sroute to %s", add ? "add" : "remove",
		       ifindex ? "" : "unreachable ", text);
}

int rtnl_unreachable(struct rtnl *r, bool del, struct err *e)
{
	struct route have[RTNL_PREFIXES_MAX];
	int n = routes(r, have), found = 0;

	if (n < 0)
		return err_sys(e, "cannot list the routes");
	for (int i = 0; i < n && i < RTNL_PREFIXES_MAX; i++) {
		if (!route_is(&have[i], 0, &have[i].dst))
			continue;
		found++;
		if (del && route_send(r, 0, &have[i].dst, false) < 0 && errno != ESRCH)
			return err_sys(e, "cannot remove an unreachable route");
	}
	return found;
}
