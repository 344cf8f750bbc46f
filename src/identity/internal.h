/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of identity/; nobody else includes this. */
#ifndef X0_IDENTITY_INTERNAL_H
#define X0_IDENTITY_INTERNAL_H

#include "identity/identity.h"

int array_grow(void **array, size_t n, size_t size);	/* room for element n; 0 or ERR_NOMEM */
void array_shrink(void **array, size_t n, size_t size); /* to n elements, so that array_grow() stays right */

/* The signed part of a bundle alone (bundle_code.c); what decodes encodes to the same bytes. */
int bundle_content_encode(const struct bundle *b, uint8_t **ret_p, size_t *ret_n); /* malloc'ed */
int bundle_content_decode(const void *p, size_t n, struct bundle **ret, struct err *e);

/* ---- certificates and requests (cert.c) ---- */
enum { CSR_MAX = 8192, CERT_MAX = 16384 };

int cert_root(const char *trust_domain, EVP_PKEY *key, int64_t now, X509 **ret, struct err *e);
int cert_leaf(const struct spiffe_id *id, EVP_PKEY *pub, X509 *root, EVP_PKEY *root_key, int64_t not_before,
	      int64_t not_after, X509 **ret, struct err *e);
int cert_der(X509 *x, uint8_t **ret_p, size_t *ret_n);		       /* malloc'ed */
int cert_from_der(const void *p, size_t n, X509 **ret, struct err *e); /* exactly n bytes of DER, no BER */
int cert_id(X509 *x, struct spiffe_id *ret, struct err *e);	       /* exactly one URI SAN, a SPIFFE ID */
int cert_times(const X509 *x, int64_t *ret_not_before, int64_t *ret_not_after);
int csr_check(X509_REQ *req, enum key_type type, struct err *e); /* possession and key type */

/* ---- append-only file of checksummed records (journal.c) ---- */
struct journal {
	int fd;	     /* -1: closed */
	bool broken; /* a failed append could not be undone */
	uint64_t size;
	char *path; /* owned */
};

typedef int journal_fn(void *arg, const uint8_t *p, size_t n, struct err *e);
int journal_open(struct journal *j, const char *path, journal_fn *fn, void *arg, struct err *e);
int journal_append(struct journal *j, const void *p, size_t n, struct err *e); /* durable when it returns 0 */
/* Replaces the whole journal by what emit() appends, atomically. */
struct journal_image {
	uint8_t *p; /* owned */
	size_t n, cap;
};
int journal_image_add(struct journal_image *im, const void *p, size_t n);
int journal_replace(struct journal *j, const struct journal_image *im, struct err *e);
void journal_close(struct journal *j);

/* ---- sealed blobs (seal.c): AES-256-GCM under scrypt of a password or under a key file ---- */
int seal_password(const char magic[4], const char *password, const void *p, size_t n, uint8_t **ret_p,
		  size_t *ret_n, struct err *e);
int seal_key(const char magic[4], const uint8_t key[32], const void *p, size_t n, uint8_t **ret_p,
	     size_t *ret_n, struct err *e);
enum seal_mode { SEAL_PASSWORD = 1, SEAL_KEY = 2 };
int seal_mode_of(const char magic[4], const void *p, size_t n); /* enum seal_mode, or ERR_PARSE */
/* `password` or `key` as the mode says. ERR_AUTH: wrong password or damaged. */
int seal_open(const char magic[4], const char *password, const uint8_t *key, const void *p, size_t n,
	      struct secret *ret, struct err *e);

/* ---- the authority (authority*.c) ---- */
struct issued {	   /* the last SVIDs of one identity */
	char *uri; /* owned */
	uint8_t addr[16], serial[16];
	uint8_t link_key[SHA256_LEN], spiffe_key[SHA256_LEN];
	int64_t at, not_after; /* not_after: the latest ever issued to it */
	bool ephemeral;
};

enum token_state { TOKEN_ISSUED, TOKEN_CONSUMED };
enum { TOKEN_ID = 8 };

struct token_record {
	uint8_t id[TOKEN_ID];
	uint8_t key[SHA256_LEN]; /* SHA-256("x0 token" | secret) */
	char name[NODE_NAME_MAX + 1];
	int64_t not_after;
	bool ephemeral;
	enum token_state state;
	uint8_t keys[SHA256_LEN]; /* consumed by: SHA-256 of both public key hashes */
	uint8_t *leaves;	  /* owned; u16 n | link DER | u16 n | spiffe DER; NULL: not issued yet */
	size_t leaves_n;
};

struct authority {
	char *dir; /* owned */
	int lock_fd;
	char trust_domain[TRUST_DOMAIN_MAX + 1];
	EVP_PKEY *link_key, *spiffe_key; /* owned */
	X509 *link_root, *spiffe_root;	 /* owned */
	struct bundle *bundle;		 /* owned */
	struct issued *issued;		 /* owned; sorted by uri */
	size_t nissued;
	struct token_record *tokens; /* owned; in the order made */
	size_t ntokens;
	struct journal issued_log, token_log;
	int64_t ttl; /* of SVIDs from joins and renewals, seconds */
};

