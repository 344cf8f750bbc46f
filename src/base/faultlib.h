/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: the n-th allocation or file operation fails. The definitions here replace libc's for the whole
 * program, its libraries included; include it in one file only, first of all:
 *
 *	#undef _FORTIFY_SOURCE
 *	#include "base/faultlib.h"
 *
 * Only the thread that armed a fault meets it. OpenSSL's allocations are a kind of their own: there are so
 * many of them that a quick run takes every k-th.
 */
#ifndef X0_BASE_FAULTLIB_H
#define X0_BASE_FAULTLIB_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum fault_kind { FAULT_NONE, FAULT_ALLOC, FAULT_CRYPTO, FAULT_FILE };

static _Thread_local struct {
	enum fault_kind kind;
	uint64_t at, seen; /* the at-th fails, from 1; 0: none, they are only counted */
	bool struck;
} fault;
static atomic_llong fault_blocks, fault_crypto_blocks;

static inline void fault_arm(enum fault_kind kind, uint64_t at)
{
	fault.at = at;
	fault.seen = 0;
	fault.struck = false;
	fault.kind = kind;
}

/* Whether it struck. */
static inline bool fault_disarm(void)
{
	fault.kind = FAULT_NONE;
	return fault.struck;
}

/* Around what the test itself does meanwhile. */
static inline enum fault_kind fault_pause(void)
{
	enum fault_kind k = fault.kind;

	fault.kind = FAULT_NONE;
	return k;
}

static inline void fault_resume(enum fault_kind k)
{
	fault.kind = k;
}

static inline uint64_t fault_seen(void)
{
	return fault.seen;
}

/* Blocks allocated and not freed, of all threads; without OpenSSL's, which loses some when memory is out. */
static inline long long fault_live(void)
{
	return atomic_load(&fault_blocks) - atomic_load(&fault_crypto_blocks);
}

/* Called before a sanitizer has set itself up. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((disable_sanitizer_instrumentation)), apply_to = function)
#endif
static bool fault_strikes(enum fault_kind kind)
{
	if (fault.kind != kind || ++fault.seen != fault.at)
		return false;
	fault.struck = true;
	return true;
}

/* ---- memory ---- */
/* The allocator below: a sanitizer's, or glibc's. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAULT_REAL(name) __interceptor_##name
#endif
#endif
#ifdef FAULT_REAL
extern void *__interceptor_malloc(size_t n);
extern void *__interceptor_calloc(size_t k, size_t n);
extern void *__interceptor_realloc(void *p, size_t n);
extern void *__interceptor_aligned_alloc(size_t a, size_t n);
extern void __interceptor_free(void *p);
#else
#define FAULT_REAL(name)     __libc_##name
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t k, size_t n);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t a, size_t n);
#define __libc_aligned_alloc __libc_memalign
extern void __libc_free(void *p);
#endif

static void *fault_count(void *p)
{
	if (p)
		atomic_fetch_add(&fault_blocks, 1);
	return p;
}

static bool fault_no_memory(enum fault_kind kind)
{
	if (!fault_strikes(kind))
		return false;
	errno = ENOMEM;
	return true;
}

/* The compiler knows malloc() and realloc() and believes that they read no variable of ours: not by name. */
static void *fault_malloc(enum fault_kind kind, size_t n)
{
	return fault_no_memory(kind) ? NULL : fault_count(FAULT_REAL(malloc)(n));
}

static void *fault_realloc(enum fault_kind kind, void *p, size_t n)
{
	void *q;

	if (fault_no_memory(kind))
		return NULL;
	q = FAULT_REAL(realloc)(p, n);
	if (!p)
		fault_count(q);
	else if (!n && !q)
		atomic_fetch_sub(&fault_blocks, 1);
	return q;
}

void *malloc(size_t n)
{
	return fault_malloc(FAULT_ALLOC, n);
}

void *calloc(size_t k, size_t n)
{
	return fault_no_memory(FAULT_ALLOC) ? NULL : fault_count(FAULT_REAL(calloc)(k, n));
}

void *realloc(void *p, size_t n)
{
	return fault_realloc(FAULT_ALLOC, p, n);
}

