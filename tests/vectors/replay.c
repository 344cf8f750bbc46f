/* SPDX-License-Identifier: Apache-2.0 */
/* Anti-replay windows (replay-window-cases/1): counters in, verdicts out. */
#include "tunnel/replay.h"

#include <stdlib.h>
#include <string.h>

#include "vectors.h"

static bool window_case(yyjson_val *c)
{
	yyjson_val *seq = yyjson_obj_get(c, "seq"), *accept = yyjson_obj_get(c, "accept"), *limit, *v;
	uint64_t window = yyjson_get_uint(yyjson_obj_get(c, "window"));
	struct replay *r = calloc(1, sizeof(*r));
	size_t i, max;
	bool ok = r && window <= REPLAY_WINDOW_MAX && replay_init(r, (uint32_t)window) == 0 &&
		  yyjson_arr_size(seq) == yyjson_arr_size(accept) && yyjson_arr_size(seq) > 0;

	limit = yyjson_obj_get(c, "first_refused");
	if (ok && limit)
		r->limit = yyjson_is_str(limit) ? strtoull(yyjson_get_str(limit), NULL, 10)
						: yyjson_get_uint(limit);
	yyjson_arr_foreach(seq, i, max, v) {
		uint64_t n = yyjson_is_str(v) ? strtoull(yyjson_get_str(v), NULL, 10) : yyjson_get_uint(v);
		bool want = yyjson_get_bool(yyjson_arr_get(accept, i));

		/* The check before the tag and the one after it must agree. */
		ok = ok && replay_ok(r, n) == want && replay_take(r, n) == want;
	}
	free(r);
	return ok;
}

enum vrun replay_run(struct vfile *f)
{
	yyjson_val *c;
	size_t i, max;

	if (strcmp(str_member(f->root, "format"), "replay-window-cases/1") != 0)
		return V_NOT_MINE;
	yyjson_arr_foreach(yyjson_obj_get(f->root, "cases"), i, max, c)
		check(f, window_case(c), "%s", str_member(c, "name"));
	return V_RAN;
}
