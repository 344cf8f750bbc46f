/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab/lab.h"

#define NS_PREFIX "x0l-"
#define NET6	  "2001:db8:77:" /* for documentation, so nobody's */

/* A user number nobody else has: daemons of the lab have no rights, and the machine needs no account for
 * them. */
#define LAB_USER "64330"

void lab_ns(const char *host, char to[32])
{
	str_fmt(to, 32, NS_PREFIX "%s", host);
}

void lab_config(const char *host, char to[64])
{
	str_fmt(to, 64, LAB_DIR "/%s/x0.yaml", host);
}

int lab_host_add(struct lab *lab, const char *s, size_t n, unsigned *ret, struct err *e)
{
	for (unsigned i = 0; i < lab->nhosts; i++)
		if (strlen(lab->host[i]) == n && memcmp(lab->host[i], s, n) == 0) {
			*ret = i;
			return 0;
		}
	if (n == 0 || n >= LAB_NAME)
		return err_set(e, ERR_USAGE, "a host's name has 1 to %d letters", LAB_NAME - 1);
	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]))
			return err_set(e, ERR_USAGE, "a host's name has small letters and digits only");
	if (lab->nhosts == LAB_HOSTS)
		return err_set(e, ERR_LIMIT, "at most %d hosts", LAB_HOSTS);
	memcpy(lab->host[lab->nhosts], s, n);
	lab->host[lab->nhosts][n] = 0;
	*ret = lab->nhosts++;
	return 0;
}

int lab_link_add(struct lab *lab, const char *s, size_t n, struct err *e)
{
	const char *dash = memchr(s, '-', n);
	struct lab_link *l = &lab->link[lab->nlinks];
	int rc;

	if (!dash) {
		rc = err_set(e, ERR_USAGE, "\"%.*s\" is no link", (int)n, s);
		err_todo(e, "write links as in \"a-b b-c\"");
		return rc;
	}
	if (lab->nlinks == LAB_LINKS)
		return err_set(e, ERR_LIMIT, "at most %d links", LAB_LINKS);
	*l = (struct lab_link){ 0 };
	if ((rc = lab_host_add(lab, s, (size_t)(dash - s), &l->a, e)) != 0 ||
	    (rc = lab_host_add(lab, dash + 1, n - (size_t)(dash - s) - 1, &l->b, e)) != 0)
		return rc;
	if (l->a == l->b)
		return err_set(e, ERR_USAGE, "\"%.*s\" links a host with itself", (int)n, s);
	for (unsigned k = 0; k < lab->nlinks; k++)
		if ((lab->link[k].a == l->a && lab->link[k].b == l->b) ||
		    (lab->link[k].a == l->b && lab->link[k].b == l->a))
			return err_set(e, ERR_USAGE, "\"%.*s\": these two have a link already", (int)n, s);
	lab->nlinks++;
	return 0;
}

int lab_parse(const char *links, struct lab *ret, struct err *e)
{
	struct lab lab = { 0 };
	const char *s = links;

	while (*s) {
		size_t n = strcspn(s, " ,");
		int rc = n > 0 ? lab_link_add(&lab, s, n, e) : 0;

		if (rc != 0)
			return rc;
		s += n + (s[n] != 0);
	}
	if (lab.nlinks == 0)
		return err_set(e, ERR_USAGE, "a lab needs at least one link");
	memcpy(lab.x0, ret->x0, sizeof(lab.x0));
	*ret = lab;
	return 0;
}

/* `ip` with words from a format, split at blanks: no shell, no quoting. */
static int ip_cmd(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int ip_cmd(struct err *e, const char *fmt, ...)
{
	char line[256], *save = NULL;
	const char *argv[32] = { "ip" };
	unsigned n = 1;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *w = strtok_r(line, " ", &save); w && n < ARRAY_SIZE(argv) - 1;
	     w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n] = NULL;
	return lab_run(NULL, argv, 5000, NULL, 0, e);
}

