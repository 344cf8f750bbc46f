/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one configuration value, from YAML to its type and back to text
 *
 * Each type is written in exactly one notation with units where there are any: "20" is no duration, "yes" is
 * no truth value, "010" is no number. What YAML readers disagree about is refused instead of interpreted.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf_int.h"
#include "base/util.h"

enum { STR_MAX = 4096, DEFAULT_ITEMS = 16 };

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit duration_units[] = {
	{ "d", 86400000000000ull },
	{ "h", 3600000000000ull },
	{ "m", 60000000000ull },
	{ "s", 1000000000ull },
	{ "ms", 1000000ull },
	{ "us", 1000ull },
	{ "ns", 1ull },
};

static const struct unit size_units[] = {
	{ "GiB", 1ull << 30 }, { "GB", 1000000000ull }, { "MiB", 1ull << 20 }, { "MB", 1000000ull },
	{ "KiB", 1ull << 10 }, { "kB", 1000ull },	{ "B", 1ull },
};

/* Digits without a needless zero in front; moves *s behind them. */
static bool digits(const char **s, uint64_t *ret)
{
	const char *p = *s;
	uint64_t v = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		uint64_t d = (uint64_t)(*p - '0');

		if (v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	if (p == *s || (**s == '0' && p > *s + 1))
		return false;
	*s = p;
	*ret = v;
	return true;
}

static const struct unit *unit_of(const char *s, size_t len, const struct unit *units, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(units[i].name) == len && memcmp(units[i].name, s, len) == 0)
			return &units[i];
	return NULL;
}

int conf_duration_parse(const char *s, uint64_t *ret_ns, struct err *e)
{
	const struct unit *last = NULL;
	const char *p = s;
	uint64_t sum = 0, v;

	do {
		const struct unit *u = NULL;
		size_t len;

		if (!digits(&p, &v))
			break;
		len = strspn(p, "dhmsun");
		u = unit_of(p, len, duration_units, ARRAY_SIZE(duration_units));
		/* From large to small, each once: one reading for each text. */
		if (!u || (last && u <= last) || v > (INT64_MAX - sum) / u->factor)
			break;
		sum += v * u->factor;
		last = u;
		p += len;
		if (!*p) {
			*ret_ns = sum;
			return 0;
		}
	} while (*p);
	err_set(e, ERR_PARSE, "\"%.60s\" is not a duration", s);
	return err_todo(e, "write a whole number with a unit, like 20s, 250ms or 1h30m (ns us ms s m h d)");
}

int conf_size_parse(const char *s, uint64_t *ret_bytes, struct err *e)
{
	const struct unit *u;
	const char *p = s;
	uint64_t v;

	if (!digits(&p, &v))
		goto bad;
	u = *p ? unit_of(p, strlen(p), size_units, ARRAY_SIZE(size_units))
	       : &size_units[ARRAY_SIZE(size_units) - 1];
	if (!u || v > INT64_MAX / u->factor)
		goto bad;
	*ret_bytes = v * u->factor;
	return 0;
bad:
	err_set(e, ERR_PARSE, "\"%.60s\" is not a size", s);
	return err_todo(
		e,
		"write a whole number of bytes or with a unit, like 64KiB or 1MB (B kB KiB MB MiB GB GiB)");
}

/* In the largest unit that divides it; 0 in the one given. */
static void print_units(FILE *f, uint64_t v, const struct unit *units, size_t n, const char *zero)
{
	for (size_t i = 0; i < n && v; i++) {
		if (v % units[i].factor == 0) {
			fprintf(f, "%" PRIu64 "%s", v / units[i].factor, units[i].name);
			return;
		}
	}
	fputs(zero, f);
}

#define WRONG(n, problems, ...) (yaml_problem(problems, (n)->line, (n)->column, __VA_ARGS__), ERR_CONFIG)

/* Sentence and remedy of an err in one line. */
static int wrong_err(const struct conf_key *k, const struct yaml_node *n, const struct err *e,
		     struct yaml_problems *p)
{
	return WRONG(n, p, "%s: %s%s%s", k->path, e->what, e->todo[0] ? "; " : "", e->todo);
}

