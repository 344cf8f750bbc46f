/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab/lab.h"

static int packet_socket(const char *host, const char *ifname, unsigned protocol, struct err *e)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol) };
	int fd = lab_socket(host, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, e), big = 8 << 20;
	struct ifreq r = { 0 };

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	/* The socket belongs to the host's namespace, so this asks there. */
	if (str_fmt(r.ifr_name, sizeof(r.ifr_name), "%s", ifname) < 0 || ioctl(fd, SIOCGIFINDEX, &r) != 0) {
		close(fd);
		return err_set(e, ERR_NOT_FOUND, "host %s has no interface %s", host, ifname);
	}
	at.sll_ifindex = r.ifr_ifindex;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
		err_sys(e, "bind packet socket to %s", ifname);
		close(fd);
		return ERR_SYS;
	}
	return fd;
}

int cap_open(struct cap *c, const char *host, const char *ifname, struct err *e)
{
	int fd = packet_socket(host, ifname, ETH_P_ALL, e);

	if (fd < 0)
		return fd;
	c->fd = fd;
	c->frames = c->hits = c->kept = 0;
	return 0;
}

void cap_drain(struct cap *c)
{
	static uint8_t big[70000];
	struct cap_frame f;
	ssize_t n;

	while ((n = recv(c->fd, big, sizeof(big), MSG_TRUNC)) > 0) {
		size_t have = (size_t)n < sizeof(big) ? (size_t)n : sizeof(big);

		c->frames++;
		if (c->needle && memmem(big, have, c->needle, c->needle_n))
			c->hits++;
		if (c->kept == c->room || have > sizeof(f.p))
			continue;
		f.n = (uint16_t)have;
		memcpy(f.p, big, have);
		if (c->keep_if(&f))
			c->keep[c->kept++] = f;
	}
}

void cap_close(struct cap *c)
{
	if (c->fd > 0)
		close(c->fd);
	c->fd = -1;
}

int cap_inject(const char *host, const char *ifname, const struct cap_frame *f, unsigned n, struct err *e)
{
	int fd = packet_socket(host, ifname, 0, e);
	unsigned sent = 0;

	if (fd < 0)
		return fd;
	for (unsigned i = 0; i < n; i++)
		for (int tries = 0; tries < 100; tries++) {
			ssize_t k = send(fd, f[i].p, f[i].n, 0);

			if (k == f[i].n) {
				sent++;
				break;
			}
			if (k >= 0 || (errno != EAGAIN && errno != ENOBUFS))
				break;
			usleep(1000);
		}
	close(fd);
	return (int)sent;
}
