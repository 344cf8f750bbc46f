/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates from anyone: whatever the bytes, no empty bundle vouches for them. */
#include <stdlib.h>
#include <sys/uio.h>

#include "identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct iovec v = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
	struct bundle *b = bundle_new("mesh.test");
	const struct bundle *all[] = { b };
	struct svid_info info;
	struct spiffe_id id;

	if (svid_verify_der(all, 1, SVID_SPIFFE, &v, 1, 1900000000, &info, NULL) == 0 ||
	    svid_verify_der(all, 1, SVID_LINK, &v, 1, 1900000000, &info, NULL) == 0)
		abort();
	if (spiffe_id_parse((const char *)p, n, &id, NULL) == 0 && (id.td_len == 0 || id.path_off > n))
		abort();
	bundle_free(b);
	return 0;
}
