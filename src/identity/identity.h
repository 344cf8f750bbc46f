/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: identity
 *
 * Who a host is: SPIFFE IDs, X.509-SVIDs and their validation, the signed bundle of roots, the embedded
 * authority, join tokens, and the files that keep them. No sockets here: the join protocol is messages in,
 * messages out, and every function that depends on time takes it (Unix seconds).
 *
 * Two validation profiles. `spiffe`: any algorithm SPIFFE peers use. `link` (links, votes, audit, join):
 * every signature in the chain and the anchor is ML-DSA-65. Their anchors are separate sets, so that whoever
 * breaks P-256 gains nothing on a link.
 *
 * Sources: SPIFFE-ID, X509-SVID, SPIFFE_Trust_Domain_and_Bundle, JWT-SVID; RFC 5280; RFC 9881 (ML-DSA in
 * X.509).
 */
#ifndef X0_IDENTITY_IDENTITY_H
#define X0_IDENTITY_IDENTITY_H

#include <openssl/x509.h>

#include "base/base.h"
#include "crypto/crypto.h"

/* ---- SPIFFE ID (SPIFFE-ID.md section 2) ---- */
enum { SPIFFE_ID_MAX = 2048, TRUST_DOMAIN_MAX = 255, NODE_NAME_MAX = 63 };

struct spiffe_id {
	char uri[SPIFFE_ID_MAX + 1]; /* canonical text, NUL-terminated */
	uint16_t td_off, td_len;     /* the trust domain inside uri */
	uint16_t path_off;	     /* "/..." or the end */
};

int spiffe_id_parse(const char *s, size_t n, struct spiffe_id *ret, struct err *e);
bool spiffe_id_in(const struct spiffe_id *id, const char *trust_domain); /* exactly that domain */
/* spiffe://<td>/node/<name>; name: 1-63 of [a-z0-9-], no '-' at either end (also a DNS label). */
int spiffe_id_node(const char *trust_domain, const char *name, struct spiffe_id *ret, struct err *e);
const char *
spiffe_id_node_name(const struct spiffe_id *id); /* the name, or NULL if the path is not /node/<name> */

/* fd | 40 bits of SHA-256(trust domain) | 80 bits of SHA-256(SPIFFE ID): everyone recomputes it. */
void overlay_addr(const struct spiffe_id *id, uint8_t ret[16]);
void overlay_prefix(const char *trust_domain, uint8_t ret[16]); /* /48 */
uint64_t overlay_label(const uint8_t addr[16]); /* the low 64 bits, as the hop header carries them */

/* ---- the bundle of one trust domain ---- */
enum svid_profile { SVID_SPIFFE = 1, SVID_LINK = 2 };

struct revocation {
	uint8_t svid[SHA256_LEN]; /* SHA-256 of the leaf's SubjectPublicKeyInfo, or all zero: the whole
				     identity */
	char *uri;		  /* owned; the SPIFFE ID */
	int64_t at;		  /* Unix seconds */
	int64_t until; /* may be forgotten after: every SVID it hits has expired. INT64_MAX: for ever (node
			  remove) */
};

enum {
	BUNDLE_ROOTS_MAX = 256,
	BUNDLE_REVOKED_MAX = 100000,
	BUNDLE_SIGNERS_MAX = 1024,
	BUNDLE_SIGS_MAX = 16,
	BUNDLE_MAX = 32 << 20,	  /* bytes of the encoded form, at most, on disk */
	BUNDLE_SENT_MAX = 1 << 20 /* what one message of a session carries: authorities make none larger */
};

