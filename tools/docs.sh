#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The documents as a site in build/docs: README.md is its front page, links to nowhere are errors. Debian's mkdocs-material.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build}/docs
if ! dpkg-query -W mkdocs-material >/dev/null 2>&1; then
	if [ "$(id -u)" != 0 ] || [ "${X0_OFFLINE:-0}" = 1 ]; then
		echo 'make docs needs mkdocs-material: apt-get install mkdocs-material' >&2
		exit 1
	fi
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mkdocs-material </dev/null >&2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/docs"
cp docs/*.md CONTRIBUTING.md SECURITY.md CHANGELOG.md "$work/docs/"
cp README.md "$work/docs/index.md"
# All in one directory here.
sed -i -E 's,\]\((docs|\.\.)/,](,g' "$work"/docs/*.md
cp deploy/mkdocs.yml "$work/"
mkdocs build --strict --config-file "$work/mkdocs.yml" --site-dir "$work/site" >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }
rm -rf "$out"
mv "$work/site" "$out"
chmod 755 "$out"
echo "$out/index.html"
