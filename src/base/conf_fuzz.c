/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a configuration of every type: no crash, nothing half-right. What is accepted must read back
 * from its own canonical text as equal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/util.h"

static const struct conf_key item_keys[] = { CONF_ROW(NAME, "name", STR, NULL, 1, 63, true, "name") CONF_ROW(
	EPS, "at", ENDPOINTS, "", 0, 4, true, "addresses") };
static const struct conf_schema item_schema = { .keys = item_keys, .n = ARRAY_SIZE(item_keys) };

static const struct conf_key keys[] = {
	CONF_ROW(S, "s", STR, "", 0, 0, true, "text") CONF_ROW(C, "c", CHOICE, "a|b", 0, 0, true, "choice")
		CONF_ROW(B, "g.b", BOOL, "true", 0, 0, true,
			 "bool") CONF_ROW(I, "g.i", INT, "1", -5, 500, true,
					  "int") CONF_ROW(D, "g.h.d", DURATION, "1s", 0, 0, true, "duration")
			CONF_ROW(Z, "z", SIZE, "1KiB", 0, 0, true, "size")
				CONF_ROW(E, "e", ENDPOINT, "", 0, 0, true, "endpoint")
					CONF_ROW(L, "l", LIST, "", 0, 0, true, "list")
						CONF_ROW(P, "p", ENDPOINTS, "", 0, 0, true, "endpoints")
							CONF_ROW(M, "m", MAPS, "", 0, 0, true, "maps")
};
static const struct conf_sub subs[] = { { "m", &item_schema } };
static const struct conf_schema schema = { keys, ARRAY_SIZE(keys), subs, ARRAY_SIZE(subs) };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct conf *c)
{
	static const char *const order[] = { "s: ",	"\nc: ", "\ng: {b: ", ", i: ", ", h: {d: ",
					     "}}\nz: ", "\ne: ", "\nl: ",     "\np: ", "\nm: " };
	struct yaml_problems problems;
	struct conf *again = NULL;
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		fprintf(f, "%s%s", order[i], conf_text(c, i));
	fclose(f);
	if (n <= YAML_TEXT_MAX &&
	    (conf_parse(&schema, text, n, &again, &problems) != 0 || conf_diff(c, again, NULL, 0) != 0)) {
		fprintf(stderr, "does not read back:\n%s\n%s\n", text,
			again ? "differs" : problems.at[0].text);
		abort();
	}
	conf_free(again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml_problems problems;
	struct conf *c = NULL;
	int rc = conf_parse(&schema, data, size, &c, &problems);

	if ((rc == 0) != (c != NULL) || (rc == ERR_CONFIG) != (problems.n > 0))
		abort();
	for (size_t i = 0; i < problems.n && i < YAML_PROBLEMS; i++)
		if (!problems.at[i].text[0] ||
		    utf8_char(problems.at[i].text, SIZE_MAX, &(uint32_t){ 0 }) == 0)
			abort();
	if (c)
		check_again(c);
	conf_free(c);
	return 0;
}
