/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured logging: a message for humans and key=value pairs for machines; text on a tty, one JSON object a
 *line by option. Rate limited per call site (burst 10, then 1 a second, with a "suppressed" count).
 *Thread-safe. Secrets have a type of their own that no function here takes. Libraries log at debug only.
 *
 *	log_info("session", "session up", LS("peer", id), LU("ms", ms));
 */
#ifndef X0_BASE_LOG_H
#define X0_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
	const char *key; /* NULL ends the list */
	enum { LOG_F_STR, LOG_F_U64, LOG_F_I64, LOG_F_F64, LOG_F_BOOL } type;
	union {
		const char *s;
		uint64_t u;
		int64_t i;
		double f;
		bool b;
	} v;
};

#define LS(k, x) ((struct log_field){ .key = (k), .type = LOG_F_STR, .v.s = (x) })
#define LU(k, x) ((struct log_field){ .key = (k), .type = LOG_F_U64, .v.u = (x) })
#define LI(k, x) ((struct log_field){ .key = (k), .type = LOG_F_I64, .v.i = (x) })
#define LF(k, x) ((struct log_field){ .key = (k), .type = LOG_F_F64, .v.f = (x) })
#define LB(k, x) ((struct log_field){ .key = (k), .type = LOG_F_BOOL, .v.b = (x) })

struct log_site {
	_Atomic uint64_t window; /* private: rate limiter */
	_Atomic uint32_t suppressed;
};

void log_init(int fd, enum log_format format,
	      enum log_level max); /* before threads; default: stderr, text, info */
void log_set_level(enum log_level max);
bool log_wants(enum log_level level);
void log_write(struct log_site *site, enum log_level level, const char *module, const char *msg,
	       const struct log_field *fields);

/* The first field is a place holder, so that a call without fields leaves no empty list; log_write() gets the
 * rest. */
#define LOG_AT(level, module, msg, ...)                                                                      \
	do {                                                                                                 \
		static struct log_site log_site_;                                                            \
		if (log_wants(level))                                                                        \
			log_write(&log_site_, level, module, msg,                                            \
				  (const struct log_field[]){ { .key = "" }, ##__VA_ARGS__, { .key = 0 } } + \
					  1);                                                                \
	} while (0)
#define log_error(module, msg, ...) LOG_AT(LOG_ERROR, module, msg, ##__VA_ARGS__)
#define log_warn(module, msg, ...)  LOG_AT(LOG_WARN, module, msg, ##__VA_ARGS__)
#define log_info(module, msg, ...)  LOG_AT(LOG_INFO, module, msg, ##__VA_ARGS__)
#define log_debug(module, msg, ...) LOG_AT(LOG_DEBUG, module, msg, ##__VA_ARGS__)

#endif
