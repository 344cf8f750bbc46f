#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The C sources of the programs themselves (x0, its library, x0-broker), without tests and their helpers, from the root
# of the repository; meson knows. usage: program-sources.sh build-directory
set -euo pipefail
meson introspect --targets "$1" | /usr/bin/python3 -c '
import json, os, sys
print("\n".join(sorted({os.path.relpath(f) for t in json.load(sys.stdin) if t["name"] in ("x0", "x0-broker")
                        for s in t["target_sources"] for f in s.get("sources", [])})))'
