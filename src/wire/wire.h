/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: wire
 *
 * What goes over the underlay, byte for byte: docs/wire-format.md is the text, this the code. One UDP port;
 * the first byte is the frame's type. Everything here is pure: it encodes, decodes and checks tags, and never
 * sends.
 */
#ifndef X0_WIRE_WIRE_H
#define X0_WIRE_WIRE_H

#include "base/base.h"

enum { X0_PORT = 7430 };
#ifndef X0_PROTO
#define X0_PROTO 1 /* version on stream 0; N and N-1 talk to each other */
#endif

enum frame_type {
	FRAME_KNOCK = 0x01,
	FRAME_COOKIE = 0x02,
	FRAME_HELLO = 0x03,
	FRAME_CONTROL = 0x10,
	FRAME_DATA = 0x11,
	FRAME_PROBE = 0x12,
};

/* ---- first contact ---- */
enum {
	KNOCK_LEN = 48,
	COOKIE_LEN = 28,
	HELLO_HEAD = 20,
	KNOCK_KEY = 32,
	KNOCK_F_JOIN = 1,
	HELLO_F_REPLY = 1
};

struct knock {
	uint8_t flags;	   /* KNOCK_F_* */
	uint64_t nonce;	   /* the client's, fresh */
	uint8_t key_id[8]; /* first 8 bytes of SHA-256 of the root's SubjectPublicKeyInfo */
};

/* MAC = first 16 bytes of HMAC-SHA-256(key, bytes 0-31); the key comes from knock_key_info with HKDF
 * (session/). */
#define KNOCK_KEY_INFO "x0 knock v1"
typedef int knock_mac_fn(const uint8_t key[KNOCK_KEY], const uint8_t *p, size_t n, uint8_t mac[16]);
int knock_encode(const struct knock *k, const uint8_t key[KNOCK_KEY], knock_mac_fn *mac,
		 uint8_t to[KNOCK_LEN]);
int knock_decode(const uint8_t *p, size_t n, struct knock *ret); /* form only; ERR_PARSE */
int knock_check(const uint8_t p[KNOCK_LEN], const uint8_t key[KNOCK_KEY], knock_mac_fn *mac); /* ERR_AUTH */

struct cookie {
	uint8_t epoch;	/* which secret made it */
	uint64_t nonce; /* the knock's */
	uint64_t value; /* SipHash-2-4 over address, port, nonce, epoch */
};
uint64_t cookie_value(const struct sipkey *secret, uint8_t epoch, const struct endpoint *from,
		      uint64_t nonce);
void cookie_encode(const struct cookie *c, uint8_t to[COOKIE_LEN]);
int cookie_decode(const uint8_t *p, size_t n, struct cookie *ret);

struct hello {
	bool reply; /* server to client: nonce and cookie are the client's own, echoed */
	struct cookie cookie;
	const uint8_t *quic; /* borrowed from the datagram */
	size_t quic_n;
};
void hello_encode_head(const struct hello *h, uint8_t to[HELLO_HEAD]);
int hello_decode(const uint8_t *p, size_t n, struct hello *ret);

/* ---- the hop header, an invariant: an XDP program rewrites it in place ---- */
enum {
	HOP_LEN = 32,
	DATA_HEAD = HOP_LEN + 12,
	DATA_OVERHEAD = DATA_HEAD + 16,
	PROBE_LEN = HOP_LEN + 24,
	HOP_TTL = 64,
	QUIC_DGRAM = 1200,
	FRAME_MAX = 65000
};

struct hop {
	uint8_t type, ttl;
	uint16_t flow;	   /* hash of the inner flow, for multipath */
	uint32_t link;	   /* receiver-chosen index of the link key */
	uint64_t dst, src; /* labels: low 64 bits of overlay addresses */
	uint64_t tag;	   /* SipHash-2-4 under the link key */
};

static inline void hop_put(uint8_t *p, uint8_t type, uint8_t ttl, uint16_t flow, uint32_t link, uint64_t dst,
			   uint64_t src)
{
	p[0] = type;
	p[1] = ttl;
	put_u16(p + 2, flow);
	put_u32(p + 4, link);
	put_u64(p + 8, dst);
	put_u64(p + 16, src);
}

int hop_decode(const uint8_t *p, size_t n, struct hop *ret); /* ERR_PARSE: too short for its type */
/*
 * DATA: over bytes 0-23, session index and counter (36 bytes). CONTROL and PROBE: over bytes 0-23 and
 * everything after the header. `n` is the frame's length.
 */
