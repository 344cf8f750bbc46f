/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that only the running daemon can make. */
#include <stdlib.h>
#include <unistd.h>

#include "daemon/control.h"

#define CLOCK_FINE_S 300.0

/* The unreachable route of last resort, as `ip -6 route` would show it; the file has one line a route. */
static int unreachable_route(const uint8_t prefix[16])
{
	char want[33], line[256], dst[33], dev[32];
	unsigned len, flags;
	FILE *f = fopen("/proc/self/net/ipv6_route", "re");
	int found = 0;

	if (!f)
		return -1;
	hex_encode(want, prefix, 16);
	/* dst, its length, src, its length, gateway, metric, reference count, use, flags, device */
	while (!found && fgets(line, sizeof(line), f))
		if (sscanf(line, "%32s %x %*s %*s %*s %*s %*s %*s %x %31s", dst, &len, &flags, dev) == 4 &&
		    len == 48 && !strcmp(dst, want) && (flags & 0x0200)) /* RTF_REJECT */
			found = 1;
	fclose(f);
	return found;
}

static void check_svid(struct doctor *d, struct control *c)
{
	int64_t left = c->self->not_after - control_wall(c),
		due = node_identity_renew_at(c->self) - control_wall(c);

	if (left <= 0)
		doctor_add(d, "svid", DOCTOR_FAIL, "x0 identity renew; if that fails: x0 join TOKEN again",
			   "expired %lld s ago", (long long)-left);
	else
		doctor_add(d, "svid", due < -60 ? DOCTOR_WARN : DOCTOR_OK,
			   "no issuer renewed it: x0 peers, x0 identity renew",
			   "expires in %lld s, renewal %s %lld s", (long long)left,
			   due < 0 ? "overdue by" : "in", (long long)llabs(due));
}

static void check_clock(struct doctor *d, struct control *c)
{
	double off = (double)c->clock_off_ns / 1e9;

	if (!c->clock_known)
		doctor_add(d, "clock", DOCTOR_OK, "", "no peer to compare with yet");
	else
		doctor_add(d, "clock", off > CLOCK_FINE_S || off < -CLOCK_FINE_S ? DOCTOR_FAIL : DOCTOR_OK,
			   "set the clock (chrony, systemd-timesyncd) on the host that is wrong",
			   "%.40s is %.3f s %s", c->clock_peer, off < 0 ? -off : off,
			   off < 0 ? "behind" : "ahead");
}

static void check_peers(struct doctor *d, const struct sess_peer_info *p)
{
	const char *name = spiffe_id_node_name(&p->id);

	if (p->state == SESS_FAILED && p->last_error[0])
		doctor_add(d, "peer", DOCTOR_WARN, "check its address, its firewall (UDP) and its daemon",
			   "%.60s: %.130s", name ? name : p->id.uri, p->last_error);
}

static void each_peer(void *arg, const struct sess_peer_info *p)
{
	check_peers(arg, p);
}

void doctor_daemon(struct doctor *d, struct control *c)
{
	uint8_t prefix[16];
	char text[ENDPOINT_TEXT];
	int route;

	overlay_prefix(c->self->bundle->trust_domain, prefix);
	doctor_add(d, "daemon", DOCTOR_OK, "", "up for %.0f s, %s",
		   (double)(loop_now(c->loop) - c->started) / 1e9,
		   c->sandboxed ? "system calls filtered" : "system calls not filtered");
	doctor_add(d, "files", c->landlock_abi ? DOCTOR_OK : DOCTOR_WARN, "use a kernel with Landlock",
		   c->landlock_abi ? "restricted by Landlock" : "restricted by the user only");
	doctor_add(d, "broker", c->broker ? DOCTOR_OK : DOCTOR_FAIL, "x0 up", "device %s, %u queues%s",
		   c->tun.name, c->tun.nfds, c->tun.uso ? ", USO" : "");
	doctor_add(d, "port", DOCTOR_OK, "", "%s, %u sockets", endpoint_text(&c->cfg->listen, text),
		   c->udp.nfds);
	doctor_add(d, "mtu", c->cfg->tun_mtu >= 1280 ? DOCTOR_OK : DOCTOR_FAIL, "set tun.mtu to 1280 or more",
		   "device %u, largest frame %u", c->cfg->tun_mtu, c->cfg->udp_payload);
	route = unreachable_route(prefix);
	if (route >= 0)
		doctor_add(d, "leak-guard", route ? DOCTOR_OK : DOCTOR_FAIL,
			   "x0 down, then x0 up: it is made with the device",
			   route ? "unreachable route for the overlay is there"
				 : "no unreachable route for the overlay");
	check_svid(d, c);
	check_clock(d, c);
	if (c->issuer)
		doctor_add(d, "issuer", issuer_client_up(c->issuer) ? DOCTOR_OK : DOCTOR_FAIL,
			   "x0 up starts it; its log says why it ended", "%s",
			   issuer_client_up(c->issuer) ? "answers" : "does not answer");
	if (c->before)
		doctor_add(d, "config", DOCTOR_WARN, "x0 config confirm",
			   "a configuration waits for confirmation");
	sess_peers(c->sess, each_peer, d);
}
