/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: structured logging
 *
 * A line is built on the stack and leaves in one write(2) of at most PIPE_BUF bytes, which pipes and O_APPEND
 * files keep whole: no lock, no interleaving, no allocation. What does not fit is cut and marked "truncated".
 *
 * Values come from the network too. JSON strings are always valid (RFC 8259; bytes that are no UTF-8 become
 * U+FFFD); text shows control characters, direction overrides and broken bytes as escapes, so that no peer
 * can draw on an operator's terminal or forge a line.
 *
 * The limiter is GCRA with one word a site: `window` is the time at which the burst would be whole again, 10
 * at once, then one a second. Errno survives a call.
 */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

enum {
	LINE = PIPE_BUF,
	TAIL = 96, /* kept free for the marks and the end of the line */
	BURST = 10,
};
#define PERIOD_NS 1000000000ull

static _Atomic int log_fd = STDERR_FILENO;
static _Atomic int log_format_ = LOG_TEXT;
static _Atomic int log_max = LOG_INFO;
static _Atomic bool log_colour;
static _Atomic uint32_t log_lost; /* lines the fd did not take */

static const char *const level_name[] = { "error", "warn", "info", "debug" };
static const char *const level_colour[] = { "\033[31m", "\033[33m", "\033[32m", "\033[2m" };

struct line {
	char s[LINE];
	size_t n;
	bool cut;
};

void log_init(int fd, enum log_format format, enum log_level max)
{
	int saved = errno;

	log_fd = fd;
	log_format_ = format;
	log_max = (int)max;
	log_colour = format == LOG_TEXT && isatty(fd) == 1;
	errno = saved;
}

void log_set_level(enum log_level max)
{
	log_max = (int)max;
}

bool log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_max, memory_order_relaxed);
}

/* All or nothing; the tail stays free. */
static bool put(struct line *l, const char *s, size_t n)
{
	if (l->cut || n > LINE - TAIL - l->n) {
		l->cut = true;
		return false;
	}
	memcpy(l->s + l->n, s, n);
	l->n += n;
	return true;
}

static bool puts_(struct line *l, const char *s)
{
	return put(l, s, strlen(s));
}

/* For what ends the line: the room was kept. */
static void put_tail(struct line *l, const char *s)
{
	size_t n = strlen(s);

	memcpy(l->s + l->n, s, n);
	l->n += n;
}

