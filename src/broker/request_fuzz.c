/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a request: what passes must obey the rules, restated here independently of the parser. */
#include "broker/broker_proto.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void must_prefix(const struct broker_req_prefix *r)
{
	bool v6 = r->addr[0] == 0xfd;

	must(r->len <= 128);
	must(v6 || (r->addr[0] == 0 && r->addr[10] == 0xff && r->addr[11] == 0xff && r->addr[12] < 224));
	must(r->len >= (r->head.op == BROKER_OP_ADDR ? 128 : v6 ? 40 : 112));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	union broker_req r;
	struct err e = { 0 };
	int rc;

	memset(&r, 0x5a, sizeof(r));
	rc = broker_parse(p, n, "x0", &r, &e);
	if (rc) {
		must(rc == e.code && e.what[0]);
		for (size_t i = 0; i < sizeof(r); i++)
			must(((uint8_t *)&r)[i] == 0x5a);
		return 0;
	}
	must(n == broker_req_len(r.head.op) && r.head.proto == BROKER_PROTO && r.head.seq);
	if (r.head.op == BROKER_OP_TUN) {
		must(!strncmp(r.tun.name, "x0", 2) && memchr(r.tun.name, 0, sizeof(r.tun.name)));
		must(!strpbrk(r.tun.name, "%/.: "));
		must(r.tun.queues >= 1 && r.tun.queues <= BROKER_QUEUES && r.tun.mtu >= 1280 &&
		     r.tun.mtu <= 65535);
	} else if (r.head.op == BROKER_OP_UDP) {
		must(r.udp.port >= 1024 && r.udp.nworkers >= 1 && r.udp.nworkers <= BROKER_QUEUES);
	} else if (r.head.op == BROKER_OP_ADDR || r.head.op == BROKER_OP_ROUTE) {
		must_prefix(&r.prefix);
	}
	return 0;
}
