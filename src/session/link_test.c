/* SPDX-License-Identifier: Apache-2.0 */
#include "session/testlib.h"

#include "session/link.h"

static const struct link_params params = { .keepalive = 25 * NS_PER_S,
					   .dead_after = 15 * NS_PER_S,
					   .mtu = 1472 };
static struct rng rng;

static struct link fresh(uint64_t now, struct link_result *r)
{
	struct endpoint at = ep_at(1, 7430);
	struct link l;

	rng_init_seeded(&rng, 1);
	link_init(&l, &params);
	assert_int_equal(link_next(&l, now), NS_NEVER);
	link_keys(&l, &at, 1472, now, r);
	return l;
}

/* Ticks the link through `ns`; probes up to `works` bytes are answered after `rtt`, at once in the link's
 * eyes. */
static unsigned drive(struct link *l, uint64_t *now, uint64_t ns, unsigned works, uint64_t rtt,
		      unsigned *ret_pings)
{
	const uint64_t end = *now + ns;
	unsigned sent = 0;

	while (*now < end) {
		struct link_result r = { 0 };
		uint64_t next = link_next(l, *now);

		*now = next < end ? next : end;
		link_tick(l, &rng, *now, &r);
		if (r.dead)
			break;
		for (unsigned i = 0; i < r.n; i++) {
			const struct link_out o = r.out[i];
			struct link_result a = { 0 };
			struct probe p = o.probe;

			sent++;
			if (p.kind == PROBE_PING && ret_pings)
				(*ret_pings)++;
			if (o.size > works || o.to.addr[15] != 1)
				continue;
			if (p.kind == PROBE_PING)
				p.kind = PROBE_PONG;
			else if (p.kind == PROBE_MTU)
				p.kind = PROBE_MTU_ACK;
			link_seen(l, &o.to, &rng, *now + rtt, &a);
			assert_true(link_probe(l, &o.to, &p, *now + rtt, &a));
		}
	}
	return sent;
}

static void mtu_search(void **state)
{
	(void)state;
	for (unsigned works = LINK_MTU_BASE; works <= 1480; works++) {
		struct link_result r = { 0 };
		struct link l = fresh(NS_PER_S, &r);
		uint64_t now = NS_PER_S;
		unsigned most = works < 1472 ? works : 1472;

		drive(&l, &now, 20 * NS_PER_S, works, 10 * NS_PER_MS, NULL);
		assert_true(l.frame_max <= most && l.frame_max + 8 > most);
	}
}

static void black_hole(void **state)
{
	struct link_result r = { 0 };
	struct link l = fresh(NS_PER_S, &r);
	uint64_t now = NS_PER_S;

	(void)state;
	drive(&l, &now, 5 * NS_PER_S, 1472, 10 * NS_PER_MS, NULL);
	assert_int_equal(l.frame_max, 1472);
	for (unsigned i = 0; i < 40; i++) { /* a busy link */
		link_usage(&l, now, now);
		drive(&l, &now, NS_PER_S, 1350, 10 * NS_PER_MS, NULL);
	}
	assert_true(l.frame_max <= 1350 && l.frame_max > 1342);
	/* What the kernel says counts at once. */
	r = (struct link_result){ 0 };
	link_too_big(&l, now, &r);
	assert_true(r.mtu_changed);
	assert_int_equal(l.frame_max, LINK_MTU_BASE);
}

static void keepalive_and_death(void **state)
{
	struct link_result r = { 0 };
	struct link l = fresh(NS_PER_S, &r);
	uint64_t now = NS_PER_S;
	unsigned pings = 0;

	(void)state;
	drive(&l, &now, 2 * NS_PER_S, 1472, 10 * NS_PER_MS, NULL);
	assert_int_equal(l.srtt, 10 * NS_PER_MS);
	drive(&l, &now, 250 * NS_PER_S, 1472, 10 * NS_PER_MS, &pings);
	assert_true(pings >= 9 && pings <= 11); /* one per 25 s, and no storm */
	drive(&l, &now, 26 * NS_PER_S, 0, 0, NULL);
	assert_true(l.unanswered != 0);
	r = (struct link_result){ 0 };
	link_tick(&l, &rng, l.unanswered + params.dead_after - 1, &r);
	assert_false(r.dead);
	r = (struct link_result){ 0 };
	link_tick(&l, &rng, l.unanswered + params.dead_after, &r);
	assert_true(r.dead);
}

