#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of src/ by all tests, unit and integration, in a build directory of its own. The floor is COVERAGE_MIN.
# A process that is killed reports nothing, so that the figure is a lower bound.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
COVERAGE_MIN=${COVERAGE_MIN:-85}
build="build-cov"
tools/configure.sh $build "${X0_PREFIX:-/opt/x0}/x0.ini" -Db_coverage=true && ninja -C $build || exit 1
# Counts of earlier sources would be merged with today's. Processes of several users add to the same files.
find $build -name '*.gcda' -delete
find $build -type d -exec chmod a+rwx {} +
umask 0
tools/test.sh $build >$build/test.log 2>&1
rc=$?
[ $rc = 0 ] || grep -E '^FAILED|FAIL  |^[0-9]+ passed' $build/test.log
mapfile -t filters < <(tools/program-sources.sh $build | sed 's/.*/--filter=^&$/; s/\./\\./g')
gcovr -r . --object-directory $build "${filters[@]}" -j "$(nproc)" --print-summary --sort-percentage $build \
	>$build/coverage.txt 2>&1 || rc=1
cat $build/coverage.txt
pct=$(sed -n -E 's/^lines: ([0-9.]+)%.*/\1/p' $build/coverage.txt)
[ -n "$pct" ] || exit 1
echo "note: $pct % of lines, floor $COVERAGE_MIN %; $(tail -n 1 $build/test.log)"
awk -v p="$pct" -v min="$COVERAGE_MIN" 'BEGIN { exit !(p >= min) }' && [ $rc = 0 ]
