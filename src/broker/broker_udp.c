/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: the UDP sockets
 *
 * One SO_REUSEPORT group on one port: sockets 0 to n-1 get the DATA frames of their worker, socket n
 * everything else.
 *
 * Invariants: the kernel numbers a group's sockets in the order they were bound and moves the last one into
 * the place of one that closes, so a group is made whole and closed whole. It must be alone on the port: a
 * left-over member of an older group would shift every number, which is why the port is first bound without
 * SO_REUSEPORT.
 *
 * Source: socket(7) SO_ATTACH_REUSEPORT_CBPF; the frame's layout is wire.h's.
 */
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "broker/broker_int.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { BUF_BYTES = 8 << 20, PORT_WAIT_MS = 500, FRAME_TYPE_DATA = 0x11, INDEX_WORKER_AT = 35 };

static int set(int fd, int level, int opt, int value)
{
	return setsockopt(fd, level, opt, &value, sizeof(value));
}

/* Byte 0 is the frame's type, byte 35 of a DATA frame the worker. A load beyond the end would return 0: ask
 * first. */
static int steer(int fd, unsigned nworkers)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, INDEX_WORKER_AT, 0, 5),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FRAME_TYPE_DATA, 0, 3),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, INDEX_WORKER_AT),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, nworkers, 1, 0),
		BPF_STMT(BPF_RET | BPF_A, 0),
		BPF_STMT(BPF_RET | BPF_K, nworkers),
	};
	struct sock_fprog prog = { .len = ARRAY_SIZE(code), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &prog, sizeof(prog));
}

static int bound(int family, const struct endpoint *ep, bool group)
{
	struct sockaddr_storage ss;
	socklen_t n = endpoint_to_sockaddr(ep, family, &ss);
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if ((family == AF_INET6 && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)) ||
	    (group && set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) || bind(fd, (struct sockaddr *)&ss, n)) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

/* Options that traffic depends on. 0, or -1 with errno and the option's name. */
static int tune(int fd, int family, const char **ret_name)
{
	static const struct {
		int family, level, opt, value;
		const char *name;
	} o[] = {
		{ 0, SOL_UDP, UDP_GRO, 1, "UDP_GRO" },
		/* On IPv6 sockets too: they carry IPv4 as mapped addresses. */
		{ 0, IPPROTO_IP, IP_RECVTOS, 1, "IP_RECVTOS" },
		{ 0, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER" },
		{ AF_INET6, IPPROTO_IPV6, IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS" },
		{ AF_INET6, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER" },
	};

	/* In a user namespace "force" is refused: what the host's limits give still works, with more loss
	 * under load. */
	if (set(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUF_BYTES) ||
	    set(fd, SOL_SOCKET, SO_SNDBUFFORCE, BUF_BYTES)) {
		log_warn("broker", "buffers are limited by net.core.rmem_max and wmem_max");
		set(fd, SOL_SOCKET, SO_RCVBUF, BUF_BYTES);
		set(fd, SOL_SOCKET, SO_SNDBUF, BUF_BYTES);
	}
	for (size_t i = 0; i < ARRAY_SIZE(o); i++) {
		if (o[i].family && o[i].family != family)
			continue;
		if (set(fd, o[i].level, o[i].opt, o[i].value)) {
			*ret_name = o[i].name;
			return -1;
		}
	}
	return 0;
}

/* Is the port ours alone? A main that was killed a moment ago may still be closing its sockets: wait a
 * little. */
static int port_free(int *family, const struct endpoint *ep, struct err *e)
{
	char text[ENDPOINT_TEXT];
	int fd = -1;

	endpoint_text(ep, text);
	for (int ms = 0; ms <= PORT_WAIT_MS; ms += 10) {
		fd = bound(*family, ep, false);
		if (fd < 0 && errno == EAFNOSUPPORT && *family == AF_INET6) {
			*family = AF_INET;
			fd = bound(*family, ep, false);
		}
		if (fd >= 0 || errno != EADDRINUSE)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EADDRINUSE) {
		err_set(e, ERR_CONFLICT, "UDP %s is in use by another process", text);
		return err_todo(e, "find it with: ss -lunp 'sport = :%u'", ep->port);
	}
	err_sys(e, "cannot bind UDP %s", text);
	return errno == EADDRNOTAVAIL ? err_todo(e, "the address must be on this host: ip addr") : ERR_SYS;
}

void kept_udp_close(struct kept *k)
{
	while (k->udp.n)
		close(k->udp.fd[--k->udp.n]);
	k->udp.family = 0;
}

static bool any(const struct endpoint *ep)
{
	static const uint8_t zero[16];

	return !memcmp(ep->addr, zero, sizeof(zero));
}

/*
 * A main gone wrong shares these sockets and needs no rights to change them. What can be set again is; false
 * if something cannot: such a socket must not be handed to the next main. One that was ever connected has
 * left the group for good, which its steering finds out.
 */
static bool clean(const struct kept *k)
{
	const char *name;

	for (unsigned i = 0; i < k->udp.n; i++) {
		struct pollfd p = { .fd = k->udp.fd[i], .events = POLLRDHUP };
		struct sockaddr_storage peer;
		char device[16];
		socklen_t n = sizeof(device), peer_n = sizeof(peer);

		if (poll(&p, 1, 0) < 0 || p.revents & (POLLRDHUP | POLLHUP | POLLNVAL) ||
		    getsockopt(p.fd, SOL_SOCKET, SO_BINDTODEVICE, device, &n) || n > 0 ||
		    !getpeername(p.fd, (struct sockaddr *)&peer, &peer_n) ||
		    (set(p.fd, SOL_SOCKET, SO_DETACH_FILTER, 0) && errno != ENOENT) ||
		    steer(p.fd, k->udp.n - 1) || tune(p.fd, k->udp.family, &name))
			return false;
	}
	return true;
}

int kept_udp(struct kept *k, const struct broker_req_udp *q, bool *ret_kept, struct err *e)
{
	struct endpoint ep = { .port = q->port, .scope_id = q->scope_id };
	const char *name = NULL;
	int family = AF_INET6, rc;

	memcpy(ep.addr, q->addr, sizeof(ep.addr));
	if (k->udp.family && k->udp.n == q->nworkers + 1u && endpoint_equal(&k->udp.bind, &ep) &&
	    k->udp.bind.scope_id == ep.scope_id && clean(k)) {
		*ret_kept = true;
		return 0;
	}
	kept_udp_close(k);
	rc = port_free(&family, &ep, e);
	if (rc)
		return rc;
	if (family == AF_INET && !endpoint_is_v4(&ep) && !any(&ep))
		return err_set(e, ERR_UNSUPPORTED, "this host has no IPv6");
	for (unsigned i = 0; i <= q->nworkers; i++) {
		int fd = bound(family, &ep, true);

		if (fd >= 0)
			k->udp.fd[k->udp.n++] = fd;
		/* The first one starts the group, and its program steers those that join. */
		if (fd < 0 || (i == 0 && steer(fd, q->nworkers)) || tune(fd, family, &name)) {
			rc = name ? err_sys(e, "the kernel refuses %s", name)
				  : err_sys(e, "cannot make UDP socket %u", i);
			kept_udp_close(k);
			return rc;
		}
	}
	k->udp.bind = ep;
	k->udp.family = family;
	*ret_kept = false;
	return 0;
}
