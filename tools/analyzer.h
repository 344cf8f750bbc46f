/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Included by clang-tidy before every file. The analyzer sees one file at a time and so believes that
 * err_set() may return 0, after which every out-parameter would be unset: told that a failure is a failure,
 * it finds what is one.
 */
#include "base/err.h"

#define err_set(e, code, ...) (err_set(e, code, __VA_ARGS__), (code))
#define err_sys(...)	      (err_sys(__VA_ARGS__), ERR_SYS)
#define err_todo(...)	      (err_todo(__VA_ARGS__), ERR_SYS)
#define err_prefix(...)	      (err_prefix(__VA_ARGS__), ERR_SYS)
