#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian 12 or 13 machine able to build and test x0: tools from the distribution, and one set of Debian 13
# libraries on both. On 13 these come from plain apt; on 12 the same signed packages are unpacked into a sysroot
# inside our own prefix and nothing on the host is upgraded. ngtcp2 comes from trixie-backports on both.
#
#   X0_PREFIX   where everything goes (default /opt/x0)
#   X0_REFRESH  1 = unpack the libraries again even if the lists did not change (new security updates)
#   X0_OFFLINE  1 = fail instead of using the network
#
# Leaves in the prefix: x0.ini and x0-clang.ini (meson native files), bin/ (pkg-config, openssl, promtool),
# ngtcp2/ and, on Debian 12, sysroot/. Trees are unpacked beside their place and renamed, so that an interrupted run
# leaves the old ones. A second run compares stamps only.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

PREFIX=${X0_PREFIX:-/opt/x0}
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/mirrors.sh
. "$HERE/mirrors.sh"
LLVM=19
SSL_MIN=3.5.7-1~deb13u2
NGTCP2_MIN=1.22.1

# Host: build, checks, tests in network namespaces. clang-19 is in both releases, so formatting is the same in both.
TOOLS="gcc make meson ninja-build pkg-config bpftool binutils
 clang-$LLVM llvm-$LLVM clang-format-$LLVM clang-tidy-$LLVM libclang-rt-$LLVM-dev
 cppcheck shellcheck gcovr scdoc python3 python3-pytest python3-yaml
 systemd iproute2 iputils-ping iperf3 ethtool tcpdump tshark procps
 mmdebstrap debian-archive-keyring ca-certificates"

# Libraries of Debian 13.
DEV="libc6-dev libgcc-14-dev linux-libc-dev libssl-dev openssl libevent-dev libmnl-dev libcap-ng-dev libseccomp-dev
 libyyjson-dev libyaml-dev libcmocka-dev libbpf-dev libelf-dev zlib1g-dev libzstd-dev libsqlite3-dev
 libstdc++-14-dev" # the last for libFuzzer

# Of trixie-backports, without their dependencies, which are all in DEV.
NGTCP2="libngtcp2-16 libngtcp2-dev libngtcp2-crypto-ossl0 libngtcp2-crypto-ossl-dev"

say() { printf 'set-up: %s\n' "$*" >&2; }
die() { # what failed, what to do
	say "FAILED at step '$STEP': $1"
	say "remedy: $2"
	exit 1
}

STEP=start
step() { # name function: runs it quietly, shows how long it took, and the tail of its output if it fails
	local t0=${EPOCHREALTIME/./} rc
	STEP=$1
	set +e # and not 'f || rc=$?', which would switch -e off inside f
	(set -eE && trap 'echo "set-up: failed command: $BASH_COMMAND"' ERR && "$2") 3>&2 >"$WORK/log" 2>&1
	rc=$?
	set -e
	if [ $rc -ne 0 ]; then
		grep -v -E '^set-up-(error|remedy):|^set-up: failed command: (return|fail) ' "$WORK/log" | tail -n 15 |
			sed 's/^/    /' >&2
		remedy
		exit 1
	fi
	printf 'set-up: %-52s %6.1f s\n' "$1" "$(((${EPOCHREALTIME/./} - t0) / 100000))e-1" >&2
}

remedy() { # guess from the log which package it was and what would help
	local what fix
	what=$(sed -n -E 's/^(E|W): (Unable to locate package|Failed to fetch|Package) //p; s/^set-up-error: //p' "$WORK/log" |
		head -n 3 | paste -s -d ' ')
	fix=$(sed -n 's/^set-up-remedy: //p' "$WORK/log" | tail -n 1)
	if [ -z "$fix" ]; then
		if grep -q -E 'Could not (resolve|connect)|Temporary failure|timed out' "$WORK/log"; then
			fix='no way to the Debian mirror: check the network, the proxy and the sources of apt, then run again'
		elif grep -q 'Unable to locate package' "$WORK/log"; then
			fix="add 'main' of this Debian release and its security suite to the sources of apt, then run again"
		elif grep -q 'No space left' "$WORK/log"; then
			fix="free 1 GB on the file system of $PREFIX, then run again"
		elif grep -q -E 'Could not get lock|dpkg was interrupted' "$WORK/log"; then
			fix="let the other apt finish, or run 'dpkg --configure -a', then run again"
		else
			fix='see the lines above; run again once they are solved (nothing is left half-done)'
		fi
	fi
	say "FAILED at step '$STEP'${what:+: $what}"
	say "remedy: $fix"
}
# In a step: what is wrong and the remedy, where `remedy` finds them.
fail() {
	printf 'set-up-error: %s\nset-up-remedy: %s\n' "$1" "$2"
	return 1
}

