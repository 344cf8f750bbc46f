/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: lab
 *
 * Hosts as network namespaces on this machine, each with a running x0: for the demo, for tests and for trying
 * things by hand. A namespace is called x0l-<host>, an underlay interface u-<peer>, everything else lives
 * below LAB_DIR, so that `lab_down()` finds what an earlier run left, even after a crash. It ends only
 * processes inside these namespaces.
 *
 * Links are veth pairs with addresses 10.77.<link>.1 and .2, or 2001:db8:77:<link>::1 and ::2. iproute2's
 * `ip` makes them; capture and injection are our own packet sockets. Loss, reordering and delay are a BPF
 * program of our own, since not every kernel has netem; it needs Linux 6.6.
 */
#ifndef X0_LAB_LAB_H
#define X0_LAB_LAB_H

#include <sys/types.h>

#include "base/base.h"

#define LAB_DIR	   "/run/x0-lab"
#define LAB_DOMAIN "lab.test"

enum { LAB_HOSTS = 16, LAB_LINKS = 64, LAB_NAME = 8, LAB_OUT = 65536 };

struct lab_impair {
	uint32_t loss_ppm, reorder_ppm; /* at most 1000000: share of the frames */
	uint64_t delay_ns, rate_bps;	/* 0: none; a delay of at most 10 s */
};

struct lab_link {
	unsigned a, b; /* hosts; two have at most one link */
	unsigned mtu;  /* of the veth, 0: 1500 */
	struct lab_impair bad;
};

struct lab {
	char x0[256]; /* path of the binary to run */
	bool ipv6;    /* of the underlay; else IPv4 */
	unsigned nhosts, nlinks;
	char host[LAB_HOSTS][LAB_NAME];
	struct lab_link link[LAB_LINKS];
};

/* Parses "a-b a-c b-c": hosts appear as they are named. */
int lab_parse(const char *links, struct lab *ret, struct err *e);
/* The YAML form, schema/lab.def. ERR_CONFIG with line and column of all that is wrong. */
int lab_read(const char *text, size_t n, const char *file, struct lab *ret, struct err *e);
/* Either: what has a '.' or '/' is a file's name. */
int lab_load(const char *arg, struct lab *ret, struct err *e);
/* n bytes at s: "a"; a known one is found, and "a-b". */
int lab_host_add(struct lab *lab, const char *s, size_t n, unsigned *ret, struct err *e);
int lab_link_add(struct lab *lab, const char *s, size_t n, struct err *e);
/* Namespaces and links only. */
int lab_make(const struct lab *lab, struct err *e);
/* The first host becomes the authority, the others join by token; all daemons are up and links as bad as they
 * are to be when this returns. */
int lab_start(const struct lab *lab, struct err *e);
/* Ends everything below LAB_DIR and all namespaces x0l-*; fine when there is nothing. */
int lab_down(const char *x0, struct err *e);
/* Hosts of the running lab, from LAB_DIR; the number, or an error. */
int lab_list(char (*ret)[LAB_NAME], unsigned cap, struct err *e);

void lab_ns(const char *host, char to[32]);	/* name of its namespace */
void lab_config(const char *host, char to[64]); /* path of its x0.yaml */
/* Underlay address of `of` on the link it shares with `from`; ERR_NOT_FOUND if they share none.
 */
int lab_underlay(const struct lab *lab, const char *from, const char *of, char to[24]);

/* ---- running things inside a host ---- */
/* Enters the host's network namespace: for a forked child only. */
int lab_enter(const char *host, struct err *e);
/* Runs argv (NULL-terminated) inside the host (NULL: here); stdout to out (NUL-terminated, cut at cap),
 * stderr to the error's sentence. ERR_TIMEOUT after timeout_ms; ERR_FAILED with what it said if its exit
 * status is not 0. */
int lab_run(const char *host, const char *const *argv, unsigned timeout_ms, char *out, size_t cap,
	    struct err *e);
/* The same for x0 with the host's config: lab_x0(lab, "a", out, cap, e, "peers", "--json", NULL). */
int lab_x0(const struct lab *lab, const char *host, char *out, size_t cap, struct err *e, ...)
	__attribute__((sentinel));
/* A socket that lives in the host's namespace, made without leaving a trace in the caller's; close-on-exec.
 */
int lab_socket(const char *host, int family, int type, struct err *e);
/* Enters the host's network namespace for a while: *home is for lab_leave(). */
int lab_visit(const char *host, int *home, struct err *e);
int lab_leave(int home, struct err *e);
/* Process ID of the host's daemon; 0 if it does not run. */
pid_t lab_daemon_pid(const char *host);

/* ---- bad links ---- */
struct lab_impaired {
	unsigned mtu;
	struct lab_impair is;
	uint64_t seen, lost; /* frames; 0 for a link that never was impaired */
	uint64_t held;	     /* of the rest, those that waited: all with a delay, else the reordered ones */
	uint64_t overtook;   /* those that did not, where there is a delay: the reordered ones */
	uint64_t merged; /* of those seen, what was several frames at once: 0, or shares are not per frame */
};
/* How long a frame waits that is to be out of order, where the link has no delay of its own. */
#define LAB_REORDER_NS (1 * NS_PER_MS)

/* The running lab's link between two hosts gets these values, in both directions and without losing a frame
 * more than they say. ERR_NOT_FOUND: no such link. */
int lab_impair_set(const char *a, const char *b, const struct lab_impair *to, struct err *e);
/* Frames on their way from `from` to `at`. */
int lab_impair_get(const char *from, const char *at, struct lab_impaired *ret, struct err *e);
/* "0.5%", "200ppm", "0"; and "10mbit", "1.5gbit", "0" in bits a second. ERR_USAGE. */
int lab_ppm_parse(const char *s, uint32_t *ret, struct err *e);
int lab_rate_parse(const char *s, uint64_t *ret, struct err *e);

/* ---- capture and injection: packet sockets inside a host ---- */
struct cap_frame {
	uint16_t n;
	uint8_t p[2048]; /* from the Ethernet header (underlay) or the IP header (TUN); longer frames are cut
			  */
};
struct cap {
	int fd;
	unsigned frames;    /* seen so far */
	unsigned hits;	    /* of these, frames that contain the needle */
	const void *needle; /* NULL: none */
	size_t needle_n;
	struct cap_frame *keep; /* first `room` frames that keep_if() wants */
	unsigned room, kept;
	bool (*keep_if)(const struct cap_frame *f);
};
int cap_open(struct cap *c, const char *host, const char *ifname, struct err *e);
void cap_drain(struct cap *c); /* takes what is there */
void cap_close(struct cap *c);
/* Sends whole Ethernet frames out of the interface; the number sent. */
int cap_inject(const char *host, const char *ifname, const struct cap_frame *f, unsigned n, struct err *e);

/* ---- demo ---- */
struct demo_opts {
	bool once; /* take the lab down at the end */
	bool json, colour;
	const char *scene; /* NULL: all */
};
/* Runs it in a child, so that a crash still cleans up. 0, ERR_CHECK if a scene failed, or why it could not
 * run. */
int demo_run(const char *x0, const struct demo_opts *o, struct err *e);

#endif