static int make_link(const struct lab *lab, unsigned k, struct err *e)
{
	const struct lab_link *l = &lab->link[k];
	const char *end[2] = { lab->host[l->a], lab->host[l->b] };
	int rc = ip_cmd(e,
			"link add u-%s netns " NS_PREFIX "%s mtu %u type veth peer name u-%s netns " NS_PREFIX
			"%s mtu %u",
			end[1], end[0], l->mtu ? l->mtu : 1500, end[0], end[1], l->mtu ? l->mtu : 1500);

	for (unsigned i = 0; i < 2 && rc == 0; i++) {
		rc = lab->ipv6 ? ip_cmd(e, "-n " NS_PREFIX "%s addr add " NET6 "%x::%u/64 dev u-%s nodad",
					end[i], k, i + 1, end[!i])
			       : ip_cmd(e, "-n " NS_PREFIX "%s addr add 10.77.%u.%u/24 dev u-%s", end[i], k,
					i + 1, end[!i]);
		if (rc == 0)
			rc = ip_cmd(e, "-n " NS_PREFIX "%s link set u-%s up", end[i], end[!i]);
	}
	return rc;
}

int lab_make(const struct lab *lab, struct err *e)
{
	int rc = geteuid() == 0 ? 0 : err_set(e, ERR_DENIED, "making network namespaces needs root");

	if (rc != 0)
		return err_todo(e, "run it as root, for example with sudo");
	for (unsigned i = 0; i < lab->nhosts && rc == 0; i++) {
		rc = ip_cmd(e, "netns add " NS_PREFIX "%s", lab->host[i]);
		if (rc == 0)
			rc = ip_cmd(e, "-n " NS_PREFIX "%s link set lo up", lab->host[i]);
	}
	for (unsigned k = 0; k < lab->nlinks && rc == 0; k++)
		rc = make_link(lab, k, e);
	return rc;
}

int lab_underlay(const struct lab *lab, const char *from, const char *of, char to[24])
{
	for (unsigned k = 0; k < lab->nlinks; k++) {
		const char *a = lab->host[lab->link[k].a], *b = lab->host[lab->link[k].b];
		unsigned end = strcmp(a, from) == 0 && strcmp(b, of) == 0   ? 2
			       : strcmp(b, from) == 0 && strcmp(a, of) == 0 ? 1
									    : 0;

		if (end == 0)
			continue;
		return lab->ipv6 ? str_fmt(to, 24, NET6 "%x::%u", k, end)
				 : str_fmt(to, 24, "10.77.%u.%u", k, end);
	}
	return ERR_NOT_FOUND;
}

/* The same with x0's port, as in a configuration. */
static int underlay_endpoint(const struct lab *lab, const char *from, const char *of, char to[40])
{
	char addr[24];
	int rc = lab_underlay(lab, from, of, addr);

	return rc != 0 ? rc : str_fmt(to, 40, lab->ipv6 ? "[%s]:7430" : "%s:7430", addr);
}

static int write_config(const struct lab *lab, const char *host, struct err *e)
{
	char path[64], dir[64], text[4096], at[40];
	size_t n = 0;

	str_fmt(dir, sizeof(dir), LAB_DIR "/%s", host);
	if (dir_make(dir, 0755, e) != 0)
		return e->code;
	n += (size_t)snprintf(text + n, sizeof(text) - n,
			      "trust_domain: " LAB_DOMAIN "\nname: %s\nuser: \"" LAB_USER
			      "\"\nstate_dir: %s/state\nrun_dir: %s/run\npeers:\n",
			      host, dir, dir);
	for (unsigned i = 0; i < lab->nhosts && n < sizeof(text); i++)
		if (underlay_endpoint(lab, host, lab->host[i], at) == 0)
			n += (size_t)snprintf(text + n, sizeof(text) - n,
					      "  - name: %s\n    endpoints: [\"%s\"]\n    keep: true\n",
					      lab->host[i], at);
	if (n >= sizeof(text))
		return err_set(e, ERR_LIMIT, "host %s has too many links", host);
	lab_config(host, path);
	return file_write(path, text, n, 0644, e);
}

/* The authority's address as `host` reaches it: they must share a link, since joining does not go over
 * several hops. */
static int join_host(const struct lab *lab, const char *host, struct err *e)
{
	const char *ca = lab->host[0];
	char token[1024], at[40];
	int rc = underlay_endpoint(lab, host, ca, at);

	if (rc != 0)
		return err_set(e, rc, "host %s has no link to %s, the authority", host, ca);
	rc = lab_x0(lab, ca, token, sizeof(token), e, "ca", "token", host, "--addr", at, NULL);
	if (rc != 0)
		return rc;
	token[strcspn(token, "\r\n")] = 0;
	rc = lab_x0(lab, host, NULL, 0, e, "join", token, NULL);
	secret_wipe(token, sizeof(token));
	return rc != 0 ? rc : lab_x0(lab, host, NULL, 0, e, "up", NULL);
}

