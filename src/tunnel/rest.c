/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/rest.h"

uint32_t rest_spin(struct rest *r, uint64_t now)
{
	r->budget += (now - r->earned_at) / REST_SPIN_SHARE;
	if (r->budget > REST_SPIN_SAVED_NS)
		r->budget = REST_SPIN_SAVED_NS;
	r->earned_at = now;
	return r->budget >= r->spin_ns[r->sent] ? r->spin_ns[r->sent] : 0;
}

void rest_woke(struct rest *r, uint64_t waited, uint64_t span)
{
	uint32_t *spin = &r->spin_ns[r->sent];

	r->budget -= span < r->budget ? span : r->budget;
	if (waited > REST_SPIN_MAX_NS)
		*spin = *spin / 2 < REST_SPIN_MIN_NS ? 0 : *spin / 2;
	else if (waited > *spin)
		*spin = *spin < REST_SPIN_MIN_NS       ? REST_SPIN_MIN_NS
			: *spin > REST_SPIN_MAX_NS / 2 ? REST_SPIN_MAX_NS
						       : *spin * 2;
}
