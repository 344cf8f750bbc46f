/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: YAML as a checked tree
 *
 * libyaml delivers events; this file keeps a stack of open collections and builds nodes. Files come from
 * operators, sometimes by way of templates and other people's repositories, so everything that makes YAML
 * surprising or expensive is refused: references (a kilobyte of aliases is a gigabyte of tree), tags, several
 * documents, duplicate keys.
 *
 * Invariants: bytes are checked before libyaml sees them; depth, keys and nodes are bounded while reading;
 * nothing recurses. What can be stepped over is reported and reading goes on, so that one run tells
 * everything.
 */
#include "base/yaml_node.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/util.h"

struct builder {
	yaml_parser_t parser;
	struct yaml_problems *problems;
	struct yaml_node *root, *tail; /* owned: all nodes, through `all` */
	struct yaml_node *open;	       /* innermost collection */
	unsigned depth, nodes, documents;
	char *key; /* owned: read, its value not yet */
	unsigned key_line, key_column;
	int rc;
};

void yaml_problem(struct yaml_problems *problems, unsigned line, unsigned column, const char *fmt, ...)
{
	struct yaml_problem *p;
	struct err e;
	char s[sizeof(p->text)];
	va_list ap;

	if (problems->n++ >= YAML_PROBLEMS)
		return;
	p = &problems->at[problems->n - 1];
	va_start(ap, fmt);
	vsnprintf(s, sizeof(s), fmt, ap);
	va_end(ap);
	/* It may quote the file: err_set() leaves no control characters and no half characters. */
	err_set(&e, ERR_CONFIG, "%s", s);
	memcpy(p->text, e.what, sizeof(p->text));
	p->line = line;
	p->column = column;
}

void yaml_problems_sort(struct yaml_problems *problems)
{
	size_t n = problems->n < YAML_PROBLEMS ? problems->n : YAML_PROBLEMS;

	for (size_t i = 1; i < n; i++) {
		struct yaml_problem p = problems->at[i];
		size_t j = i;

		for (; j > 0; j--) {
			const struct yaml_problem *q = &problems->at[j - 1];

			if (q->line < p.line || (q->line == p.line && q->column <= p.column))
				break;
			problems->at[j] = *q;
		}
		problems->at[j] = p;
	}
}

int yaml_problems_err(const struct yaml_problems *problems, const char *file, struct err *e)
{
	const struct yaml_problem *p = &problems->at[0];

	if (problems->n == 0)
		return 0;
	if (p->line)
		err_set(e, ERR_CONFIG, "%s:%u:%u: %s", file, p->line, p->column, p->text);
	else
		err_set(e, ERR_CONFIG, "%s: %s", file, p->text);
	if (problems->n > 1)
		err_todo(e, "correct this and the %zu other problem%s of the file", problems->n - 1,
			 problems->n > 2 ? "s" : "");
	return ERR_CONFIG;
}

/* What YAML 1.1 calls printable; libyaml refuses the rest too, but without a line. */
static bool cp_allowed(uint32_t cp)
{
	return cp == '\t' || cp == '\n' || cp == '\r' || (cp >= 0x20 && cp <= 0x7e) || cp == 0x85 ||
	       (cp >= 0xa0 && cp != 0xfffe && cp != 0xffff);
}

static int text_check(const uint8_t *p, size_t n, struct yaml_problems *problems)
{
	unsigned line = 1, column = 1;

	if (n > YAML_TEXT_MAX) {
		yaml_problem(problems, 0, 0, "the file has %zu bytes, at most %d are read", n, YAML_TEXT_MAX);
		return ERR_CONFIG;
	}
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t cp = 0;

		len = utf8_char(p + i, n - i, &cp);
		if (len == 0) {
			yaml_problem(problems, line, column,
				     "byte 0x%02x is not UTF-8; save the file as UTF-8", p[i]);
			return ERR_CONFIG;
		}
		if (!cp_allowed(cp)) {
			yaml_problem(problems, line, column, "control character U+%04X", cp);
			return ERR_CONFIG;
		}
		column++;
		if (cp == '\n') {
			line++;
			column = 1;
		}
	}
	return 0;
}

/* Scalars may hold what escapes made of them: "\0", "\x1b". */
static bool scalar_clean(const uint8_t *p, size_t n, bool key)
{
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t cp = 0;

		len = utf8_char(p + i, n - i, &cp);
		if (len == 0)
			return false;
		if ((cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) && (key || (cp != '\n' && cp != '\t')))
			return false;
	}
	return true;
}

static unsigned mark_line(const yaml_mark_t *m)
{
	return (unsigned)m->line + 1;
}

static unsigned mark_column(const yaml_mark_t *m)
{
	return (unsigned)m->column + 1;
}

#define PROBLEM(b, mark, ...) yaml_problem((b)->problems, mark_line(mark), mark_column(mark), __VA_ARGS__)

static struct yaml_node *node_new(struct builder *b, enum yaml_kind kind, const yaml_mark_t *mark)
{
	struct yaml_node *n;

