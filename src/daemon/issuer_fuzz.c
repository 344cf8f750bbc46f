/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as requests of the daemon, as they arrive on the issuer's socket: messages in a row to a real
 * authority, each of which is answered; a request that is refused changes nothing.
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/issuer.h"
#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define NOW 1800000000ll
enum { FRESH_AFTER = 64 }; /* changes that the authority remembers before the next one takes its place */

static char dir[] = "/dev/shm/x0-issuer-fuzz-XXXXXX", ca[64], backup[64];
static struct authority *a;
static struct rng rng;
static unsigned changes;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static int remove_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
	(void)sb;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static void clean(void)
{
	a = authority_free(a);
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void fresh(void)
{
	struct err e = { 0 };

	a = authority_free(a);
	nftw(ca, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	if (authority_init(ca, "t.example", NULL, NOW, &e) || authority_open(ca, NULL, &a, &e)) {
		fprintf(stderr, "%s\n", e.what);
		abort();
	}
	changes = 0;
}

static int on_request(void *arg, uint16_t type, const uint8_t *p, size_t n)
{
	bool *root = arg;
	struct issuer_context ctx = { .a = a, .rng = &rng, .now = NOW, .backup_path = *root ? backup : NULL };
	uint64_t number = authority_bundle(a)->number;
	uint8_t *reply = NULL;
	size_t reply_n = 0;
	uint32_t code;

	must(issuer_answer(&ctx, type, p, n, &reply, &reply_n) == 0 && reply && reply_n >= 8);
	must(n < 4 || get_u32(reply) == get_u32(p));
	code = get_u32(reply + 4);
	if (code) {
		const char *what = (const char *)reply + 8;
		size_t len = strnlen(what, reply_n - 8);

		/* Sentence and remedy; no refusal touches the bundle. */
		must(len && len + 1 < reply_n - 8 && reply[reply_n - 1] == 0);
		must(authority_bundle(a)->number == number);
	} else {
		must(type >= ISS_JOIN && type <= ISS_BACKUP);
		must(type != ISS_BACKUP || *root);
		changes += type != ISS_BUNDLE && type != ISS_NODES && type != ISS_ROOTS;
	}
	must(access(backup, F_OK) < 0);
	secret_wipe(reply, reply_n);
	free(reply);
	return 0;
}

/* The first byte says whether it is root who asks. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct ctl_reader in = { .max = ISS_MAX };
	bool root = n && (p[0] & 1);

	if (!a) {
		log_set_level(LOG_ERROR);
		rng_init_seeded(&rng, 1);
		must(crypto_init(NULL) == 0 && mkdtemp(dir));
		snprintf(ca, sizeof(ca), "%s/ca", dir);
		snprintf(backup, sizeof(backup), "%s/backup", dir);
		atexit(clean);
		fresh();
	}
	if (n)
		ctl_feed(&in, p + 1, n - 1, on_request, &root);
	ctl_reader_fini(&in);
	if (changes > FRESH_AFTER)
		fresh();
	return 0;
}
