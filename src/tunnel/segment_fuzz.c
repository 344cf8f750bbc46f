/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a read of the TUN device: cut, merged, cut again. Every piece is inside the packet and parses.
 */
#include <stdlib.h>

#include "tunnel/coalesce.h"
#include "tunnel/pipe_lab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_out(void *arg, const struct iovec *iov, unsigned niov, unsigned packets)
{
	size_t *total = arg, n = 0;

	for (unsigned i = 0; i < niov; i++) {
		const uint8_t *p = iov[i].iov_base;

		for (size_t k = 0; k < iov[i].iov_len; k += 64)
			(void)*(const volatile uint8_t *)(p + k); /* the sanitizer looks */
		n += iov[i].iov_len;
	}
	if (n > VNET_LEN + UINT16_MAX || packets == 0)
		abort();
	*total += packets;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t pkt[70000], room[400000];
	static struct coalesce co;
	struct virtio_net_hdr v;
	struct inner in, one;
	size_t n, max, at = 0, written = 0, pieces = 0;
	uint8_t *p;
	struct cut c;

	if (size < VNET_LEN + 2 || size > 60000)
		return 0;
	memcpy(&v, data, VNET_LEN);
	max = 1160 + get_u16(data + VNET_LEN) % 8000u;
	n = size - VNET_LEN - 2;
	memcpy(pkt, data + VNET_LEN + 2, n);
	if (inner_parse(pkt, n, 1, &in) != 0)
		return 0;
	inner_mss_clamp(pkt, n, &in, v.flags & 1, 1000);
	if (cut_init(&c, &v, pkt, n, &in, max) != 0)
		return 0;
	co_init(&co, true, write_out, &written);
	while ((p = cut_next(&c, &n))) {
		if (p < pkt || p + n > pkt + size || inner_parse(p, n, 1, &one) != 0)
			abort();
		if (at + n + 64 > sizeof(room)) {
			co_flush(&co);
			at = 0;
		}
		memcpy(room + at + 16, p, n);
		co_add(&co, room + at + 16, n, &one, c.partial && one.head);
		at += n + 64;
		pieces++;
	}
	co_flush(&co);
	if (written != pieces)
		abort();
	return 0;
}
