/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/pipe_lab.h"

#include <netinet/udp.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define MUST(x)                                                                                              \
	do {                                                                                                 \
		if (!(x))                                                                                    \
			abort();                                                                             \
	} while (0)

static int udp_socket(struct endpoint *ret)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), one = 1, big = 4 << 20;
	socklen_t n = sizeof(a);

	MUST(fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 &&
	     getsockname(fd, (struct sockaddr *)&a, &n) == 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof(big));
	setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof(one));
	endpoint_from_sockaddr(ret, (struct sockaddr *)&a);
	return fd;
}

static void need_session(void *arg, const uint8_t dst[16])
{
	struct seen *s = arg;

	s->need_session++;
	memcpy(s->dst, dst, 16);
}

static void path_seen(void *arg, uint32_t link, const struct endpoint *from)
{
	struct seen *s = arg;

	MUST(link == 1);
	s->path_seen++;
	s->from = *from;
}

static void session_spent(void *arg, uint32_t id)
{
	(void)id;
	((struct seen *)arg)->spent++;
}

static void path_too_big(void *arg, uint32_t link)
{
	MUST(link == 1);
	((struct seen *)arg)->too_big++;
}

static const struct dp_ops ops = { need_session, path_seen, session_spent, path_too_big };

static void side_up(struct pipe_lab *p, int side)
{
	struct dp_config cfg = { .nworkers = 1,
				 .tun_fd = &p->tun[side],
				 .udp_fd = &p->udp[side],
				 .udp_family = AF_INET,
				 .tun_uso = true,
				 .tun_mtu = 1400,
				 .control = p->loop,
				 .ops = &ops,
				 .arg = &p->seen[side],
				 .nself_also = 1 };
	struct dp_link link = { .id = 1,
				.rx_index = 100 + (uint32_t)side,
				.tx_index = 100 + (uint32_t)!side,
				.rx_key = { 5 + (uint64_t)side, 6 },
				.tx_key = { 5 + (uint64_t)!side, 6 },
				.peer_label = get_u64(p->addr[!side] + 8),
				.to = p->middle_at,
				.frame_max = p->frame_max };

	memcpy(cfg.self, p->addr[side], 16);
	MUST(ip_prefix_parse(side ? "10.0.0.2/32" : "10.0.0.1/32", &cfg.self_also[0], NULL) == 0);
	MUST(dp_make(&cfg, &p->dp[side], NULL) == 0 && dp_link_add(p->dp[side], &link, NULL) == 0);
}

void pipe_up(struct pipe_lab *p, unsigned frame_max)
{
	int one = 1, big = 4 << 20;

	memset(p, 0, sizeof(*p));
	p->frame_max = frame_max;
	p->suite = AEAD_AES_256_GCM;
	MUST(crypto_init(NULL) == 0);
	p->loop = loop_new_virtual(NS_PER_S, 1);
	p->middle = udp_socket(&p->middle_at);
	for (int i = 0; i < SIDES; i++) {
		int pair[2];

		p->addr[i][0] = 0xfd;
		p->addr[i][15] = (uint8_t)(i + 1);
		p->udp[i] = udp_socket(&p->at[i]);
		setsockopt(p->udp[i], IPPROTO_UDP, UDP_GRO, &one, sizeof(one));
		MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
		for (int k = 0; k < 2; k++)
			setsockopt(pair[k], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
		p->tun[i] = pair[0];
		p->app[i] = pair[1];
	}
	for (int i = 0; i < SIDES; i++)
		side_up(p, i);
}

void pipe_down(struct pipe_lab *p)
{
	for (int i = 0; i < SIDES; i++) {
		dp_free(p->dp[i]);
		close(p->udp[i]);
		close(p->tun[i]);
		close(p->app[i]);
	}
	close(p->middle);
	loop_free(p->loop);
}

uint32_t pipe_index(int receiver, uint32_t id)
{
	return (id + 1) << 16 | (uint32_t)(receiver + 1) << 8; /* worker 0 */
}

static void lane(struct dp_lane *l, int receiver, uint32_t id)
{
	l->index = pipe_index(receiver, id);
	memset(l->key, (int)(id * 2 + (uint32_t)receiver + 1), AEAD_KEY);
	memset(l->iv, (int)(id * 2 + (uint32_t)receiver + 9), AEAD_IV);
}

void pipe_session(struct pipe_lab *p, int side, uint32_t id)
{
	for (int i = 0; i < SIDES; i++) {
		struct dp_session s = { .id = id,
					.link = 1,
					.rx_suite = p->suite,
					.tx_suite = p->suite,
					.nrx = 1,
					.ntx = 1,
					.nprovides = i == SIDE_A ? 2 : 1 };

		if (side != SIDES && side != i)
			continue;
		memcpy(s.peer, p->addr[!i], 16);
		MUST(ip_prefix_parse(i ? "10.0.0.1/32" : "10.0.0.2/32", &s.provides[0], NULL) == 0);
		MUST(ip_prefix_parse("10.9.0.0/16", &s.provides[1], NULL) == 0);
		lane(&s.rx[0], i, id);
		lane(&s.tx[0], !i, id);
		MUST(dp_session_add(p->dp[i], &s, NULL) == 0 && dp_session_use(p->dp[i], id) == 0);
	}
}

void pipe_turn(struct pipe_lab *p, int side)
{
	while (worker_turn(&p->dp[side]->worker[0]))
		;
	loop_run_until(p->loop, loop_now(p->loop) + 1);
}

void pipe_write(struct pipe_lab *p, int side, const struct virtio_net_hdr *v, const void *pkt, size_t n)
{
	static uint8_t buf[VNET_LEN + 65536];

	memset(buf, 0, VNET_LEN);
	if (v)
		memcpy(buf, v, VNET_LEN);
	memcpy(buf + VNET_LEN, pkt, n);
	MUST(write(p->app[side], buf, VNET_LEN + n) == (ssize_t)(VNET_LEN + n));
}

ssize_t pipe_read(struct pipe_lab *p, int side, struct virtio_net_hdr *v, void *to, size_t cap)
{
	static uint8_t buf[VNET_LEN + 65536];
	ssize_t n = read(p->app[side], buf, sizeof(buf));

	if (n < VNET_LEN || (size_t)n - VNET_LEN > cap)
		return -1;
	if (v)
		memcpy(v, buf, VNET_LEN);
	memcpy(to, buf + VNET_LEN, (size_t)n - VNET_LEN);
	return n - VNET_LEN;
}

ssize_t pipe_catch(struct pipe_lab *p, void *to, size_t cap)
{
	return recv(p->middle, to, cap, 0);
}

void pipe_throw(struct pipe_lab *p, int side, const void *frame, size_t n)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(&p->at[side], AF_INET, &ss);

	MUST(sendto(p->middle, frame, n, 0, (struct sockaddr *)&ss, len) == (ssize_t)n);
}

