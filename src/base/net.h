/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: an underlay endpoint (IPv4 or IPv6 with port) in one comparable value, and text forms. */
#ifndef X0_BASE_NET_H
#define X0_BASE_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

struct endpoint {
	uint8_t addr[16];  /* IPv6, or IPv4-mapped (::ffff:a.b.c.d) */
	uint16_t port;	   /* host order */
	uint32_t scope_id; /* link-local IPv6 only, else 0 */
};

enum { ENDPOINT_TEXT = 72 };

bool endpoint_is_v4(const struct endpoint *ep);
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
void endpoint_from_sockaddr(struct endpoint *ep,
			    const struct sockaddr *sa); /* AF_INET, AF_INET6; else all zero */
/* Fills a sockaddr of the family the socket has: on AF_INET6 sockets IPv4 goes mapped. Returns its length. */
socklen_t endpoint_to_sockaddr(const struct endpoint *ep, int family, struct sockaddr_storage *ss);
/* "1.2.3.4:7430", "[2001:db8::1]:7430", "[fe80::1%eth0]:7430"; without a port `default_port` (0: port
 * required). Numeric only (interfaces by name or index; the text form uses the index). Port 0 is accepted:
 * listeners may mean "any". */
int endpoint_parse(const char *s, uint16_t default_port, struct endpoint *ret, struct err *e);
const char *endpoint_text(const struct endpoint *ep, char to[ENDPOINT_TEXT]); /* returns `to` */

struct ip_prefix {
	uint8_t addr[16]; /* host bits zero; IPv4 mapped */
	uint8_t len;	  /* 0-128; IPv4 prefixes are 96 + length */
};

int ip_prefix_parse(const char *s, struct ip_prefix *ret,
		    struct err *e); /* "10.0.0.0/8", "fd00::/8", host bits set: error */
/* An IPv6 prefix has no IPv4 address, although those are mapped into ::/0 here. */
bool ip_prefix_has(const struct ip_prefix *p, const uint8_t addr[16]);
enum { IP_PREFIX_TEXT = 56 };
const char *ip_prefix_text(const struct ip_prefix *p, char to[IP_PREFIX_TEXT]); /* returns `to` */

#endif
