#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# meson setup, where it is needed: there is no build directory, the native file is newer (other flags: from scratch),
# or a module is new, which ninja does not notice by itself. Silent unless it fails.
# usage: configure.sh directory native-file|cross-file.cross [options]
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 native=$2 kind=--native-file
[ "${native%.cross}" = "$native" ] || kind=--cross-file
shift 2
if [ ! -f "$build/build.ninja" ]; then
	run=(meson setup "$build" "$kind" "$native" "$@")
elif [ "$native" -nt "$build/build.ninja" ]; then
	run=(meson setup --wipe "$build" "$kind" "$native" "$@")
elif find src tests -name meson.build -newer "$build/build.ninja" | grep -q .; then
	run=(meson setup --reconfigure "$build")
else
	exit 0
fi
"${run[@]}" >"$build.log" 2>&1 || { tail -n 25 "$build.log" >&2 && rm -f "$build.log" && exit 1; }
rm -f "$build.log"