	if (++b->nodes > YAML_NODES_MAX) {
		PROBLEM(b, mark, "more than %d values in one file", YAML_NODES_MAX);
		b->rc = ERR_CONFIG;
		return NULL;
	}
	n = calloc(1, sizeof(*n));
	if (!n) {
		b->rc = ERR_NOMEM;
		return NULL;
	}
	n->kind = kind;
	n->line = mark_line(mark);
	n->column = mark_column(mark);
	if (b->tail)
		b->tail->all = n;
	else
		b->root = n;
	b->tail = n;
	n->parent = b->open;
	if (!b->open)
		return n;
	if (b->open->last)
		b->open->last->next = n;
	else
		b->open->child = n;
	b->open->last = n;
	b->open->n++;
	if (b->open->kind == YAML_MAP) {
		n->key = b->key; /* now the node's */
		n->key_line = b->key_line;
		n->key_column = b->key_column;
		b->key = NULL;
	}
	return n;
}

static bool key_expected(const struct builder *b)
{
	return b->open && b->open->kind == YAML_MAP && !b->key;
}

static void on_key(struct builder *b, const char *text, size_t len, const yaml_mark_t *mark)
{
	const struct yaml_node *twin;

	if (len == 0 || len > YAML_KEY_MAX || !scalar_clean((const uint8_t *)text, len, true)) {
		PROBLEM(b, mark, "keys have 1 to %d characters, none of them control characters",
			YAML_KEY_MAX);
		b->rc = ERR_CONFIG;
		return;
	}
	if (b->open->n >= YAML_KEYS_MAX) {
		PROBLEM(b, mark, "more than %d keys in one map", YAML_KEYS_MAX);
		b->rc = ERR_CONFIG;
		return;
	}
	twin = yaml_get(b->open, text);
	if (twin)
		PROBLEM(b, mark, "duplicate key \"%s\": the first is in line %u", text, twin->key_line);
	b->key = strdup(text);
	b->key_line = mark_line(mark);
	b->key_column = mark_column(mark);
	if (!b->key)
		b->rc = ERR_NOMEM;
}

static void on_scalar(struct builder *b, const char *text, size_t len, bool plain, const yaml_mark_t *mark)
{
	struct yaml_node *n;

	if (key_expected(b)) {
		on_key(b, text, len, mark);
		return;
	}
	n = node_new(b, YAML_SCALAR, mark);
	if (!n)
		return;
	if (!scalar_clean((const uint8_t *)text, len, false)) {
		PROBLEM(b, mark, "the text contains a control character");
		text = "";
	}
	n->quoted = !plain;
	n->text = strdup(text);
	if (!n->text)
		b->rc = ERR_NOMEM;
}

static void on_start(struct builder *b, enum yaml_kind kind, const yaml_mark_t *mark)
{
	struct yaml_node *n;

	if (key_expected(b)) {
		PROBLEM(b, mark, "keys are text, not lists or maps");
		b->rc = ERR_CONFIG;
		return;
	}
	if (b->depth == YAML_DEPTH_MAX) {
		PROBLEM(b, mark, "nested deeper than %d levels", YAML_DEPTH_MAX);
		b->rc = ERR_CONFIG;
		return;
	}
	n = node_new(b, kind, mark);
	if (!n)
		return;
	b->open = n;
	b->depth++;
}

static void on_document(struct builder *b, const yaml_event_t *ev)
{
	if (++b->documents > 1) {
		PROBLEM(b, &ev->start_mark, "a second document (\"---\"): one file is one document");
		b->rc = ERR_CONFIG;
	}
}

/* Anchors and tags change what a value means; the value itself is still read, for what else may be wrong. */
static void refuse_extras(struct builder *b, const void *anchor, const void *tag, const yaml_mark_t *mark)
{
	if (anchor)
		PROBLEM(b, mark, "anchors (&%s) are not supported; write the value out",
			(const char *)anchor);
	if (tag)
		PROBLEM(b, mark, "tags (%s) are not supported", (const char *)tag);
}

static void on_event(struct builder *b, const yaml_event_t *ev)
{
	const yaml_mark_t *mark = &ev->start_mark;

	switch (ev->type) {
	case YAML_DOCUMENT_START_EVENT:
		on_document(b, ev);
		break;
	case YAML_ALIAS_EVENT:
		PROBLEM(b, mark, "aliases (*%s) are not supported; write the value out",
			(const char *)ev->data.alias.anchor);
		on_scalar(b, "alias", 5, true, mark);
		break;
	case YAML_SCALAR_EVENT:
		refuse_extras(b, ev->data.scalar.anchor, ev->data.scalar.tag, mark);
		on_scalar(b, (const char *)ev->data.scalar.value, ev->data.scalar.length,
			  ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE, mark);
		break;
	case YAML_SEQUENCE_START_EVENT:
		refuse_extras(b, ev->data.sequence_start.anchor, ev->data.sequence_start.tag, mark);
		on_start(b, YAML_SEQ, mark);
		break;
	case YAML_MAPPING_START_EVENT:
		refuse_extras(b, ev->data.mapping_start.anchor, ev->data.mapping_start.tag, mark);
		on_start(b, YAML_MAP, mark);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->open = b->open->parent;
		b->depth--;
		break;
	default:
		break;
	}
}

