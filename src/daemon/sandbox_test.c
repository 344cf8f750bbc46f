/* SPDX-License-Identifier: Apache-2.0 */
/* Every step in a child of its own, as each is final. What the daemon does must work in KILL mode: one
 * missing call ends it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "daemon/sandbox.h"

#include <cmocka.h>

static char dir[64];	 /* rw */
static char outside[64]; /* not allowed */

/* exit() writes coverage; but a leak check at exit needs ptrace, which the child has given up by then. */
extern void __asan_init(void) __attribute__((weak));

static void leave(int status)
{
	if (__asan_init)
		_exit(status);
	exit(status);
}

#define CHECK(cond)                                                                                          \
	do {                                                                                                 \
		if (!(cond)) {                                                                               \
			fprintf(stderr, "child: line %d: %s (%s)\n", __LINE__, #cond, strerror(errno));      \
			leave(1);                                                                            \
		}                                                                                            \
	} while (0)

/* Exit status, or 256 + signal. */
static int in_child(void (*fn)(void))
{
	pid_t pid;
	int st;

	fflush(NULL); /* or the child would write it again */
	pid = fork();
	if (pid == 0) {
		alarm(20);
		fn();
		leave(0);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 256 + WTERMSIG(st);
}

static int setup(void **state)
{
	char path[96];
	struct err e = { 0 };

	(void)state;
	strcpy(dir, "/tmp/x0sandboxXXXXXX");
	strcpy(outside, "/tmp/x0outsideXXXXXX");
	if (!mkdtemp(dir) || !mkdtemp(outside))
		return -1;
	snprintf(path, sizeof(path), "%s/f", outside);
	return file_write(path, "x", 1, 0644, &e);
}

static int teardown(void **state)
{
	char cmd[160];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -r %s %s", dir, outside);
	return system(cmd);
}

static bool can_root(void)
{
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
	fprintf(stderr, "ThreadSanitizer has a thread of its own: what confines the whole process refuses\n");
	return false;
#endif
#endif
	if (geteuid() == 0)
		return true;
	fprintf(stderr, "this test needs root\n");
	assert_null(getenv("CI"));
	return false;
}

/* ---- user ---- */

static void drops(void)
{
	struct err e = { 0 };
	char line[256];
	unsigned seen = 0;
	uid_t u[3];
	FILE *f;

	CHECK(sandbox_drop_user("nobody", &e) == 0);
	CHECK(getresuid(&u[0], &u[1], &u[2]) == 0 && u[0] != 0 && u[1] == u[0] && u[2] == u[0]);
	CHECK(getgroups(0, NULL) == 0);
	CHECK(setuid(0) < 0 && setgid(0) < 0);
	CHECK(prctl(PR_GET_DUMPABLE) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	f = fopen("/proc/self/status", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long v = 1;
		char set[4];

		if (sscanf(line, "Cap%3s: %llx", set, &v) == 2) {
			CHECK(v == 0);
			seen++;
		}
	}
	CHECK(seen == 5);
	CHECK(open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES);
	CHECK(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM);
	/* Once more, as a process that was started as that user would. */
	CHECK(sandbox_drop_user("nobody", &e) == 0);
	CHECK(sandbox_drop_user("daemon", &e) == ERR_DENIED && e.todo[0]);
}

static void *sleeper(void *arg)
{
	pause();
	return arg;
}

static void drops_refused(void)
{
	struct err e = { 0 };
	pthread_t t;
	int abi = -1;

	CHECK(sandbox_drop_user("no-such-user", &e) == ERR_NOT_FOUND && e.todo[0]);
	CHECK(sandbox_drop_user("root", &e) == ERR_CONFIG);
	CHECK(geteuid() == 0);
	CHECK(pthread_create(&t, NULL, sleeper, NULL) == 0);
	CHECK(sandbox_drop_user("nobody", &e) == ERR_CONFLICT);
	CHECK(sandbox_landlock(NULL, 0, NULL, 0, &abi, &e) != 0 && abi == -1);
	CHECK(geteuid() == 0);
}

static void user(void **state)
{
	(void)state;
	if (!can_root())
		skip();
	assert_int_equal(in_child(drops), 0);
	assert_int_equal(in_child(drops_refused), 0);
}

/* ---- files ---- */

static int tcp_to(uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0),
	    rc = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? errno : 0;

	close(fd);
	return rc;
}

static void landlocked(void)
{
	const char *ro[] = { "/etc/hosts", "/usr/share", "/no/such/path" }, *rw[] = { dir };
	char a[96], b[96];
	struct err e = { 0 };
	uint8_t *p = NULL;
	size_t n = 0;
	int abi = 0, kept = open("/etc/passwd", O_RDONLY);
	FILE *seen;

	CHECK(kept >= 0);
	CHECK(sandbox_landlock(ro, ARRAY_SIZE(ro), rw, ARRAY_SIZE(rw), &abi, &e) == 0);
	CHECK(abi >= 1);
	/* Refused: other files, also for root; writing to read-only ones; running programs. */
	CHECK(open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES);
	CHECK(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
	snprintf(a, sizeof(a), "%s/f", outside);
	CHECK(open(a, O_RDONLY) < 0 && errno == EACCES);
	CHECK(open(a, O_WRONLY | O_TRUNC) < 0 && errno == EACCES);
	CHECK(unlink(a) < 0 && errno == EACCES);
	snprintf(a, sizeof(a), "%s/g", outside);
	CHECK(open(a, O_CREAT | O_WRONLY, 0600) < 0 && errno == EACCES);
	CHECK(open("/etc/hosts", O_WRONLY) < 0 && errno == EACCES);
	CHECK(open("/usr/share", O_TMPFILE | O_WRONLY, 0600) < 0);
	CHECK(open("/", O_RDONLY | O_DIRECTORY) < 0 && errno == EACCES);
	CHECK(execl("/bin/true", "true", (char *)NULL) < 0 && errno == EACCES);
	snprintf(a, sizeof(a), "%s/node", dir);
	CHECK(mknod(a, S_IFCHR | 0600, 0x101) < 0);
	/* Allowed: what the daemon does with its own files, and files that were open. */
	CHECK(read(kept, a, 1) == 1);
	CHECK(close(open("/etc/hosts", O_RDONLY)) == 0);
	CHECK(close(open("/usr/share", O_RDONLY | O_DIRECTORY)) == 0);
	snprintf(a, sizeof(a), "%s/sub/deep", dir);
	CHECK(dir_make(a, 0700, &e) == 0);
	snprintf(a, sizeof(a), "%s/sub/deep/key", dir);
	CHECK(file_write(a, "hello", 5, 0600, &e) == 0);
	CHECK(file_write(a, "again", 5, 0600, &e) == 0);
	CHECK(file_read(a, 100, &p, &n, &e) == 0 && n == 5);
	free(p);
	snprintf(b, sizeof(b), "%s/moved", dir);
	CHECK(abi < 2 || rename(a, b) == 0);
	snprintf(a, sizeof(a), "%s/abi", dir);
	seen = fopen(a, "w");
	CHECK(seen && fprintf(seen, "%d", abi) > 0 && fclose(seen) == 0);
	CHECK(abi < 4 || tcp_to(9) == EACCES);
}

static void landlock_errors(void)
{
	const char *missing[] = { "/no/such/path" }, *through[] = { "/etc/hosts/x" };
	struct err e = { 0 };
	int abi = -7;

	CHECK(sandbox_landlock(NULL, 0, missing, 1, &abi, &e) == ERR_NOT_FOUND && abi == -7);
	CHECK(sandbox_landlock(through, 1, NULL, 0, &abi, &e) == ERR_SYS && abi == -7);
	CHECK(open("/etc/passwd", O_RDONLY) >= 0); /* nothing was applied */
}

static void landlock(void **state)
{
	char path[96];
	struct err e = { 0 };
	uint8_t *p = NULL;
	size_t n;
	int abi;

	(void)state;
	assert_int_equal(in_child(landlocked), 0);
	assert_int_equal(in_child(landlock_errors), 0);
	snprintf(path, sizeof(path), "%s/abi", dir);
	assert_int_equal(file_read(path, 10, &p, &n, &e), 0);
	abi = atoi((char *)p);
	free(p);
	print_message("Landlock ABI %d\n", abi);
}

/* ---- system calls ---- */

static void *worker(void *arg)
{
	int *pair = arg;
	char buf[64];
	struct iovec io = { buf, sizeof(buf) };
	struct mmsghdr m = { .msg_hdr = { .msg_iov = &io, .msg_iovlen = 1 } };
	cpu_set_t set;

	prctl(PR_SET_NAME, "worker");
	CHECK(sched_getaffinity(0, sizeof(set), &set) == 0);
	CHECK(pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0);
	memcpy(buf, "ping", 4);
	io.iov_len = 4;
	CHECK(sendmmsg(pair[0], &m, 1, 0) == 1);
	CHECK(recvmmsg(pair[1], &m, 1, 0, NULL) == 1);
	free(malloc(1 << 20));
	return malloc(100);
}

static void do_threads(int *pair)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, worker, pair) == 0);
	for (int i = 0; i < 4; i++) {
		void *p = NULL;

		CHECK(pthread_join(t[i], &p) == 0);
		free(p);
	}
}

