/* SPDX-License-Identifier: Apache-2.0 */
/* Links that lose, reorder and delay frames: impair.bpf.c at each end, tbf for the rate. */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lab/bpf.h"
#include "lab/hold.h"
#include "lab/impair_map.h"
#include "lab/lab.h"

#include "impair.skel.h"

enum { IMPAIR_DELAY_S = 10 };

int lab_ppm_parse(const char *s, uint32_t *ret, struct err *e)
{
	char *end;
	double v = strtod(s, &end);

	if (end != s && strcmp(end, "%") == 0)
		v *= 1e4;
	else if (end == s || (strcmp(end, "ppm") != 0 && !(v == 0 && *end == 0)))
		v = -1;
	if (!(v >= 0 && v <= 1e6))
		return err_set(e, ERR_USAGE, "'%.40s' is no share; write for example 0.5%% or 200ppm", s);
	*ret = (uint32_t)(v + 0.5);
	return 0;
}

int lab_rate_parse(const char *s, uint64_t *ret, struct err *e)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s)
		v = -1;
	else if (strcasecmp(end, "kbit") == 0)
		v *= 1e3;
	else if (strcasecmp(end, "mbit") == 0)
		v *= 1e6;
	else if (strcasecmp(end, "gbit") == 0)
		v *= 1e9;
	else if (!(v == 0 && *end == 0))
		v = -1;
	if (!(v == 0 || (v >= 1e5 && v <= 1e11)))
		return err_set(e, ERR_USAGE, "'%.40s' is no rate; write 100kbit to 100gbit, or 0 for none",
			       s);
	*ret = (uint64_t)v;
	return 0;
}

/* One direction of a link, at the host where its frames arrive. All but the names: in that host's namespace.
 */
struct end {
	const char *from, *at;
	char ifname[16], hold[16];
	unsigned ifindex, mtu;
	int config, counters; /* maps, -1: the link was never impaired */
};

static int end_names(struct end *d, const char *from, const char *at, struct err *e)
{
	*d = (struct end){ .from = from, .at = at, .config = -1, .counters = -1 };
	if (str_fmt(d->ifname, sizeof(d->ifname), "u-%s", from) < 0 ||
	    str_fmt(d->hold, sizeof(d->hold), "h-%s", from) < 0)
		return err_set(e, ERR_NOT_FOUND, "no host %.40s in the lab", from);
	return 0;
}

static int end_open(struct end *d, struct err *e)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), prog, rc;
	struct ifreq r = { 0 };

	if (s < 0)
		return err_sys(e, "socket");
	memcpy(r.ifr_name, d->ifname, sizeof(r.ifr_name));
	d->ifindex = if_nametoindex(d->ifname);
	rc = d->ifindex && ioctl(s, SIOCGIFMTU, &r) == 0
		     ? 0
		     : err_set(e, ERR_NOT_FOUND, "%s and %s have no link", d->from, d->at);
	close(s);
	if (rc != 0)
		return rc;
	d->mtu = (unsigned)r.ifr_mtu;
	prog = bpf_ingress_prog(d->ifindex);
	if (prog < 0)
		return errno == ENOENT || errno == EINVAL
			       ? 0
			       : err_sys(e, "read the BPF program of %s", d->ifname);
	d->config = bpf_prog_map(prog, "config");
	d->counters = bpf_prog_map(prog, "counters");
	close(prog);
	if (d->config < 0 || d->counters < 0)
		return err_set(e, ERR_CONFLICT, "%s of %s has a BPF program that is not the lab's", d->ifname,
			       d->at);
	return 0;
}

static void end_close(struct end *d)
{
	if (d->config >= 0)
		close(d->config);
	if (d->counters >= 0)
		close(d->counters);
}

/* The TAP device first: a program may only send to a device that is there. */
static int attach(struct end *d, const struct lab_impair *to, const struct impair_bpf *b, struct err *e)
{
	struct impair_config c = { .delay_ns = to->delay_ns,
				   .rate_bps = to->rate_bps,
				   .loss_ppm = to->loss_ppm,
				   .reorder_ppm = to->reorder_ppm,
				   .ifindex = d->ifindex };
	int rc = hold_start(d->hold, d->mtu, b->maps.config.map_fd, e);

	if (rc != 0)
		return rc;
	c.hold = if_nametoindex(d->hold);
	if (c.hold == 0 || bpf_map_put(b->maps.config.map_fd, &c) != 0)
		return err_sys(e, "configure the BPF program of %s", d->ifname);
	if (bpf_attach_ingress(b->progs.release.prog_fd, c.hold) != 0 ||
	    bpf_attach_ingress(b->progs.impair.prog_fd, d->ifindex) != 0) {
		err_sys(e, "attach a BPF program to %s of %s", d->ifname, d->at);
		err_todo(e, "impaired links need Linux 6.6 or later");
		return ERR_SYS;
	}
	return 0;
}

