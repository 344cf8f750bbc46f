/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the TUN device
 *
 * Made with IFF_TUN_EXCL, so an interface that was there before is never touched, whatever its name; kept
 * while mains come and go; handed over only with the number of queues it has, else made anew.
 *
 * Invariants: the device lives as long as the broker keeps its queues (never persistent), and goes with them.
 * What is queued while no main reads is dropped by the kernel when the queue is full: nothing leaves in
 * clear.
 *
 * Source: Linux Documentation/networking/tuntap.rst.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "broker/broker_int.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum { VNET_HDR = 10 };

static int tun_open(struct err *e)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	err_sys(e, "cannot open /dev/net/tun");
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return err_todo(e, "load the module: modprobe tun (in a container: --device /dev/net/tun)");
	return err_todo(e, "run x0-broker as root");
}

static int tun_attach(int fd, const char *name, bool first, struct err *e)
{
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };

	/* IFF_TUN_EXCL shares bit 15 with the sign. */
	if (first)
		r.ifr_flags = (short)(r.ifr_flags | (short)IFF_TUN_EXCL);
	memcpy(r.ifr_name, name, sizeof(r.ifr_name));
	if (!ioctl(fd, TUNSETIFF, &r))
		return 0;
	if (errno == EBUSY && first) {
		err_set(e, ERR_DENIED, "interface %s exists and is not of this broker's making", name);
		return err_todo(e, "choose another name, or remove it: ip link del %s", name);
	}
	err_sys(e, "cannot make TUN device %s", name);
	return errno == EPERM ? err_todo(e, "run x0-broker as root (it needs CAP_NET_ADMIN)") : ERR_SYS;
}

/* Also at handover: these calls need no rights, so a main gone wrong could have changed them. */
static int tun_setup(struct kept *k, struct err *e)
{
	unsigned base = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	int size = VNET_HDR;

	for (unsigned i = 0; i < k->tun.n; i++) {
		if (ioctl(k->tun.fd[i], TUNSETVNETHDRSZ, &size) || ioctl(k->tun.fd[i], TUNSETPERSIST, 0))
			return err_sys(e, "cannot set up queue %u of %s", i, k->tun.name);
	}
	k->tun.uso = true;
	if (!ioctl(k->tun.fd[0], TUNSETOFFLOAD, base | TUN_F_USO4 | TUN_F_USO6))
		return 0;
	k->tun.uso = false; /* before Linux 6.2 */
	return ioctl(k->tun.fd[0], TUNSETOFFLOAD, base)
		       ? err_sys(e, "cannot set the offloads of %s", k->tun.name)
		       : 0;
}

/* The index of the device behind the descriptor. The name alone could belong to another one by now. */
static int tun_index(int fd, uint32_t *ret, struct err *e)
{
	struct ifreq r = { 0 };
	unsigned i;

	if (ioctl(fd, TUNGETIFF, &r))
		return err_sys(e, "the TUN device is gone");
	r.ifr_name[IFNAMSIZ - 1] = 0;
	i = if_nametoindex(r.ifr_name);
	if (!i)
		return err_sys(e, "no index of %s", r.ifr_name);
	*ret = i;
	return 0;
}

void kept_tun_close(struct kept *k)
{
	struct err e = { 0 };
	uint32_t now = 0;

	/* Somebody may have removed the device: its number could be another's. */
	if (k->tun.ifindex && !tun_index(k->tun.fd[0], &now, &e) && now == k->tun.ifindex &&
	    rtnl_link_del(k->rtnl, k->tun.ifindex, &e))
		log_warn("broker", "the TUN device stays until its last user ends", LS("why", e.what));
	while (k->tun.n)
		close(k->tun.fd[--k->tun.n]);
	k->tun.ifindex = 0;
}

static int tun_make(struct kept *k, const struct broker_req_tun *q, struct err *e)
{
	uint32_t ifindex = 0;
	int rc = 0;

	memcpy(k->tun.name, q->name, sizeof(k->tun.name));
	while (!rc && k->tun.n < q->queues) {
		int fd = tun_open(e);

		if (fd < 0)
			return fd;
		rc = tun_attach(fd, q->name, k->tun.n == 0, e);
		if (rc)
			close(fd);
		else
			k->tun.fd[k->tun.n++] = fd;
	}
	rc = rc ? rc : tun_index(k->tun.fd[0], &ifindex, e);
	if (rc)
		return rc;
	k->tun.ifindex = ifindex;
	rc = tun_setup(k, e);
	return rc ? rc : rtnl_link_up(k->rtnl, ifindex, q->mtu, e);
}

int kept_tun(struct kept *k, const struct broker_req_tun *q, bool *ret_kept, struct err *e)
{
	uint32_t now = 0;
	bool same = k->tun.ifindex && k->tun.n == q->queues && !strcmp(k->tun.name, q->name) &&
		    !tun_index(k->tun.fd[0], &now, NULL) && now == k->tun.ifindex;
	int rc;

	if (same) {
		rc = tun_setup(k, e);
		rc = rc ? rc : rtnl_link_up(k->rtnl, k->tun.ifindex, q->mtu, e);
		if (rc)
			return rc;
	} else {
		kept_tun_close(k);
		rc = tun_make(k, q, e);
		if (rc) {
			kept_tun_close(k);
			return rc;
		}
	}
	*ret_kept = same;
	return 0;
}