static void unanswered_traffic(void **state)
{
	struct link_result r = { 0 };
	struct link l = fresh(NS_PER_S, &r);
	uint64_t now = NS_PER_S, since;

	(void)state;
	drive(&l, &now, 2 * NS_PER_S, 1472, NS_PER_MS, NULL);
	since = now;
	for (unsigned i = 0; i < 30 && !(l.unanswered && now >= l.unanswered + params.dead_after); i++) {
		link_usage(&l, 0, now); /* we send and hear nothing */
		drive(&l, &now, NS_PER_S, 0, 0, NULL);
	}
	assert_true(now - since <= 20 * NS_PER_S);
}

static void path_validation(void **state)
{
	struct link_result r = { 0 };
	struct link l = fresh(NS_PER_S, &r);
	struct endpoint old = l.path, to = ep_at(2, 9000), third = ep_at(3, 9000);
	uint64_t now = NS_PER_S;
	struct probe answer, wrong;

	(void)state;
	drive(&l, &now, 2 * NS_PER_S, 1472, 10 * NS_PER_MS, NULL);
	r = (struct link_result){ 0 };
	link_seen(&l, &to, &rng, now, &r);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.out[0].probe.kind, PROBE_CHALLENGE);
	assert_true(endpoint_equal(&r.out[0].to, &to));
	assert_true(endpoint_equal(&l.path, &old)); /* nothing moves yet */
	answer = r.out[0].probe;
	answer.kind = PROBE_RESPONSE;
	/* Another candidate at once: rate limited, and the first one is kept. */
	r = (struct link_result){ 0 };
	link_seen(&l, &third, &rng, now + NS_PER_MS, &r);
	assert_int_equal(r.n, 0);
	wrong = answer;
	wrong.data ^= 1;
	assert_false(link_probe(&l, &to, &wrong, now + 5, &r));
	assert_false(link_probe(&l, &third, &answer, now + 5, &r)); /* right answer, wrong place */
	assert_true(endpoint_equal(&l.path, &old));
	r = (struct link_result){ 0 };
	assert_true(link_probe(&l, &to, &answer, now + 10 * NS_PER_MS, &r));
	assert_true(r.path_changed);
	assert_true(endpoint_equal(&l.path, &to));
	assert_int_equal(l.frame_max, LINK_MTU_BASE); /* until confirmed on the new path */
	assert_false(link_probe(&l, &to, &answer, now + 11 * NS_PER_MS, &r)); /* once only */
	/* A candidate that never answers costs a handful of probes. */
	r = (struct link_result){ 0 };
	now += NS_PER_S;
	link_seen(&l, &third, &rng, now, &r);
	assert_int_equal(r.n, 1);
	drive(&l, &now, 10 * NS_PER_S, 0, 0, NULL);
	assert_false(l.has_candidate);
	assert_true(endpoint_equal(&l.path, &to));
}

static void answers(void **state)
{
	struct link_result r = { 0 };
	struct link l = fresh(NS_PER_S, &r);
	struct endpoint from = ep_at(5, 5);
	static const struct {
		uint8_t in, out;
	} c[] = { { PROBE_PING, PROBE_PONG },
		  { PROBE_CHALLENGE, PROBE_RESPONSE },
		  { PROBE_MTU, PROBE_MTU_ACK } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		struct probe p = { .kind = c[i].in, .size = 1400, .seq = 3, .data = 42 };

		r = (struct link_result){ 0 };
		assert_true(link_probe(&l, &from, &p, NS_PER_S, &r));
		assert_int_equal(r.n, 1);
		assert_int_equal(r.out[0].probe.kind, c[i].out);
		assert_true(endpoint_equal(&r.out[0].to, &from)); /* back where it came from */
		assert_int_equal(r.out[0].size, PROBE_LEN);
	}
	assert_int_equal(r.out[0].probe.size, 1400);
	/* Answers to nothing are refused. */
	assert_false(link_probe(&l, &from, &(struct probe){ .kind = PROBE_RESPONSE }, NS_PER_S, &r));
	assert_false(
		link_probe(&l, &from, &(struct probe){ .kind = PROBE_MTU_ACK, .size = 1300 }, NS_PER_S, &r));
	assert_false(link_probe(&l, &from, &(struct probe){ .kind = PROBE_PONG, .data = 2 * NS_PER_S },
				NS_PER_S, &r));
	assert_false(link_probe(&l, &from, &(struct probe){ .kind = 99 }, NS_PER_S, &r));
	link_down(&l);
	assert_false(link_probe(&l, &from, &(struct probe){ .kind = PROBE_PING }, NS_PER_S, &r));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mtu_search),	       cmocka_unit_test(black_hole),
		cmocka_unit_test(keepalive_and_death), cmocka_unit_test(unanswered_traffic),
		cmocka_unit_test(path_validation),     cmocka_unit_test(answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
