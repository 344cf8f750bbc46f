/* SPDX-License-Identifier: Apache-2.0 */
/* Output: the JSON reply, aligned tables, amounts for humans. */
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/cli.h"

yyjson_mut_val *cli_reply(struct cli *c, const char *kind)
{
	if (c->doc)
		return c->root;
	c->doc = yyjson_mut_doc_new(NULL);
	c->root = yyjson_mut_obj(c->doc);
	yyjson_mut_doc_set_root(c->doc, c->root);
	yyjson_mut_obj_add_str(c->doc, c->root, "api", CLI_API);
	yyjson_mut_obj_add_str(c->doc, c->root, "kind", kind);
	yyjson_mut_obj_add_bool(c->doc, c->root, "ok", true);
	return c->root;
}

void cli_reply_doc(struct cli *c, yyjson_doc *doc)
{
	yyjson_mut_doc_free(c->doc);
	c->doc = yyjson_doc_mut_copy(doc, NULL);
	c->root = c->doc ? yyjson_mut_doc_get_root(c->doc) : NULL;
}

void cli_reply_ok(struct cli *c, bool ok)
{
	yyjson_mut_val *v = c->root ? yyjson_mut_obj_get(c->root, "ok") : NULL;

	if (v)
		yyjson_mut_set_bool(v, ok);
}

bool cli_colour(FILE *f)
{
	const char *no = getenv("NO_COLOR");

	return isatty(fileno(f)) && !(no && *no);
}

void cli_table_init(struct cli_table *t, ...)
{
	va_list ap;
	const char *head;

	*t = (struct cli_table){ 0 };
	va_start(ap, t);
	while ((head = va_arg(ap, const char *)) && t->ncols < CLI_COLS)
		t->right[t->ncols++] = *head == '>';
	va_end(ap);
	va_start(ap, t);
	for (unsigned i = 0; i < t->ncols; i++) {
		head = va_arg(ap, const char *);
		cli_table_cell(t, "%s", *head == '>' ? head + 1 : head);
	}
	va_end(ap);
}

void cli_table_cell(struct cli_table *t, const char *fmt, ...)
{
	va_list ap;
	char *s;

	if (t->next == t->ncols)
		t->next = 0;
	if (t->next == 0) {
		char **grown = realloc(t->cell, sizeof(char *) * t->ncols * (t->nrows + 1));

		if (!grown)
			return;
		t->cell = grown;
		memset(t->cell + (size_t)t->ncols * t->nrows, 0, sizeof(char *) * t->ncols);
		t->nrows++;
	}
	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	t->cell[(size_t)t->ncols * (t->nrows - 1) + t->next++] = s;
}

/* Columns on the screen: characters, not bytes. */
static size_t width(const char *s)
{
	size_t n = mbstowcs(NULL, s, 0);

	return n == (size_t)-1 ? strlen(s) : n;
}

void cli_table_print(struct cli_table *t, FILE *f)
{
	size_t w[CLI_COLS] = { 0 };

	for (size_t i = 0; i < (size_t)t->nrows * t->ncols; i++)
		if (t->cell[i] && width(t->cell[i]) > w[i % t->ncols])
			w[i % t->ncols] = width(t->cell[i]);
	for (unsigned r = 0; r < t->nrows; r++) {
		for (unsigned i = 0; i < t->ncols; i++) {
			char *s = t->cell[r * t->ncols + i];
			size_t pad = w[i] - (s ? width(s) : 0);

			if (t->right[i])
				fprintf(f, "%*s%s", (int)pad, "", s ? s : "");
			else if (i + 1 < t->ncols)
				fprintf(f, "%s%*s", s ? s : "", (int)pad, "");
			else
				fputs(s ? s : "", f);
			fputs(i + 1 < t->ncols ? "  " : "\n", f);
			free(s);
		}
	}
	free(t->cell);
	*t = (struct cli_table){ 0 };
}

const char *cli_bytes(uint64_t n, char to[16])
{
	static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	double v = (double)n;
	size_t i = 0;

	while (v >= 999.5 && i + 1 < ARRAY_SIZE(unit)) {
		v /= 1000;
		i++;
	}
	snprintf(to, 16, i && v < 99.95 ? "%.1f %s" : "%.0f %s", v, unit[i]);
	return to;
}

const char *cli_ago(double s, char to[24])
{
	long n = s < 0 ? 0 : s > 1e10 ? 10000000000 : (long)s;

	if (n >= 86400)
		snprintf(to, 24, "%ldd %ldh", n / 86400, n / 3600 % 24);
	else if (n >= 3600)
		snprintf(to, 24, "%ldh %ldm", n / 3600, n / 60 % 60);
	else if (n >= 60)
		snprintf(to, 24, "%ldm %lds", n / 60, n % 60);
	else
		snprintf(to, 24, "%lds", n);
	return to;
}
