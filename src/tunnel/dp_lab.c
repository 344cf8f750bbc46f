/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/dp_lab.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static void die(const char *what)
{
	perror(what);
	abort();
}

__attribute__((format(printf, 1, 0))) static int sh(const char *fmt, va_list ap)
{
	char cmd[1024];

	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	return system(cmd);
}

void lab_sh(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (sh(fmt, ap) != 0)
		die(fmt);
	va_end(ap);
}

__attribute__((format(printf, 1, 2))) static int try_sh(const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = sh(fmt, ap);
	va_end(ap);
	return r;
}

bool lab_up(struct lab *l)
{
	char path[64];

	l->nworkers = l->nworkers ? l->nworkers : 1;
	l->veth_mtu = l->veth_mtu ? l->veth_mtu : 1500;
	l->frame_max = l->frame_max ? l->frame_max : l->veth_mtu - (l->v6 ? 48 : 28);
	l->tun_mtu = l->tun_mtu ? l->tun_mtu : l->frame_max - DATA_OVERHEAD;
	l->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		snprintf(l->name[i], sizeof(l->name[i]), "x0dp%c%d", 'a' + i, getpid() % 100000);
		try_sh("ip netns del %s 2>/dev/null", l->name[i]); /* of an earlier test that failed */
		if (try_sh("ip netns add %s 2>/dev/null", l->name[i]) != 0)
			return false;
		snprintf(path, sizeof(path), "/run/netns/%s", l->name[i]);
		l->ns[i] = open(path, O_RDONLY | O_CLOEXEC);
		memset(l->addr[i], 0, 16);
		l->addr[i][0] = 0xfd;
		l->addr[i][1] = 0x77;
		l->addr[i][15] = (uint8_t)(i + 1);
	}
	lab_sh("ip link add dpa netns %s mtu %u type veth peer name dpb netns %s mtu %u", l->name[0],
	       l->veth_mtu, l->name[1], l->veth_mtu);
	for (int i = 0; i < 2; i++) {
		char c = (char)('a' + i);

		lab_sh("ip -n %s link set lo up && ip -n %s addr add 10.77.0.%d/24 dev dp%c && "
		       "ip -n %s addr add fd99::%d/64 dev dp%c nodad && ip -n %s link set dp%c up",
		       l->name[i], l->name[i], i + 1, c, l->name[i], i + 1, c, l->name[i], c);
	}
	return true;
}

void lab_down(struct lab *l)
{
	for (int i = 0; i < 2; i++) {
		close(l->ns[i]);
		try_sh("ip netns del %s 2>/dev/null", l->name[i]);
	}
	close(l->home);
}

void lab_enter(const struct lab *l, int end)
{
	if (setns(end < 0 ? l->home : l->ns[end], CLONE_NEWNET) != 0)
		die("setns");
}

static int open_tun(const char *name, bool *uso)
{
	unsigned basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) != 0)
		die("tun");
	*uso = ioctl(fd, TUNSETOFFLOAD, basic | TUN_F_USO4 | TUN_F_USO6) == 0;
	if (!*uso && ioctl(fd, TUNSETOFFLOAD, basic) != 0)
		die("TUNSETOFFLOAD");
	return fd;
}

struct endpoint lab_underlay(const struct lab *l, int end)
{
	char text[64];
	struct endpoint ep;

	snprintf(text, sizeof(text), l->v6 ? "[fd99::%d]:7430" : "10.77.0.%d:7430", end + 1);
	if (endpoint_parse(text, 0, &ep, NULL) != 0)
		abort();
	return ep;
}

static int open_udp(const struct lab *l, int end, bool first)
{
	struct endpoint ep = lab_underlay(l, end);
	struct sockaddr_storage ss;
	int family = l->v6 ? AF_INET6 : AF_INET, one = 1, big = 8 << 20, probe = IP_PMTUDISC_PROBE;
	socklen_t n = endpoint_to_sockaddr(&ep, family, &ss);
	struct sock_filter steer[] = { BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 35), BPF_STMT(BPF_RET | BPF_A, 0) };
	struct sock_fprog prog = { 2, steer };
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
	setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof(probe));
	if (l->v6) {
		probe = IPV6_PMTUDISC_PROBE;
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof(one));
		setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof(probe));
	}
	if (bind(fd, (struct sockaddr *)&ss, n) != 0)
		die("bind");
	if (first && setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &prog, sizeof(prog)) != 0)
		die("reuseport");
	return fd;
}