static int str_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		     struct yaml_problems *p)
{
	size_t len = strlen(n->text), max = k->max > 0 ? (size_t)k->max : STR_MAX;

	if (strpbrk(n->text, "\n\t"))
		return WRONG(n, p, "%s: the text must be one line without tabs", k->path);
	if (n->line && (len < (size_t)k->min || len > max))
		return WRONG(n, p, "%s: the text has %zu bytes, must have %" PRId64 " to %zu", k->path, len,
			     k->min, max);
	v->s = strdup(n->text);
	return v->s ? 0 : ERR_NOMEM;
}

static int choice_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
			struct yaml_problems *p)
{
	char *words = strdup(k->def), *save = NULL;
	const char *list[DEFAULT_ITEMS], *near;
	size_t count = 0;
	int rc;

	if (!words)
		return ERR_NOMEM;
	for (char *w = strtok_r(words, "|", &save); w && count < DEFAULT_ITEMS;
	     w = strtok_r(NULL, "|", &save))
		list[count++] = w;
	for (size_t i = 0; i < count && !v->s; i++) {
		/* The default's node holds the whole list: it means the first word. */
		if (!n->line || strcmp(n->text, list[i]) == 0) {
			v->s = strdup(list[i]);
			rc = v->s ? 0 : ERR_NOMEM;
			goto out;
		}
	}
	near = str_nearest(n->text, list, count);
	rc = near ? WRONG(n, p, "%s: \"%.60s\" is none of %s; did you mean \"%s\"?", k->path, n->text, k->def,
			  near)
		  : WRONG(n, p, "%s: \"%.60s\" is none of %s", k->path, n->text, k->def);
out:
	free(words);
	return rc;
}

static int bool_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		      struct yaml_problems *p)
{
	bool yes = strcmp(n->text, "true") == 0;

	if (n->quoted || (!yes && strcmp(n->text, "false") != 0))
		return WRONG(n, p, "%s: \"%.60s\" is not true or false", k->path, n->text);
	v->i = yes;
	return 0;
}

static int int_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		     struct yaml_problems *p)
{
	const char *s = n->text + (n->text[0] == '-');
	bool minus = s != n->text;
	uint64_t u;

	if (n->quoted || !digits(&s, &u) || *s || (minus && u == 0) || u > (uint64_t)INT64_MAX)
		return WRONG(n, p, "%s: \"%.60s\" is not a whole number%s", k->path, n->text,
			     n->quoted ? " (it is in quotes)" : "");
	v->i = minus ? -(int64_t)u : (int64_t)u;
	if (n->line && (k->min || k->max) && (v->i < k->min || v->i > k->max))
		return WRONG(n, p, "%s: %" PRId64 " is not between %" PRId64 " and %" PRId64, k->path, v->i,
			     k->min, k->max);
	return 0;
}

static void print_amount(const struct conf_key *k, uint64_t v, FILE *f)
{
	if (k->type == CONF_DURATION)
		print_units(f, v, duration_units, ARRAY_SIZE(duration_units), "0s");
	else
		print_units(f, v, size_units, ARRAY_SIZE(size_units), "0");
}

/* Durations and sizes. */
static int amount_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
			struct yaml_problems *p)
{
	char range[96] = "";
	struct err e;
	FILE *f;
	int rc = k->type == CONF_DURATION ? conf_duration_parse(n->text, &v->u, &e)
					  : conf_size_parse(n->text, &v->u, &e);

	if (rc < 0)
		return wrong_err(k, n, &e, p);
	if (!n->line || (v->u >= (uint64_t)k->min && (k->max == 0 || v->u <= (uint64_t)k->max)))
		return 0;
	f = fmemopen(range, sizeof(range), "w");
	if (!f)
		return ERR_NOMEM;
	fputs(k->max ? "between " : "at least ", f);
	print_amount(k, (uint64_t)k->min, f);
	if (k->max) {
		fputs(" and ", f);
		print_amount(k, (uint64_t)k->max, f);
	}
	fclose(f);
	return WRONG(n, p, "%s: %.60s is not %s", k->path, n->text, range);
}

