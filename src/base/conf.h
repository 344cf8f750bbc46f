/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: a table of keys says what may be written; conf_parse() yields one typed value for each
 *key, or everything that is wrong with the file, with line and column. Nothing half-right ever comes out.
 *
 * One X-macro file holds a schema:
 *
 *	X(LISTEN, "listen.address", ENDPOINT, "0.0.0.0:7430", 1, 65535, false, "Address the tunnel listens
 *on") X(REKEY,  "session.rekey",  DURATION, "120s", NS_PER_S, 3600 * NS_PER_S, true, "Age at which keys are
 *replaced") X(PEERS,  "peers",          MAPS,     "", 0, 1000, true, "Peers to connect to")
 *
 *	enum { K_NONE = -1,
 *	#define X(id, ...) K_##id,
 *	#include "schema/config.def"
 *	#undef X
 *	};
 *	static const struct conf_key keys[] = {
 *	#define X CONF_ROW
 *	#include "schema/config.def"
 *	#undef X
 *	};
 *	static const struct conf_sub subs[] = { { "peers", &peer_schema } };
 *	const struct conf_schema schema = { keys, ARRAY_SIZE(keys), subs, ARRAY_SIZE(subs) };
 *
 *	conf_dur(conf, K_REKEY)
 *
 * Types, how they are written, and what min and max mean (max 0: no limit of its own):
 *	STR        text                                       length in bytes
 *	CHOICE     one of the words; the default is "word|other|another", its first word the value by default
 *(never NULL) BOOL       true, false INT        decimal                                    value (both 0:
 *any) DURATION   20s 250ms 1h30m; ns us ms s m h d          nanoseconds SIZE       65536 64KiB 1MB; B kB KiB
 *MB MiB GB GiB    bytes ENDPOINT   192.0.2.1:7430 "[2001:db8::1]:7430"        port LIST       [text, ...]
 *number of items ENDPOINTS  [endpoint, ...]                            number of items; ports are 1-65535
 *	MAPS       [{...}, ...]                               number of items; each read by the schema in
 *`subs`
 *
 * The default is written as in the file (lists: comma-separated, "" for none; ENDPOINT: "" for the all-zero
 *one); NULL means that the key must be in the file. A default need not keep to min and max: "" may stand for
 *"not set".
 */
#ifndef X0_BASE_CONF_H
#define X0_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/net.h"
#include "base/yaml_node.h"

enum conf_type {
	CONF_STR,
	CONF_CHOICE,
	CONF_BOOL,
	CONF_INT,
	CONF_DURATION,
	CONF_SIZE,
	CONF_ENDPOINT,
	CONF_LIST,
	CONF_ENDPOINTS,
	CONF_MAPS,
};

struct conf_key {
	const char *path; /* dotted: the key "port" in the map "listen" is "listen.port" */
	enum conf_type type;
	const char *def;
	int64_t min, max;
	bool reloadable; /* takes effect without a restart */
	const char *help;
};

#define CONF_ROW(id, path, type, def, min, max, reloadable, help)                                            \
	{ path, CONF_##type, def, (int64_t)(min), (int64_t)(max), reloadable, help },

struct conf_schema {
	const struct conf_key *keys; /* no path is a prefix (by dots) of another */
	size_t n;
	const struct conf_sub {
		const char *path; /* of a MAPS key */
		const struct conf_schema *schema;
	} *subs;
	size_t nsubs;
};

struct conf;

/*
 * Reads a document. On 0 *ret is the caller's. ERR_CONFIG: `problems` (initialised here, sorted by place)
 * says why, all of it up to YAML_PROBLEMS; ERR_NOMEM. A default that cannot be read is a problem without a
 * place.
 */
int conf_parse(const struct conf_schema *schema, const void *text, size_t n, struct conf **ret,
	       struct yaml_problems *problems);
struct conf *conf_free(struct conf *c); /* returns NULL; not for items of MAPS, they go with their file */

/* The id is the key's index in the schema; asking for another type than the schema's ends the process. */
const char *conf_str(const struct conf *c, size_t id); /* STR, CHOICE; never NULL */
bool conf_bool(const struct conf *c, size_t id);
int64_t conf_int(const struct conf *c, size_t id);
uint64_t conf_dur(const struct conf *c, size_t id);  /* nanoseconds */
uint64_t conf_size(const struct conf *c, size_t id); /* bytes */
const struct endpoint *conf_endpoint(const struct conf *c, size_t id);
size_t conf_count(const struct conf *c, size_t id); /* of LIST, ENDPOINTS, MAPS */
const char *conf_list_at(const struct conf *c, size_t id, size_t i);
const struct endpoint *conf_endpoints_at(const struct conf *c, size_t id, size_t i);
const struct conf *conf_maps_at(const struct conf *c, size_t id, size_t i);

bool conf_given(const struct conf *c, size_t id);	/* in the file, not by default */
const char *conf_text(const struct conf *c, size_t id); /* canonical, equal for equal values (MAPS: equal if
							 * written alike); valid as YAML in one line */
/* For checks beyond the schema: adds a problem at the value's place (no place if it is the default). */
void conf_problem(const struct conf *c, size_t id, struct yaml_problems *problems, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

struct conf_change {
	const struct conf_key *key;
	size_t id;
	const char *before, *after; /* conf_text() of each; they live as long as the confs */
};

/* Both of the same schema. Up to `cap` changes (the schema's n suffices); returns how many there are. */
size_t conf_diff(const struct conf *before, const struct conf *after, struct conf_change *to, size_t cap);

/* For texts from elsewhere (command line): ERR_PARSE with the reason. */
int conf_duration_parse(const char *s, uint64_t *ret_ns, struct err *e);
int conf_size_parse(const char *s, uint64_t *ret_bytes, struct err *e);

#endif