/* What could move the cursor, start an escape sequence, break the line or reorder what is read. */
static bool unprintable(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7f && cp <= 0x9f) || (cp >= 0x200e && cp <= 0x200f) ||
	       (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

/* The inside of a quoted string; the same escapes in both formats but for broken bytes. */
static void put_escaped(struct line *l, const char *str, bool json)
{
	const unsigned char *s = (const unsigned char *)str;

	while (*s) {
		char esc[16];
		uint32_t cp = 0;
		size_t len = utf8_char(s, SIZE_MAX, &cp); /* stops at the NUL: that continues no character */
		int n = 0;

		if (len == 0)
			n = json ? snprintf(esc, sizeof(esc), "\xef\xbf\xbd")
				 : snprintf(esc, sizeof(esc), "\\x%02x", *s);
		else if (cp == '"' || cp == '\\')
			n = snprintf(esc, sizeof(esc), "\\%c", (char)cp);
		else if (cp == '\n' || cp == '\t' || cp == '\r')
			n = snprintf(esc, sizeof(esc), "\\%c", cp == '\n' ? 'n' : cp == '\t' ? 't' : 'r');
		else if (unprintable(cp))
			n = snprintf(esc, sizeof(esc), "\\u%04x", cp);
		if (!(n ? put(l, esc, (size_t)n) : put(l, (const char *)s, len)))
			return;
		s += len ? len : 1;
	}
}

/* Text quotes only what needs it, for people's sake. */
static bool needs_quotes(const char *s)
{
	if (!*s)
		return true;
	for (const unsigned char *p = (const unsigned char *)s; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '=' || *p == '\\')
			return true;
	return false;
}

/* The closing quote goes into the tail when the string was cut. */
static void put_quoted(struct line *l, const char *s, bool json)
{
	if (!put(l, "\"", 1))
		return;
	put_escaped(l, s, json);
	if (l->cut)
		put_tail(l, "\"");
	else if (!put(l, "\"", 1))
		put_tail(l, "\"");
}

static void put_string(struct line *l, const char *s, bool json)
{
	if (!s)
		puts_(l, json ? "null" : "-");
	else if (json || needs_quotes(s))
		put_quoted(l, s, json);
	else
		put_escaped(l, s, false);
}

static void put_double(struct line *l, double f, bool json)
{
	char s[32];

	if (!isfinite(f)) {
		puts_(l, json ? "null" : isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
		return;
	}
	snprintf(s, sizeof(s), "%.15g", f);
	puts_(l, s);
}

static void put_value(struct line *l, const struct log_field *f, bool json)
{
	char s[24];

	switch (f->type) {
	case LOG_F_STR:
		put_string(l, f->v.s, json);
		break;
	case LOG_F_U64:
		snprintf(s, sizeof(s), "%ju", (uintmax_t)f->v.u);
		puts_(l, s);
		break;
	case LOG_F_I64:
		snprintf(s, sizeof(s), "%jd", (intmax_t)f->v.i);
		puts_(l, s);
		break;
	case LOG_F_F64:
		put_double(l, f->v.f, json);
		break;
	case LOG_F_BOOL:
		puts_(l, f->v.b ? "true" : "false");
		break;
	}
}

/* A field is written whole, or with its string cut, or not at all. */
static void put_field(struct line *l, const struct log_field *f, bool json)
{
	size_t start = l->n, value;

	puts_(l, json ? ",\"" : " ");
	put_escaped(l, f->key, json);
	puts_(l, json ? "\":" : "=");
	value = l->n;
	if (!l->cut)
		put_value(l, f, json);
	if (l->cut && l->n == value)
		l->n = start;
}

static void put_time(struct line *l)
{
	struct timespec ts;
	struct tm tm;
	char s[96];

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	snprintf(s, sizeof(s), "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
		 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000);
	puts_(l, s);
}

/* Everything before the fields. */
static void put_head(struct line *l, enum log_level level, const char *module, const char *msg, bool json)
{
	char s[48];

	if (json) {
		puts_(l, "{\"ts\":\"");
		put_time(l);
		snprintf(s, sizeof(s), "\",\"level\":\"%s\"", level_name[level]);
		puts_(l, s);
		put_field(l, &LS("module", module), true);
		put_field(l, &LS("msg", msg), true);
		return;
	}
	put_time(l);
	if (log_colour)
		snprintf(s, sizeof(s), " %s%-5s\033[0m ", level_colour[level], level_name[level]);
	else
		snprintf(s, sizeof(s), " %-5s ", level_name[level]);
	puts_(l, s);
	put_escaped(l, module, false);
	puts_(l, ": ");
	put_escaped(l, msg, false);
}

static void put_tail_count(struct line *l, const char *key, uint32_t n, bool json)
{
	char s[40];

	if (n == 0)
		return;
	snprintf(s, sizeof(s), json ? ",\"%s\":%u" : " %s=%u", key, n);
	put_tail(l, s);
}

/* Whether the site may speak now. */
static bool site_allows(struct log_site *site)
{
	struct timespec ts;
	uint64_t now, full, next;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * PERIOD_NS + (uint64_t)ts.tv_nsec;
	full = atomic_load_explicit(&site->window, memory_order_relaxed);
	do {
		if (full > now + (BURST - 1) * PERIOD_NS) {
			atomic_fetch_add_explicit(&site->suppressed, 1, memory_order_relaxed);
			return false;
		}
		next = (full > now ? full : now) + PERIOD_NS;
	} while (!atomic_compare_exchange_weak_explicit(&site->window, &full, next, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

static void line_send(const struct line *l, uint32_t lost)
{
	ssize_t n;

	do {
		n = write(log_fd, l->s, l->n);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		atomic_fetch_add(&log_lost, lost + 1);
}

void log_write(struct log_site *site, enum log_level level, const char *module, const char *msg,
	       const struct log_field *fields)
{
	bool json = log_format_ == LOG_JSON;
	int saved = errno;
	struct line l;
	uint32_t lost;

	if (!log_wants(level) || (site && !site_allows(site))) {
		errno = saved;
		return;
	}
	l.n = 0;
	l.cut = false;
	put_head(&l, level, module, msg, json);
	for (; fields && fields->key && !l.cut; fields++)
		put_field(&l, fields, json);
	if (l.cut)
		put_tail(&l, json ? ",\"truncated\":true" : " truncated=true");
	if (site)
		put_tail_count(&l, "suppressed", atomic_exchange(&site->suppressed, 0), json);
	lost = atomic_exchange(&log_lost, 0);
	put_tail_count(&l, "lost", lost, json);
	put_tail(&l, json ? "}\n" : "\n");
	line_send(&l, lost);
	errno = saved;
}
