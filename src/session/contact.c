/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: first contact
 *
 * Nothing is kept for a knock. Cookies are made under a secret that changes every 60 s; the one before is
 * accepted too. Invariant: the answer (28 bytes) is never larger than the knock (48), so nobody is amplified.
 *
 * Source: the idea of RFC 9000's Retry and of WireGuard's cookie, with silence for those who do not know the
 * mesh.
 */
#include "session/contact.h"

#include <stdlib.h>

int knock_mac(const uint8_t key[KNOCK_KEY], const uint8_t *p, size_t n, uint8_t mac[16])
{
	return hmac("SHA256", key, KNOCK_KEY, p, n, mac, 16);
}

int knock_key_from(const uint8_t root_hash[SHA256_LEN], struct knock_key *ret)
{
	memcpy(ret->id, root_hash, sizeof(ret->id));
	return hkdf("SHA256", root_hash, SHA256_LEN, NULL, 0, KNOCK_KEY_INFO, sizeof(KNOCK_KEY_INFO) - 1,
		    ret->key, KNOCK_KEY);
}

static struct sipkey fresh_secret(struct rng *rng)
{
	uint8_t b[16];
	struct sipkey k;

	rng_fill(rng, b, sizeof(b));
	k = sipkey_from(b);
	secret_wipe(b, sizeof(b));
	return k;
}

void contact_init(struct contact *c, struct rng *rng, uint64_t now)
{
	*c = (struct contact){ .burst = 16, .per_second = 2 };
	c->secret[0] = fresh_secret(rng);
	c->secret[1] = fresh_secret(rng);
	c->source_key = fresh_secret(rng);
	rng_fill(rng, &c->epoch, 1);
	c->epoch_end = now + CONTACT_COOKIE_LIFE_S * NS_PER_S;
}

void contact_fini(struct contact *c)
{
	if (c->keys)
		secret_wipe(c->keys, c->nkeys * sizeof(*c->keys));
	free(c->keys);
	secret_wipe(c, sizeof(*c));
}

int contact_roots(struct contact *c, const struct bundle *b, const uint8_t *own_root, struct err *e)
{
	struct knock_key *keys = calloc(b->nlink_roots ? b->nlink_roots : 1, sizeof(*keys));

	if (!keys)
		return err_set(e, ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < b->nlink_roots; i++) {
		uint8_t hash[SHA256_LEN];

		if (key_pub_hash(X509_get0_pubkey(b->link_roots[i]), hash) ||
		    knock_key_from(hash, &keys[i])) {
			free(keys);
			return err_set(e, ERR_FAILED, "cannot derive the knock key of link root %zu", i);
		}
	}
	if (own_root && knock_key_from(own_root, &c->join)) {
		free(keys);
		return err_set(e, ERR_FAILED, "cannot derive the knock key of our own root");
	}
	c->has_join = own_root != NULL;
	free(c->keys);
	c->keys = keys;
	c->nkeys = b->nlink_roots;
	return 0;
}

static void turn(struct contact *c, struct rng *rng, uint64_t now)
{
	for (int i = 0; i < 2 && now >= c->epoch_end; i++) {
		c->epoch++;
		c->secret[c->epoch & 1] = fresh_secret(rng);
		c->epoch_end += CONTACT_COOKIE_LIFE_S * NS_PER_S;
	}
	if (now >= c->epoch_end)
		c->epoch_end = now + CONTACT_COOKIE_LIFE_S * NS_PER_S;
}

int contact_knock(struct contact *c, struct rng *rng, uint64_t now, const struct endpoint *from,
		  const uint8_t *p, size_t n, uint8_t ret[COOKIE_LEN])
{
	const struct knock_key *key = NULL;
	struct knock k;
	struct cookie ck;
	int r = knock_decode(p, n, &k);

	if (r)
		return r;
	if (k.flags & KNOCK_F_JOIN) {
		if (c->has_join && memcmp(c->join.id, k.key_id, sizeof(k.key_id)) == 0)
			key = &c->join;
	} else {
		for (size_t i = 0; i < c->nkeys && !key; i++)
			if (memcmp(c->keys[i].id, k.key_id, sizeof(k.key_id)) == 0)
				key = &c->keys[i];
	}
	if (!key || knock_check(p, key->key, knock_mac))
		return ERR_AUTH;
	turn(c, rng, now);
	ck = (struct cookie){ .epoch = c->epoch, .nonce = k.nonce };
	ck.value = cookie_value(&c->secret[c->epoch & 1], c->epoch, from, k.nonce);
	cookie_encode(&ck, ret);
	return 0;
}

int contact_cookie(struct contact *c, struct rng *rng, uint64_t now, const struct endpoint *from,
		   const struct cookie *k)
{
	turn(c, rng, now);
	if (k->epoch != c->epoch && k->epoch != (uint8_t)(c->epoch - 1))
		return ERR_AUTH;
	return cookie_value(&c->secret[k->epoch & 1], k->epoch, from, k->nonce) == k->value ? 0 : ERR_AUTH;
}

bool contact_allow(struct contact *c, uint64_t now, const struct endpoint *from)
{
	/* An IPv6 host has a /64 to choose from; IPv4 lies in the last four bytes. */
	const bool v4 = endpoint_is_v4(from);
	const size_t i = siphash24(&c->source_key, from->addr, v4 ? 16 : 8) % CONTACT_SOURCES;
	const uint64_t step = NS_PER_S / c->per_second, most = step * c->burst;
	uint64_t at = c->source[i].credit_at > now ? c->source[i].credit_at : now;

	if (at - now + step > most)
		return false;
	c->source[i].credit_at = at + step;
	return true;
}