unsigned pipe_forward(struct pipe_lab *p, int side)
{
	static uint8_t buf[65536];
	unsigned frames = 0;
	ssize_t n;

	while ((n = pipe_catch(p, buf, sizeof(buf))) >= 0) {
		pipe_throw(p, side, buf, (size_t)n);
		frames++;
	}
	return frames;
}

size_t pipe_frame(struct pipe_lab *p, int from, uint32_t id, uint64_t counter, const void *plain, size_t n,
		  uint8_t *to)
{
	struct sipkey key = { 5 + (uint64_t)!from, 6 };
	struct dp_lane l;
	struct aead a;

	lane(&l, !from, id);
	hop_put(to, FRAME_DATA, HOP_TTL, 1, 100 + (uint32_t)!from, get_u64(p->addr[!from] + 8),
		get_u64(p->addr[from] + 8));
	put_u32(to + HOP_LEN, l.index);
	put_u64(to + HOP_LEN + 4, counter);
	MUST(aead_init(&a, p->suite, l.key, l.iv, true, NULL) == 0);
	MUST(aead_seal(&a, counter, to + HOP_LEN, 12, NULL, 0, plain, n, to + DATA_HEAD) == 0);
	aead_fini(&a);
	hop_seal(&key, to, n + DATA_OVERHEAD);
	return n + DATA_OVERHEAD;
}

struct dp_counters pipe_counters(struct pipe_lab *p, int side)
{
	struct dp_counters c;

	dp_counters(p->dp[side], &c);
	return c;
}

size_t pkt_make(const struct pkt_spec *s, uint8_t *to)
{
	size_t ip = s->v6 ? 40 : 20, l4 = s->flags ? (s->mss ? 24 : 20) : 8, n = ip + l4 + s->payload;
	uint8_t proto = s->flags ? PROTO_TCP : PROTO_UDP;
	uint8_t *t = to + ip;

	memset(to, 0, ip + l4);
	if (s->v6) {
		to[0] = (uint8_t)(0x60 | s->tos >> 4);
		to[1] = (uint8_t)(s->tos << 4);
		put_u16(to + 4, (uint16_t)(n - 40));
		to[6] = proto;
		to[7] = 64;
		memcpy(to + 8, s->src, 16);
		memcpy(to + 24, s->dst, 16);
	} else {
		to[0] = 0x45;
		to[1] = s->tos;
		put_u16(to + 2, (uint16_t)n);
		put_u16(to + 4, 77);
		to[8] = 64;
		to[9] = proto;
		memcpy(to + 12, s->src + 12, 4);
		memcpy(to + 16, s->dst + 12, 4);
		inner_v4_csum(to);
	}
	put_u16(t, s->sport);
	put_u16(t + 2, s->dport);
	if (s->flags) {
		put_u32(t + 4, s->seq);
		put_u32(t + 8, 99);
		t[12] = (uint8_t)(l4 * 4);
		t[13] = s->flags;
		put_u16(t + 14, 500);
		if (s->mss)
			put_u32(t + 20, 2u << 24 | 4u << 16 | 1460);
	} else {
		put_u16(t + 4, (uint16_t)(8 + s->payload));
	}
	for (size_t i = 0; i < s->payload; i++)
		t[l4 + i] = (uint8_t)(i * 7 + i / 251 + s->seed);
	put_u16(t + (s->flags ? 16 : 6), inner_pseudo(to, s->v6, proto, n - ip));
	inner_csum_finish(to, n, ip, s->flags ? 16 : 6);
	return n;
}

void pkt_offload(uint8_t *p, size_t n, uint16_t gso_size, struct virtio_net_hdr *v)
{
	struct inner in;

	memset(v, 0, sizeof(*v));
	MUST(inner_parse(p, n, 0, &in) == 0 && in.head);
	inner_csum_partial(p, n, &in);
	v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	v->csum_start = in.l4;
	v->csum_offset = (uint16_t)(inner_csum_at(&in) - in.l4);
	v->gso_size = gso_size;
	v->hdr_len = in.head;
	if (gso_size)
		v->gso_type = in.proto == PROTO_UDP ? VIRTIO_NET_HDR_GSO_UDP_L4
			      : in.v6		    ? VIRTIO_NET_HDR_GSO_TCPV6
						    : VIRTIO_NET_HDR_GSO_TCPV4;
}
