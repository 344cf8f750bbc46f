/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receive path on hostile bytes, in three depths: raw datagrams, frames with a valid hop tag, and sealed
 * inner packets from a peer that is authentic and hostile. The first byte chooses; the rest are
 * length-prefixed pieces.
 */
#include <stdlib.h>

#include "tunnel/pipe_lab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pipe_lab lab;

static void one(uint8_t kind, const uint8_t *p, size_t n, uint64_t counter)
{
	static uint8_t buf[70000];
	struct worker *w = &lab.dp[SIDE_B]->worker[0];
	const struct sipkey key = { 5 + SIDE_B, 6 };
	struct sockaddr_storage from = { .ss_family = AF_INET };

	memcpy(buf, p, n);
	if (kind % 3 == 1 && n >= DATA_OVERHEAD) {
		hop_put(buf, FRAME_DATA, buf[1], 1, 100 + SIDE_B, get_u64(lab.addr[SIDE_B] + 8), 0);
		if (buf[2] & 1)
			put_u32(buf + HOP_LEN, pipe_index(SIDE_B, 1));
		hop_seal(&key, buf, n);
	} else if (kind % 3 == 2) {
		n = pipe_frame(&lab, SIDE_A, 1, counter, p, n, buf);
	}
	rx_datagram(w, buf, n, kind & 0x80 ? 100 : n ? n : 1, kind >> 2, &from);
	co_flush(&w->co);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rd r = rd_init(data, size);
	uint8_t kind = rd_u8(&r), sink[70000];
	struct worker *w;
	uint64_t counter = rd_u8(&r);

	if (!lab.loop) {
		pipe_up(&lab, 1452);
		pipe_session(&lab, SIDES, 1);
	}
	w = &lab.dp[SIDE_B]->worker[0];
	w->table = atomic_load(&lab.dp[SIDE_B]->table);
	w->now += NS_PER_MS;
	replay_init(&lab.dp[SIDE_B]->sessions->rx[0].replay, REPLAY_WINDOW_MAX);
	while (rd_ok(&r) && rd_left(&r) > 2) {
		size_t n = rd_u16(&r) % 2000;
		const uint8_t *p = rd_bytes(&r, n < rd_left(&r) ? n : rd_left(&r));

		if (p)
			one(kind, p, (size_t)(r.p - p), counter++);
	}
	while (pipe_read(&lab, SIDE_B, NULL, sink, sizeof(sink)) >= 0)
		;
	loop_run_until(lab.loop, loop_now(lab.loop) + 1);
	return 0;
}
