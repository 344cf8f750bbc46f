/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens: any text; and any fields under a right checksum, which a stranger can compute too. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text)
{
	char again[TOKEN_TEXT];
	struct token t;

	if (token_decode(text, &t, NULL))
		return;
	/* Accepted: written again it is the same, but for the case of the letters. */
	if (token_encode(&t, again, NULL) || strcasecmp(text, again))
		abort();
	token_wipe(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t raw[400], h[SHA256_LEN];
	char text[1024] = "x0t1.";

	if (size > sizeof(raw) - 4)
		return 0;
	memcpy(text + 5, data, size);
	text[5 + size] = 0;
	check(text + 5);
	check(text);
	memcpy(raw, data, size);
	if (sha256(data, size, h))
		abort();
	memcpy(raw + size, h, 4);
	base32_encode(text + 5, raw, size + 4);
	check(text);
	return 0;
}
