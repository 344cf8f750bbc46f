/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First contact, the accepting side: strangers get silence. A KNOCK must carry a MAC under a key derived from
 * a link root of the bundle (or from our own root, for joins); the answer is a stateless COOKIE bound to
 * address and port; a HELLO without a valid cookie dies after one SipHash. Pure: time and randomness are
 * arguments.
 */
#ifndef X0_SESSION_CONTACT_H
#define X0_SESSION_CONTACT_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "identity/identity.h"
#include "wire/wire.h"

struct knock_key {
	uint8_t id[8], key[KNOCK_KEY];
};

enum { CONTACT_SOURCES = 1024, CONTACT_COOKIE_LIFE_S = 60 };

struct contact {
	struct sipkey secret[2]; /* by the lowest bit of the epoch */
	uint8_t epoch;
	uint64_t epoch_end;	/* ns */
	struct knock_key *keys; /* owned; one per link root of the bundle */
	size_t nkeys;
	struct knock_key join; /* of our own root, if this node answers joins */
	bool has_join;
	struct sipkey source_key;
	unsigned burst, per_second; /* new handshakes per source address */
	struct {
		uint64_t credit_at; /* ns: GCRA's theoretical arrival time */
	} source[CONTACT_SOURCES];  /* by keyed hash: sharing a slot only makes two sources share their
				       allowance */
};

/* The knock key of a root, from the SHA-256 of its SubjectPublicKeyInfo. 0 or ERR_FAILED. */
int knock_key_from(const uint8_t root_hash[SHA256_LEN], struct knock_key *ret);
/* HMAC-SHA-256 cut to 16 bytes: the knock_mac_fn of wire/. */
int knock_mac(const uint8_t key[KNOCK_KEY], const uint8_t *p, size_t n, uint8_t mac[16]);

void contact_init(struct contact *c, struct rng *rng, uint64_t now);
void contact_fini(struct contact *c);
/* Takes over the roots of a new bundle; `own_root`: SHA-256 of our root's key if we answer joins, else NULL.
 */
int contact_roots(struct contact *c, const struct bundle *b, const uint8_t *own_root, struct err *e);
/* 0 and the 28 bytes to answer with, or ERR_PARSE, ERR_AUTH: silence. */
int contact_knock(struct contact *c, struct rng *rng, uint64_t now, const struct endpoint *from,
		  const uint8_t *p, size_t n, uint8_t ret[COOKIE_LEN]);
/* Whether the HELLO's cookie is ours, for this address, and not older than 120 s. 0 or ERR_AUTH. */
int contact_cookie(struct contact *c, struct rng *rng, uint64_t now, const struct endpoint *from,
		   const struct cookie *k);
/* Whether this source address may begin one more handshake now; takes one from its allowance. */
bool contact_allow(struct contact *c, uint64_t now, const struct endpoint *from);

#endif
