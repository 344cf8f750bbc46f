# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# To be sourced: lists for apt of another Debian release, from the mirrors this machine already uses.
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirrors are recognised by the label of their Release file, else by their path; the suite is replaced.
# usage: mirror_lines label end-of-path suite...
mirror_lines() {
	local sites label=$1 path=$2 u s
	shift 2
	# shellcheck disable=SC2016 # these are apt's
	[ -n "${APT_SITES:-}" ] || APT_SITES=$(apt-get indextargets --format '$(SITE) $(LABEL)' 'Created-By: Packages')
	sites=$(awk -v l="$label" '$2 == l && NF == 2 { print $1 }' <<<"$APT_SITES" | sort -u)
	[ -n "$sites" ] || sites=$(awk -v p="$path/?\$" '$1 ~ p { print $1 }' <<<"$APT_SITES" | sort -u)
	for u in $sites; do
		for s in "$@"; do echo "deb [signed-by=$KEYRING] $u $s main"; done
	done
}
mirrors_main() { mirror_lines Debian /debian "$@"; }
mirrors_security() { mirror_lines Debian-Security /debian-security "$@"; }

# Proxies, retries, clock checks: as this machine's apt has them.
host_apt_conf() { apt-config dump | grep -E '^Acquire::(https?|Check-|Retries|ForceIPv)' || true; }
