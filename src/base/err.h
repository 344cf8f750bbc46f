/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a negative code for the program, and for humans what failed, why, and what to do.
 *
 * Functions that can fail return 0 (or a count) or a negative code; out-parameters called ret_* are untouched
 * on failure. `struct err *e` is the caller's and may be NULL where only the code matters.
 */
#ifndef X0_BASE_ERR_H
#define X0_BASE_ERR_H

#include <stdarg.h>

enum {
	ERR_OK = 0,
#define X(name, code, exit_status, title) ERR_##name = (code),
#include "base/err.def"
#undef X
};

struct err {
	int code;	/* ERR_* of the last err_set, 0 if none */
	char what[320]; /* what failed and why: one sentence, no newline */
	char todo[200]; /* what to do about it, "" if unknown */
};

/* Writes the sentence and returns `code`, so that `return err_set(e, ERR_PARSE, "...")` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same with ": strerror(errno)" appended; the code is ERR_SYS. Reads errno first, keeps it. A full or
 * read-only disk comes with its remedy. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds the remedy; returns the code already set. */
int err_todo(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " before the sentence; returns the code already set. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *err_name(int code);	 /* "not-found" style slug, stable, for JSON; never NULL */
const char *err_title(int code); /* "not found"; never NULL */
int err_exit_status(int code);	 /* exit status of the CLI for a code, 0 for 0 */

#endif