uint64_t hop_tag(const struct sipkey *link_key, const uint8_t *frame, size_t n);
static inline void hop_seal(const struct sipkey *link_key, uint8_t *frame, size_t n)
{
	put_u64(frame + 24, hop_tag(link_key, frame, n));
}
int hop_check(const struct sipkey *link_key, const uint8_t *frame, size_t n); /* ERR_AUTH */

/* The session index names its worker in the low 8 bits, so that a tiny program can steer (byte 35 of a DATA
 * frame). */
static inline unsigned index_worker(uint32_t index)
{
	return index & 0xff;
}

/* ---- PROBE: keepalive, RTT, path validation, path MTU ---- */
enum probe_kind {
	PROBE_PING = 1,
	PROBE_PONG = 2,
	PROBE_CHALLENGE = 3,
	PROBE_RESPONSE = 4,
	PROBE_MTU = 5,
	PROBE_MTU_ACK = 6
};

struct probe {
	uint8_t kind;
	uint16_t size; /* MTU: the frame's whole UDP payload; ACK: the size confirmed */
	uint32_t seq;
	uint64_t counter; /* strictly increasing per sender and link key */
	uint64_t data;	  /* sender's time (PING, echoed in PONG) or the challenge */
};
/* Writes hop header and body, zero-padded to `total` (>= PROBE_LEN), and seals it. */
void probe_encode(const struct probe *p, const struct sipkey *link_key, uint32_t link, uint64_t dst,
		  uint64_t src, uint8_t *to, size_t total);
int probe_decode(const uint8_t *frame, size_t n, struct probe *ret); /* after hop_check() */

/* ---- stream 0 and typed streams: type u16 | length u32 | value ---- */
enum ctl_type {
	CTL_HELLO = 1,	      /* version, capabilities, link index, lanes, MTU; always first */
	CTL_BUNDLE_STATE = 2, /* number, hash: second, before READY */
	CTL_BUNDLE_GET = 3,   /* empty */
	CTL_BUNDLE = 4,	      /* the signed bundle */
	CTL_READY = 5,	      /* receive keys are installed: send */
	CTL_PING = 6,	      /* 8 bytes, echoed */
	CTL_PONG = 7,
	CTL_CLOSE = 8, /* code u16, sentence */
	CTL_RENEW = 9, /* renew request; answered by CTL_RENEWED (identity/) */
	CTL_RENEWED = 10,
};
enum { CTL_HEAD = 6, CTL_MAX = 1 << 20, LANES_MAX = 64 };

struct ctl_hello {
	uint16_t version, version_min;
	uint64_t caps;
	uint8_t suite; /* AEAD the sender wants to receive with: 1 AES-256-GCM, 2 ChaCha20-Poly1305 */
	uint16_t mtu;  /* largest UDP payload the sender's interface takes */
	uint32_t link; /* link index the sender chose for what it receives */
	uint8_t nlanes;
	uint32_t lane[LANES_MAX]; /* session index of each of the sender's receive lanes */
};
size_t ctl_hello_encode(const struct ctl_hello *h, uint8_t *to,
			size_t cap); /* value only; 0 if it does not fit */
int ctl_hello_decode(const uint8_t *p, size_t n,
		     struct ctl_hello *ret); /* later versions may append: ignored */

/* Incremental reader of type|length|value from a stream. Owned buffer, bounded by `max`. */
struct ctl_reader {
	uint8_t *buf;
	size_t n, cap, max;
};
/* Feeds bytes; calls fn for each whole message; stops at fn's first non-zero return and returns it.
 * ERR_LIMIT: longer than max. */
int ctl_feed(struct ctl_reader *r, const void *p, size_t n,
	     int (*fn)(void *arg, uint16_t type, const uint8_t *value, size_t len), void *arg);
void ctl_reader_fini(struct ctl_reader *r);

/* ---- sealed inner packet: its first nibble, the IP version, is replaced by a code ---- */
enum {
	INNER_V6 = 0x1,	     /* else IPv4 */
	INNER_PARTIAL = 0x2, /* the transport checksum is partial (pseudo-header sum only): the AEAD protects
				the bytes */
	INNER_FIRST =
		0x8, /* this nibble alone: first part of a packet split over two frames, a byte of its own */
	INNER_SECOND = 0x9, /* second part; its counter is the first's plus one, in the same lane */
};

#endif
