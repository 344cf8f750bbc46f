/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that need no daemon: they look at the host the way x0 will find it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/doctor.h"

enum { OPENSSL_OLDEST = 0x30500070 }; /* 3.5.7 */

const char *doctor_status_name(enum doctor_status s)
{
	return s == DOCTOR_OK ? "ok" : s == DOCTOR_WARN ? "warn" : "fail";
}

void doctor_add(struct doctor *d, const char *name, enum doctor_status status, const char *todo,
		const char *fmt, ...)
{
	struct doctor_check *k;
	va_list ap;

	if (d->n == DOCTOR_CHECKS)
		return;
	k = &d->check[d->n++];
	snprintf(k->name, sizeof(k->name), "%s", name);
	k->status = status;
	va_start(ap, fmt);
	vsnprintf(k->detail, sizeof(k->detail), fmt, ap);
	va_end(ap);
	snprintf(k->todo, sizeof(k->todo), "%s", status == DOCTOR_OK ? "" : todo);
}

static void check_kernel(struct doctor *d)
{
	struct utsname u;
	unsigned major = 0, minor = 0;

	uname(&u);
	if (sscanf(u.release, "%u.%u", &major, &minor) != 2)
		major = 0;
	if (major < 5 || (major == 5 && minor < 13))
		doctor_add(d, "kernel", DOCTOR_FAIL, "use Linux 5.13 or later", "%.60s", u.release);
	else if (major < 6 || (major == 6 && minor < 2))
		doctor_add(d, "kernel", DOCTOR_WARN,
			   "Linux 6.2 or later carries UDP in large segments through the TUN",
			   "%.60s: no USO", u.release);
	else
		doctor_add(d, "kernel", DOCTOR_OK, "", "%.60s: GSO, GRO, USO", u.release);
}

static void check_openssl(struct doctor *d)
{
	EVP_PKEY_CTX *k = EVP_PKEY_CTX_new_from_name(NULL, "ML-KEM-768", NULL);
	EVP_PKEY_CTX *s = EVP_PKEY_CTX_new_from_name(NULL, "ML-DSA-65", NULL);
	bool pq = k && s;

	EVP_PKEY_CTX_free(k);
	EVP_PKEY_CTX_free(s);
	doctor_add(d, "openssl",
		   !pq					    ? DOCTOR_FAIL
		   : OpenSSL_version_num() < OPENSSL_OLDEST ? DOCTOR_WARN
							    : DOCTOR_OK,
		   "upgrade OpenSSL to 3.5.7 or later (Debian 13 with its security updates)", "%s%s",
		   OpenSSL_version(OPENSSL_VERSION),
		   pq ? ": ML-KEM-768, ML-DSA-65" : ": no post-quantum algorithms");
}

static void check_cpu(struct doctor *d)
{
	bool aes = aead_best_suite() == AEAD_AES_256_GCM;

	doctor_add(d, "cpu", DOCTOR_OK, "", "%ld cores, %s", sysconf(_SC_NPROCESSORS_ONLN),
		   aes ? "AES instructions: AES-256-GCM" : "no AES instructions: ChaCha20-Poly1305");
}

static void check_tun(struct doctor *d, const struct config *cfg)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	unsigned features = 0;

	if (fd >= 0 && ioctl(fd, TUNGETFEATURES, &features) == 0)
		doctor_add(d, "tun",
			   (features & (IFF_MULTI_QUEUE | IFF_VNET_HDR)) == (IFF_MULTI_QUEUE | IFF_VNET_HDR)
				   ? DOCTOR_OK
				   : DOCTOR_FAIL,
			   "use a kernel with multi-queue TUN", "/dev/net/tun%s",
			   if_nametoindex(cfg->tun_name) ? ", device is up" : ", no device yet");
	else if (errno == EACCES && geteuid() != 0)
		doctor_add(d, "tun", DOCTOR_OK, "", "/dev/net/tun is there; only root may open it");
	else
		doctor_add(d, "tun", DOCTOR_FAIL,
			   "modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN",
			   "/dev/net/tun: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_sandbox(struct doctor *d)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1U);

	doctor_add(d, "landlock", abi >= 4 ? DOCTOR_OK : DOCTOR_WARN,
		   "use a kernel with Landlock (6.7 or later restricts TCP too), landlock among its lsm=",
		   abi < 1 ? "not there" : "ABI %ld", abi);
	doctor_add(d, "seccomp", prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 ? DOCTOR_OK : DOCTOR_WARN,
		   "use a kernel with CONFIG_SECCOMP_FILTER", "%s",
		   prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 ? "filters are there" : "not there");
}

static void check_memory(struct doctor *d)
{
	struct sysinfo s;

	if (sysinfo(&s) < 0)
		return;
	double free_mb = ((double)s.freeram + (double)s.bufferram) * s.mem_unit / 1e6;

	doctor_add(d, "memory", free_mb > 48 ? DOCTOR_OK : DOCTOR_WARN,
		   "x0 wants about 20 MB, 40 MB under load", "%.0f MB free", free_mb);
}

static void check_users(struct doctor *d, const struct config *cfg)
{
	struct err e = { 0 };
	uid_t uid, issuer;
	gid_t gid;

	if (config_user(cfg->user, &uid, &gid, &e) < 0)
		doctor_add(d, "user", DOCTOR_FAIL, e.todo, "%.150s", e.what);
	else
		doctor_add(d, "user", DOCTOR_OK, "", "%s is uid %u", cfg->user, (unsigned)uid);
	if (access(cfg->authority_dir, F_OK))
		return;
	if (config_user(cfg->issuer_user, &issuer, &gid, &e) < 0)
		doctor_add(d, "issuer-user", DOCTOR_FAIL, e.todo, "%.150s", e.what);
	else
		doctor_add(d, "issuer-user", issuer == uid ? DOCTOR_WARN : DOCTOR_OK,
			   "give the issuer a user of its own: issuer.user", "%s is uid %u", cfg->issuer_user,
			   (unsigned)issuer);
}

static void check_identity_dir(struct doctor *d, const struct config *cfg)
{
	if (access(cfg->identity_dir, F_OK) == 0)
		doctor_add(d, "joined", DOCTOR_OK, "", "identity in %.120s", cfg->identity_dir);
	else if (errno == EACCES)
		doctor_add(d, "joined", DOCTOR_OK, "", "only root and the daemon may look into %.100s",
			   cfg->state_dir);
	else
		doctor_add(d, "joined", DOCTOR_FAIL, "x0 join TOKEN, or x0 ca init for the first node",
			   "no identity in %.120s", cfg->identity_dir);
}

void doctor_host(struct doctor *d, const struct config *cfg)
{
	check_kernel(d);
	check_openssl(d);
	check_cpu(d);
	check_memory(d);
	check_tun(d, cfg);
	check_sandbox(d);
	check_users(d, cfg);
	check_identity_dir(d, cfg);
}
