/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/util.h"

static void rfc4648(void **state)
{
	static const struct {
		const char *plain, *hex, *b32, *b64;
	} v[] = {
		{ "", "", "", "" },
		{ "f", "66", "my", "Zg==" },
		{ "fo", "666f", "mzxq", "Zm8=" },
		{ "foo", "666f6f", "mzxw6", "Zm9v" },
		{ "foob", "666f6f62", "mzxw6yq", "Zm9vYg==" },
		{ "fooba", "666f6f6261", "mzxw6ytb", "Zm9vYmE=" },
		{ "foobar", "666f6f626172", "mzxw6ytboi", "Zm9vYmFy" },
	};
	char to[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		size_t n = strlen(v[i].plain);

		assert_int_equal(hex_encode(to, v[i].plain, n), strlen(v[i].hex));
		assert_string_equal(to, v[i].hex);
		assert_int_equal(base32_encode(to, v[i].plain, n), strlen(v[i].b32));
		assert_string_equal(to, v[i].b32);
		assert_int_equal(base64_encode(to, v[i].plain, n), strlen(v[i].b64));
		assert_string_equal(to, v[i].b64);
		assert_int_equal(hex_decode(to, n, v[i].hex, strlen(v[i].hex)), n);
		assert_memory_equal(to, v[i].plain, n);
		assert_int_equal(base32_decode(to, n, v[i].b32, strlen(v[i].b32)), n);
		assert_memory_equal(to, v[i].plain, n);
		assert_int_equal(base64_decode(to, n, v[i].b64, strlen(v[i].b64)), n);
		assert_memory_equal(to, v[i].plain, n);
		assert_int_equal(base64url_decode(to, n, v[i].b64, strcspn(v[i].b64, "=")), n);
		assert_memory_equal(to, v[i].plain, n);
	}
	assert_int_equal(base32_decode(to, 64, "MZXW6YTBOI", 10), 6);
	assert_int_equal(hex_decode(to, 64, "aAfF", 4), 2);
	assert_memory_equal(to, "\xaa\xff", 2);
	assert_int_equal(base64_decode(to, 64, "+/+/", 4), 3);
	assert_memory_equal(to, "\xfb\xff\xbf", 3);
	assert_int_equal(base64url_decode(to, 64, "-_-_", 4), 3);
	assert_memory_equal(to, "\xfb\xff\xbf", 3);
}

static void round_trips(void **state)
{
	uint8_t in[200], out[200];
	char text[600];
	struct rng r;

	(void)state;
	rng_init_seeded(&r, 5);
	for (size_t n = 0; n <= sizeof(in); n++) {
		rng_fill(&r, in, n);
		assert_int_equal(hex_decode(out, n, text, hex_encode(text, in, n)), n);
		assert_memory_equal(in, out, n);
		assert_int_equal(base32_decode(out, n, text, base32_encode(text, in, n)), n);
		assert_memory_equal(in, out, n);
		assert_int_equal(base64_decode(out, n, text, base64_encode(text, in, n)), n);
		assert_memory_equal(in, out, n);
	}
}

static void decoders_refuse(void **state)
{
	static const struct {
		ssize_t (*fn)(void *, size_t, const char *, size_t);
		const char *s;
	} bad[] = {
		{ hex_decode, "a" },	       { hex_decode, "abc" },	     { hex_decode, "0g" },
		{ hex_decode, " 00" },	       { base32_decode, "m" },	     { base32_decode, "mzx" },
		{ base32_decode, "mzxw6y" },   { base32_decode, "mz" },	     { base32_decode, "m1" },
		{ base32_decode, "my======" }, { base32_decode, "m-" },	     { base64_decode, "Zg=" },
		{ base64_decode, "Zg" },       { base64_decode, "Zh==" },    { base64_decode, "Zm9=" },
		{ base64_decode, "Z===" },     { base64_decode, "====" },    { base64_decode, "Zg==Zg==" },
		{ base64_decode, "Zm9v\n" },   { base64_decode, "Zm 9" },    { base64_decode, "-_-_" },
		{ base64_decode, "A===AAAA" }, { base64url_decode, "Zg==" }, { base64url_decode, "Z" },
		{ base64url_decode, "+/+/" },  { base64url_decode, "Zh" },   { base64url_decode, "Zm9v!" },
	};
	uint8_t to[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (bad[i].fn(to, sizeof(to), bad[i].s, strlen(bad[i].s)) != ERR_PARSE)
			fail_msg("case %zu (\"%s\") was accepted", i, bad[i].s);
	assert_int_equal(hex_decode(to, 64, "a\0", 2), ERR_PARSE);
	assert_int_equal(hex_decode(to, 1, "aabb", 4), ERR_LIMIT);
	assert_int_equal(base64_decode(to, 2, "Zm9v", 4), ERR_LIMIT);
	assert_int_equal(base32_decode(to, 0, "my", 2), ERR_LIMIT);
}

static char dir[] = "/tmp/x0-util-test.XXXXXX";

static char *in_dir(const char *name)
{
	static char path[3][300];
	static unsigned turn;
	char *p = path[turn++ % 3];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static unsigned files_in(const char *where)
{
	DIR *d = opendir(where);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *de; (de = readdir(d));)
		n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
	closedir(d);
	return n;
}

static void assert_content(const char *path, const char *want)
{
	uint8_t *p;
	size_t n;

	assert_int_equal(file_read(path, 1000, &p, &n, NULL), 0);
	assert_int_equal(n, strlen(want));
	assert_string_equal((char *)p, want);
	free(p);
}

static void files_are_replaced(void **state)
{
	const char *path = in_dir("key");
	struct err e = { 0 };
	struct stat st;
	mode_t mask = umask(077);

	(void)state;
	assert_int_equal(file_write(path, "one", 3, 0600, &e), 0);
	assert_content(path, "one");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(file_write(path, "second", 6, 0644, &e), 0);
	assert_content(path, "second");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644); /* whatever the umask */
	assert_int_equal(file_write(path, "", 0, 0644, &e), 0);
	assert_content(path, "");
	umask(mask);
	assert_int_equal(files_in(dir), 1); /* no temporary file stays */
	unlink(path);
}

