/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: which system calls the main process may make
 *
 * An allow-list in three parts: calls allowed whatever their arguments, calls allowed with some arguments,
 * and calls that end the process. All else is EPERM (or the end, in tests).
 *
 * Invariants: no argument that is a pointer is relied on, as the filter cannot see behind it: clone3
 * therefore does not exist (glibc falls back to clone, whose flags can be seen), and connect() is limited by
 * the sockets one can have. No rule lets memory be writable and later executable.
 *
 * Source: seccomp(2), libseccomp; Linux include/uapi.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/sandbox.h"

#define S(name) SCMP_SYS(name)

static const int always[] = {
	/* bytes in and out */
	S(read),
	S(write),
	S(readv),
	S(writev),
	S(pread64),
	S(pwrite64),
	S(preadv),
	S(pwritev),
	S(recvfrom),
	S(sendto),
	S(recvmsg),
	S(sendmsg),
	S(recvmmsg),
	S(sendmmsg),
	S(close),
	S(close_range),
	S(dup),
	S(dup2),
	S(dup3),
	S(fcntl),
	S(pipe2),
	/* waiting, time */
	S(epoll_create1),
	S(epoll_ctl),
	S(epoll_wait),
	S(epoll_pwait),
	S(epoll_pwait2),
	S(poll),
	S(ppoll),
	S(select),
	S(pselect6),
	S(eventfd2),
	S(signalfd4),
	S(timerfd_create),
	S(timerfd_settime),
	S(timerfd_gettime),
	S(nanosleep),
	S(clock_nanosleep),
	S(clock_gettime),
	S(clock_getres),
	S(gettimeofday),
	S(time),
	S(restart_syscall),
	/* memory, threads */
	S(munmap),
	S(mremap),
	S(brk),
	S(madvise),
	S(mlock),
	S(mlock2),
	S(munlock),
	S(msync),
	S(mincore),
	S(futex),
	S(futex_waitv),
	S(set_robust_list),
	S(rseq),
	S(set_tid_address),
	S(membarrier),
	S(sched_yield),
	S(sched_getaffinity),
	S(sched_setaffinity),
	S(sched_getparam),
	S(sched_getscheduler),
	S(sched_get_priority_max),
	S(sched_get_priority_min),
	S(getcpu),
	S(exit),
	S(exit_group),
	/* signals to itself */
	S(rt_sigaction),
	S(rt_sigprocmask),
	S(rt_sigreturn),
	S(rt_sigpending),
	S(rt_sigsuspend),
	S(rt_sigtimedwait),
	S(sigaltstack),
	/* files, within what Landlock leaves */
	S(openat),
	S(fstat),
	S(newfstatat),
	S(statx),
	S(lseek),
	S(fsync),
	S(fdatasync),
	S(ftruncate),
	S(fallocate),
	S(flock),
	S(rename),
	S(renameat),
	S(renameat2),
	S(unlink),
	S(unlinkat),
	S(mkdir),
	S(mkdirat),
	S(rmdir),
	S(access),
	S(faccessat),
	S(faccessat2),
	S(readlink),
	S(readlinkat),
	S(getdents64),
	S(getcwd),
	S(umask),
	S(chmod),
	S(fchmod),
	S(fchmodat),
	S(statfs),
	S(fstatfs),
	S(fadvise64),
	S(open),
	S(stat),
	S(lstat),
	/* sockets: made by the rules below */
	S(bind),
	S(listen),
	S(accept),
	S(accept4),
	S(connect),
	S(shutdown),
	S(getsockopt),
	S(getsockname),
	S(getpeername),
	/* who and where am I */
	S(getrandom),
	S(getpid),
	S(gettid),
	S(getppid),
	S(getuid),
	S(geteuid),
	S(getgid),
	S(getegid),
	S(getresuid),
	S(getresgid),
	S(getrusage),
	S(times),
	S(uname),
	S(sysinfo),
};

