/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: load generator for small packets
 *
 * What `make bench` measures packet rates with, the same for the bare link, x0 and peers. iperf3 makes a
 *system call and a select() for each packet, so that on few cores it is the generator that ends first; this
 *one sends and receives in batches (sendmmsg, recvmmsg). No segmentation offload: each packet enters the
 *device under test by itself.
 *
 *	udpload recv ADDRESS SECONDS             counts until SECONDS after the first packet; prints JSON
 *	udpload send ADDRESS BYTES RATE SECONDS  RATE packets/s in bursts every 100 us, or as fast as it goes
 *if RATE is 0
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SIZE_MAX_ = 1500, BURST_NS = 100000 };
#define PORT "7998"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A socket bound (`listen`) or connected to the address, with 4 MB of buffer. */
static int udp_socket(const char *addr, int listen)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_DGRAM }, *ai;
	int fd, size = 4 << 20;

	if (getaddrinfo(addr, PORT, &hints, &ai) != 0) {
		fprintf(stderr, "udpload: %s is no address\n", addr);
		exit(2);
	}
	fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || (listen ? bind : connect)(fd, ai->ai_addr, ai->ai_addrlen) != 0) {
		perror("udpload");
		exit(1);
	}
	freeaddrinfo(ai);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return fd;
}

static int do_recv(const char *addr, double seconds)
{
	static uint8_t buf[BATCH][64];
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec iov[BATCH];
	int fd = udp_socket(addr, 1);
	uint64_t first = 0, last = 0, end = 0, count = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ .iov_base = buf[i], .iov_len = sizeof(buf[i]) };
		m[i].msg_hdr.msg_iov = &iov[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t t = now_ns();
		int wait = !first ? 10000 : t < end ? (int)((end - t) / 1000000 + 1) : 0, n;

		if (poll(&p, 1, wait) <= 0)
			break;
		n = recvmmsg(fd, m, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
		if (n <= 0)
			continue;
		t = now_ns();
		if (!first) {
			first = t;
			end = t + (uint64_t)(seconds * 1e9);
		}
		last = t;
		count += (uint64_t)n;
		if (t >= end)
			break;
	}
	printf("{\"packets\":%llu,\"seconds\":%.6f}\n", (unsigned long long)count,
	       (double)(last - first) / 1e9);
	return count ? 0 : 1;
}

static int do_send(const char *addr, unsigned bytes, double rate, double seconds)
{
	static uint8_t buf[SIZE_MAX_];
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec iov = { .iov_base = buf, .iov_len = bytes };
	int fd = udp_socket(addr, 0);
	uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), t = start, sent = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		m[i].msg_hdr.msg_iov = &iov;
		m[i].msg_hdr.msg_iovlen = 1;
	}
	while ((t = now_ns()) < end) {
		uint64_t due = rate > 0 ? (uint64_t)((double)(t - start) / 1e9 * rate) + 1 - sent : BATCH;

		if (due == 0 || (rate > 0 && due > UINT64_MAX / 2)) {
			struct timespec nap = { .tv_nsec = BURST_NS };

			nanosleep(&nap, NULL);
			continue;
		}
		for (unsigned n; due > 0; due -= n) {
			int k = sendmmsg(fd, m, due < BATCH ? (unsigned)due : BATCH, 0);

			if (k < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR &&
			    errno != ECONNREFUSED) {
				perror("udpload: sendmmsg");
				return 1;
			}
			n = k > 0 ? (unsigned)k : 1;
			sent += k > 0 ? (unsigned)k : 0;
		}
	}
	printf("{\"packets\":%llu,\"seconds\":%.6f}\n", (unsigned long long)sent, (double)(t - start) / 1e9);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "recv") == 0)
		return do_recv(argv[2], atof(argv[3]));
	if (argc == 6 && strcmp(argv[1], "send") == 0 && atoi(argv[3]) > 0 && atoi(argv[3]) <= SIZE_MAX_)
		return do_send(argv[2], (unsigned)atoi(argv[3]), atof(argv[4]), atof(argv[5]));
	fprintf(stderr, "usage: udpload recv ADDRESS SECONDS | send ADDRESS BYTES RATE SECONDS\n");
	return 2;
}
