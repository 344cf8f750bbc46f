/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C2SP/CCTV, ML-KEM. Two text formats: "name = hex" lines (strcmp: a ciphertext that differs where a careless
 * comparison stops; unluckysample: seeds that need unusually many SHAKE blocks), and bare hex lines (modulus:
 * encapsulation keys with one coefficient out of range, every one of which must be refused).
 */
#include <ctype.h>
#include <string.h>

#include "crypto/crypto.h"
#include "vectors.h"

struct fields {
	struct bytes d, z, ek, dk, m, K, c;
};

static struct bytes *field(struct fields *v, const char *name, size_t n)
{
	if (n == 1 && *name == 'd')
		return &v->d;
	if (n == 1 && *name == 'z')
		return &v->z;
	if (n == 1 && *name == 'm')
		return &v->m;
	if (n == 1 && *name == 'K')
		return &v->K;
	if (n == 1 && *name == 'c')
		return &v->c;
	if (n == 2 && memcmp(name, "ek", 2) == 0)
		return &v->ek;
	return n == 2 && memcmp(name, "dk", 2) == 0 ? &v->dk : NULL;
}

/*
 * The unlucky seeds were found under the draft of FIPS 203, whose key generation hashed d alone; the standard
 * hashes d | 3. Such a file's key cannot come out of a conforming key generation; the rest of it holds.
 */
static bool is_draft_seed(const struct fields *v)
{
	uint8_t h[64];

	return v->ek.p && v->ek.n == KEM_PUB &&
	       EVP_Digest(v->d.p, v->d.n, h, NULL, EVP_sha3_512(), NULL) == 1 &&
	       memcmp(h, v->ek.p + KEM_PUB - 32, 32) == 0;
}

static void fields_run(struct vfile *f, const struct fields *v)
{
	uint8_t seed[KEM_SEED], pub[KEM_PUB], ct[KEM_CT], ss[KEM_SS];
	struct secret dk = { 0 };

	if (v->d.p && is_draft_seed(v)) {
		f->unsupported++;
	} else if (v->d.p && v->z.p && v->d.n == 32 && v->z.n == 32) {
		memcpy(seed, v->d.p, 32);
		memcpy(seed + 32, v->z.p, 32);
		check(f,
		      !kem_keygen(seed, pub, &dk) && (!v->ek.p || bytes_equal(v->ek, pub, sizeof(pub))) &&
			      (!v->dk.p || bytes_equal(v->dk, dk.p, dk.n)),
		      "key generation");
		secret_fini(&dk);
	}
	if (v->ek.p && v->m.p && v->m.n == 32)
		check(f,
		      !kem_encap(v->ek.p, v->ek.n, v->m.p, ct, ss) && bytes_equal(v->c, ct, sizeof(ct)) &&
			      bytes_equal(v->K, ss, sizeof(ss)),
		      "encapsulation");
	if (v->dk.p && v->c.p && v->K.p)
		check(f,
		      !kem_decap(v->dk.p, v->dk.n, v->c.p, v->c.n, ss) && bytes_equal(v->K, ss, sizeof(ss)),
		      "decapsulation");
}

static bool wrong_set(const struct fields *v)
{
	return (v->ek.p && v->ek.n != KEM_PUB) || (v->dk.p && v->dk.n != KEM_DK) ||
	       (v->c.p && v->c.n != KEM_CT);
}

/* false: not lines of this form */
static bool fields_parse(struct vfile *f, struct fields *v)
{
	const char *p = (const char *)f->p, *end = p + f->n, *eol, *eq;

	for (; p < end; p = eol + 1) {
		size_t name_n;
		struct bytes *to;

		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		if (eol == p)
			continue;
		eq = memchr(p, '=', (size_t)(eol - p));
		if (!eq || eq == p || eq + 2 > eol)
			return false;
		name_n = (size_t)(eq - p) - (eq[-1] == ' ');
		to = field(v, p, name_n);
		if (!to)
			return false;
		eq += 1 + (eq[1] == ' ');
		*to = hex_of(f, eq, (size_t)(eol - eq));
		if (to->absent)
			return false;
	}
	return true;
}

static enum vrun modulus_run(struct vfile *f)
{
	const char *p = (const char *)f->p, *end = p + f->n, *eol;
	uint8_t ct[KEM_CT], ss[KEM_SS];
	unsigned line = 0;

	for (; p < end; p = eol + 1) {
		struct bytes ek;

		line++;
		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		if (eol == p)
			continue;
		ek = hex_of(f, p, (size_t)(eol - p));
		if (ek.absent)
			return V_NOT_MINE;
		if (ek.n != KEM_PUB)
			f->unsupported++;
		else
			check(f, kem_encap(ek.p, ek.n, NULL, ct, ss) == ERR_PARSE, "line %u: accepted", line);
	}
	return V_RAN;
}

enum vrun cctv_run(struct vfile *f)
{
	struct fields v = { 0 };

	if (f->root || f->n < 64)
		return V_NOT_MINE;
	if (fields_parse(f, &v) && (v.dk.p || v.ek.p)) {
		if (wrong_set(&v))
			f->unsupported++;
		else
			fields_run(f, &v);
		return V_RAN;
	}
	for (size_t i = 0; i < 64; i++) {
		if (!isxdigit(f->p[i]))
			return V_NOT_MINE;
	}
	return modulus_run(f);
}