# ---------------------------------------------------------------------------------------------------- what is there
# shellcheck disable=SC1091
. /etc/os-release
case ${ID:-}-${VERSION_ID:-} in
# PROMTOOL: the package it is in. Only that program is taken; installing prometheus would start a server.
debian-12) SYSROOT=$PREFIX/sysroot PROMTOOL=prometheus ;;
debian-13) SYSROOT='' PROMTOOL=promtool ;;
*) die "this is ${PRETTY_NAME:-unknown}, not Debian 12 or 13" 'build in a Debian 12 or 13 container or virtual machine' ;;
esac
ARCH=$(dpkg --print-architecture)
case $ARCH in
amd64) TRIPLET=x86_64-linux-gnu LOADER=lib64/ld-linux-x86-64.so.2 ;;
arm64) TRIPLET=aarch64-linux-gnu LOADER=lib/ld-linux-aarch64.so.1 ;;
*) die "no support for $ARCH" 'use an amd64 or arm64 machine' ;;
esac
NGDIR=$PREFIX/ngtcp2
[ -n "$SYSROOT" ] || TOOLS="$TOOLS $DEV"

hash() { printf '%s\n' "$@" "$VERSION_ID" "$ARCH" "$PREFIX" | sha256sum | cut -c1-16; }
tidy() { printf '%s' "$*" | tr -s ' \n' ' '; }
H_ALL=$(hash "$(cat "$0" "$HERE/mirrors.sh" "$HERE/smoke.c")")
H_SYSROOT=$(hash "$DEV")
H_NGTCP2=$(hash "$NGTCP2" "$NGTCP2_MIN")

