/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: errors for programs and people
 *
 * The table err.def is the only list of codes: this file, the exit statuses of the CLI and the JSON slugs
 * come from it.
 *
 * Invariants: `what` and `todo` are always terminated, hold no control characters and end in "..." when cut.
 * Sentences are formatted aside first, so that a function may quote the error it is replacing.
 */
#include "base/err.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

enum { SLUG_MAX = 24, WHAT = sizeof((struct err){ 0 }.what), TODO = sizeof((struct err){ 0 }.todo) };

struct err_row {
	int code, exit_status;
	const char *name, *title;
	char slug[SLUG_MAX];
};

static struct err_row err_rows[] = {
	{ 0, 0, "OK", "ok", "" },
#define X(name, code, exit_status, title) { (code), (exit_status), #name, (title), "" },
#include "base/err.def"
#undef X
};

static pthread_once_t slugs_once = PTHREAD_ONCE_INIT;

/* For err_todo() and err_prefix() with no struct: the code their caller is about to return. */
static _Thread_local int last_code;

static void slugs_make(void)
{
	for (size_t i = 0; i < sizeof(err_rows) / sizeof(err_rows[0]); i++) {
		struct err_row *r = &err_rows[i];

		for (size_t j = 0; j < SLUG_MAX - 1 && r->name[j]; j++) {
			char c = r->name[j];

			r->slug[j] = c == '_' ? '-' : (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
		}
	}
}

static const struct err_row *row_of(int code)
{
	for (size_t i = 0; i < sizeof(err_rows) / sizeof(err_rows[0]); i++)
		if (err_rows[i].code == code)
			return &err_rows[i];
	return NULL;
}

/*
 * Copies one sentence, which may quote anybody's bytes: control characters become spaces, what is no UTF-8
 * becomes '?', a cut is shown and never splits a character.
 */
static void sentence(char *to, size_t cap, const char *from)
{
	size_t left = strlen(from), n = 0;
	bool whole = left < cap;
	size_t room = whole ? cap - 1 : cap - 4;

	while (left) {
		uint32_t cp = '?';
		size_t valid = utf8_char(from, left, &cp), len = valid ? valid : 1;

		if (n + len > room)
			break;
		if (!valid)
			to[n] = '?';
		else if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
			memset(to + n, ' ', len);
		else
			memcpy(to + n, from, len);
		n += len;
		from += len;
		left -= len;
	}
	memcpy(to + n, whole ? "" : "...", whole ? 1 : 4);
}

static int code_of(const struct err *e)
{
	int code = e ? e->code : last_code;

	return code ? code : ERR_FAILED;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	char s[WHAT + 64];
	va_list ap;

	last_code = code;
	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(s, sizeof(s), fmt, ap);
	va_end(ap);
	sentence(e->what, sizeof(e->what), s);
	e->code = code;
	e->todo[0] = '\0';
	return code;
}

int err_sys(struct err *e, const char *fmt, ...)
{
	int saved = errno;
	char s[WHAT + 64];
	va_list ap;

	last_code = ERR_SYS;
	if (!e)
		return ERR_SYS;
	va_start(ap, fmt);
	vsnprintf(s, sizeof(s), fmt, ap);
	va_end(ap);
	err_set(e, ERR_SYS, "%.230s: %s", s, strerror(saved));
	if (saved == ENOSPC || saved == EDQUOT || saved == EROFS)
		err_todo(e, "free space on that file system, or make it writable");
	errno = saved;
	return ERR_SYS;
}

int err_todo(struct err *e, const char *fmt, ...)
{
	char s[TODO + 64];
	va_list ap;

	if (!e)
		return code_of(e);
	va_start(ap, fmt);
	vsnprintf(s, sizeof(s), fmt, ap);
	va_end(ap);
	sentence(e->todo, sizeof(e->todo), s);
	return code_of(e);
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char s[2 * WHAT];
	va_list ap;
	int n;

	if (!e)
		return code_of(e);
	va_start(ap, fmt);
	n = vsnprintf(s, WHAT, fmt, ap);
	va_end(ap);
	if (n < 0)
		return code_of(e);
	if (n >= WHAT)
		n = WHAT - 1;
	snprintf(s + n, sizeof(s) - (size_t)n, ": %s", e->what);
	sentence(e->what, sizeof(e->what), s);
	return code_of(e);
}

const char *err_name(int code)
{
	const struct err_row *r = row_of(code);

	pthread_once(&slugs_once, slugs_make);
	return r ? r->slug : "unknown";
}

const char *err_title(int code)
{
	const struct err_row *r = row_of(code);

	return r ? r->title : "unknown error";
}

int err_exit_status(int code)
{
	const struct err_row *r = row_of(code);

	if (r)
		return r->exit_status;
	return code > 0 ? 0 : 1; /* functions return counts too */
}
