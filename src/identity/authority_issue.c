/* SPDX-License-Identifier: Apache-2.0 */
/* Who may have which SVID, and making it. */
#include <string.h>

#include "identity/identity.h"
#include "identity/internal.h"

int authority_may_have(const struct authority *a, const struct spiffe_id *id,
		       const uint8_t link_key[SHA256_LEN], const uint8_t spiffe_key[SHA256_LEN],
		       struct err *e)
{
	uint8_t addr[16];

	if (!spiffe_id_in(id, a->trust_domain))
		return err_set(e, ERR_DENIED, "%.200s is not in trust domain %.100s", id->uri,
			       a->trust_domain);
	if (bundle_removed(a->bundle, id->uri))
		return err_set(e, ERR_REVOKED, "%.200s was removed for ever: choose another name", id->uri);
	/* INT64_MAX: here only the keys count; of the whole identity what was issued before `at` is void, not
	 * the name. */
	if (bundle_revokes(a->bundle, id->uri, link_key, INT64_MAX) ||
	    bundle_revokes(a->bundle, id->uri, spiffe_key, INT64_MAX)) {
		err_set(e, ERR_REVOKED, "a key of this request was revoked");
		return err_todo(e,
				"make new keys: remove the identity directory of that host and join again");
	}
	overlay_addr(id, addr);
	for (size_t i = 0; i < a->nissued; i++)
		if (!memcmp(a->issued[i].addr, addr, sizeof(addr)) && strcmp(a->issued[i].uri, id->uri)) {
			err_set(e, ERR_CONFLICT, "%.100s would have the overlay address of %.100s", id->uri,
				a->issued[i].uri);
			return err_todo(e, "choose another name");
		}
	return 0;
}

bool authority_in_use(const struct authority *a, const char *uri, int64_t now)
{
	const struct issued *rec = issued_find(a, uri);

	return rec && rec->not_after >= now && bundle_revoked_at(a->bundle, uri) < rec->at;
}

int authority_may_issue(const struct authority *a, const struct spiffe_id *id,
			const uint8_t link_key[SHA256_LEN], const uint8_t spiffe_key[SHA256_LEN], int64_t now,
			struct err *e)
{
	const struct issued *rec = issued_find(a, id->uri);
	int rc = authority_may_have(a, id, link_key, spiffe_key, e);

	if (rc)
		return rc;
	if (authority_in_use(a, id->uri, now) && (memcmp(rec->link_key, link_key, SHA256_LEN) ||
						  memcmp(rec->spiffe_key, spiffe_key, SHA256_LEN))) {
		err_set(e, ERR_CONFLICT, "%.200s is in use by another host", id->uri);
		return err_todo(e, "choose another name, or `x0 ca revoke` the old host first");
	}
	return 0;
}

static int record_issued(struct authority *a, const struct spiffe_id *id, const X509 *link,
			 const struct csr_pair *csr, int64_t now, int64_t not_after, bool ephemeral,
			 struct err *e)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(link);
	char uri[SPIFFE_ID_MAX + 1];
	struct issued rec = { .uri = uri, .at = now, .not_after = not_after, .ephemeral = ephemeral };

	memcpy(uri, id->uri, sizeof(uri));
	overlay_addr(id, rec.addr);
	if (ASN1_STRING_length(serial) == sizeof(rec.serial))
		memcpy(rec.serial, ASN1_STRING_get0_data(serial), sizeof(rec.serial));
	memcpy(rec.link_key, csr->link_key, SHA256_LEN);
	memcpy(rec.spiffe_key, csr->spiffe_key, SHA256_LEN);
	return issued_add(a, &rec, e);
}

int authority_make(struct authority *a, const struct spiffe_id *id, const struct csr_pair *csr, int64_t ttl,
		   int64_t now, bool ephemeral, X509 **ret_link, X509 **ret_spiffe, struct err *e)
{
	int64_t revoked = bundle_revoked_at(a->bundle, id->uri), from = now - SVID_BACKDATE, root_from,
		root_to;
	X509 *link = NULL, *spiffe = NULL;
	int rc = authority_need_listed(a, e);

	if (rc)
		return rc;
	if (ttl < 1 || ttl > SVID_TTL_MAX)
		return err_set(e, ERR_USAGE, "the life of an SVID must be 1 to %d seconds", SVID_TTL_MAX);
	if (ephemeral && ttl > SVID_TTL_EPHEMERAL)
		ttl = SVID_TTL_EPHEMERAL;
	if (cert_times(a->link_root, &root_from, &root_to) || now + ttl > root_to || now < root_from) {
		err_set(e, ERR_EXPIRED, "this issuer's root is not valid for as long as the SVID would be");
		return err_todo(
			e, "check this host's clock; near the end of a root's 10 years make a new issuer");
	}
	if (revoked >= now) {
		err_set(e, ERR_CLOCK, "%.200s was revoked at a time that has not passed here", id->uri);
		return err_todo(e,
				"try again in a second; if that does not help compare the issuers' clocks");
	}
	if (revoked >= from) /* backdated to before the revocation it would be void itself */
		from = revoked + 1;
	rc = cert_leaf(id, X509_REQ_get0_pubkey(csr->link), a->link_root, a->link_key, from, now + ttl, &link,
		       e);
	if (!rc)
		rc = cert_leaf(id, X509_REQ_get0_pubkey(csr->spiffe), a->spiffe_root, a->spiffe_key, from,
			       now + ttl, &spiffe, e);
	if (!rc)
		rc = record_issued(a, id, link, csr, now, now + ttl, ephemeral, e);
	if (rc) {
		X509_free(link);
		X509_free(spiffe);
		return rc;
	}
	*ret_link = link;
	*ret_spiffe = spiffe;
	return 0;
}

int authority_issue(struct authority *a, const struct spiffe_id *id, X509_REQ *link_csr, X509_REQ *spiffe_csr,
		    int64_t ttl, int64_t now, X509 **ret_link, X509 **ret_spiffe, struct err *e)
{
	struct csr_pair csr = { .link = link_csr, .spiffe = spiffe_csr };
	const struct issued *rec = issued_find(a, id->uri);
	int rc = csr_pair_check(&csr, e);

	if (!rc)
		rc = authority_may_issue(a, id, csr.link_key, csr.spiffe_key, now, e);
	return rc ? rc
		  : authority_make(a, id, &csr, ttl, now, rec && rec->ephemeral, ret_link, ret_spiffe, e);
}
