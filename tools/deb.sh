#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build/x0_VERSION_ARCH.deb for the Debian release it runs on. On 12 the package carries all of its libraries, the loader
# included, in /usr/lib/x0, and the programs name that loader; on 13 it carries ngtcp2's alone (they are in no stable
# release) and depends on the distribution's packages for the rest. The programs are linked anew for that, in build-deb;
# manual pages and completions come from build. usage: deb.sh [the normal build directory]
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
build=${1:-build} prefix=${X0_PREFIX:-/opt/x0}
version=$(sed -n -E "s/^  version: '(.*)',/\1/p" meson.build)
arch=$(dpkg --print-architecture)
out=$build/x0_${version}_$arch.deb
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH
umask 022

# ---- the programs, linked for their place
libs() { # the files the loader finds for a program; the first word of a line is the name it was asked for
	ldd "$build/$1" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 } $1 ~ /^\// { print $1, $1 }'
}
loader=$(sed -n -E "s/^c_link_args = .*--dynamic-linker=([^']*)'.*/\1/p" "$prefix/x0.ini")
mkdir -p build-deb.d
# For meson a foreign machine: what it links does not run here, as the loader is not in its place yet.
{
	sed -E -e "s,(--dynamic-linker=)[^']*/,\1/usr/lib/x0/," -e "s,(-Wl\,-rpath\,)[^']*,\1/usr/lib/x0," "$prefix/x0.ini" |
		sed "s/^\[properties\]/&\nneeds_exe_wrapper = true/"
	printf "[host_machine]\nsystem = 'linux'\ncpu_family = '%s'\ncpu = '%s'\nendian = 'little'\n" "$(uname -m)" "$(uname -m)"
} >build-deb.d/new
cmp -s build-deb.d/new build-deb.d/x0.cross || mv build-deb.d/new build-deb.d/x0.cross
tools/configure.sh build-deb build-deb.d/x0.cross -Dprefix=/usr
ninja -C build-deb x0 x0-broker >build-deb.d/log 2>&1 || { tail -n 40 build-deb.d/log >&2 && exit 1; }

# ---- the tree
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
# Not copied: meson leaves the libraries of the set-up on the programs' path until it installs them.
meson install -C build-deb --no-rebuild --quiet --tags runtime --destdir "$root" >/dev/null
strip --strip-unneeded "$root/usr/bin/x0" "$root/usr/lib/x0/x0-broker"
for u in deploy/systemd/*; do put 644 "$u" "usr/lib/systemd/system/${u##*/}"; done
for page in x0.1 x0.yaml.5 x0-broker.8; do
	put 644 "$build/deploy/$page" "usr/share/man/man${page##*.}/$page"
	gzip -9 -n "$root/usr/share/man/man${page##*.}/$page"
done
put 644 "$build/deploy/x0" usr/share/bash-completion/completions/x0
put 644 "$build/deploy/_x0" usr/share/zsh/vendor-completions/_x0
put 644 "$build/deploy/x0.fish" usr/share/fish/vendor_completions.d/x0.fish
put 644 deploy/x0.yaml etc/x0/x0.yaml
put 644 deploy/wireshark/x0.lua usr/share/doc/x0/x0.lua
put 644 deploy/debian/copyright usr/share/doc/x0/copyright
put 644 CHANGELOG.md usr/share/doc/x0/changelog
gzip -9 -n "$root/usr/share/doc/x0/changelog"

# ---- the libraries: ours, or the distribution's
depends=passwd carried=
while read -r name file; do
	case $file in
	"$prefix"/* | "$loader" | /lib*/ld-linux*)
		# Without a loader of our own, that of the distribution is its libc's.
		if [ -n "$loader" ] || [ "${file#"$prefix"}" != "$file" ]; then
			[ "${name#/}" = "$name" ] || file=$loader
			put 644 "$(readlink -f "$file")" "usr/lib/x0/${name##*/}"
			carried+="${name##*/} "
		fi
		;;
	*)
		pkg=$(dpkg-query -S "$file" 2>/dev/null || dpkg-query -S "$(readlink -f "$file")" 2>/dev/null || dpkg-query -S "/usr$file")
		pkg=${pkg%%:*}
		depends+=", $pkg (>= $(dpkg-query -W -f '${source:Upstream-Version}' "$pkg"))"
		;;
	esac
done < <({ libs x0; libs x0-broker; } | sort -u)
[ -z "$loader" ] || chmod 755 "$root/usr/lib/x0/${loader##*/}"
{
	echo "Libraries of Debian in /usr/lib/x0, unchanged. Their copyright: https://sources.debian.org/"
	cat "$prefix"/sysroot/versions "$prefix/ngtcp2/versions" 2>/dev/null || :
} >"$root/usr/share/doc/x0/libraries"
depends=$(tr ',' '\n' <<<"$depends" | sed 's/^ //' | sort -u | paste -s -d , | sed 's/,/, /g')

# ---- control
mkdir "$root/DEBIAN"
for s in postinst prerm postrm; do put 755 deploy/debian/$s DEBIAN/$s; done
echo /etc/x0/x0.yaml >"$root/DEBIAN/conffiles"
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<-CONTROL
	Package: x0
	Version: $version
	Architecture: $arch
	Maintainer: The x0 maintainers <x0@localhost>
	Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
	Depends: $depends
	Recommends: iproute2
	Section: net
	Priority: optional
	Description: post-quantum zero-trust mesh
	 Joins Linux hosts into an end-to-end encrypted mesh: SPIFFE identities signed
	 with ML-DSA-65, keys from X25519 and ML-KEM-768, the data path in user space.
CONTROL
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out" >/dev/null
echo "$out: $(du -k "$out" | cut -f1) KiB${carried:+, carries ${carried% }}"
