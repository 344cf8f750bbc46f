/* SPDX-License-Identifier: Apache-2.0 */
/* The YAML form of a lab. */
#include <stdlib.h>

#include "lab/lab.h"

enum {
#define X(id, ...) F_##id,
#include "../../schema/lab.def"
#undef X
};
enum {
#define X(id, ...) L_##id,
#include "../../schema/lab_link.def"
#undef X
};

static const struct conf_key keys[] = {
#define X CONF_ROW
#include "../../schema/lab.def"
#undef X
};
static const struct conf_key link_keys[] = {
#define X CONF_ROW
#include "../../schema/lab_link.def"
#undef X
};
static const struct conf_schema link_schema = { link_keys, ARRAY_SIZE(link_keys), NULL, 0 };
static const struct conf_sub subs[] = { { "links", &link_schema } };
static const struct conf_schema schema = { keys, ARRAY_SIZE(keys), subs, ARRAY_SIZE(subs) };

/* What is wrong with a value goes to its place in the file. */
static void read_link(const struct conf *c, struct lab *lab, struct yaml_problems *pr)
{
	const char *s = conf_str(c, L_LINK);
	struct lab_link *l = &lab->link[lab->nlinks];
	struct err e = { 0 };

	if (lab_link_add(lab, s, strlen(s), &e) != 0) {
		conf_problem(c, L_LINK, pr, "%s", e.what);
		return;
	}
	l->mtu = (unsigned)conf_int(c, L_MTU);
	l->bad.delay_ns = conf_dur(c, L_DELAY);
	if (lab_ppm_parse(conf_str(c, L_LOSS), &l->bad.loss_ppm, &e) != 0)
		conf_problem(c, L_LOSS, pr, "%s", e.what);
	if (lab_ppm_parse(conf_str(c, L_REORDER), &l->bad.reorder_ppm, &e) != 0)
		conf_problem(c, L_REORDER, pr, "%s", e.what);
	if (lab_rate_parse(conf_str(c, L_RATE), &l->bad.rate_bps, &e) != 0)
		conf_problem(c, L_RATE, pr, "%s", e.what);
}

static void read_lab(const struct conf *c, struct lab *lab, struct yaml_problems *pr)
{
	struct err e = { 0 };
	unsigned before = (unsigned)conf_count(c, F_HOSTS), id;

	for (size_t i = 0; i < before; i++) {
		const char *s = conf_list_at(c, F_HOSTS, i);

		if (lab_host_add(lab, s, strlen(s), &id, &e) != 0)
			conf_problem(c, F_HOSTS, pr, "%s", e.what);
		else if (id != i && pr->n == 0)
			conf_problem(c, F_HOSTS, pr, "host %s is there twice", s);
	}
	lab->ipv6 = strcmp(conf_str(c, F_UNDERLAY), "ipv6") == 0;
	for (size_t i = 0; i < conf_count(c, F_LINKS); i++)
		read_link(conf_maps_at(c, F_LINKS, i), lab, pr);
	if (before > 0 && lab->nhosts > before && pr->n == 0)
		conf_problem(c, F_HOSTS, pr, "host %s has a link, but is not here", lab->host[before]);
}

int lab_read(const char *text, size_t n, const char *file, struct lab *ret, struct err *e)
{
	struct yaml_problems pr = { 0 };
	struct lab lab = { 0 };
	struct conf *c = NULL;
	int rc = conf_parse(&schema, text, n, &c, &pr);

	if (rc == 0) {
		read_lab(c, &lab, &pr);
		conf_free(c);
		yaml_problems_sort(&pr);
	}
	if (rc == 0 || rc == ERR_CONFIG)
		rc = yaml_problems_err(&pr, file, e);
	else
		err_set(e, rc, "no memory for %s", file);
	if (rc == 0) {
		memcpy(lab.x0, ret->x0, sizeof(lab.x0));
		*ret = lab;
	}
	return rc;
}

int lab_load(const char *arg, struct lab *ret, struct err *e)
{
	uint8_t *text = NULL;
	size_t n = 0;
	int rc;

	/* Neither can be in a list of links. */
	if (!strpbrk(arg, "./"))
		return lab_parse(arg, ret, e);
	rc = file_read(arg, YAML_TEXT_MAX, &text, &n, e);
	if (rc == 0)
		rc = lab_read((const char *)text, n, arg, ret, e);
	free(text);
	return rc;
}
