/* SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <signal.h>

#include "cli/cli.h"

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* `x0 status | head` and a peer that hangs up are ordinary errors */
	setlocale(LC_CTYPE, "C.UTF-8");
	return cli_main(argc, argv);
}
