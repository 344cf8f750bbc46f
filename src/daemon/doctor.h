/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of `x0 doctor`: each says what it found and, if it is not fine, what to do. */
#ifndef X0_DAEMON_DOCTOR_H
#define X0_DAEMON_DOCTOR_H

#include "daemon/config.h"

enum doctor_status { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };
enum { DOCTOR_CHECKS = 40 };

struct doctor_check {
	char name[24];
	enum doctor_status status;
	char detail[200], todo[200];
};

struct doctor {
	unsigned n;
	struct doctor_check check[DOCTOR_CHECKS];
};

void doctor_add(struct doctor *d, const char *name, enum doctor_status status, const char *todo,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* What can be seen without the daemon: kernel, libraries, CPU, users, directories, device. Needs no rights.
 */
void doctor_host(struct doctor *d, const struct config *cfg);
const char *doctor_status_name(enum doctor_status s); /* "ok", "warn", "fail" */

#endif
