/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of x0 as functions, and what the CLI needs to start, find and end them. */
#ifndef X0_DAEMON_DAEMON_H
#define X0_DAEMON_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/config.h"
#include "daemon/doctor.h"

/* Both run until SIGTERM, SIGINT or (daemon) POST /shutdown; 0, or why they could not. They own the process.
 */
int daemon_main(const char *config_path, bool must_exist, struct err *e);
int issuer_main(const struct config *cfg, struct err *e);

/* Makes state_dir and run_dir and gives the parts to their users; as root. */
int daemon_dirs(const struct config *cfg, struct err *e);
/* The first line of a password file, without the newline; the caller wipes *ret. path "": *ret stays NULL. */
int password_read(const char *path, char **ret, struct err *e);
/* Puts a saved identity (and seeds, may be NULL) in place and gives it to the daemon's user. */
int daemon_identity_install(const struct config *cfg, const struct node_identity *ni, const char *seeds,
			    struct err *e);

#endif
