/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: run by a service manager
 *
 * The two halves of systemd's protocol that a service without rights needs: sockets it may not make itself
 * (sd_listen_fds(3)) and "I am ready" (sd_notify(3)). Both are a few bytes; libsystemd would come with more
 * code than the broker has. Without a service manager each call does nothing.
 */
#ifndef X0_BASE_SERVICE_H
#define X0_BASE_SERVICE_H

#include "base/err.h"

/* The listening Unix stream socket the manager passed to this process, in *ret (owned by the caller,
 * close-on-exec, not blocking); -1: none was passed. Anything else that was passed is an error. The
 * environment forgets it. */
int service_socket(int *ret, struct err *e);
/* Connects to the manager while the files are still in sight; the environment forgets it. */
int service_open(struct err *e);
/* Says READY=1, once; needs nothing but send(). */
void service_ready(void);

#endif
