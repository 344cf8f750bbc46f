/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The issuer process and its client. Over a Unix stream socket travel type u16 | length u32 | value, as on
 * stream 0. Every request's value starts with a number u32 of the client's choice; the reply (ISS_REPLY)
 * repeats it, then comes a code u32 (0 or an ERR_* negated) and the body: the answer, or the sentence and the
 * remedy, each NUL-terminated. Only root and the daemon's user may connect.
 *
 * "text": u16 length | bytes. A bundle is its signed encoding.
 */
#ifndef X0_DAEMON_ISSUER_H
#define X0_DAEMON_ISSUER_H

#include "base/base.h"
#include "identity/identity.h"

enum iss_type {
	ISS_JOIN =
		1, /* exporter 32 | request -> code u32 | the reply for the client, also if it is a refusal */
	ISS_RENEW = 2, /* uri text | key hash 32 | leaf hash 32 | not_before u64 | not_after u64 | request ->
			  as ISS_JOIN */
	ISS_TOKEN =
		3, /* name text | ttl u64 | ephemeral u8 | n u8 | n endpoints (16, u16, u32) -> token text */
	ISS_REVOKE = 4,	    /* uri text -> bundle */
	ISS_REMOVE = 5,	    /* name text | unknown too u8 -> bundle */
	ISS_ADD_ISSUER = 6, /* link root DER u32 length | spiffe root DER, the rest -> bundle */
	ISS_BUNDLE = 7,	    /* -> bundle */
	ISS_ADOPT = 8,	    /* bundle -> bundle */
	ISS_NODES = 9,	    /* -> records: uri text | addr 16 | issued_at u64 | not_after u64 | ephemeral u8 |
			       state u8 */
	ISS_ROOTS = 10,	    /* -> link root DER u32 length | spiffe root DER */
	ISS_BACKUP = 11,    /* password text -> backup file; root only: it never passes through the daemon */
	ISS_REPLY = 100,
};
enum { ISS_MAX = 1 << 20 };

void iss_put_text(struct wr *w, const char *s);
/* NUL-terminated copy of a text; "" and r->bad if it does not fit or holds a NUL. */
void iss_get_text(struct rd *r, char *to, size_t cap);

struct issuer_context {
	struct authority *a;
	struct rng *rng;
	int64_t now; /* Unix seconds */
	const char
		*backup_path; /* where a backup is made before it is sent; NULL: the client may have none */
};

/* Answers one request. Writes the reply's value (number, code, body) malloc'ed. */
int issuer_answer(const struct issuer_context *ctx, uint16_t type, const uint8_t *p, size_t n,
		  uint8_t **ret_p, size_t *ret_n);

/* ---- the client, on the loop of its owner; never blocks ---- */
struct issuer_client;

struct issuer_client *issuer_client_new(struct loop *loop, const char *path);
struct issuer_client *
issuer_client_free(struct issuer_client *ic); /* pending calls are not answered any more */
/*
 * fn is called once: e NULL and the body, or e. ERR_UNREACHABLE if the issuer cannot be reached, ERR_TIMEOUT
 * after 10 s. p: the value without its number. 0, or ERR_LIMIT (128 calls under way) without a call of fn.
 */
typedef void issuer_fn(void *arg, const uint8_t *body, size_t n, const struct err *e);
int issuer_call(struct issuer_client *ic, uint16_t type, const void *p, size_t n, issuer_fn *fn, void *arg,
		struct err *e);
bool issuer_client_up(const struct issuer_client *ic); /* connected now, or the last call succeeded */

#endif
