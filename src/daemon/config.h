/* SPDX-License-Identifier: Apache-2.0 */
/* x0.yaml: what it says, with defaults resolved, and how one differs from another. */
#ifndef X0_DAEMON_CONFIG_H
#define X0_DAEMON_CONFIG_H

#include <sys/types.h>

#include "base/base.h"
#include "base/conf.h"
#include "identity/identity.h"
#include "session/session.h"

enum { CONFIG_PATH = 128, CONFIG_USER = 40, CONFIG_PEER_ENDPOINTS = 8, CONFIG_TEXT_MAX = 1 << 20 };

struct config_peer {
	const char *name; /* borrowed from the config */
	unsigned nendpoints;
	struct endpoint endpoint[CONFIG_PEER_ENDPOINTS];
	bool keep;
};

struct config {
	struct conf *conf; /* owned */
	char *text;	   /* owned; as read, NUL-terminated */
	size_t text_n;
	const char *trust_domain, *name; /* "": not set; these and the next borrow from conf */
	const char *state_dir, *run_dir, *user, *tun_name, *password_file;
	char issuer_user[CONFIG_USER];
	char identity_dir[CONFIG_PATH], authority_dir[CONFIG_PATH], seeds[CONFIG_PATH];
	char api_socket[CONFIG_PATH], issuer_socket[CONFIG_PATH], broker_socket[CONFIG_PATH];
	struct endpoint listen, metrics; /* metrics.port 0: off */
	unsigned workers;		 /* resolved, 1-16 */
	unsigned tun_mtu;		 /* resolved */
	unsigned udp_payload;		 /* what the underlay takes as UDP payload */
	enum log_format log_format;
	enum log_level log_level;
	int64_t identity_ttl; /* seconds */
	uint32_t api_group;
	struct sess_params session;
	size_t npeers;
	struct config_peer *peers; /* owned */
};

/* `file` is only for the error's text. ERR_CONFIG: line, column and what to write instead, in e. */
int config_parse(const char *file, const void *text, size_t n, struct config **ret, struct err *e);
/* `must_exist` false: a missing file is the defaults. */
int config_load(const char *path, bool must_exist, struct config **ret, struct err *e);
struct config *config_free(struct config *c);

struct config_diff {
	const char *path, *before, *after; /* borrowed from both configs */
	bool reloadable;
};
/* Up to `cap` differences; returns their number. */
size_t config_diff(const struct config *a, const struct config *b, struct config_diff *to, size_t cap);
/* ERR_CONFLICT, with the key, if something differs that needs a restart. */
int config_reloadable(const struct config *from, const struct config *to, struct err *e);
/* "key: value" lines of everything in force, as YAML. */
void config_print(const struct config *c, FILE *f);

/* The ids of a user by name or number; never root. */
int config_user(const char *user, uid_t *ret_uid, gid_t *ret_gid, struct err *e);

extern const struct conf_schema config_schema;

#endif