static int one_endpoint(const struct conf_key *k, const struct yaml_node *n, int64_t min, int64_t max,
			struct endpoint *ep, struct yaml_problems *p)
{
	struct err e;

	if (endpoint_parse(n->text, 0, ep, &e) < 0)
		return wrong_err(k, n, &e, p);
	if (ep->port < min || ep->port > max)
		return WRONG(n, p, "%s: port %u is not between %" PRId64 " and %" PRId64, k->path, ep->port,
			     min, max);
	return 0;
}

static int ep_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		    struct yaml_problems *p)
{
	if (!n->line && !n->text[0])
		return 0;
	return one_endpoint(k, n, n->line ? k->min : 0, n->line && k->max ? k->max : UINT16_MAX, &v->ep, p);
}

/* One item of LIST or ENDPOINTS. */
static int item_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		      struct yaml_problems *p)
{
	size_t len;
	int rc;

	if (n->kind != YAML_SCALAR)
		return WRONG(n, p, "%s: its items are texts, not %s", k->path,
			     n->kind == YAML_MAP ? "maps" : "lists");
	if (k->type == CONF_ENDPOINTS) {
		rc = one_endpoint(k, n, 1, UINT16_MAX, &v->eps[v->n], p);
		v->n += rc == 0;
		return rc;
	}
	len = strlen(n->text);
	if (len == 0 || len > STR_MAX || strpbrk(n->text, "\n\t") ||
	    (!n->quoted && strcmp(n->text, "~") == 0) || (!n->quoted && strcmp(n->text, "null") == 0))
		return WRONG(n, p, "%s: each item is a text in one line, of 1 to %d bytes", k->path, STR_MAX);
	v->list[v->n] = strdup(n->text);
	if (!v->list[v->n])
		return ERR_NOMEM;
	v->n++;
	return 0;
}

static int list_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		      struct yaml_problems *p)
{
	int rc = 0;

	if (k->type == CONF_ENDPOINTS)
		v->eps = calloc(n->n + 1, sizeof(*v->eps));
	else
		v->list = calloc(n->n + 1, sizeof(*v->list));
	if (!v->eps && !v->list)
		return ERR_NOMEM;
	for (const struct yaml_node *i = n->child; i; i = i->next) {
		int item = item_parse(k, i, v, p);

		if (item == ERR_NOMEM)
			return ERR_NOMEM;
		rc = item < 0 ? item : rc;
	}
	return rc;
}

static int maps_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		      struct yaml_problems *p)
{
	int rc = 0;

	for (const struct yaml_node *i = n->child; i; i = i->next)
		if (i->kind != YAML_MAP)
			rc = WRONG(i, p, "%s: its items are maps (key: value)", k->path);
	v->items = calloc(n->n + 1, sizeof(*v->items));
	return v->items ? rc : ERR_NOMEM;
}

static const struct {
	const char *what; /* "is not ..." */
	enum yaml_kind kind;
	int (*parse)(const struct conf_key *, const struct yaml_node *, struct conf_value *,
		     struct yaml_problems *);
} types[] = {
	[CONF_STR] = { "a text", YAML_SCALAR, str_parse },
	[CONF_CHOICE] = { "a word", YAML_SCALAR, choice_parse },
	[CONF_BOOL] = { "true or false", YAML_SCALAR, bool_parse },
	[CONF_INT] = { "a number", YAML_SCALAR, int_parse },
	[CONF_DURATION] = { "a duration like 20s", YAML_SCALAR, amount_parse },
	[CONF_SIZE] = { "a size like 64KiB", YAML_SCALAR, amount_parse },
	[CONF_ENDPOINT] = { "an address with port", YAML_SCALAR, ep_parse },
	[CONF_LIST] = { "a list: write [a, b], or [] for none", YAML_SEQ, list_parse },
	[CONF_ENDPOINTS] = { "a list of addresses with ports, like [192.0.2.1:7430], or []", YAML_SEQ,
			     list_parse },
	[CONF_MAPS] = { "a list of maps, or [] for none", YAML_SEQ, maps_parse },
};

