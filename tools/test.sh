#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every test: the unit tests (cmocka programs), then pytest over tests/ (real binaries, network namespaces).
# Ends with "N passed, N failed", counting single cases. usage: test.sh [build directory]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
export X0_PREFIX=${X0_PREFIX:-/opt/x0}
# A sanitizer's finding fails the test, and says where.
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
log=$(mktemp -d "${TMPDIR:-/tmp}/x0-test.XXXXXX") || exit 1
trap 'rm -rf "$log"' EXIT

rm -f "$build"/meson-logs/testlog.json
slower=1
[ "$build" = build ] || slower=4
meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier $slower >"$log/meson" 2>&1 </dev/null
rc=$?
if [ $rc = 0 ]; then grep -E '^ *[0-9]+/[0-9]+ ' "$log/meson"; else cat "$log/meson"; fi

# meson counts programs; the lines of cmocka in its log count cases. A program that died without a report counts once.
read -r passed failed < <(/usr/bin/python3 - "$build/meson-logs/testlog.json" <<'PY'
import json, re, sys
passed = failed = 0
try:
    lines = open(sys.argv[1]).read().splitlines()
except OSError:
    lines = []
for t in map(json.loads, lines):
    text = (t.get("stdout") or "") + "\n" + (t.get("stderr") or "")
    ok = len(re.findall(r"^\[       OK \] ", text, re.M))
    # Each failed case is named twice: where it ran and in the summary.
    bad = len(set(re.findall(r"^\[  FAILED  \] (\S+)$", text, re.M)))
    if t["result"] not in ("OK", "SKIP") and bad == 0:
        bad = 1
    passed, failed = passed + ok, failed + bad
print(passed, failed)
PY
)
if [ "$passed" = 0 ]; then
	echo "no unit test ran (see $build/meson-logs)"
	failed=$((failed + 1))
fi
[ $rc = 0 ] || [ "$failed" -gt 0 ] || failed=1

if find tests -name 'test_*.py' | grep -q .; then
	X0_BUILD=$PWD/$build /usr/bin/python3 -m pytest -q -rfEs -p no:cacheprovider tests 2>&1 </dev/null | tee "$log/pytest"
	rc=${PIPESTATUS[0]}
	last=$(tail -n 1 "$log/pytest")
	n() { sed -n -E "s/(^|.*[^0-9])([0-9]+) $1.*/\2/p" <<<"$last"; }
	p=$(n passed) f=$(n failed) e=$(n error)
	passed=$((passed + ${p:-0}))
	failed=$((failed + ${f:-0} + ${e:-0}))
	# 5: all of them were deselected or skipped at import.
	[ "$rc" = 0 ] || [ "$rc" = 5 ] || [ $((${f:-0} + ${e:-0})) -gt 0 ] || failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
