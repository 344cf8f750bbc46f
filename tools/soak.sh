#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is too long for every change: the tests marked soak, every fuzz target for SECONDS_EACH (60), all tests under ASan with
# UBSan, and under TSan. Ends with "N passed, N failed" over all of them. usage: soak.sh [build directory]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
log=$(mktemp "${TMPDIR:-/tmp}/x0-soak.XXXXXX") || exit 1
trap 'rm -f "$log"' EXIT
passed=0 failed=0

part() { # name command...: its last "N passed, N failed" counts
	local name=$1 rc p f
	shift
	printf -- '---- %s\n' "$name"
	"$@" 2>&1 </dev/null | tee "$log"
	rc=${PIPESTATUS[0]}
	read -r p f < <(sed -n -E 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$log" | tail -n 1) || p=0 f=0
	# It failed without saying what, or nothing ran.
	if { [ "$rc" != 0 ] || [ "$p" = 0 ]; } && [ "$f" = 0 ]; then f=1; fi
	passed=$((passed + p)) failed=$((failed + f))
}

soak_tests() {
	local out=$log.pytest rc p f
	X0_SOAK=1 X0_BUILD=$PWD/$build /usr/bin/python3 -m pytest -q -rfEs -p no:cacheprovider -m soak tests 2>&1 | tee "$out"
	rc=${PIPESTATUS[0]}
	p=$(tail -n 1 "$out" | grep -o -E '[0-9]+ passed' | cut -d' ' -f1)
	f=$(tail -n 1 "$out" | grep -o -E '[0-9]+ (failed|error)' | awk '{ n += $1 } END { print n + 0 }')
	rm -f "$out"
	echo "${p:-0} passed, ${f:-0} failed"
	return "$rc"
}

part 'tests marked soak' soak_tests
part 'fuzz targets' tools/fuzz.sh "${SECONDS_EACH:-60}"
part 'ASan, UBSan' make --no-print-directory test SAN=address,undefined
part 'TSan' make --no-print-directory test SAN=thread
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
