/* SPDX-License-Identifier: Apache-2.0 */
/* Inner packets: what the pipeline must know of an IPv4 or IPv6 packet, and the few places where it changes
 * one. */
#ifndef X0_TUNNEL_INNER_H
#define X0_TUNNEL_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMP6 = 58 };
enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
	TCP_ECE = 0x40,
	TCP_CWR = 0x80
};
enum { ECN_NOT_ECT = 0, ECN_ECT1 = 1, ECN_ECT0 = 2, ECN_CE = 3 };
enum { INNER_MTU_MIN_V6 = 1280, INNER_ICMP_MAX = 1280 };

struct inner {
	bool v6;
	bool frag;		  /* IPv4 fragment: no ports */
	uint8_t proto;		  /* IPv4 protocol, or IPv6 next header of the fixed header */
	uint8_t tos;		  /* DSCP and ECN */
	uint16_t l4;		  /* offset of what follows the IP header */
	uint16_t head;		  /* IP + TCP or UDP header, or 0: neither, or malformed, or a fragment */
	uint32_t hash;		  /* of the flow: addresses, protocol, ports */
	uint8_t src[16], dst[16]; /* IPv4 mapped */
};

/*
 * Parses p[0..n), which must be exactly one packet: the header's total length equals n, else ERR_PARSE.
 * Everything in `ret` lies inside n. IPv6 extension headers are not followed: such packets are carried, only
 * not cut or merged.
 */
int inner_parse(const uint8_t *p, size_t n, uint64_t seed, struct inner *ret);

/* One's complement sum of n bytes on top of `sum`, folded to 16 bits and not inverted. */
uint16_t csum_add(const uint8_t *p, size_t n, uint32_t sum);
/* Sum of the pseudo-header of a TCP or UDP packet whose transport part has l4_n bytes. */
uint16_t inner_pseudo(const uint8_t *p, bool v6, uint8_t proto, size_t l4_n);
/* Writes the IPv4 header checksum. */
void inner_v4_csum(uint8_t *p);
/* Offset of the checksum field in the packet; only for packets with in->head. */
static inline size_t inner_csum_at(const struct inner *in)
{
	return in->l4 + (in->proto == PROTO_TCP ? 16u : 6u);
}
/* Writes the pseudo-header sum, as partial checksums want it. */
void inner_csum_partial(uint8_t *p, size_t n, const struct inner *in);
/* Completes a partial checksum: sums from `start` and writes the result at start + offset. ERR_PARSE outside
 * n. */
int inner_csum_finish(uint8_t *p, size_t n, size_t start, size_t offset);
/* The full transport checksum is right. A UDP checksum of 0 (none) is not. */
bool inner_csum_ok(const uint8_t *p, size_t n, const struct inner *in);

/* Lowers the MSS option of a TCP SYN to `mss`; `partial`: its checksum is. Returns whether it changed the
 * packet. */
bool inner_mss_clamp(uint8_t *p, size_t n, const struct inner *in, bool partial, uint16_t mss);

/* Outer ECN into the inner header (RFC 6040, 4.2). False: the packet must be dropped. */
bool inner_ecn_in(uint8_t *p, struct inner *in, uint8_t outer);

enum inner_icmp { INNER_UNREACHABLE, INNER_TOO_BIG };
/*
 * The ICMP or ICMPv6 error for packet p, as if from its destination, into `to` (INNER_ICMP_MAX bytes). mtu:
 * of TOO_BIG. Returns its length, or 0 if none may be sent (an ICMP error, a multicast destination, a later
 * fragment).
 */
size_t inner_icmp_error(const uint8_t *p, size_t n, const struct inner *in, enum inner_icmp kind,
			unsigned mtu, uint8_t *to);

#endif
