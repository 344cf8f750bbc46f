/* SPDX-License-Identifier: Apache-2.0 */
/* The base: what every module stands on. This is the header others include. */
#ifndef X0_BASE_BASE_H
#define X0_BASE_BASE_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/net.h"
#include "base/qsbr.h"
#include "base/rng.h"
#include "base/secret.h"
#include "base/siphash.h"
#include "base/util.h"

#endif