stamped() { [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; }
ready() {
	stamped "$PREFIX/stamp" "$H_ALL" && [ -e "$PREFIX/x0.ini" ] && [ -e "$NGDIR/.stamp" ] || return 1
	[ -z "$SYSROOT" ] || [ -e "$SYSROOT/.stamp" ] || return 1
	local t
	for t in gcc meson ninja clang-$LLVM python3 ip; do command -v "$t" >/dev/null || return 1; done
}
if [ "${X0_REFRESH:-0}" != 1 ] && ready; then
	say "ready in $PREFIX"
	exit 0
fi
[ "${X0_OFFLINE:-0}" != 1 ] || die 'set-up is not complete and X0_OFFLINE=1' "run 'make setup' with the network"
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || die 'root is needed to install packages' "run 'make setup' as root, or install sudo"
	exec sudo --preserve-env=X0_PREFIX,X0_REFRESH,X0_OFFLINE "$0" "$@"
fi

umask 022
mkdir -p "$PREFIX/bin"
exec 9>"$PREFIX/.lock"
flock -w 900 9 || die "another set-up holds $PREFIX/.lock" 'wait for it'
# The one we waited for may have done everything.
if [ "${X0_REFRESH:-0}" != 1 ] && ready; then
	say "ready in $PREFIX"
	exit 0
fi
WORK=$PREFIX/work.new
GUARD=/usr/sbin/policy-rc.d
GUARD_MARK='# of tools/setup.sh, which removes it'
clean() { # at the end, and at the start what a killed run left
	rm -rf "$PREFIX"/*.new "$PREFIX"/*.old
	if grep -q -s -F "$GUARD_MARK" $GUARD; then rm -f $GUARD; fi
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
clean
mkdir "$WORK"
START=$SECONDS

# ------------------------------------------------------------------------------------------------------------- steps
missing() {
	local have p
	have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' 2>/dev/null) "
	for p in $TOOLS; do
		case $have in *" installed:$p "*) ;; *) printf '%s ' "$p" ;; esac
	done
}

apt_update() { apt-get update -q -o Acquire::Retries=3; }

install_tools() {
	local want
	want=$(missing)
	[ -n "$want" ] || return 0
	# Daemons that come along (iperf3) must not be started by us; the guard goes away with us.
	if [ ! -e $GUARD ]; then
		printf '#!/bin/sh\n%s\nexit 101\n' "$GUARD_MARK" >$GUARD
		chmod 755 $GUARD
	fi
	local rc=0
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 $want </dev/null || rc=$?
	want=$(missing)
	if [ $rc != 0 ] || [ -n "$want" ]; then
		fail "not installed: $want" "try 'apt-get install $want' by hand and solve what apt says, then run again"
	fi
}

find_mirrors() {
	mirrors_main trixie trixie-updates >"$WORK/trixie.list"
	mirrors_main trixie-backports >"$WORK/backports.list"
	mirrors_security trixie-security >"$WORK/security.list"
	[ -s "$WORK/trixie.list" ] || fail 'no Debian mirror in the sources of apt' "add 'deb <mirror> $VERSION_CODENAME main'"
	[ -s "$WORK/security.list" ] ||
		fail 'no Debian security mirror in the sources of apt' "add 'deb <mirror> $VERSION_CODENAME-security main'"
	cat "$WORK/security.list" >>"$WORK/trixie.list"
	host_apt_conf >"$WORK/apt.conf"
	echo 'APT::Install-Recommends "false";' >>"$WORK/apt.conf"
}

swap_in() { # tree stamp: tree.new becomes tree
	echo "$2" >"$1.new/.stamp"
	rm -rf "$1.old"
	[ ! -e "$1" ] || mv "$1" "$1.old"
	mv "$1.new" "$1"
	rm -rf "$1.old"
}

# .pc files say /usr; ours must say where the tree really is. (PKG_CONFIG_SYSROOT_DIR knows one tree, we have two.)
relocate_pc() { # tree as it is now, tree as it will be
	# One of the two directories may be missing, which find calls a failure.
	{ find "$1/usr/lib/$TRIPLET/pkgconfig" "$1/usr/share/pkgconfig" -name '*.pc' -type f 2>/dev/null || true; } |
		xargs -r sed -i -E "s#(=|-I|-L)/usr#\1$2/usr#g"
}

unpack_sysroot() {
	local new=$SYSROOT.new v l include
	include=$(tidy "$DEV" | tr ' ' ,)
	# mmdebstrap passes descriptors to dash, which cannot name those above 9: leave it the low numbers.
	(
		exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
		mmdebstrap --mode=root --variant=extract --architectures="$ARCH" --include="$include" \
			--aptopt="$WORK/apt.conf" trixie "$new" "$WORK/trixie.list"
	)
	# What maintainer scripts would have done.
	for l in lib lib64; do
		[ -e "$new/$l" ] || [ ! -d "$new/usr/$l" ] || ln -s "usr/$l" "$new/$l"
	done
	v=$(zcat "$new/usr/share/doc/libssl3t64/changelog.Debian.gz" | sed -n '1s/.*(\(.*\)).*/\1/p')
	check_ssl "$v"
	find "$new/usr/share/doc" -name 'changelog.Debian*.gz' -exec sh -c 'for f; do zcat "$f" | head -n 1; done' sh {} + |
		sed -n 's/^\([^ ]*\) (\(.*\)).*/\1 \2/p' | sort -u >"$new/versions"
	(cd "$new" && rm -rf usr/share/{doc,man,locale,info,lintian} dev var)
	relocate_pc "$new" "$SYSROOT"
	swap_in "$SYSROOT" "$H_SYSROOT"
}

check_ssl() {
	dpkg --compare-versions "$1" ge "$SSL_MIN" ||
		fail "libssl $1 is older than $SSL_MIN, which has known holes" \
			'the mirror lacks the current security suite: refresh it or use another one, then run again'
}
check_host_ssl() { check_ssl "$(dpkg-query -W -f '${Version}' libssl3t64)"; }

# apt with its own state, which knows only one list: fetches and verifies without touching the host's.
private_apt() { # list, apt-get arguments...
	local d=$WORK/apt list=$1
	shift
	mkdir -p "$d/state/lists/partial" "$d/cache/archives/partial" "$d/none"
	apt-get -q -c "$WORK/apt.conf" -o Dir::State="$d/state" -o Dir::State::status=/dev/null -o Dir::Cache="$d/cache" \
		-o Dir::Etc::SourceList="$list" -o Dir::Etc::SourceParts="$d/none" -o Dir::Etc::PreferencesParts="$d/none" \
		-o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
}

unpack_ngtcp2() {
	local new=$NGDIR.new d v
	rm -rf "$WORK/deb"
	mkdir -p "$new" "$WORK/deb"
	private_apt "$WORK/backports.list" update
	# shellcheck disable=SC2086
	(cd "$WORK/deb" && private_apt "$WORK/backports.list" download $NGTCP2)
	for d in "$WORK"/deb/*.deb; do
		v=$(dpkg-deb -f "$d" Version)
		dpkg --compare-versions "$v" ge "$NGTCP2_MIN" || fail "${d##*/} is older than $NGTCP2_MIN" \
			'the mirror has no current trixie-backports: refresh it or use another one, then run again'
		dpkg-deb -x "$d" "$new"
		dpkg-deb -f "$d" Package Version | sed 's/^[^ ]* //' | paste -sd' ' >>"$new/versions"
	done
	rm -rf "$new/usr/share/doc"
	relocate_pc "$new" "$NGDIR"
	swap_in "$NGDIR" "$H_NGTCP2"
}