static void on_parser_error(struct builder *b)
{
	const yaml_parser_t *p = &b->parser;

	if (p->error == YAML_MEMORY_ERROR) {
		b->rc = ERR_NOMEM;
		return;
	}
	if (p->context)
		PROBLEM(b, &p->problem_mark, "%s %s from line %u", p->problem, p->context,
			mark_line(&p->context_mark));
	else
		PROBLEM(b, &p->problem_mark, "%s", p->problem ? p->problem : "not YAML");
	b->rc = ERR_CONFIG;
}

static void build(struct builder *b)
{
	bool end = false;

	while (!end && b->rc == 0) {
		yaml_event_t ev;

		if (!yaml_parser_parse(&b->parser, &ev)) {
			on_parser_error(b);
			return;
		}
		end = ev.type == YAML_STREAM_END_EVENT;
		on_event(b, &ev);
		yaml_event_delete(&ev);
	}
}

int yaml_tree_read(const void *text, size_t n, struct yaml_node **ret, struct yaml_problems *problems)
{
	struct builder b = { .problems = problems };
	int rc = text_check(text, n, problems);

	if (rc < 0)
		return rc;
	if (!yaml_parser_initialize(&b.parser))
		return ERR_NOMEM;
	yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.parser, text, n);
	build(&b);
	yaml_parser_delete(&b.parser);
	free(b.key);
	if (b.rc < 0) {
		yaml_tree_free(b.root);
		return b.rc;
	}
	*ret = b.root;
	return 0;
}

int yaml_tree_parse(const void *text, size_t n, struct yaml_node **ret, struct yaml_problems *problems)
{
	struct yaml_node *root = NULL;
	size_t before = problems->n;
	int rc = yaml_tree_read(text, n, &root, problems);

	if (rc == 0 && problems->n > before)
		rc = ERR_CONFIG;
	if (rc < 0)
		yaml_tree_free(root);
	else
		*ret = root;
	return rc;
}

struct yaml_node *yaml_tree_free(struct yaml_node *root)
{
	while (root) {
		struct yaml_node *n = root;

		root = n->all;
		free((char *)n->key);
		free((char *)n->text);
		free(n);
	}
	return NULL;
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
	if (!map || map->kind != YAML_MAP)
		return NULL;
	for (const struct yaml_node *n = map->child; n; n = n->next)
		if (strcmp(n->key, key) == 0)
			return n;
	return NULL;
}

/* Letters, digits and some punctuation inside: no YAML reader sees more in it than text or a number. */
static bool plain_safe(const char *s)
{
	static const char more[] = "_./:%@+-";
	bool word = false;

	for (const char *p = s; *p; p++) {
		bool alnum = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');

		if (!alnum && (p == s || !strchr(more, *p) || (*p == ':' && !p[1])))
			if (!(p == s &&
			      (*p == '/' || *p == '.' || (*p == '-' && p[1] >= '0' && p[1] <= '9'))))
				return false;
		word = word || alnum;
	}
	return word && strcmp(s, "null") != 0;
}

void yaml_render_scalar(const char *text, FILE *to)
{
	if (plain_safe(text)) {
		fputs(text, to);
		return;
	}
	fputc('"', to);
	for (const char *p = text; *p; p++) {
		uint32_t cp = 0;
		size_t len = utf8_char(p, SIZE_MAX, &cp);

		if (cp == 0x2028 || cp == 0x2029 || cp == 0xfeff) { /* line breaks and nothing, to YAML */
			fprintf(to, "\\u%04x", cp);
			p += len - 1;
		} else if (*p == '"' || *p == '\\') {
			fprintf(to, "\\%c", *p);
		} else if (*p == '\n' || *p == '\t') {
			fprintf(to, "\\%c", *p == '\n' ? 'n' : 't');
		} else {
			fputc(*p, to);
		}
	}
	fputc('"', to);
}

static void render_end(const struct yaml_node *n, FILE *to)
{
	fputc(n->kind == YAML_SEQ ? ']' : '}', to);
}

void yaml_render(const struct yaml_node *root, FILE *to)
{
	const struct yaml_node *n = root;

	for (;;) {
		if (n != root && n->key) {
			yaml_render_scalar(n->key, to);
			fputs(": ", to);
		}
		if (n->kind == YAML_SCALAR) {
			yaml_render_scalar(n->text, to);
		} else {
			fputc(n->kind == YAML_SEQ ? '[' : '{', to);
			if (n->child) {
				n = n->child;
				continue;
			}
			render_end(n, to);
		}
		while (n != root && !n->next) {
			n = n->parent;
			render_end(n, to);
		}
		if (n == root)
			return;
		fputs(", ", to);
		n = n->next;
	}
}