static void relative_and_root_names(void **state)
{
	struct err e = { 0 };
	char *cwd = getcwd(NULL, 0);

	(void)state;
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(file_write("plain", "x", 1, 0600, &e), 0);
	assert_content(in_dir("plain"), "x");
	unlink("plain");
	assert_int_equal(dir_make("rel/sub", 0700, &e), 0);
	assert_int_equal(rmdir("rel/sub") | rmdir("rel"), 0);
	assert_int_equal(chdir(cwd), 0);
	free(cwd);
	assert_int_equal(file_write("/", "x", 1, 0600, &e), ERR_USAGE);
	assert_int_equal(file_write("", "x", 1, 0600, &e), ERR_USAGE);
}

static void write_failures_leave_the_old_file(void **state)
{
	const char *below = in_dir("file/below");
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_write(in_dir("file"), "old", 3, 0600, &e), 0);
	assert_int_equal(file_write(below, "x", 1, 0600, &e), ERR_SYS); /* a file is no directory */
	assert_non_null(strstr(e.what, "Not a directory"));
	assert_int_equal(file_write(in_dir("none/x"), "x", 1, 0600, &e), ERR_SYS);
	assert_non_null(strstr(e.what, "No such file"));
	assert_int_equal(file_write("/proc/x0", "x", 1, 0600, &e), ERR_SYS);
	/* The target is a directory: rename fails after the data was written, the temporary file must go. */
	assert_int_equal(dir_make(in_dir("d"), 0700, &e), 0);
	assert_int_equal(file_write(in_dir("d"), "x", 1, 0600, &e), ERR_SYS);
	assert_int_equal(files_in(dir), 2);
	assert_content(in_dir("file"), "old");
	rmdir(in_dir("d"));
	unlink(in_dir("file"));
}

/* In a child: a tmpfs too small for the new file. Exit 77: may not mount here. */
static int full_disk_child(void)
{
	char *big = calloc(1, 1 << 20);
	struct err e = { 0 };
	uint8_t *p = NULL;
	size_t n = 0;

	if (!big || mount("x0", dir, "tmpfs", 0, "size=64k") < 0)
		return 77;
	int failed = file_write(in_dir("f"), "old", 3, 0600, &e) != 0 ||
		     file_write(in_dir("f"), big, 1 << 20, 0600, &e) != ERR_SYS ||
		     !strstr(e.what, "No space left") || file_read(in_dir("f"), 10, &p, &n, &e) != 0 ||
		     n != 3 || memcmp(p, "old", 3) != 0 || files_in(dir) != 1 ||
		     mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 ||
		     file_write(in_dir("f"), "new", 3, 0600, &e) != ERR_SYS || !strstr(e.what, "Read-only");

	free(p);
	free(big);
	umount(dir);
	return failed;
}