static void do_loop(void)
{
	struct itimerspec when = { .it_value.tv_nsec = 1000000 };
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct timespec now;
	uint64_t n = 1;

	CHECK(ep >= 0 && fd >= 0);
	CHECK(timerfd_settime(fd, 0, &when, NULL) == 0);
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	CHECK(epoll_wait(ep, &ev, 1, 1000) == 1);
	close(fd);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(write(fd, &n, sizeof(n)) == sizeof(n) && read(fd, &n, sizeof(n)) == sizeof(n));
	close(fd);
	close(ep);
	CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
	CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0);
	usleep(1000);
}

static void do_files(void)
{
	struct err e = { 0 };
	uint8_t *p = NULL;
	struct stat st;
	char a[96];
	size_t n;

	snprintf(a, sizeof(a), "%s/state/x", dir);
	CHECK(dir_make(a, 0700, &e) == 0);
	snprintf(a, sizeof(a), "%s/state/x/y", dir);
	CHECK(file_write(a, "data", 4, 0600, &e) == 0);
	CHECK(file_read(a, 10, &p, &n, &e) == 0);
	free(p);
	CHECK(stat(a, &st) == 0 && access(a, R_OK) == 0);
	CHECK(unlink(a) == 0);
	snprintf(a, sizeof(a), "%s/state/x", dir);
	CHECK(rmdir(a) == 0);
	snprintf(a, sizeof(a), "%s/state", dir);
	CHECK(rmdir(a) == 0);
}