void *aligned_alloc(size_t a, size_t n)
{
	return fault_no_memory(FAULT_ALLOC) ? NULL : fault_count(FAULT_REAL(aligned_alloc)(a, n));
}

int posix_memalign(void **ret, size_t a, size_t n)
{
	*ret = aligned_alloc(a, n);
	return *ret ? 0 : ENOMEM;
}

void free(void *p)
{
	if (p)
		atomic_fetch_sub(&fault_blocks, 1);
	FAULT_REAL(free)(p);
}

#ifdef __clang__
#pragma clang attribute pop
#endif

static void *crypto_malloc(size_t n, const char *file, int line)
{
	void *p;

	(void)file;
	(void)line;
	if (!n)
		return NULL;
	p = fault_malloc(FAULT_CRYPTO, n);
	if (p)
		atomic_fetch_add(&fault_crypto_blocks, 1);
	return p;
}

static void crypto_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	if (p)
		atomic_fetch_sub(&fault_crypto_blocks, 1);
	free(p);
}

static void *crypto_realloc(void *p, size_t n, const char *file, int line)
{
	if (!p)
		return crypto_malloc(n, file, line);
	if (n)
		return fault_realloc(FAULT_CRYPTO, p, n);
	crypto_free(p, file, line);
	return NULL;
}

/* Before anything else uses OpenSSL; false: too late, its allocations count as all others. */
static inline bool fault_init(void)
{
	return CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) == 1;
}

/* ---- files ---- */
/* Fails with the given errno, or does what the next definition of the name does. */
#define FAULT_FILE_FN(type, name, symbol, error, params, args)                                               \
	type name params                                                                                     \
	{                                                                                                    \
		static type(*real) params;                                                                   \
                                                                                                             \
		if (fault_strikes(FAULT_FILE)) {                                                             \
			errno = (error);                                                                     \
			return -1;                                                                           \
		}                                                                                            \
		if (!real)                                                                                   \
			real = (type(*) params)dlsym(RTLD_NEXT, symbol);                                     \
		return real args;                                                                            \
	}

FAULT_FILE_FN(ssize_t, write, "write", ENOSPC, (int fd, const void *p, size_t n), (fd, p, n))
FAULT_FILE_FN(ssize_t, pwrite, "pwrite64", ENOSPC, (int fd, const void *p, size_t n, off_t at),
	      (fd, p, n, at))
FAULT_FILE_FN(int, fsync, "fsync", EIO, (int fd), (fd))
FAULT_FILE_FN(int, ftruncate, "ftruncate64", EIO, (int fd, off_t n), (fd, n))
FAULT_FILE_FN(int, fchmod, "fchmod", EROFS, (int fd, mode_t mode), (fd, mode))
FAULT_FILE_FN(int, mkdirat, "mkdirat", EROFS, (int fd, const char *path, mode_t mode), (fd, path, mode))
FAULT_FILE_FN(int, rename, "rename", EIO, (const char *from, const char *to), (from, to))
FAULT_FILE_FN(int, renameat2, "renameat2", EIO,
	      (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
	      (from_fd, from, to_fd, to, flags))
FAULT_FILE_FN(int, unlinkat, "unlinkat", EIO, (int fd, const char *path, int flags), (fd, path, flags))
FAULT_FILE_FN(int, rmdir, "rmdir", EIO, (const char *path), (path))
FAULT_FILE_FN(int, mkostemp, "mkostemp64", ENOSPC, (char *name, int flags), (name, flags))

static int fault_open(int at, const char *path, int flags, va_list ap)
{
	static int (*real)(int, const char *, int, ...);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;

	if (fault_strikes(FAULT_FILE)) {
		errno = EMFILE;
		return -1;
	}
	if (!real)
		real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
	return real(at, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int fd;

	va_start(ap, flags);
	fd = fault_open(AT_FDCWD, path, flags, ap);
	va_end(ap);
	return fd;
}

int openat(int at, const char *path, int flags, ...)
{
	va_list ap;
	int fd;

	va_start(ap, flags);
	fd = fault_open(at, path, flags, ap);
	va_end(ap);
	return fd;
}

#endif
