/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: configuration by schema
 *
 * A file is read in three steps: bytes to tree (yaml_node.c), tree to values by the schema's paths, and last
 * the defaults of what was not written. Items of MAPS are queued and read the same way by their own schema.
 * Problems of all steps are collected; a single one means that no configuration comes out, so that a reload
 * applies all or nothing.
 *
 * Invariants: a struct conf has a valid value and text for every key; two confs of one schema differ in a key
 * exactly if the texts differ.
 */
#include "base/conf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf_int.h"
#include "base/util.h"

enum { PATH_MAX_ = YAML_DEPTH_MAX * (YAML_KEY_MAX + 1) + 1, SIBLINGS = 256 };

struct conf {
	const struct conf_schema *schema;
	struct conf_value *v;	      /* owned: one for each key */
	const struct yaml_node *node; /* the map it is read from; NULL for an empty file */
	struct conf *next;	      /* owned: the file's conf and all items, in the order they were found */
};

/* One open map of the walk: the next of its keys and how much of the path is its own. */
struct level {
	const struct yaml_node *next;
	size_t path_len;
};

struct walk {
	struct conf *c;
	struct yaml_problems *problems;
	struct level level[YAML_DEPTH_MAX + 1];
	unsigned depth;
	char path[PATH_MAX_];
	int rc;
};

static const struct conf_key *key_find(const struct conf_schema *s, const char *path)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->keys[i].path, path) == 0)
			return &s->keys[i];
	return NULL;
}

/* Whether `path` is a map that keys live in. */
static bool is_group(const struct conf_schema *s, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < s->n; i++)
		if (strncmp(s->keys[i].path, path, n) == 0 && s->keys[i].path[n] == '.')
			return true;
	return false;
}

/* The key or group next to `name` among those in the map `prefix` ("" or "listen."), into `to`. */
static bool nearest_sibling(const struct conf_schema *s, const char *prefix, const char *name, char *to,
			    size_t cap)
{
	char names[SIBLINGS][YAML_KEY_MAX + 1];
	const char *list[SIBLINGS], *near;
	size_t n = 0, np = strlen(prefix);

	for (size_t i = 0; i < s->n && n < SIBLINGS; i++) {
		const char *rest = s->keys[i].path + np;

		if (strncmp(s->keys[i].path, prefix, np) != 0)
			continue;
		if (str_fmt(names[n], sizeof(names[n]), "%.*s", (int)strcspn(rest, "."), rest) < 0)
			continue;
		list[n] = names[n];
		n++;
	}
	near = str_nearest(name, list, n);
	return near && str_fmt(to, cap, "%s%s", prefix, near) == 0;
}

/* A key of that name elsewhere: people forget the map around it. */
static const struct conf_key *same_last_name(const struct conf_schema *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++) {
		const char *dot = strrchr(s->keys[i].path, '.');

		if (dot && strcmp(dot + 1, name) == 0)
			return &s->keys[i];
	}
	return NULL;
}

static void unknown_key(struct walk *w, const struct yaml_node *n, const char *prefix)
{
	const struct conf_schema *s = w->c->schema;
	const struct conf_key *other = key_find(s, w->path);
	char near[PATH_MAX_];

	if (other) /* "listen.port: 1" written with the dot in it */
		yaml_problem(
			w->problems, n->key_line, n->key_column,
			"unknown key \"%.200s\": the dot stands for a map; write it as a key inside of it",
			w->path);
	else if (nearest_sibling(s, prefix, n->key, near, sizeof(near)))
		yaml_problem(w->problems, n->key_line, n->key_column,
			     "unknown key \"%.128s\"; did you mean \"%.100s\"?", w->path, near);
	else if ((other = same_last_name(s, n->key)))
		yaml_problem(w->problems, n->key_line, n->key_column,
			     "unknown key \"%.128s\"; did you mean \"%.100s\"?", w->path, other->path);
	else
		yaml_problem(w->problems, n->key_line, n->key_column, "unknown key \"%.200s\"", w->path);
	w->rc = w->rc ? w->rc : ERR_CONFIG;
}

