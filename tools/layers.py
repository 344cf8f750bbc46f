#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layers: a module includes only itself and modules named above it in src/LAYERS. usage: layers.py [src]"""
import pathlib
import re
import sys

src = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "src")
order = (src / "LAYERS").read_text().split()
bad = 0
for f in sorted(src.rglob("*.[ch]")):
    mod = f.relative_to(src).parts[0]
    if mod not in order:
        print(f"{f}: module {mod} is not in src/LAYERS")
        bad += 1
        continue
    for n, line in enumerate(f.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"(\w+)/', line)
        if m and m[1] in order and order.index(m[1]) > order.index(mod):
            print(f"{f}:{n}: {mod} must not include {m[1]}, which stands above it")
            bad += 1
sys.exit(bad > 0)
