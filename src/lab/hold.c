/* SPDX-License-Identifier: Apache-2.0 */
/* The process that holds frames of an impaired link: a queue between reading a TAP device and writing it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab/bpf.h"
#include "lab/hold.h"
#include "lab/impair_map.h"

enum { HOLD_FRAMES = 65536, HOLD_FRAME = 65536 + 18 };

struct held {
	STAILQ_ENTRY(held) link;
	uint64_t due; /* CLOCK_MONOTONIC, ns */
	size_t n;
	uint8_t p[];
};
STAILQ_HEAD(held_queue, held);

/* Reads what is there. A frame that finds the queue full is lost, as at any full queue. */
static void hold_read(int fd, struct held_queue *q, unsigned *n, uint64_t delay)
{
	static uint8_t frame[HOLD_FRAME];
	ssize_t got;

	while ((got = read(fd, frame, sizeof(frame))) > 0) {
		struct held *h = *n < HOLD_FRAMES ? malloc(sizeof(*h) + (size_t)got) : NULL;

		if (!h)
			continue;
		h->due = clock_mono_ns() + delay;
		h->n = (size_t)got;
		memcpy(h->p, frame, h->n);
		STAILQ_INSERT_TAIL(q, h, link);
		++*n;
	}
}

/* Writes what is due; nanoseconds until the next, -1 if nothing waits. A delay that became shorter does not
 * overtake: the queue stays in order. */
static int64_t hold_write(int fd, struct held_queue *q, unsigned *n)
{
	struct held *h;

	while ((h = STAILQ_FIRST(q)) != NULL) {
		uint64_t now = clock_mono_ns();

		if (h->due > now)
			return (int64_t)(h->due - now);
		while (write(fd, h->p, h->n) < 0 && errno == EINTR)
			;
		STAILQ_REMOVE_HEAD(q, link);
		--*n;
		free(h);
	}
	return -1;
}

static void hold_loop(int fd, int config_fd)
{
	struct held_queue q = STAILQ_HEAD_INITIALIZER(q);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	unsigned n = 0;

	while (!(p.revents & (POLLERR | POLLNVAL))) {
		struct impair_config c = { 0 };
		int64_t left = hold_write(fd, &q, &n);
		struct timespec t = { .tv_sec = left / (int64_t)NS_PER_S,
				      .tv_nsec = left % (int64_t)NS_PER_S };

		if (ppoll(&p, 1, left >= 0 ? &t : NULL, NULL) < 0 && errno != EINTR)
			return;
		bpf_map_get(config_fd, &c);
		hold_read(fd, &q, &n, c.delay_ns ? c.delay_ns : LAB_REORDER_NS);
	}
}

/* Nothing but held frames may come out of the device: the host itself must not speak on it. */
static int silence(const char *name, struct err *e)
{
	char path[96];
	int fd, rc;

	str_fmt(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "open %s", path); /* no IPv6 at all */
	rc = write(fd, "1", 1) == 1 ? 0 : err_sys(e, "write %s", path);
	close(fd);
	return rc;
}

static int tap_up(int s, const char *name, unsigned mtu, struct err *e)
{
	struct ifreq r = { .ifr_mtu = (int)mtu };

	str_fmt(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(s, SIOCSIFMTU, &r) != 0)
		return err_sys(e, "set the MTU of %s", name);
	r.ifr_qlen = HOLD_FRAMES;
	if (ioctl(s, SIOCSIFTXQLEN, &r) != 0)
		return err_sys(e, "set the queue of %s", name);
	r.ifr_flags = IFF_UP | IFF_NOARP;
	return ioctl(s, SIOCSIFFLAGS, &r) == 0 ? 0 : err_sys(e, "bring %s up", name);
}

static int tap_open(const char *name, unsigned mtu, struct err *e)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC),
	    s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	str_fmt(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (fd < 0 || s < 0 || ioctl(fd, TUNSETIFF, &r) != 0)
		rc = err_sys(e, "make TAP device %s", name);
	if (rc == 0)
		rc = silence(name, e);
	if (rc == 0)
		rc = tap_up(s, name, mtu, e);
	if (s >= 0)
		close(s);
	if (rc != 0 && fd >= 0)
		close(fd);
	return rc != 0 ? rc : fd;
}

/* Closes all descriptors from 3 on but these two. */
static void keep_only(int a, int b)
{
	unsigned lo = (unsigned)(a < b ? a : b), hi = (unsigned)(a < b ? b : a);

	if (lo > 3)
		close_range(3, lo - 1, 0);
	if (hi > lo + 1)
		close_range(lo + 1, hi - 1, 0);
	close_range(hi + 1, ~0U, 0);
}

int hold_start(const char *name, unsigned mtu, int config_fd, struct err *e)
{
	int fd = tap_open(name, mtu, e), null;
	pid_t pid;

	if (fd < 0)
		return fd;
	pid = fork();
	if (pid == 0) {
		/* Whoever waits for the lab's output must not wait for this process. */
		setsid();
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		for (int i = 0; null >= 0 && i < 3; i++)
			dup2(null, i);
		keep_only(fd, config_fd);
		prctl(PR_SET_NAME, "x0-lab-hold");
		hold_loop(fd, config_fd);
		_exit(1);
	}
	close(fd);
	return pid > 0 ? 0 : err_sys(e, "fork");
}