static void walk_key(struct walk *w, const struct yaml_node *n)
{
	const struct conf_schema *s = w->c->schema;
	size_t before = w->level[w->depth].path_len;
	const struct conf_key *k;
	char prefix[PATH_MAX_];
	int rc;

	memcpy(prefix, w->path, before);
	prefix[before] = '\0';
	if (str_fmt(w->path + before, sizeof(w->path) - before, "%s", n->key) < 0)
		return; /* cannot be: depth and key lengths are bounded */
	/* A key with a dot of its own is none of ours, although its path may look like it. */
	k = strchr(n->key, '.') ? NULL : key_find(s, w->path);
	if (k) {
		conf_value_clear(&w->c->v[k - s->keys]); /* of a duplicate */
		rc = conf_value_parse(k, n, &w->c->v[k - s->keys], w->problems);
		if (rc < 0 && w->rc != ERR_NOMEM)
			w->rc = rc;
	} else if (!strchr(n->key, '.') && is_group(s, w->path)) {
		if (n->kind != YAML_MAP) {
			yaml_problem(w->problems, n->line, n->column, "%.200s is a map of keys, not a %s",
				     w->path, n->kind == YAML_SEQ ? "list" : "single value");
			w->rc = w->rc ? w->rc : ERR_CONFIG;
			return;
		}
		w->depth++;
		strcat(w->path, ".");
		w->level[w->depth] = (struct level){ n->child, strlen(w->path) };
	} else {
		unknown_key(w, n, prefix);
	}
}

/* Values for all keys of one map: what is written, then the defaults. */
static int conf_fill(struct conf *c, struct yaml_problems *problems)
{
	struct walk w = { .c = c, .problems = problems };

	w.level[0].next = c->node ? c->node->child : NULL;
	for (;;) {
		struct level *l = &w.level[w.depth];

		if (l->next) {
			const struct yaml_node *n = l->next;

			l->next = n->next;
			walk_key(&w, n);
		} else if (w.depth) {
			w.depth--;
		} else {
			break;
		}
	}
	for (size_t i = 0; i < c->schema->n && w.rc != ERR_NOMEM; i++) {
		const struct conf_key *k = &c->schema->keys[i];
		int rc = 0;

		if (c->v[i].line)
			continue;
		if (k->def) {
			rc = conf_value_default(k, &c->v[i], problems);
		} else {
			yaml_problem(problems, c->node ? c->node->line : 0, c->node ? c->node->column : 0,
				     "%s is missing: %s", k->path, k->help);
			rc = ERR_CONFIG;
		}
		w.rc = rc < 0 ? rc : w.rc;
	}
	return w.rc;
}

static struct conf *conf_new(const struct conf_schema *schema, const struct yaml_node *node)
{
	struct conf *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->schema = schema;
	c->node = node;
	c->v = calloc(schema->n + 1, sizeof(*c->v));
	if (!c->v) {
		free(c);
		return NULL;
	}
	return c;
}

static const struct conf_schema *sub_schema(const struct conf_schema *s, const char *path)
{
	for (size_t i = 0; i < s->nsubs; i++)
		if (strcmp(s->subs[i].path, path) == 0)
			return s->subs[i].schema;
	return NULL;
}

static const struct yaml_node *node_at(const struct yaml_node *map, const char *path)
{
	while (map && *path) {
		size_t n = strcspn(path, ".");
		const struct yaml_node *i = map->kind == YAML_MAP ? map->child : NULL;

		while (i && (strlen(i->key) != n || strncmp(i->key, path, n) != 0))
			i = i->next;
		map = i;
		path += n + (path[n] == '.');
	}
	return map;
}

/* Queues the items of one MAPS value behind `*tail`. */
static int items_queue(struct conf *c, size_t id, struct conf **tail)
{
	const struct conf_schema *sub = sub_schema(c->schema, c->schema->keys[id].path);
	const struct yaml_node *list = node_at(c->node, c->schema->keys[id].path);

	assert(sub); /* a MAPS key without a schema: wrong in every run */
	for (const struct yaml_node *n = list ? list->child : NULL; n; n = n->next) {
		struct conf *item;

		if (n->kind != YAML_MAP || !c->v[id].items)
			continue; /* reported already */
		item = conf_new(sub, n);
		if (!item)
			return ERR_NOMEM;
		(*tail)->next = item;
		*tail = item;
		c->v[id].items[c->v[id].n++] = item;
	}
	return 0;
}

/* The file's conf and everything that hangs on it: the queue grows while it is read. */
static int conf_fill_all(struct conf *first, struct yaml_problems *problems)
{
	struct conf *tail = first;
	int rc = 0;

	for (struct conf *c = first; c && rc != ERR_NOMEM; c = c->next) {
		int one = conf_fill(c, problems);

		for (size_t i = 0; i < c->schema->n && one != ERR_NOMEM; i++)
			if (c->schema->keys[i].type == CONF_MAPS && items_queue(c, i, &tail) < 0)
				one = ERR_NOMEM;
		rc = one < 0 ? one : rc;
	}
	return rc;
}

