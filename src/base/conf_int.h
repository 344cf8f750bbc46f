/* SPDX-License-Identifier: Apache-2.0 */
/* Between conf.c (files, keys) and conf_value.c (one value). Nobody else includes this. */
#ifndef X0_BASE_CONF_INT_H
#define X0_BASE_CONF_INT_H

#include "base/conf.h"

struct conf_value {
	bool given;
	unsigned line, column; /* 0 for a default */
	char *text;	       /* owned: canonical */
	char *s;	       /* owned: STR, CHOICE */
	int64_t i;	       /* BOOL, INT */
	uint64_t u;	       /* DURATION, SIZE */
	struct endpoint ep;    /* ENDPOINT */
	size_t n;	       /* LIST, ENDPOINTS, MAPS */
	char **list;	       /* owned, as its strings are */
	struct endpoint *eps;  /* owned */
	struct conf **items;   /* owned; the confs themselves belong to the file's */
};

/*
 * Reads one value. Wrong ones become problems (ERR_CONFIG); ERR_NOMEM. For MAPS only the shape is checked and
 * `n` set. On failure the caller clears *v all the same. `n` is a node of the file, or for the default one
 * without place.
 */
int conf_value_parse(const struct conf_key *k, const struct yaml_node *n, struct conf_value *v,
		     struct yaml_problems *problems);
int conf_value_default(const struct conf_key *k, struct conf_value *v, struct yaml_problems *problems);
void conf_value_clear(struct conf_value *v);

#endif