/* All arrays are sorted and unique: change them through bundle_add_*() only. */
struct bundle {
	char trust_domain[TRUST_DOMAIN_MAX + 1];
	uint64_t number;   /* increases by one with each change; never rolls back */
	X509 **link_roots; /* owned; ML-DSA-65 */
	size_t nlink_roots;
	X509 **spiffe_roots; /* owned; P-256 (and any other) */
	size_t nspiffe_roots;
	struct revocation *revoked;
	size_t nrevoked;
	char **policy_signers; /* owned; SPIFFE IDs */
	size_t npolicy_signers;
	/*
	 * Owned; only its revocations count: those of other verified bundles, which this one lacks until the
	 * issuers have merged. Honoured by bundle_revokes(), never encoded or signed. NULL: none.
	 */
	struct bundle *also;
	uint8_t hash[SHA256_LEN]; /* of the signed content, whoever signed it; all zero while unsigned */
	uint8_t *encoded;	  /* owned; the signed form as received or made; NULL while unsigned */
	size_t encoded_n;
};

struct bundle *bundle_new(const char *trust_domain);
struct bundle *bundle_free(struct bundle *b);
struct bundle *bundle_clone(const struct bundle *b); /* deep; keeps `number`, drops `encoded` and `also` */
/* Deep, with the signed form and `also`; NULL without memory. */
struct bundle *bundle_copy(const struct bundle *b);
int bundle_add_root(struct bundle *b, enum svid_profile profile, X509 *root,
		    struct err *e); /* takes a reference */
/*
 * key_hash NULL: the whole identity. at, until: Unix seconds, until INT64_MAX: for ever. The same thing
 * revoked twice keeps the later of each. bundle_add_signer: a SPIFFE ID that may sign policy.
 */
int bundle_add_revocation(struct bundle *b, const char *uri, const uint8_t *key_hash, int64_t at,
			  int64_t until, struct err *e);
int bundle_add_signer(struct bundle *b, const char *uri, struct err *e);
void bundle_drop_expired(struct bundle *b, int64_t now); /* revocations whose `until` is before now */
/*
 * Signs with the key of a link root in b (domain "bundle"), fills encoded and hash. The caller raised
 * `number` before. A bundle already signed keeps the other roots' signatures as long as its content is the
 * same: each issuer that adopts another's bundle adds its own, so that those who only trust or pinned the one
 * can follow.
 */
int bundle_sign(struct bundle *b, X509 *root, EVP_PKEY *key, struct err *e);
/*
 * Decodes hostile bytes. `trusted`: the bundle now in force; the signature must come from one of its link
 * roots, the domain be the same and the number not lower (ERR_REPLAY; equal number: equal content, else
 * ERR_CONFLICT). NULL only for files of our own directory and right after a join, then `pin` (SHA-256 of a
 * link root's public key) must name a signer; with `pin` NULL too the signatures are only checked against the
 * bundle's own roots (our own directory). Every signature present must be good, whoever made it. ERR_AUTH,
 * ERR_PARSE, ERR_LIMIT.
 */
int bundle_decode(const void *p, size_t n, const struct bundle *trusted, const uint8_t *pin,
		  struct bundle **ret, struct err *e);
/* The same without the rules about numbers, for issuers that look for conflicts: see authority_adopt(). */
int bundle_decode_any_number(const void *p, size_t n, const struct bundle *trusted, struct bundle **ret,
			     struct err *e);
/*
 * Whether these bytes, hostile as they are, name a link root of `trusted` among their signers; nothing is
 * verified. False: nobody we know vouches for them, so they say nothing about who brought them.
 */
bool bundle_names_signer(const void *p, size_t n, const struct bundle *trusted);
/* The union of two bundles with the larger number plus one, unsigned: the rule for conflicts, see bundle.c.
 */
int bundle_merge(const struct bundle *a, const struct bundle *b, int64_t now, struct bundle **ret,
		 struct err *e);
/*
 * What a node that holds `own` makes of `theirs`, verified by it: the higher number, of equal numbers the
 * higher hash, with every revocation of the other one that it lacks in `also`. So all nodes choose alike and
 * no revocation known here is lost, whichever bundle comes next. 1: *ret is the new one; 0: nothing new, *ret
 * untouched.
 */
