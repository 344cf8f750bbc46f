/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own address may change under a session. Peers learn the new path from the next authenticated datagram;
 * an idle node would send that only with its next keepalive. So the kernel tells us (rtnetlink, readable
 * without rights), and we speak at once: sess_moved().
 *
 * What arrives here decides only when probes are sent, at most one round a second.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/control.h"

#define MOVED_SETTLE (100 * NS_PER_MS) /* an address goes and the next comes in several messages */
#define MOVED_PAUSE  NS_PER_S

/* Whether the message may mean another way to our peers. Not what happens to the overlay's own device. */
static bool concerns(const struct nlmsghdr *h, uint32_t tun)
{
	const struct ifaddrmsg *a = mnl_nlmsg_get_payload(h);
	const struct ifinfomsg *l = mnl_nlmsg_get_payload(h);
	size_t n = mnl_nlmsg_get_payload_len(h);

	switch (h->nlmsg_type) {
	case RTM_NEWADDR: /* IPv6: it cannot be used before it is known to be unique */
		return n >= sizeof(*a) && a->ifa_index != tun && !(a->ifa_flags & IFA_F_TENTATIVE);
	case RTM_DELADDR:
		return n >= sizeof(*a) && a->ifa_index != tun;
	case RTM_NEWLINK:
		return n >= sizeof(*l) && (uint32_t)l->ifi_index != tun && (l->ifi_flags & IFF_RUNNING);
	default:
		return false;
	}
}

static void on_moved(void *arg, uint64_t now)
{
	struct control *c = arg;

	c->moved_at = now;
	if (!c->sess)
		return;
	log_info("control", "an address or link changed: telling peers");
	sess_moved(c->sess);
}

static void on_netlink(void *arg, int fd, unsigned events)
{
	struct control *c = arg;
	_Alignas(struct nlmsghdr) uint8_t buf[8192];
	struct sockaddr_nl from;
	socklen_t len = sizeof(from);
	bool moved = false;
	ssize_t n;

	(void)events;
	while ((n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len)) >= 0) {
		int left = (int)n;

		/* Only the kernel has number 0. */
		if (len != sizeof(from) || from.nl_pid != 0)
			continue;
		for (const struct nlmsghdr *h = (const void *)buf; mnl_nlmsg_ok(h, left);
		     h = mnl_nlmsg_next(h, &left))
			moved |= concerns(h, c->tun.ifindex);
		len = sizeof(from);
	}
	/* ENOBUFS: there was more than the socket holds. */
	moved |= n < 0 && errno == ENOBUFS;
	if (moved && c->moved_timer.at == NS_NEVER) {
		uint64_t at = loop_now(c->loop) + MOVED_SETTLE;

		if (c->moved_at && at < c->moved_at + MOVED_PAUSE)
			at = c->moved_at + MOVED_PAUSE;
		loop_timer_set(c->loop, &c->moved_timer, at);
	}
}

int control_moved_start(struct control *c, struct err *e)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK,
				  .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR };
	int rc;

	loop_timer_init(&c->moved_timer, on_moved, c);
	c->moved_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (c->moved_fd < 0)
		return err_sys(e, "cannot open a netlink socket");
	rc = bind(c->moved_fd, (struct sockaddr *)&at, sizeof(at)) == 0
		     ? loop_io_add(c->loop, &c->moved_io, c->moved_fd, LOOP_READ, on_netlink, c, e)
		     : err_sys(e, "cannot listen for changes of addresses");
	if (rc < 0)
		close(c->moved_fd);
	return rc;
}

void control_moved_stop(struct control *c)
{
	loop_timer_cancel(c->loop, &c->moved_timer);
	loop_io_del(c->loop, &c->moved_io);
	close(c->moved_fd);
}