/* The tree lives until here only; values are copies. */
static int conf_from_tree(const struct conf_schema *schema, const struct yaml_node *root, struct conf **ret,
			  struct yaml_problems *problems)
{
	struct conf *c;
	int rc;

	if (root && root->kind == YAML_SCALAR && !root->quoted && !root->text[0])
		root = NULL; /* "---" and nothing else */
	if (root && root->kind != YAML_MAP) {
		yaml_problem(problems, root->line, root->column,
			     "a configuration is a map of keys (key: value)");
		return ERR_CONFIG;
	}
	c = conf_new(schema, root);
	if (!c)
		return ERR_NOMEM;
	rc = conf_fill_all(c, problems);
	if (rc < 0) {
		conf_free(c);
		return rc;
	}
	for (struct conf *i = c; i; i = i->next)
		i->node = NULL;
	*ret = c;
	return 0;
}

int conf_parse(const struct conf_schema *schema, const void *text, size_t n, struct conf **ret,
	       struct yaml_problems *problems)
{
	struct yaml_node *root = NULL;
	struct conf *c = NULL;
	int rc;

	problems->n = 0;
	rc = yaml_tree_read(text, n, &root, problems);
	if (rc == 0)
		rc = conf_from_tree(schema, root, &c, problems);
	yaml_tree_free(root);
	if (rc == 0 && problems->n)
		rc = ERR_CONFIG; /* a fair tree with duplicate keys or anchors in it */
	if (rc == 0)
		*ret = c;
	else
		conf_free(c);
	yaml_problems_sort(problems);
	return rc;
}

struct conf *conf_free(struct conf *c)
{
	while (c) {
		struct conf *next = c->next;

		for (size_t i = 0; i < c->schema->n; i++)
			conf_value_clear(&c->v[i]);
		free(c->v);
		free(c);
		c = next;
	}
	return NULL;
}

static const struct conf_value *value_of(const struct conf *c, size_t id, unsigned types)
{
	if (id >= c->schema->n || !(types & 1u << c->schema->keys[id].type))
		abort(); /* the caller and its own table disagree */
	return &c->v[id];
}

const char *conf_str(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_STR | 1u << CONF_CHOICE)->s;
}

bool conf_bool(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_BOOL)->i;
}

int64_t conf_int(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_INT)->i;
}

uint64_t conf_dur(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_DURATION)->u;
}

uint64_t conf_size(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_SIZE)->u;
}

const struct endpoint *conf_endpoint(const struct conf *c, size_t id)
{
	return &value_of(c, id, 1u << CONF_ENDPOINT)->ep;
}

size_t conf_count(const struct conf *c, size_t id)
{
	return value_of(c, id, 1u << CONF_LIST | 1u << CONF_ENDPOINTS | 1u << CONF_MAPS)->n;
}

static const struct conf_value *value_at(const struct conf *c, size_t id, unsigned type, size_t i)
{
	const struct conf_value *v = value_of(c, id, 1u << type);

	if (i >= v->n)
		abort();
	return v;
}

const char *conf_list_at(const struct conf *c, size_t id, size_t i)
{
	return value_at(c, id, CONF_LIST, i)->list[i];
}

const struct endpoint *conf_endpoints_at(const struct conf *c, size_t id, size_t i)
{
	return &value_at(c, id, CONF_ENDPOINTS, i)->eps[i];
}

const struct conf *conf_maps_at(const struct conf *c, size_t id, size_t i)
{
	return value_at(c, id, CONF_MAPS, i)->items[i];
}

bool conf_given(const struct conf *c, size_t id)
{
	return value_of(c, id, ~0u)->given;
}

const char *conf_text(const struct conf *c, size_t id)
{
	return value_of(c, id, ~0u)->text;
}

void conf_problem(const struct conf *c, size_t id, struct yaml_problems *problems, const char *fmt, ...)
{
	const struct conf_value *v = value_of(c, id, ~0u);
	struct err e;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e.what, sizeof(e.what), fmt, ap);
	va_end(ap);
	yaml_problem(problems, v->line, v->column, "%s: %s", c->schema->keys[id].path, e.what);
}

size_t conf_diff(const struct conf *before, const struct conf *after, struct conf_change *to, size_t cap)
{
	size_t n = 0;

	assert(before->schema == after->schema);
	for (size_t i = 0; i < before->schema->n; i++) {
		if (strcmp(before->v[i].text, after->v[i].text) == 0)
			continue;
		if (n < cap)
			to[n] = (struct conf_change){ .key = &before->schema->keys[i],
						      .id = i,
						      .before = before->v[i].text,
						      .after = after->v[i].text };
		n++;
	}
	return n;
}
