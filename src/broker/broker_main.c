/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of x0-broker; all of it is in broker_run.c, where tests can call it. */
#include "broker/broker_int.h"

int main(int argc, char **argv)
{
	return broker_run(argc, argv);
}
