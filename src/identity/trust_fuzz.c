/* SPDX-License-Identifier: Apache-2.0 */
/* Text from other implementations: JWKS, PEM, tokens. The first byte chooses which. */
#include <stdlib.h>

#include "identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const char *s = (const char *)p + 1;
	struct trust_bundle b;
	struct svid_pem svid;
	struct spiffe_id id;

	if (n-- == 0)
		return 0;
	switch (*p % 3) {
	case 0:
		if (trust_bundle_parse(s, n, &b, NULL) == 0)
			trust_bundle_fini(&b);
		break;
	case 1:
		if (svid_pem_parse(s, n, s, n, &svid, NULL) == 0)
			svid_pem_fini(&svid);
		break;
	case 2: /* no key, so nothing may pass */
		if (jwt_svid_verify(s, n, "{\"keys\":[]}", 11, "mesh.test", "a", 1900000000, &id, NULL) == 0)
			abort();
		break;
	}
	return 0;
}