int bundle_settle(const struct bundle *own, const struct bundle *theirs, int64_t now, struct bundle **ret,
		  struct err *e);
/* Whether b holds all of `part`, revocations that expired before `now` excepted. */
bool bundle_contains(const struct bundle *b, const struct bundle *part, int64_t now);
/* issued_at: the leaf's notBefore. A whole identity is revoked up to and including the second `at`, or for
 * ever. */
bool bundle_revokes(const struct bundle *b, const char *uri, const uint8_t key_hash[SHA256_LEN],
		    int64_t issued_at);
bool bundle_removed(const struct bundle *b, const char *uri); /* revoked for ever (node remove) */
int64_t bundle_revoked_at(const struct bundle *b,
			  const char *uri); /* of the whole identity; INT64_MIN: never */

/* ---- SVID validation ---- */
struct svid_info {
	struct spiffe_id id;
	uint8_t key_hash[SHA256_LEN];  /* SHA-256 of the leaf's SubjectPublicKeyInfo */
	uint8_t leaf_hash[SHA256_LEN]; /* SHA-256 of the leaf's DER */
	uint8_t addr[16];	       /* overlay address */
	int64_t not_before, not_after;
};

/*
 * Full validation of chain[0] (leaf) with chain[1..] as untrusted intermediates: path to an anchor of the
 * profile in the bundle of the leaf's own trust domain, time, basic constraints, key usage, exactly one URI
 * SAN, revocation. `bundles`: any number, one per trust domain. Errors say why in an operator's words and
 * never what would pass.
 */
int svid_verify(const struct bundle *const *bundles, size_t nbundles, enum svid_profile profile,
		X509 *const *chain, size_t nchain, int64_t now, struct svid_info *ret, struct err *e);

/* The same from DER, at most 8 certificates, leaf first. */
struct iovec;
int svid_verify_der(const struct bundle *const *bundles, size_t nbundles, enum svid_profile profile,
		    const struct iovec *der, size_t nder, int64_t now, struct svid_info *ret, struct err *e);
/* Only the form of a chain, without anchors, time or revocation: for SVIDs handed to us by an authority
 * (SPIRE). */
int svid_check_form(X509 *const *chain, size_t nchain, struct spiffe_id *ret_id, struct err *e);

/* JWT-SVID (JWT-SVID.md): bundle as JWKS text. 0 and the ID, or an error. */
int jwt_svid_verify(const char *token, size_t n, const char *jwks, size_t jwks_n, const char *trust_domain,
		    const char *audience, int64_t now, struct spiffe_id *ret, struct err *e);

/* ---- what other SPIFFE implementations hand over: JWKS bundles and PEM ---- */
struct jwt_key {
	char *kid;     /* owned */
	EVP_PKEY *key; /* owned; EC P-256, P-384, P-521 or RSA of at least 2048 bits */
};

struct trust_bundle {
	X509 **roots; /* owned */
	size_t nroots;
	struct jwt_key *jwt; /* owned; key IDs are unique */
	size_t njwt;
	uint64_t sequence;    /* spiffe_sequence, 0 if absent */
	int64_t refresh_hint; /* seconds, 0 if absent */
};

/*
 * SPIFFE_Trust_Domain_and_Bundle.md section 4, and plain JWKS as the Workload API serves them (keys without
 * "use" are JWT keys). Keys of unknown use or type are left out, malformed ones refuse the whole. 0,
 * ERR_PARSE or ERR_LIMIT.
 */
int trust_bundle_parse(const char *json, size_t n, struct trust_bundle *ret, struct err *e);
/* Its JWT keys only: certificates are not looked at, whatever their form. */
int trust_bundle_parse_jwt(const char *json, size_t n, struct trust_bundle *ret, struct err *e);
void trust_bundle_fini(struct trust_bundle *b); /* fine on a zeroed struct */