static void do_sockets(int unix_listener)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa);
	int on = 1, fd, c, s;

	for (int family = 0; family < 2; family++) {
		struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		fd = socket(family ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			    family ? IPPROTO_TCP : 0);
		CHECK(fd >= 0);
		CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
		CHECK(setsockopt(fd, IPPROTO_TCP, 1, &on, sizeof(on)) == 0);
		/* A host without ::1 refuses the bind, not the call. */
		if (bind(fd, family ? (struct sockaddr *)&any : (struct sockaddr *)&v4,
			 family ? sizeof(any) : sizeof(v4)) == 0)
			CHECK(listen(fd, 5) == 0);
		close(fd);
	}
	CHECK(getsockname(unix_listener, (struct sockaddr *)&sa, &len) == 0);
	c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(c, (struct sockaddr *)&sa, len) == 0);
	s = accept4(unix_listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(s >= 0 && send(s, "x", 1, MSG_NOSIGNAL) == 1 && recv(c, &on, 1, 0) == 1);
	CHECK(shutdown(s, SHUT_RDWR) == 0);
	close(s);
	close(c);
}

static void do_rest(void)
{
	struct rlimit lim;
	struct err e = { 0 };
	struct endpoint ep;
	sigset_t set;
	uint8_t r[32];
	void *p;

	CHECK(getrandom(r, sizeof(r), 0) == sizeof(r));
	p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED && madvise(p, 1 << 16, MADV_DONTDUMP) == 0 &&
	      mprotect(p, 4096, PROT_NONE) == 0);
	CHECK(mlock((char *)p + 4096, 4096) == 0 || errno == ENOMEM || errno == EPERM || errno == EAGAIN);
	CHECK(munmap(p, 1 << 16) == 0);
	free(malloc(64 << 20));
	CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(raise(SIGUSR1) == 0);
	CHECK(isatty(0) >= 0);
	CHECK(endpoint_parse("[fe80::1%lo]:1", 0, &ep, &e) == 0 || e.code); /* asks the kernel for an index */
	log_info("sandbox", "a line");
	printf("%s", "");
}