int authority_lock(const char *dir, int *ret_fd, struct err *e); /* ERR_CONFLICT: somebody has it */
int authority_absent(const char *dir, struct err *e);		 /* ERR_CONFLICT: there is one */
int authority_need_listed(const struct authority *a,
			  struct err *e); /* ERR_DENIED: its roots are not in the bundle */
int authority_path(const char *dir, const char *name, char **ret, struct err *e); /* malloc'ed */
/* State in memory and its journals (authority_store.c). */
int authority_load_logs(struct authority *a, struct err *e);
struct issued *issued_find(const struct authority *a, const char *uri);
int issued_add(struct authority *a, const struct issued *rec, struct err *e); /* durable; copies */
struct token_record *token_find(const struct authority *a, const uint8_t id[TOKEN_ID]);
int token_add(struct authority *a, const struct token_record *t, struct err *e); /* durable; copies */
int token_consume(struct authority *a, struct token_record *t, const uint8_t keys[SHA256_LEN], struct err *e);
int token_store_leaves(struct authority *a, struct token_record *t, const uint8_t *p, size_t n,
		       struct err *e);
void tokens_forget_expired(struct authority *a, int64_t now);
void authority_free_logs(struct authority *a);
/* Signs b (whose number the caller raised), writes it and puts it in force; takes b, also on failure. */
int authority_publish(struct authority *a, struct bundle *b, int64_t now, struct err *e);
/* Puts another issuer's decoded bundle in force as it is, with our signature if we may sign; takes b. */
int authority_take(struct authority *a, struct bundle *b, struct err *e);
/* ERR_DENIED: another trust domain. ERR_REVOKED: removed, or a revoked key. ERR_CONFLICT: another ID has the
 * address. */
int authority_may_have(const struct authority *a, const struct spiffe_id *id,
		       const uint8_t link_key[SHA256_LEN], const uint8_t spiffe_key[SHA256_LEN],
		       struct err *e);
/* A valid SVID of that identity may be out there. */
bool authority_in_use(const struct authority *a, const char *uri, int64_t now);
/* As authority_may_have(); ERR_CONFLICT also: in use with other keys. */
int authority_may_issue(const struct authority *a, const struct spiffe_id *id,
			const uint8_t link_key[SHA256_LEN], const uint8_t spiffe_key[SHA256_LEN], int64_t now,
			struct err *e);

struct csr_pair {
	X509_REQ *link, *spiffe; /* owned */
	uint8_t link_key[SHA256_LEN], spiffe_key[SHA256_LEN];
	uint8_t both[SHA256_LEN]; /* SHA-256 of the two hashes */
};
/* Makes and records both leaves; the caller has checked that they may be. */
int authority_make(struct authority *a, const struct spiffe_id *id, const struct csr_pair *csr, int64_t ttl,
		   int64_t now, bool ephemeral, X509 **ret_link, X509 **ret_spiffe, struct err *e);

/* ---- join messages (join.c) ---- */
int token_id(const uint8_t key[SHA256_LEN], uint8_t ret[TOKEN_ID]);
int token_key(const uint8_t secret[16], uint8_t ret[SHA256_LEN]);
enum { JOIN_REQUEST_MAX = 4 + 1 + TOKEN_ID + 2 * (2 + CSR_MAX) + SHA256_LEN };

struct join_message {	   /* cursors into the message */
	const uint8_t *id; /* TOKEN_ID bytes; NULL in a renewal */
	const uint8_t *link, *spiffe;
	size_t link_n, spiffe_n, body_n;
	const uint8_t *mac; /* SHA256_LEN bytes; NULL in a renewal */
};
int join_parse(const void *p, size_t n, struct join_message *ret, struct err *e);
int renew_parse(const void *p, size_t n, struct join_message *ret, struct err *e);
int join_mac(const uint8_t key[SHA256_LEN], const uint8_t exporter[32], const void *body, size_t n,
	     uint8_t mac[SHA256_LEN]);
int csr_pair_check(struct csr_pair *c, struct err *e); /* possession and types; fills the hashes */
int csr_pair_open(const struct join_message *m, struct csr_pair *ret, struct err *e);
void csr_pair_fini(struct csr_pair *c);
int reply_ok(const uint8_t *leaves, size_t leaves_n, const struct bundle *b, uint8_t **ret_p, size_t *ret_n);
int reply_error(int code, const char *sentence, uint8_t **ret_p, size_t *ret_n);
int leaves_pack(X509 *link, X509 *spiffe, uint8_t **ret_p, size_t *ret_n);

#endif
