/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the main process may still do after it has started. Call in this order, all before the first thread:
 * sandbox_drop_user(), sandbox_landlock(), then, once everything is opened and loaded, sandbox_seccomp().
 * Each is final.
 *
 * Nothing is weakened silently: what the kernel lacks is ERR_UNSUPPORTED, and the caller decides aloud.
 */
#ifndef X0_DAEMON_SANDBOX_H
#define X0_DAEMON_SANDBOX_H

#include <stddef.h>

#include "base/err.h"

/*
 * Becomes `user` (a name, or a number that is uid and gid; never root): all ids, no supplementary groups, no
 * capabilities in any set, no_new_privs, not dumpable. A process that is that user already only loses the
 * rest. ERR_NOT_FOUND: no such user; ERR_DENIED: neither root nor that user; ERR_CONFIG: the user is root;
 * ERR_CONFLICT: there are threads already.
 */
int sandbox_drop_user(const char *user, struct err *e);

/*
 * From now on files are reachable only below `ro` (read, list) and `rw` (also create, write, rename, remove;
 * no devices), and nothing can be executed. Files that are open stay open. Missing `ro` paths are left out,
 * missing `rw` ones are ERR_NOT_FOUND. ABI 4 also refuses outgoing TCP, ABI 6 abstract Unix sockets and
 * signals to processes outside. *ret_abi: the kernel's Landlock ABI (1 and up; this code uses 6).
 * ERR_UNSUPPORTED: no Landlock here, nothing was restricted; ERR_CONFLICT: there are threads already, which
 * it would not cover.
 */
int sandbox_landlock(const char *const *ro, size_t nro, const char *const *rw, size_t nrw, int *ret_abi,
		     struct err *e);

/*
 * ERRNO is for production: a call that is not on the list fails with EPERM, so that a harmless one that a new
 * libc makes costs a function and not the mesh. KILL is for tests: an unlisted call ends the process, so that
 * the list is known to be complete. In both, calls that no honest path of this program makes (execve, ptrace,
 * bpf, mount, ...) end the process: whoever makes them has control of it, and should not get a second try.
 */
enum sandbox_mode { SANDBOX_ERRNO, SANDBOX_KILL };

/*
 * Allow-list of system calls for all threads, present and to come. Afterwards no memory becomes executable
 * (so no dlopen(): load plug-ins, NSS and OpenSSL providers before), no process is started, no UDP, netlink
 * or packet socket made. ERR_UNSUPPORTED: the kernel has no seccomp filters.
 */
int sandbox_seccomp(enum sandbox_mode mode, struct err *e);

#endif
