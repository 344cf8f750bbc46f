/* SPDX-License-Identifier: Apache-2.0 */
#ifndef X0_LAB_HOLD_H
#define X0_LAB_HOLD_H

#include "lab/lab.h"

/*
 * Makes the TAP device `name`, in the network namespace the caller is in, and a process there that holds
 * frames: each comes back out of the device after the delay that the map `config_fd` says (struct
 * impair_config; LAB_REORDER_NS for none). The device is there when this returns; it lives as long as the
 * process, which lab_down() ends.
 */
int hold_start(const char *name, unsigned mtu, int config_fd, struct err *e);

#endif