enum { PEM_CERTS_MAX = 64 };
/* Every certificate of a PEM text in order, at most PEM_CERTS_MAX; private keys are passed over. Each X509
 * and the array are the caller's (pem_certs_free). ERR_PARSE: no certificate, or a malformed one. */
int pem_certs(const char *pem, size_t n, X509 ***ret, size_t *ret_n, struct err *e);
void pem_certs_free(X509 **x, size_t n);
/* The one private key of a PEM text (PKCS#8, unencrypted), of any algorithm. ERR_PARSE: none, several or
 * malformed. */
int pem_key(const char *pem, size_t n, EVP_PKEY **ret, struct err *e);
/* An X.509-SVID with its key, as files of SPIRE and others: form of the chain as svid_check_form(), and the
 * key is the leaf's. */
struct svid_pem {
	struct spiffe_id id;
	X509 **chain; /* owned */
	size_t nchain;
	EVP_PKEY *key; /* owned */
};
int svid_pem_parse(const char *certs, size_t certs_n, const char *key, size_t key_n, struct svid_pem *ret,
		   struct err *e);
void svid_pem_fini(struct svid_pem *s);

/* ---- the authority: pure but for its key; state lives in a directory only the issuer process reads ---- */
struct authority; /* link root + spiffe root, their keys, serials, tokens */
enum {
	SVID_TTL_DEFAULT = 24 * 3600,
	SVID_TTL_MAX = 31 * 24 * 3600,
	SVID_TTL_EPHEMERAL = 3600, /* of ephemeral nodes at most; renewed while they live, forgotten after */
	SVID_BACKDATE = 600
};

/*
 * Makes roots (10 years), bundle number 1 and the directory (0700). Keys at rest are encrypted with
 * AES-256-GCM under scrypt of the password; password NULL: under a random key in the file `seal.key` of the
 * same directory, which protects only copies of the directory made without that file. ERR_CONFLICT: there is
 * an authority already.
 */
int authority_init(const char *dir, const char *trust_domain, const char *password, int64_t now,
		   struct err *e);
/*
 * A further issuer of a mesh: own new roots, the mesh's bundle (decoded and trusted by the caller). It issues
 * nothing until authority_add_issuer() on an issuer that the mesh trusts took its roots and authority_adopt()
 * here that bundle.
 */
int authority_init_joining(const char *dir, const struct bundle *mesh, const char *password, int64_t now,
			   struct err *e);
/* Holds a lock while open: ERR_CONFLICT if another process (or this one) has it open. Wrong password:
 * ERR_AUTH. */
int authority_open(const char *dir, const char *password, struct authority **ret, struct err *e);
struct authority *authority_free(struct authority *a);
const struct bundle *authority_bundle(const struct authority *a);
X509 *authority_root(const struct authority *a, enum svid_profile profile); /* borrowed */

/* TTL of SVIDs from joins and renewals: 1 s to SVID_TTL_MAX; SVID_TTL_DEFAULT unless set. ERR_USAGE. */
int authority_set_ttl(struct authority *a, int64_t seconds, struct err *e);

/* Certificate requests as the authority takes them: DER (malloc'ed, empty subject), and back. */
int csr_new(EVP_PKEY *key, uint8_t **ret_p, size_t *ret_n, struct err *e);
int csr_from_der(const void *p, size_t n, X509_REQ **ret, struct err *e);

/*
 * Makes both leaves from the two CSRs; TTL in seconds; notBefore is backdated 10 minutes, but never before
 * the second after the last revocation of the whole identity. The CSRs prove possession and give the keys;
 * their names are ignored. ERR_CONFLICT: the name has a valid SVID with other keys (revoke it first), or
 * another ID has the same overlay address. ERR_REVOKED: removed for ever. What was issued is on disk before
 * it is returned.
 */
