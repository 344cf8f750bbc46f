/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles from strangers: the signed form, and the content as if it had been signed (a signature cannot be
 * guessed). */
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bundle *b;
	uint8_t *p;
	size_t n;

	if (!size)
		return 0;
	if (data[0] & 1) {
		if (!bundle_decode(data + 1, size - 1, NULL, NULL, &b, NULL))
			bundle_free(b);
		return 0;
	}
	if (bundle_content_decode(data + 1, size - 1, &b, NULL))
		return 0;
	/* What is accepted has no other encoding. */
	if (bundle_content_encode(b, &p, &n) || n != size - 1 || memcmp(p, data + 1, n))
		abort();
	free(p);
	if (bundle_revokes(b, "spiffe://a/b", b->hash, 0) && !b->nrevoked)
		abort();
	bundle_free(b);
	return 0;
}