fetch_promtool() {
	rm -rf "$WORK/deb"
	mkdir -p "$WORK/deb/x"
	(cd "$WORK/deb" && apt-get download -q -o APT::Sandbox::User=root $PROMTOOL && dpkg-deb -x ./*.deb x)
	mv "$WORK/deb/x/usr/bin/promtool" "$PREFIX/bin/promtool.new"
	mv "$PREFIX/bin/promtool.new" "$PREFIX/bin/promtool"
}

list() { # a b c -> 'a', 'b', 'c'
	local a s=
	for a in "$@"; do s="$s${s:+, }'$a'"; done
	printf '%s' "$s"
}

native_file() { # compiler -> meson native file. Compiler and loader of the sysroot are named in one place: here.
	local cc=$1 lib=usr/lib/$TRIPLET cargs=() largs=()
	if [ -n "$SYSROOT" ]; then
		cargs=("--sysroot=$SYSROOT")
		# gcc looks for crt1.o and libraries in the Debian 12 places unless told by -B and -L.
		largs=("--sysroot=$SYSROOT" "-B$SYSROOT/$lib" "-L$SYSROOT/$lib" "-Wl,--dynamic-linker=$SYSROOT/$LOADER"
			"-Wl,-rpath,$SYSROOT/$lib:$NGDIR/$lib")
	else
		largs=("-Wl,-rpath,$NGDIR/$lib")
	fi
	# RPATH instead of RUNPATH: it also holds for the libraries of our libraries.
	largs+=("-Wl,--disable-new-dtags")
	cat <<-INI
		# written by tools/setup.sh
		[binaries]
		c = '$cc'
		ar = 'ar'
		strip = 'strip'
		pkgconfig = '$PREFIX/bin/pkg-config'
		pkg-config = '$PREFIX/bin/pkg-config'
		bpf-clang = 'clang-$LLVM'
		bpf-strip = 'llvm-strip-$LLVM'
		bpftool = '$(command -v bpftool || echo /usr/sbin/bpftool)'
		[properties]
		x0_prefix = '$PREFIX'
		x0_sysroot = '$SYSROOT'
		[built-in options]
		c_args = [$(list "${cargs[@]}")]
		c_link_args = [$(list "${largs[@]}")]
	INI
}

put() { # file mode: standard input, by renaming; an equal file keeps its time, so that nothing is configured again
	cat >"$1.new"
	chmod "$2" "$1.new"
	if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

write_files() {
	local lib=usr/lib/$TRIPLET path
	if [ -n "$SYSROOT" ]; then
		path="PKG_CONFIG_LIBDIR=$NGDIR/$lib/pkgconfig:$SYSROOT/$lib/pkgconfig:$SYSROOT/usr/share/pkgconfig"
		put "$PREFIX/bin/openssl" 755 <<-SH
			#!/bin/sh
			# The openssl command of the sysroot, through its own loader.
			export OPENSSL_CONF=\${OPENSSL_CONF:-$SYSROOT/etc/ssl/openssl.cnf}
			exec $SYSROOT/$LOADER --library-path $SYSROOT/$lib $SYSROOT/usr/bin/openssl "\$@"
		SH
	else
		path="PKG_CONFIG_PATH=$NGDIR/$lib/pkgconfig"
		ln -sf /usr/bin/openssl "$PREFIX/bin/openssl"
	fi
	put "$PREFIX/bin/pkg-config" 755 <<-SH
		#!/bin/sh
		exec env $path /usr/bin/pkg-config "\$@"
	SH
	native_file gcc | put "$PREFIX/x0.ini" 644
	native_file "clang-$LLVM" | put "$PREFIX/x0-clang.ini" 644
}

# Flags as meson will use them, from the native file itself.
smoke() {
	local cc cflags ldflags libs
	for cc in gcc "clang-$LLVM"; do
		local ini=$PREFIX/x0.ini
		[ "$cc" = gcc ] || ini=$PREFIX/x0-clang.ini
		cflags=$(sed -n "s/^c_args = //p" "$ini" | tr -d "[]',")
		ldflags=$(sed -n "s/^c_link_args = \[//p" "$ini" | sed "s/'\(, \)\?/ /g; s/\]//")
		libs=$("$PREFIX/bin/pkg-config" --cflags --libs libssl libcrypto libngtcp2 libngtcp2_crypto_ossl)
		# shellcheck disable=SC2086
		$cc -O1 -std=gnu17 -Wall -Wextra -Werror $cflags -o "$WORK/smoke" "$HERE/smoke.c" $ldflags $libs
		"$WORK/smoke" "$cc" >&3 2>&1 || fail "the libraries do not work together ($cc)" \
			"run 'make setup REFRESH=1'; if it stays, report the lines above"
	done
}

# --------------------------------------------------------------------------------------------------------------- run
rm -f "$PREFIX/stamp"
todo=
[ -z "$(missing)" ] || todo="$todo tools"
[ -z "$SYSROOT" ] || { [ "${X0_REFRESH:-0}" != 1 ] && stamped "$SYSROOT/.stamp" "$H_SYSROOT"; } || todo="$todo sysroot"
{ [ "${X0_REFRESH:-0}" != 1 ] && stamped "$NGDIR/.stamp" "$H_NGTCP2"; } || todo="$todo ngtcp2"
[ -x "$PREFIX/bin/promtool" ] || todo="$todo promtool"
if [ -n "$todo" ]; then
	step 'package lists (apt-get update)' apt_update
	step 'tools (apt-get install)' install_tools
	step 'mirrors of Debian 13' find_mirrors
fi
[ -n "$SYSROOT" ] || step 'security state of libssl' check_host_ssl
case $todo in *sysroot*) step 'libraries of Debian 13 (sysroot)' unpack_sysroot ;; esac
case $todo in *ngtcp2*) step 'ngtcp2 of trixie-backports' unpack_ngtcp2 ;; esac
case $todo in *promtool*) step 'promtool' fetch_promtool ;; esac
step 'pkg-config wrapper, meson native files' write_files
step 'smoke test: post-quantum handshake, gcc and clang' smoke
echo "$H_ALL" >"$PREFIX/stamp.new"
mv "$PREFIX/stamp.new" "$PREFIX/stamp"
say "ready in $PREFIX after $((SECONDS - START)) s"