int lab_start(const struct lab *lab, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < lab->nhosts && rc == 0; i++)
		rc = write_config(lab, lab->host[i], e);
	if (rc == 0)
		rc = lab_x0(lab, lab->host[0], NULL, 0, e, "ca", "init", NULL);
	if (rc == 0)
		rc = lab_x0(lab, lab->host[0], NULL, 0, e, "up", NULL);
	for (unsigned i = 1; i < lab->nhosts && rc == 0; i++)
		rc = join_host(lab, lab->host[i], e);
	/* Only now: how joining copes with a bad link is for whoever makes it bad to try. */
	for (unsigned k = 0; k < lab->nlinks && rc == 0; k++) {
		const struct lab_link *l = &lab->link[k];

		if (l->bad.loss_ppm || l->bad.reorder_ppm || l->bad.delay_ns || l->bad.rate_bps)
			rc = lab_impair_set(lab->host[l->a], lab->host[l->b], &l->bad, e);
	}
	return rc;
}

pid_t lab_daemon_pid(const char *host)
{
	char path[96];
	uint8_t *p = NULL;
	size_t n;
	long pid = 0;

	str_fmt(path, sizeof(path), LAB_DIR "/%s/run/daemon.pid", host);
	if (file_read(path, 64, &p, &n, NULL) != 0)
		return 0;
	pid = strtol((char *)p, NULL, 10);
	free(p);
	return pid > 1 && kill((pid_t)pid, 0) == 0 ? (pid_t)pid : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

int lab_list(char (*ret)[LAB_NAME], unsigned cap, struct err *e)
{
	DIR *d = opendir("/run/netns");
	unsigned n = 0;
	struct dirent *de;

	(void)e;
	if (!d)
		return 0;
	while ((de = readdir(d)) != NULL)
		if (strncmp(de->d_name, NS_PREFIX, strlen(NS_PREFIX)) == 0 && n < cap &&
		    strlen(de->d_name) - strlen(NS_PREFIX) < LAB_NAME)
			memcpy(ret[n++], de->d_name + strlen(NS_PREFIX),
			       strlen(de->d_name) - strlen(NS_PREFIX) + 1);
	closedir(d);
	qsort(ret, n, LAB_NAME, by_name);
	return (int)n;
}

/* Whatever still runs inside the namespace is the lab's: daemons, or a shell somebody opened there. */
static void end_processes(const char *host)
{
	char ns[32], out[4096], *save = NULL;

	lab_ns(host, ns);
	for (int round = 0; round < 20; round++) {
		unsigned left = 0;

		if (lab_run(NULL, (const char *const[]){ "ip", "netns", "pids", ns, NULL }, 5000, out,
			    sizeof(out), NULL) != 0)
			return;
		for (char *w = strtok_r(out, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
			long pid = strtol(w, NULL, 10);

			if (pid > 1 && pid != getpid()) {
				kill((pid_t)pid, round < 10 ? SIGTERM : SIGKILL);
				left++;
			}
		}
		if (left == 0)
			return;
		usleep(100 * 1000);
	}
}

static int remove_entry(const char *dir, int depth)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	char path[512];
	int rc = 0;

	if (!d)
		return errno == ENOTDIR ? unlink(dir) : -1;
	while ((de = readdir(d)) != NULL) {
		struct stat st;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
		    str_fmt(path, sizeof(path), "%s/%s", dir, de->d_name) < 0)
			continue;
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			rc |= depth < 8 ? remove_entry(path, depth + 1) : -1;
		else
			rc |= unlink(path);
	}
	closedir(d);
	return rc | rmdir(dir);
}

int lab_down(const char *x0, struct err *e)
{
	char host[LAB_HOSTS][LAB_NAME];
	int n = lab_list(host, LAB_HOSTS, e), rc = 0;
	struct lab lab = { 0 };

	str_fmt(lab.x0, sizeof(lab.x0), "%s", x0);
	for (int i = 0; i < n; i++) {
		char config[64];

		lab_config(host[i], config);
		if (access(config, R_OK) == 0)
			lab_x0(&lab, host[i], NULL, 0, NULL, "down", NULL);
		end_processes(host[i]);
		if (ip_cmd(e, "netns del " NS_PREFIX "%s", host[i]) != 0)
			rc = e ? e->code : ERR_FAILED;
	}
	if (access(LAB_DIR, F_OK) == 0 && remove_entry(LAB_DIR, 0) != 0)
		rc = err_sys(e, "remove " LAB_DIR);
	return rc;
}
