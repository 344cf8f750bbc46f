#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the libFuzzer targets with ASan and UBSan and runs each one. What a run finds worth keeping stays in
# build-fuzz/corpus/; seeds that are worth a place in the repository are in tests/fuzz/corpus/<mod>-<name>/.
# usage: fuzz.sh [seconds for each] [mod/name]. Ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
seconds=${1:-30} only=${2:-}
tools/configure.sh build-fuzz "${X0_PREFIX:-/opt/x0}/x0-clang.ini" -Dfuzz=true -Db_sanitize=address,undefined \
	-Db_lundef=false && ninja -C build-fuzz || exit 1
passed=0 failed=0
for exe in build-fuzz/tests/fuzz/*; do
	if [ ! -f "$exe" ] || [ ! -x "$exe" ]; then continue; fi
	name=${exe##*/}
	[ -z "$only" ] || [ "$name" = "${only//\//-}" ] || continue
	mkdir -p "build-fuzz/corpus/$name" "build-fuzz/crashes/$name"
	dirs=("build-fuzz/corpus/$name")
	[ ! -d "tests/fuzz/corpus/$name" ] || dirs+=("tests/fuzz/corpus/$name")
	if "$exe" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="build-fuzz/crashes/$name/" "${dirs[@]}" >"build-fuzz/$name.log" 2>&1; then
		passed=$((passed + 1))
		printf 'ok    %-28s %s runs\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "build-fuzz/$name.log")"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s\n' "$name"
		grep -v '^#' "build-fuzz/$name.log" | tail -n 40 | sed 's/^/      /'
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