static int end_set(struct end *d, const struct lab_impair *to, struct err *e)
{
	struct impair_config c;
	struct impair_bpf *b;
	int rc;

	if (d->config >= 0) {
		if (bpf_map_get(d->config, &c) != 0)
			return err_sys(e, "read the BPF map of %s", d->ifname);
		c.loss_ppm = to->loss_ppm;
		c.reorder_ppm = to->reorder_ppm;
		c.delay_ns = to->delay_ns;
		c.rate_bps = to->rate_bps;
		return bpf_map_put(d->config, &c) == 0 ? 0 : err_sys(e, "write the BPF map of %s", d->ifname);
	}
	b = impair_bpf__open_and_load();
	if (!b)
		return err_sys(e, "load the BPF program of the lab");
	rc = attach(d, to, b, e);
	impair_bpf__destroy(b);
	return rc;
}

/* The sender must hand over single frames, and keeps to the rate. */
static int sender_set(const struct end *d, uint64_t rate_bps, uint64_t rate_before, struct err *e)
{
	char dev[16], rate[32], burst[32];
	uint64_t bytes = rate_bps / 8 / 250; /* what a timer's tick of 4 ms lets through */
	int rc;

	str_fmt(dev, sizeof(dev), "u-%s", d->at);
	rc = lab_run(d->from,
		     (const char *const[]){ "ethtool", "-K", dev, "tx-udp-segmentation", "off", "tso", "off",
					    NULL },
		     5000, NULL, 0, e);
	if (rc != 0 || rate_bps == rate_before)
		return rc;
	if (rate_bps == 0)
		return lab_run(d->from,
			       (const char *const[]){ "tc", "qdisc", "del", "dev", dev, "root", NULL }, 5000,
			       NULL, 0, e);
	str_fmt(rate, sizeof(rate), "%llubit", (unsigned long long)rate_bps);
	str_fmt(burst, sizeof(burst), "%llu",
		(unsigned long long)(bytes > 2ULL * d->mtu + 100 ? bytes : 2ULL * d->mtu + 100));
	return lab_run(d->from,
		       (const char *const[]){ "tc", "qdisc", "replace", "dev", dev, "root", "tbf", "rate",
					      rate, "burst", burst, "latency", "20ms", NULL },
		       5000, NULL, 0, e);
}

static int direction_get(struct end *d, struct lab_impaired *ret, struct err *e)
{
	struct impair_config c = { 0 };
	struct impair_counters n = { 0 };
	int home, rc = lab_visit(d->at, &home, e);

	if (rc != 0)
		return rc;
	rc = end_open(d, e);
	if (rc == 0 && d->config >= 0 &&
	    (bpf_map_get(d->config, &c) != 0 || bpf_map_get(d->counters, &n) != 0))
		rc = err_sys(e, "read the BPF maps of %s", d->ifname);
	end_close(d);
	if (lab_leave(home, rc == 0 ? e : NULL) != 0 && rc == 0)
		rc = ERR_SYS;
	if (rc == 0)
		*ret = (struct lab_impaired){
			.mtu = d->mtu,
			.is = { c.loss_ppm, c.reorder_ppm, c.delay_ns, c.rate_bps },
			.seen = n.seen,
			.lost = n.lost,
			.held = n.held,
			.overtook = n.overtook,
			.merged = n.merged,
		};
	return rc;
}

int lab_impair_get(const char *from, const char *at, struct lab_impaired *ret, struct err *e)
{
	struct end d;
	int rc = end_names(&d, from, at, e);

	return rc != 0 ? rc : direction_get(&d, ret, e);
}

static int direction_set(const char *from, const char *at, const struct lab_impair *to, struct err *e)
{
	struct lab_impaired was;
	struct end d;
	int home, rc = end_names(&d, from, at, e);

	if (rc == 0)
		rc = direction_get(&d, &was, e);
	if (rc == 0)
		rc = sender_set(&d, to->rate_bps, was.is.rate_bps, e);
	if (rc == 0)
		rc = lab_visit(at, &home, e);
	if (rc != 0)
		return rc;
	rc = end_names(&d, from, at, e);
	if (rc == 0)
		rc = end_open(&d, e);
	if (rc == 0)
		rc = end_set(&d, to, e);
	end_close(&d);
	if (lab_leave(home, rc == 0 ? e : NULL) != 0 && rc == 0)
		rc = ERR_SYS;
	return rc;
}

int lab_impair_set(const char *a, const char *b, const struct lab_impair *to, struct err *e)
{
	int rc;

	if (geteuid() != 0) {
		err_set(e, ERR_DENIED, "changing a link needs root");
		err_todo(e, "run it as root, for example with sudo");
		return ERR_DENIED;
	}
	if (to->loss_ppm > 1000000 || to->reorder_ppm > 1000000 || to->delay_ns > IMPAIR_DELAY_S * NS_PER_S)
		return err_set(e, ERR_USAGE, "a share is at most 100%%, a delay %d s", IMPAIR_DELAY_S);
	rc = direction_set(a, b, to, e);
	return rc != 0 ? rc : direction_set(b, a, to, e);
}
