/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that `x0 up` starts and `x0 down` ends, known by a file with process ID and start time. */
#ifndef X0_CLI_PROC_H
#define X0_CLI_PROC_H

#include <sys/types.h>

#include "base/base.h"

/* The running process of <dir>/<name>.pid; 0 if there is none. A number that another process got since does
 * not count. */
pid_t proc_find(const char *dir, const char *name);
/* Starts argv in the background: own session, standard output and error appended to <dir>/<name>.log. */
int proc_start(const char *dir, const char *name, char *const argv[], pid_t *ret, struct err *e);
/* SIGTERM, then SIGKILL after `ms`; 0 also if it does not run. Removes the file. */
int proc_end(const char *dir, const char *name, unsigned ms, struct err *e);
/* Puts the last line of the log into the error's sentence: why a process ended right away. */
void proc_why(const char *dir, const char *name, struct err *e);

#endif