/* Socket pairs and the listener come from before, as the broker's and systemd's do. */
static void everyday(enum sandbox_mode mode)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int pair[2], listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct err e = { 0 };

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/sock%d", dir, mode);
	CHECK(bind(listener, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(listener, 4) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	log_init(open("/dev/null", O_WRONLY), LOG_JSON, LOG_INFO);
	CHECK(sandbox_seccomp(mode, &e) == 0);
	do_threads(pair);
	do_loop();
	do_files();
	do_sockets(listener);
	do_rest();
}

static void everyday_errno(void)
{
	everyday(SANDBOX_ERRNO);
}

static void everyday_kill(void)
{
	everyday(SANDBOX_KILL);
}

static void refused(void)
{
	struct err e = { 0 };
	struct rlimit lim = { 10, 10 };
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getppid();
	int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1;

	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	CHECK(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_NETLINK, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_INET, SOCK_DGRAM, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6) < 0 && errno == EPERM);
	CHECK(socket(AF_INET, SOCK_STREAM, 262) < 0 && errno == EPERM); /* MPTCP */
	CHECK(socket(AF_ALG, SOCK_SEQPACKET, 0) < 0 && errno == EPERM);
	CHECK(setsockopt(fd, 263 /* SOL_PACKET */, 1, &one, sizeof(one)) < 0 && errno == EPERM);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
	      errno == EPERM);
	CHECK(mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EPERM);
	CHECK(fork() < 0 && errno == EPERM);
	CHECK(syscall(SYS_clone, CLONE_THREAD | CLONE_NEWNET, 0, 0, 0, 0) < 0 && errno == EPERM);
	CHECK(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
	CHECK(kill(parent, 0) < 0 && errno == EPERM);
	CHECK(syscall(SYS_tgkill, parent, parent, 0) < 0 && errno == EPERM);
	CHECK(setrlimit(RLIMIT_NOFILE, &lim) < 0 && errno == EPERM);
	CHECK(ioctl(0, TIOCSTI, "x") < 0 && errno == EPERM);
	CHECK(syscall(425 /* io_uring_setup */, 1, NULL) < 0 && errno == EPERM);
	CHECK(syscall(SYS_memfd_create, "x", 0) < 0 && errno == EPERM);
	CHECK(prctl(PR_SET_DUMPABLE, 1) < 0 && errno == EPERM);
	CHECK(setuid(0) < 0 && errno == EPERM);
	CHECK(chdir("/") < 0 && errno == EPERM);
}

static void deadly_exec(void)
{
	struct err e = { 0 };

	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	execl("/bin/true", "true", (char *)NULL);
}

static void deadly_ptrace(void)
{
	struct err e = { 0 };

	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	ptrace(PTRACE_ATTACH, -1, NULL, NULL);
}

static void deadly_bpf(void)
{
	struct err e = { 0 };

	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	syscall(SYS_bpf, 0, NULL, 0);
}

static void deadly_mount(void)
{
	struct err e = { 0 };

	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	syscall(SYS_mount, NULL, NULL, NULL, 0, NULL);
}

static void deadly_unlisted(void)
{
	struct err e = { 0 };

	CHECK(sandbox_seccomp(SANDBOX_KILL, &e) == 0);
	syscall(SYS_chdir, "/");
}

static void *late_exec(void *arg)
{
	while (!*(atomic_int *)arg)
		usleep(1000);
	syscall(SYS_bpf, 0, NULL, 0);
	return NULL;
}

/* A thread that was there before is covered too. */
static void deadly_thread(void)
{
	static atomic_int go;
	struct err e = { 0 };
	pthread_t t;

	CHECK(pthread_create(&t, NULL, late_exec, &go) == 0);
	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	go = 1;
	pthread_join(t, NULL);
}

static void syscalls(void **state)
{
	void (*const deadly[])(void) = { deadly_exec,  deadly_ptrace,	deadly_bpf,
					 deadly_mount, deadly_unlisted, deadly_thread };

	(void)state;
	assert_int_equal(in_child(everyday_errno), 0);
	assert_int_equal(in_child(everyday_kill), 0);
	assert_int_equal(in_child(refused), 0);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		assert_int_equal(in_child(deadly[i]), 256 + SIGSYS);
}

/* All three in the daemon's order. */
static void whole(void)
{
	const char *ro[] = { "/etc/hosts" }, *rw[] = { dir };
	struct err e = { 0 };
	int abi = 0, pair[2];

	CHECK(chmod(dir, 0777) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	CHECK(sandbox_drop_user("nobody", &e) == 0);
	CHECK(sandbox_landlock(ro, 1, rw, 1, &abi, &e) == 0);
	CHECK(sandbox_seccomp(SANDBOX_ERRNO, &e) == 0);
	do_files();
	do_threads(pair);
	do_loop();
	do_rest();
	CHECK(open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES);
	CHECK(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
	CHECK(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM);
}

static void all_of_it(void **state)
{
	(void)state;
	if (!can_root())
		skip();
	assert_int_equal(in_child(whole), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(user),
		cmocka_unit_test(landlock),
		cmocka_unit_test(syscalls),
		cmocka_unit_test(all_of_it),
	};

	return cmocka_run_group_tests_name("daemon/sandbox", tests, setup, teardown);
}
