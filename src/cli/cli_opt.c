/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options: numbers and durations, with their ranges. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "cli/cli.h"

const char *cli_opt_nth(const struct cli *c, const char *name, unsigned n)
{
	for (unsigned i = 0; i < c->nopts; i++)
		if (!strcmp(c->opt[i].name, name) && n-- == 0)
			return c->opt[i].value;
	return NULL;
}

const char *cli_opt(const struct cli *c, const char *name)
{
	return cli_opt_nth(c, name, 0);
}

int cli_opt_num(const struct cli *c, const char *name, double def, double min, double max, double *ret,
		struct err *e)
{
	const char *s = cli_opt(c, name);
	char *end;
	double v;

	if (!s) {
		*ret = def;
		return 0;
	}
	errno = 0;
	v = strtod(s, &end);
	if (!*s || *end || errno || !isfinite(v) || v < min || v > max)
		return err_set(e, ERR_USAGE, "--%s takes a number from %g to %g, not '%.60s'", name, min, max,
			       s);
	*ret = v;
	return 0;
}

int cli_duration_parse(const char *s, int64_t *ret, struct err *e)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 0, 1 } };
	char *end;
	long long v;

	errno = 0;
	v = strtoll(s, &end, 10);
	if (end != s && !errno && v >= 0 && v <= 1000000000)
		for (size_t i = 0; i < ARRAY_SIZE(units); i++)
			if (*end == units[i].unit && (!*end || !end[1])) {
				*ret = v * units[i].seconds;
				return 0;
			}
	return err_set(e, ERR_USAGE, "'%.60s' is no duration; write for example 90s, 15m, 24h or 30d", s);
}

int cli_opt_duration(const struct cli *c, const char *name, int64_t def, int64_t min, int64_t max,
		     int64_t *ret, struct err *e)
{
	const char *s = cli_opt(c, name);
	int64_t v;
	int r;

	if (!s) {
		*ret = def;
		return 0;
	}
	r = cli_duration_parse(s, &v, e);
	if (r < 0)
		return err_prefix(e, "--%s", name);
	if (v < min || v > max)
		return err_set(e, ERR_USAGE, "--%s must be from %lld to %lld seconds", name, (long long)min,
			       (long long)max);
	*ret = v;
	return 0;
}
