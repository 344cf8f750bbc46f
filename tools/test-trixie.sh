#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make test` in a fresh minimal Debian 13 root: set-up from nothing, build, tests. Needs root and a host that is set up.
# Mounts live in a mount namespace and processes in a PID namespace of their own, so that nothing of them survives this
# script however it ends; a root left by a killed run is removed by the next one.
#   SUITE=bookworm   the same with Debian 12        TARGETS='test check'   other targets
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/mirrors.sh
suite=${SUITE:-trixie}
targets=${TARGETS:-test}
[ "$(id -u)" = 0 ] || { echo 'test-trixie: needs root' >&2 && exit 1; }
command -v mmdebstrap >/dev/null || { echo "test-trixie: no mmdebstrap; run 'make setup' first" >&2 && exit 1; }

base=${TMPDIR:-/var/tmp}/x0-test-$suite
mkdir -p "$base"
exec 9>"$base/lock"
flock -n 9 || { echo "test-trixie: another run holds $base" >&2 && exit 1; }
clean() { rm -rf --one-file-system "$base/root" "$base/list" "$base/apt.conf"; }
trap clean EXIT
trap 'exit 130' INT TERM HUP
clean

{
	mirrors_main "$suite" "$suite-updates"
	mirrors_security "$suite-security"
} >"$base/list"
host_apt_conf >"$base/apt.conf"
[ -s "$base/list" ] || { echo 'test-trixie: no Debian mirror in the sources of apt' >&2 && exit 1; }
# Low descriptors: see tools/setup.sh.
(
	exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
	mmdebstrap --quiet --mode=root --variant=minbase --include=make,ca-certificates,debian-archive-keyring \
		--aptopt="$base/apt.conf" "$suite" "$base/root" "$base/list"
)
mkdir -p "$base/root/x0"
tar -c --exclude='./build*' --exclude=./.git --exclude=__pycache__ . | tar -x -C "$base/root/x0"
cp -L /etc/resolv.conf "$base/root/etc/resolv.conf"

# shellcheck disable=SC2016 # expanded inside
unshare --mount --pid --fork --kill-child --propagation private bash -c '
	set -e
	root=$1
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	mount -t tmpfs tmpfs "$root/tmp"
	exec env -i CI=true HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		chroot "$root" make -C /x0 --no-print-directory $2
' - "$base/root" "$targets" </dev/null 9>&-
