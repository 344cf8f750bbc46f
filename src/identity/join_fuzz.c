/* SPDX-License-Identifier: Apache-2.0 */
/* The join and renewal requests as the issuer reads them, their CSRs, and the reply as the client reads it.
 */
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(const uint8_t *p, size_t n, bool renewal)
{
	struct join_message m;
	struct csr_pair csr;
	size_t whole;

	if (renewal ? renew_parse(p, n, &m, NULL) : join_parse(p, n, &m, NULL))
		return;
	whole = 4 + 1 + (renewal ? 0 : TOKEN_ID + SHA256_LEN) + 2 + m.link_n + 2 + m.spiffe_n;
	if (whole != n || m.link_n > CSR_MAX || m.spiffe_n > CSR_MAX ||
	    (m.mac && m.mac + SHA256_LEN != p + n))
		abort();
	if (!csr_pair_open(&m, &csr, NULL)) {
		if (key_type_of(X509_REQ_get0_pubkey(csr.link)) != KEY_MLDSA65 ||
		    key_type_of(X509_REQ_get0_pubkey(csr.spiffe)) != KEY_P256)
			abort();
		csr_pair_fini(&csr);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static EVP_PKEY *link, *spiffe;
	static const struct token t = { .trust_domain = "mesh.example", .name = "web" };
	struct joined j;

	if (!link &&
	    (crypto_init(NULL) || key_new(KEY_MLDSA65, &link, NULL) || key_new(KEY_P256, &spiffe, NULL)))
		abort();
	if (!size)
		return 0;
	switch (data[0] % 3) {
	case 0:
		request(data + 1, size - 1, false);
		break;
	case 1:
		request(data + 1, size - 1, true);
		break;
	default: /* nothing a stranger makes up carries the pinned root's signature */
		if (!join_reply(&t, data + 1, size - 1, link, spiffe, 1800000000, &j, NULL))
			abort();
	}
	return 0;
}
