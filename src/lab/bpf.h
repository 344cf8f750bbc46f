/* SPDX-License-Identifier: Apache-2.0 */
/* The few bpf(2) commands the lab needs beside its skeleton. They return 0 or a descriptor, or -1 with errno.
 */
#ifndef X0_LAB_BPF_H
#define X0_LAB_BPF_H

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int bpf_call(enum bpf_cmd cmd, union bpf_attr *a)
{
	return (int)syscall(SYS_bpf, cmd, a, sizeof(*a));
}

/* Maps of one element, and an array: its key is 0. */
static inline int bpf_map_get(int fd, void *value)
{
	__u32 key = 0;
	union bpf_attr a = { .map_fd = (__u32)fd,
			     .key = (__u64)(uintptr_t)&key,
			     .value = (__u64)(uintptr_t)value };

	return bpf_call(BPF_MAP_LOOKUP_ELEM, &a);
}

static inline int bpf_map_put(int fd, const void *value)
{
	__u32 key = 0;
	union bpf_attr a = { .map_fd = (__u32)fd,
			     .key = (__u64)(uintptr_t)&key,
			     .value = (__u64)(uintptr_t)value };

	return bpf_call(BPF_MAP_UPDATE_ELEM, &a);
}

/* At what arrives on an interface of this network namespace, until it is gone (TCX, Linux 6.6). */
static inline int bpf_attach_ingress(int prog_fd, unsigned ifindex)
{
	union bpf_attr a = { .target_ifindex = ifindex,
			     .attach_bpf_fd = (__u32)prog_fd,
			     .attach_type = BPF_TCX_INGRESS };

	return bpf_call(BPF_PROG_ATTACH, &a);
}

/* The first program there; -1 and ENOENT if there is none. */
static inline int bpf_ingress_prog(unsigned ifindex)
{
	__u32 id = 0;
	union bpf_attr a = { .query = { .target_ifindex = ifindex,
					.attach_type = BPF_TCX_INGRESS,
					.prog_ids = (__u64)(uintptr_t)&id,
					.count = 1 } };
	union bpf_attr get = { 0 };

	/* ENOSPC: there are more of them. */
	if (bpf_call(BPF_PROG_QUERY, &a) != 0 && errno != ENOSPC)
		return -1;
	if (id == 0) {
		errno = ENOENT;
		return -1;
	}
	get.prog_id = id;
	return bpf_call(BPF_PROG_GET_FD_BY_ID, &get);
}

/* The program's map of this name. */
static inline int bpf_prog_map(int prog_fd, const char *name)
{
	struct bpf_prog_info prog = { 0 };
	__u32 ids[8] = { 0 };
	union bpf_attr a = { .info = { .bpf_fd = (__u32)prog_fd,
				       .info_len = sizeof(prog),
				       .info = (__u64)(uintptr_t)&prog } };

	prog.nr_map_ids = 8;
	prog.map_ids = (__u64)(uintptr_t)ids;
	if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &a) != 0)
		return -1;
	for (unsigned i = 0; i < prog.nr_map_ids && i < 8; i++) {
		struct bpf_map_info map = { 0 };
		union bpf_attr get = { 0 }, info = { 0 };
		int fd;

		get.map_id = ids[i];
		fd = bpf_call(BPF_MAP_GET_FD_BY_ID, &get);
		if (fd < 0)
			return -1;
		info.info.bpf_fd = (__u32)fd;
		info.info.info_len = sizeof(map);
		info.info.info = (__u64)(uintptr_t)&map;
		if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &info) == 0 && strcmp(map.name, name) == 0)
			return fd;
		close(fd);
	}
	errno = ENOENT;
	return -1;
}

#endif