/* The canonical text: what is equal reads equal. */
static int text_make(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v)
{
	char ep[ENDPOINT_TEXT];
	size_t len;
	FILE *f = open_memstream(&v->text, &len);
	bool failed;

	if (!f)
		return ERR_NOMEM;
	switch (k->type) {
	case CONF_STR:
	case CONF_CHOICE:
		yaml_render_scalar(v->s, f);
		break;
	case CONF_BOOL:
		fputs(v->i ? "true" : "false", f);
		break;
	case CONF_INT:
		fprintf(f, "%" PRId64, v->i);
		break;
	case CONF_DURATION:
	case CONF_SIZE:
		print_amount(k, v->u, f);
		break;
	case CONF_ENDPOINT:
		yaml_render_scalar(endpoint_text(&v->ep, ep), f);
		break;
	case CONF_LIST:
	case CONF_ENDPOINTS:
		fputc('[', f);
		for (size_t i = 0; i < v->n; i++) {
			fputs(i ? ", " : "", f);
			yaml_render_scalar(v->list ? v->list[i] : endpoint_text(&v->eps[i], ep), f);
		}
		fputc(']', f);
		break;
	case CONF_MAPS:
		yaml_render(n, f);
		break;
	}
	failed = ferror(f);
	if (fclose(f) != 0 || failed) {
		free(v->text);
		v->text = NULL;
		return ERR_NOMEM;
	}
	return 0;
}

int conf_value_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		     struct yaml_problems *problems)
{
	int64_t max = k->max > 0 ? k->max : INT64_MAX;
	int rc;

	v->given = n->line != 0;
	v->line = n->line;
	v->column = n->column;
	if (n->kind == YAML_SCALAR && !n->quoted && v->given &&
	    (!n->text[0] || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0))
		return WRONG(n, problems, "%s has no value; remove the line for the default, or write %s",
			     k->path,
			     types[k->type].kind == YAML_SEQ ? "[] for none" : "\"\" for an empty text");
	if (n->kind != types[k->type].kind)
		return WRONG(n, problems, "%s is not %s", k->path, types[k->type].what);
	if (n->kind == YAML_SEQ && v->given && ((int64_t)n->n < k->min || (int64_t)n->n > max))
		return WRONG(n, problems, "%s has %zu items, must have %" PRId64 " to %" PRId64, k->path,
			     n->n, k->min, max);
	rc = types[k->type].parse(k, n, v, problems);
	return rc == 0 ? text_make(k, n, v) : rc;
}

int conf_value_default(const struct conf_key *k, struct conf_value *v, struct yaml_problems *problems)
{
	struct yaml_node n = { .kind = types[k->type].kind, .text = k->def }, item[DEFAULT_ITEMS];
	char *words, *save = NULL;
	int rc;

	if (n.kind == YAML_SCALAR)
		return conf_value_parse(k, &n, v, problems);
	words = strdup(k->def);
	if (!words)
		return ERR_NOMEM;
	for (char *w = strtok_r(words, ", ", &save); w && n.n < DEFAULT_ITEMS;
	     w = strtok_r(NULL, ", ", &save)) {
		item[n.n] = (struct yaml_node){ .kind = YAML_SCALAR, .text = w, .parent = &n };
		if (n.n)
			item[n.n - 1].next = &item[n.n];
		else
			n.child = &item[0];
		n.n++;
	}
	rc = conf_value_parse(k, &n, v, problems);
	free(words);
	return rc;
}

void conf_value_clear(struct conf_value *v)
{
	for (size_t i = 0; v->list && i < v->n; i++)
		free(v->list[i]);
	free(v->list);
	free(v->eps);
	free(v->items);
	free(v->s);
	free(v->text);
	*v = (struct conf_value){ .given = false };
}
