/* SPDX-License-Identifier: Apache-2.0 */
/* Every decoder of the wire on any bytes; what a decoder accepts must encode to the same bytes. */
#include <stdlib.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static int on_message(void *arg, uint16_t type, const uint8_t *value, size_t len)
{
	struct ctl_hello h;

	(void)arg;
	if (type == CTL_HELLO)
		ctl_hello_decode(value, len, &h);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const struct sipkey key = { 1, 2 };
	struct knock k;
	struct cookie c;
	struct hello h;
	struct hop hop;
	struct probe probe;
	uint8_t again[COOKIE_LEN];
	struct ctl_reader r = { .max = 4096 };

	knock_decode(p, n, &k);
	if (cookie_decode(p, n, &c) == 0) {
		cookie_encode(&c, again);
		if (memcmp(again, p, COOKIE_LEN) != 0)
			abort();
	}
	hello_decode(p, n, &h);
	if (hop_decode(p, n, &hop) == 0) {
		hop_check(&key, p, n);
		if (hop.type == FRAME_PROBE)
			probe_decode(p, n, &probe);
	}
	ctl_feed(&r, p, n / 2, on_message, NULL);
	ctl_feed(&r, p + n / 2, n - n / 2, on_message, NULL);
	ctl_reader_fini(&r);
	return 0;
}