int authority_issue(struct authority *a, const struct spiffe_id *id, X509_REQ *link_csr, X509_REQ *spiffe_csr,
		    int64_t ttl, int64_t now, X509 **ret_link, X509 **ret_spiffe, struct err *e);

/* ---- join tokens: "x0t1." + base32(version, issuer addresses, SHA-256 of the issuer's key, name, not_after,
 * secret, checksum) ---- */
enum { TOKEN_ADDRS = 4, TOKEN_TEXT = 512 };

struct token {
	uint8_t naddrs;
	struct endpoint addr[TOKEN_ADDRS];
	uint8_t issuer[SHA256_LEN]; /* SHA-256 of the issuing node's link root SubjectPublicKeyInfo */
	char trust_domain[TRUST_DOMAIN_MAX + 1];
	char name[NODE_NAME_MAX + 1];
	int64_t not_after;
	bool ephemeral;	    /* the node is removed when its SVID expires */
	uint8_t secret[16]; /* 128 bits; wiped by token_wipe() */
};

int token_encode(const struct token *t, char to[TOKEN_TEXT], struct err *e);
int token_decode(const char *s, struct token *ret, struct err *e);
void token_wipe(struct token *t);

/*
 * Makes and stores a token (hash of the secret only), durable before it returns. ttl: seconds. ERR_CONFLICT:
 * a node of that name is there; ERR_REVOKED: it was removed for ever. Bounded: ERR_LIMIT beyond 100,000
 * tokens not expired.
 */
int authority_token(struct authority *a, const char *name, int64_t ttl, bool ephemeral,
		    const struct endpoint *addr, size_t naddrs, int64_t now, struct rng *rng,
		    struct token *ret, struct err *e);

/*
 * The join exchange, ALPN x0-join/1, over one reliable stream. The issuer's TLS certificate is its node's
 * link SVID chain (leaf + root): the client checks that the root's key hash is the token's pin before it says
 * anything. client -> issuer  REQUEST: link CSR, spiffe CSR, HMAC-SHA-256(SHA-256("x0 token" | secret),
 * exporter | CSRs) issuer -> client  REPLY: both leaves, the signed bundle | ERROR: code, sentence
 * `exporter`: 32 bytes of the TLS exporter "EXPORTER-x0-join-v1", empty context.
 */
int join_request(const struct token *t, const uint8_t exporter[32], EVP_PKEY *link_key, EVP_PKEY *spiffe_key,
		 uint8_t **ret_p, size_t *ret_n, struct err *e);
/* Issuer side: checks, consumes the token durably, issues. The same token with the same CSRs is answered
 * again, with others never ("same CSR": the same two keys, as signatures differ each time). The reply
 * (malloc'ed) is also made for refusals (an ERROR message), unless memory is out; the return code says which
 * it was. ret_who only on success. */
int authority_join(struct authority *a, const uint8_t exporter[32], const void *request, size_t n,
		   int64_t now, uint8_t **ret_reply, size_t *ret_n, struct svid_info *ret_who, struct err *e);
struct joined {
	X509 *link, *spiffe;   /* owned */
	struct bundle *bundle; /* owned */
};
int join_reply(const struct token *t, const void *reply, size_t n, EVP_PKEY *link_key, EVP_PKEY *spiffe_key,
	       int64_t now, struct joined *ret, struct err *e);
void joined_fini(struct joined *j);

/* Renewal over an authenticated control session: the same CSRs, signed by possession; the ID is the
 * session's. */
int renew_request(const struct spiffe_id *id, EVP_PKEY *link_key, EVP_PKEY *spiffe_key, uint8_t **ret_p,
		  size_t *ret_n, struct err *e);
/*
 * The caller's session proved `caller`; ERR_REVOKED, ERR_EXPIRED. The keys may be new ones. A reply is also
 * made for refusals, as in authority_join(). renew_reply: the client's side, against the bundle in force
 * here; ret->bundle is NULL if the issuer's is not newer (or the same number with other content): the one in
 * force stays.
 */