/* No honest path leads here: the process is someone else's. */
static const int deadly[] = {
	S(execve),
	S(execveat),
	S(ptrace),
	S(process_vm_readv),
	S(process_vm_writev),
	S(process_madvise),
	S(bpf),
	S(perf_event_open),
	S(userfaultfd),
	S(mount),
	S(umount2),
	S(pivot_root),
	S(chroot),
	S(move_mount),
	S(open_tree),
	S(fsopen),
	S(setns),
	S(unshare),
	S(init_module),
	S(finit_module),
	S(delete_module),
	S(kexec_load),
	S(kexec_file_load),
	S(reboot),
	S(swapon),
	S(swapoff),
	S(personality),
	S(pidfd_getfd),
	S(open_by_handle_at),
	S(acct),
	S(settimeofday),
	S(clock_settime),
};

static const int ioctls[] = { FIONREAD, FIONBIO, FIOCLEX, TCGETS, TIOCGWINSZ, SIOCGIFINDEX, SIOCGIFNAME };
static const int levels[] = { SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP };
static const int prctls[] = { PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_SET_VMA };

#define ALLOW(call, n, ...) seccomp_rule_add(ctx, SCMP_ACT_ALLOW, S(call), n, __VA_ARGS__)

/* Sockets: Unix ones, and TCP (which Landlock lets only listen). The type carries flags in its upper bits. */
static int add_sockets(scmp_filter_ctx ctx)
{
	static const int inet[] = { AF_INET, AF_INET6 }, proto[] = { 0, IPPROTO_TCP };
	int rc = ALLOW(socket, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));

	rc = rc ? rc : ALLOW(socketpair, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	for (size_t i = 0; i < ARRAY_SIZE(inet); i++)
		for (size_t j = 0; !rc && j < ARRAY_SIZE(proto); j++)
			rc = ALLOW(socket, 3, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)inet[i]),
				   SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, SOCK_STREAM),
				   SCMP_A2(SCMP_CMP_EQ, (scmp_datum_t)proto[j]));
	for (size_t i = 0; !rc && i < ARRAY_SIZE(levels); i++)
		rc = ALLOW(setsockopt, 1, SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)levels[i]));
	return rc;
}

static int add_rules(scmp_filter_ctx ctx, enum sandbox_mode mode)
{
	const scmp_datum_t thread = CLONE_THREAD, ns = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWNET |
						       CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
						       CLONE_NEWCGROUP | CLONE_PTRACE;
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(always); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, always[i], 0);
	/* In KILL mode they are like all that is not listed; libseccomp refuses rules that say what the
	 * default says. */
	for (size_t i = 0; !rc && mode != SANDBOX_KILL && i < ARRAY_SIZE(deadly); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(ioctls); i++)
		rc = ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)ioctls[i]));
	for (size_t i = 0; !rc && i < ARRAY_SIZE(prctls); i++)
		rc = ALLOW(prctl, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)prctls[i]));
	rc = rc ? rc : add_sockets(ctx);
	/* No executable memory. */
	rc = rc ? rc : ALLOW(mmap, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	rc = rc ? rc : ALLOW(mprotect, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Threads, not processes. */
	rc = rc ? rc : ALLOW(clone, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, thread | ns, thread));
	rc = rc ? rc : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), S(clone3), 0);
	/* Its own limits are read, not changed; signals go to itself. */
	rc = rc ? rc : ALLOW(prlimit64, 2, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
	rc = rc ? rc : ALLOW(tgkill, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return rc;
}

int sandbox_seccomp(enum sandbox_mode mode, struct err *e)
{
	scmp_filter_ctx ctx;
	int rc;

	if (seccomp_api_get() < 2) {
		err_set(e, ERR_UNSUPPORTED, "this kernel has no seccomp filters for all threads");
		return err_todo(e, "use a kernel with CONFIG_SECCOMP_FILTER");
	}
	ctx = seccomp_init(mode == SANDBOX_KILL ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return err_set(e, ERR_NOMEM, "no memory for the system call filter");
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* To the audit log, as far as kernel.seccomp.actions_logged says. */
	rc = rc ? rc : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);
	rc = rc ? rc : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	rc = rc ? rc : seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	rc = rc ? rc : add_rules(ctx, mode);
	rc = rc ? rc : seccomp_load(ctx);
	seccomp_release(ctx);
	if (rc) {
		errno = -rc;
		return err_sys(e, "cannot install the system call filter");
	}
	return 0;
}