static void keys(struct dp_lane *lane, unsigned n, int sender, uint32_t generation)
{
	for (unsigned i = 0; i < n; i++) {
		lane[i].index = (generation + 1) << 8 | i; /* the low bits name the worker */
		memset(lane[i].key, (int)(1 + sender * 64 + i + generation * 3), AEAD_KEY);
		memset(lane[i].iv, (int)(3 + sender * 64 + i + generation * 5), AEAD_IV);
	}
}

void lab_session_add(const struct lab *l, int end, struct lab_end *e, uint32_t generation)
{
	struct dp_session s = { .id = generation,
				.link = 1,
				.rx_suite = aead_best_suite(),
				.tx_suite = aead_best_suite(),
				.nrx = l->nworkers,
				.ntx = l->nworkers,
				.nprovides = 1 };
	struct err err = { 0 };

	memcpy(s.peer, l->addr[!end], 16);
	if (ip_prefix_parse(end ? "10.78.0.1/32" : "10.78.0.2/32", &s.provides[0], &err) != 0)
		die(err.what);
	keys(s.tx, s.ntx, end, generation);
	keys(s.rx, s.nrx, !end, generation);
	if (dp_session_add(e->dp, &s, &err) != 0)
		die(err.what);
}

void lab_end_up(const struct lab *l, int end, struct lab_end *ret, const struct dp_ops *ops, void *arg,
		bool session)
{
	static const struct dp_ops none;
	struct dp_config cfg = { .nworkers = l->nworkers,
				 .tun_fd = ret->tun,
				 .udp_fd = ret->udp,
				 .udp_family = l->v6 ? AF_INET6 : AF_INET,
				 .tun_mtu = l->tun_mtu,
				 .ops = ops ? ops : &none,
				 .arg = arg,
				 .nself_also = 1 };
	struct dp_link link = { .id = 1,
				.rx_index = 100 + (uint32_t)end,
				.tx_index = 100 + (uint32_t)!end,
				.to = lab_underlay(l, !end),
				.frame_max = l->frame_max,
				.peer_label = get_u64(l->addr[!end] + 8) };
	struct err err = { 0 };

	lab_enter(l, end);
	for (unsigned i = 0; i < l->nworkers; i++) {
		ret->tun[i] = open_tun("x0t", &ret->uso);
		ret->udp[i] = open_udp(l, end, i == 0);
	}
	lab_sh("ip link set x0t mtu %u txqueuelen 1000 up && ip addr add 10.78.0.%d/24 dev x0t && "
	       "ip addr add fd77::%d/64 dev x0t nodad",
	       l->tun_mtu, end + 1, end + 1);
	lab_enter(l, -1);
	ret->loop = loop_new_event(&err);
	cfg.control = ret->loop;
	cfg.tun_uso = ret->uso;
	memcpy(cfg.self, l->addr[end], 16);
	if (!ret->loop ||
	    ip_prefix_parse(end ? "10.78.0.2/32" : "10.78.0.1/32", &cfg.self_also[0], &err) != 0 ||
	    crypto_init(&err) != 0 || dp_new(&cfg, &ret->dp, &err) != 0)
		die(err.what);
	link.rx_key = (struct sipkey){ 7 + (unsigned)end, 9 };
	link.tx_key = (struct sipkey){ 7 + (unsigned)!end, 9 };
	if (dp_link_add(ret->dp, &link, &err) != 0)
		die(err.what);
	if (session) {
		lab_session_add(l, end, ret, 0);
		if (dp_session_use(ret->dp, 0) != 0)
			die("dp_session_use");
	}
}

void lab_end_down(struct lab_end *e)
{
	dp_free(e->dp);
	loop_free(e->loop);
	for (int i = 0; i < LAB_WORKERS; i++) {
		if (e->tun[i] > 0)
			close(e->tun[i]);
		if (e->udp[i] > 0)
			close(e->udp[i]);
	}
}
