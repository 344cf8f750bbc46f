#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Static checks and coverage: one line for each check, the findings below a failed one. Ends with "N passed, N failed".
# usage: check.sh [names or parts of names of the checks wanted]
set -uo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
prefix=${X0_PREFIX:-/opt/x0}
jobs=$(nproc)
log=$(mktemp "${TMPDIR:-/tmp}/x0-check.XXXXXX") || exit 1
trap 'rm -f "$log"' EXIT
wanted=("$@")
passed=0 failed=0

check() { # name command...
	local name=$1 t0=${EPOCHREALTIME/./} w hit=$((${#wanted[@]} == 0))
	for w in ${wanted[@]+"${wanted[@]}"}; do
		case $name in *"$w"*) hit=1 ;; esac
	done
	[ "$hit" = 1 ] || return 0
	shift
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		printf 'ok    %-20s %6.1f s  %s\n' "$name" "$(((${EPOCHREALTIME/./} - t0) / 100000))e-1" \
			"$(sed -n 's/^note: //p' "$log" | tail -n 1)"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s\n' "$name"
		tail -n 80 "$log" | sed 's/^/      /'
	fi
}

# Not by git: a checkout that git refuses to read would make every check pass over nothing.
files() { # find's tests...
	find . \( -name .git -o -name 'build*' -type d -path './build*' \) -prune -o -type f \( "$@" \) -print | sort
}
c_sources() { files -path './src/*.[ch]' -o -path './tests/*.[ch]' -o -path './tools/*.[ch]'; }
# Those of the programs, without tests and what only tests use.
program_sources() {
	tools/configure.sh build-tidy "$prefix/x0-clang.ini" && tools/program-sources.sh build-tidy
}

warnings() { # the normal build, with -Werror
	tools/configure.sh build "$prefix/x0.ini" && ninja -C build
}

format() {
	c_sources | xargs -r -P "$jobs" -n 20 clang-format-19 --dry-run -Werror >"$log.format" 2>&1 && rm "$log.format" && return 0
	sed -n -E 's/^([^ :]+):[0-9]+:.* error: .*/\1/p' "$log.format" | sort | uniq -c
	rm -f "$log.format"
	echo "'make format' formats them"
	return 1
}

tidy() {
	# A directory that is only configured: clang's flags, and the generated headers.
	tools/configure.sh build-tidy "$prefix/x0-clang.ini" || return 1
	if ninja -C build-tidy -t query skels >/dev/null 2>&1; then ninja -C build-tidy skels || return 1; fi
	# A seventh of the analyzer's usual budget for a function: a fifth of the time, and the same findings.
	local a run=(clang-tidy-19 -p build-tidy --quiet)
	for a in -Xclang -analyzer-config -Xclang max-nodes=30000; do run+=("--extra-arg=$a"); done
	"${run[@]}" src/base/err.c || return 1 # defines what analyzer.h redefines
	run+=(--extra-arg=-include "--extra-arg=$PWD/tools/analyzer.h")
	program_sources | grep -v '^src/base/err.c$' | xargs -r -P "$jobs" -n 3 "${run[@]}" 2>&1 |
		grep -v -E '^(\[[0-9]+/[0-9]+\] Processing|[0-9]+ warnings? )'
	return "${PIPESTATUS[2]}"
}

# Suppressed: what cppcheck 2.10 does not understand (a loop macro of yyjson, a NULL among variable arguments, mmap's -1,
# nested designated initialisers), and its guesses across functions, which the analyzer makes better.
cpp_check() {
	local s suppress=()
	for s in missingInclude missingIncludeSystem unknownMacro varFuncNullUB invalidFunctionArg \
		invalidFunctionArgBool unknownEvaluationOrder ctunullpointer ctuuninitvar; do
		suppress+=("--suppress=$s")
	done
	mkdir -p build-tidy/cppcheck
	program_sources | xargs -r cppcheck --quiet --error-exitcode=1 --inline-suppr -j "$jobs" --std=c11 \
		--cppcheck-build-dir=build-tidy/cppcheck -Isrc -Ischema -D_GNU_SOURCE -D__linux__ -D__x86_64__ \
		--enable=warning,portability "${suppress[@]}"
}

layers() { python3 tools/layers.py; }

shell() { files -name '*.sh' -o -path './.ci/run' -o -path './deploy/debian/p*' | xargs -r shellcheck -x; }

spdx() {
	local f n=0 rc=0
	while read -r f; do
		n=$((n + 1))
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: ' || { echo "$f: no SPDX line among its first three" && rc=1; }
	done < <(files -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o -name '*.py' -o -name '*.lua' -o -name '*.sql' \
		-o -name meson.build -o -name meson_options.txt -o -name Makefile -o -path './.ci/run' \
		-o -path './deploy/systemd/*' -o -path './deploy/man/*' -o -path './deploy/debian/p*')
	echo "note: $n files"
	return $rc
}

sizes() { # a file has at most 800 lines (tests may be longer), a function 120; functions start and end with a brace in the first column
	local rc=0
	c_sources | xargs awk '
		FNR == 1 { start = 0 }
		FNR == 801 && FILENAME !~ /_test\.c$/ { print FILENAME ": more than 800 lines"; bad = 1 }
		/^[a-zA-Z_].*[^;]$/ { head = FNR }
		/^\{/ { start = FNR }
		/^\}/ && start {
			if (FNR - start > 120) { print FILENAME ":" head ": a function of " FNR - start " lines"; bad = 1 }
			start = 0
		}
		END { exit bad }' || rc=1
	return $rc
}

doc_links() { python3 tools/doclinks.py; }

root_entries() {
	local n
	n=$(find . -mindepth 1 -maxdepth 1 ! -name .git ! -name 'build*' ! -name '*.pyc' ! -name __pycache__ | wc -l)
	echo "note: $n"
	[ "$n" -le 24 ]
}

[ -n "$(c_sources)" ] || { echo 'no sources found' >&2 && exit 1; }
check 'warnings as errors' warnings
check 'clang-format' format
check 'clang-tidy' tidy
check 'cppcheck' cpp_check
check 'layers' layers
check 'shellcheck' shell
check 'SPDX lines' spdx
check 'sizes' sizes
check 'root entries' root_entries
check 'doc links' doc_links
check 'coverage' tools/coverage.sh
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
