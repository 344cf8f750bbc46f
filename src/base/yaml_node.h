/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A YAML document as a tree of scalars, sequences and maps, each with its line and column, and the list in
 * which everybody who reads it collects what is wrong.
 *
 * Accepted: one document, UTF-8, at most 1 MiB, 8 levels, 1,024 keys a map, 50,000 nodes; keys are scalars
 * and differ. Refused: anchors, aliases, tags, other documents, control characters. Most users want conf.h
 * instead.
 */
#ifndef X0_BASE_YAML_NODE_H
#define X0_BASE_YAML_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

enum {
	YAML_TEXT_MAX = 1 << 20,
	YAML_DEPTH_MAX = 8,
	YAML_KEYS_MAX = 1024,
	YAML_KEY_MAX = 128,
	YAML_NODES_MAX = 50000
};
enum { YAML_PROBLEMS = 20 };

struct yaml_problems {
	size_t n; /* found; the first YAML_PROBLEMS of them are kept */
	struct yaml_problem {
		unsigned line, column; /* from 1; 0: belongs to no place */
		char text[320];	       /* one sentence, with the remedy if there is one */
	} at[YAML_PROBLEMS];
};

enum yaml_kind { YAML_SCALAR, YAML_SEQ, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	bool quoted;	       /* scalar in quotes or a block: text, whatever it looks like */
	unsigned line, column; /* of the value, from 1 */
	unsigned key_line, key_column;
	const char *key;  /* in a map: NUL-terminated, UTF-8, no control characters; else NULL */
	const char *text; /* scalar: NUL-terminated, UTF-8, no control characters but tab and newline; else
			     NULL */
	size_t n;	  /* children */
	struct yaml_node *parent, *child, *next;
	struct yaml_node *last, *all; /* private: last child; all nodes of the tree, from the root */
};

/*
 * The tree of a document, NULL (and 0) if it is empty. Owned by the caller. ERR_CONFIG: problems were added;
 * ERR_NOMEM.
 */
int yaml_tree_parse(const void *text, size_t n, struct yaml_node **ret, struct yaml_problems *problems);
/* The same, but 0 as soon as it could be read to its end: for readers who go on collecting problems in the
 * tree. */
int yaml_tree_read(const void *text, size_t n, struct yaml_node **ret, struct yaml_problems *problems);
struct yaml_node *yaml_tree_free(struct yaml_node *root); /* returns NULL */

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key); /* NULL if there is none */
/* One line of flow style, the same for documents of the same meaning: "[{name: a, via: [b, c]}]". */
void yaml_render(const struct yaml_node *n, FILE *to);
void yaml_render_scalar(const char *text, FILE *to); /* in JSON's quotes if it needs any */

void yaml_problem(struct yaml_problems *problems, unsigned line, unsigned column, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void yaml_problems_sort(struct yaml_problems *problems); /* by place */
/* "x0.yaml:3:5: ...", and how many more there are; returns ERR_CONFIG, or 0 if there are none. */
int yaml_problems_err(const struct yaml_problems *problems, const char *file, struct err *e);

#endif