int renew_reply(const struct spiffe_id *id, const struct bundle *trusted, const void *reply, size_t n,
		EVP_PKEY *link_key, EVP_PKEY *spiffe_key, int64_t now, struct joined *ret, struct err *e);
int authority_renew(struct authority *a, const struct svid_info *caller, const void *request, size_t n,
		    int64_t now, uint8_t **ret_reply, size_t *ret_n, struct err *e);

/* Each of these raises the bundle's number, signs and stores it durably; it is then in authority_bundle(). */
int authority_revoke(struct authority *a, const char *uri, const uint8_t *key_hash /* NULL: whole identity */,
		     int64_t now, struct err *e);
/* `x0 node remove`: the whole identity for ever; the name cannot be used again. ERR_NOT_FOUND: this issuer
 * never issued to it, unless `unknown_too` (nodes that joined at another issuer). Removed already: 0, nothing
 * changes. */
int authority_remove(struct authority *a, const char *name, bool unknown_too, int64_t now, struct err *e);
int authority_add_issuer(struct authority *a, X509 *link_root, X509 *spiffe_root, int64_t now, struct err *e);
int authority_add_policy_signer(struct authority *a, const char *uri, int64_t now, struct err *e);
/*
 * Another issuer's signed bundle, from bundle_decode_any_number(): of a higher number and holding all of
 * ours, it is adopted as it is, with our signature added; holding anything we lack, or lacking anything of
 * ours, it is merged (bundle_merge) and the union signed. Older and holding nothing new: 0, nothing changes.
 * ERR_AUTH: no root we trust.
 */
int authority_adopt(struct authority *a, const struct bundle *other, int64_t now, struct err *e);

/* What this issuer issued: the last SVIDs of each identity, for `x0 node list`; in order of the SPIFFE ID. An
 * ephemeral node whose SVID has expired is gone: its name is free. */
struct authority_node {
	const char *uri;  /* borrowed for the call */
	const char *name; /* NULL if it is not /node/<name> */
	uint8_t addr[16], serial[16], key_hash[SHA256_LEN];
	int64_t issued_at, not_after;
	bool ephemeral;
	enum { NODE_ACTIVE, NODE_EXPIRED, NODE_REVOKED, NODE_REMOVED } state;
};
void authority_nodes(const struct authority *a, int64_t now,
		     void (*fn)(void *arg, const struct authority_node *n), void *arg);

/*
 * One file, encrypted under its own password: keys (still sealed as they are, with seal.key if there is one),
 * bundle, issued SVIDs. Tokens are left out: one used after the backup was made must not come to life again.
 * Restore refuses to overwrite an authority (ERR_CONFLICT); wrong password: ERR_AUTH. Adopt the mesh's newer
 * bundle afterwards.
 */
int authority_backup(const struct authority *a, const char *path, const char *password, struct err *e);
int authority_restore(const char *path, const char *password, const char *dir, struct err *e);

/* ---- the node's own identity on disk: <state>/identity/{link,spiffe}.{key,crt}, bundle ---- */
struct node_identity {
	struct spiffe_id id;
	uint8_t addr[16];
	EVP_PKEY *link_key, *spiffe_key; /* owned */
	X509 *link, *spiffe;		 /* owned */
	struct bundle *bundle;		 /* owned */
	int64_t not_after;		 /* of the link SVID */
};

/* Written so that kill -9 at any moment leaves either the old or the new identity, whole (one directory,
 * renamed). */
int node_identity_save(const char *dir, const struct node_identity *ni, struct err *e);
int node_identity_load(const char *dir, struct node_identity **ret,
		       struct err *e); /* ERR_NOT_FOUND: not joined yet */
struct node_identity *node_identity_free(struct node_identity *ni);
/* Half life of the SVID +-10 %, from its own hash, so that a fleet does not renew at once. */
int64_t node_identity_renew_at(const struct node_identity *ni);

#endif