static void full_and_read_only_disks(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		/* A namespace of its own, so that nothing stays mounted whatever happens. */
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		_exit(full_disk_child());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("no right to mount: the full disk was not tested\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void reading(void **state)
{
	struct err e = { 0 };
	uint8_t *p = (uint8_t *)"untouched", *was = p;
	size_t n = 77;
	char *big = malloc(100000);

	(void)state;
	assert_int_equal(file_read(in_dir("none"), 10, &p, &n, &e), ERR_NOT_FOUND);
	assert_int_equal(e.code, ERR_NOT_FOUND);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(file_read(in_dir("none"), 10, &p, &n, NULL), ERR_NOT_FOUND);
	assert_int_equal(file_read(dir, 10, &p, &n, &e), ERR_SYS);
	assert_non_null(strstr(e.what, "Is a directory"));
	assert_int_equal(file_read(in_dir("a/b\x01"), 10, &p, &n, &e), ERR_NOT_FOUND);

	memset(big, 'q', 100000);
	assert_int_equal(file_write(in_dir("big"), big, 100000, 0600, &e), 0);
	assert_int_equal(file_read(in_dir("big"), 99999, &p, &n, &e), ERR_LIMIT);
	assert_int_equal(file_read("/proc/self/maps", 1, &p, &n, &e), ERR_LIMIT);
	assert_ptr_equal(p, was);
	assert_int_equal(n, 77);
	assert_int_equal(file_read(in_dir("big"), 100000, &p, &n, &e), 0);
	assert_int_equal(n, 100000);
	assert_memory_equal(p, big, n);
	assert_int_equal(p[n], 0);
	free(p);
	free(big);
	unlink(in_dir("big"));
	/* Files whose size the kernel does not tell: read to the end all the same. */
	assert_int_equal(file_read("/proc/self/smaps", SIZE_MAX, &p, &n, &e), 0);
	assert_true(n > 5000);
	assert_int_equal(strlen((char *)p), n);
	free(p);
}

static void directories(void **state)
{
	struct err e = { 0 };
	struct stat st;
	mode_t mask = umask(077);

	(void)state;
	assert_int_equal(dir_make(in_dir("a//b/c/"), 0755, &e), 0);
	umask(mask);
	assert_int_equal(stat(in_dir("a/b"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0755);
	chmod(in_dir("a"), 0711);
	assert_int_equal(dir_make(in_dir("a/b/c"), 0700, &e), 0); /* again: what is there keeps its mode */
	assert_int_equal(stat(in_dir("a"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0711);
	assert_int_equal(dir_make("/", 0700, &e), 0);
	assert_int_equal(dir_make("/proc/x0/y", 0700, &e), ERR_SYS);
	assert_int_equal(file_write(in_dir("f"), "", 0, 0600, &e), 0);
	assert_int_equal(dir_make(in_dir("f/x"), 0700, &e), ERR_SYS);
	assert_non_null(strstr(e.what, "Not a directory"));
	unlink(in_dir("f"));
	rmdir(in_dir("a/b/c"));
	rmdir(in_dir("a/b"));
	rmdir(in_dir("a"));
}

static void formatting(void **state)
{
	char to[8] = "?";

	(void)state;
	assert_int_equal(str_fmt(to, sizeof(to), "%d-%s", 12, "abcd"), 0);
	assert_string_equal(to, "12-abcd");
	assert_int_equal(str_fmt(to, sizeof(to), "%s", "12345678"), ERR_LIMIT);
	assert_string_equal(to, "");
	assert_int_equal(str_fmt(NULL, 0, "x"), ERR_LIMIT);
}

static const char *nearest(const char *s)
{
	static const char *const keys[] = {
		"listen", "port", "peers", "log.level", "log.format", "mtu", "id"
	};
	const char *r = str_nearest(s, keys, ARRAY_SIZE(keys));

	return r ? r : "none";
}

static void did_you_mean(void **state)
{
	char big[100];

	(void)state;
	assert_string_equal(nearest("lisetn"), "listen");
	assert_string_equal(nearest("Port"), "port");
	assert_string_equal(nearest("prot"), "port");
	assert_string_equal(nearest("log.levle"), "log.level");
	assert_string_equal(nearest("log.leve"), "log.level");
	assert_string_equal(nearest("mut"), "mtu");
	assert_string_equal(nearest("peers"), "peers");
	assert_string_equal(nearest("completely-different"), "none");
	assert_string_equal(nearest("zzz"),
			    "none"); /* three replacements of three letters are no typing error */
	assert_string_equal(nearest(""), "none");
	assert_null(str_nearest("x", NULL, 0));
	memset(big, 'a', 99);
	big[99] = '\0';
	assert_string_equal(nearest(big), "none");
	assert_null(str_nearest("abc", (const char *[]){ big }, 1));
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir); /* fails if any test left something behind */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc4648),
		cmocka_unit_test(round_trips),
		cmocka_unit_test(decoders_refuse),
		cmocka_unit_test(files_are_replaced),
		cmocka_unit_test(relative_and_root_names),
		cmocka_unit_test(write_failures_leave_the_old_file),
		cmocka_unit_test(full_and_read_only_disks),
		cmocka_unit_test(reading),
		cmocka_unit_test(directories),
		cmocka_unit_test(formatting),
		cmocka_unit_test(did_you_mean),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
