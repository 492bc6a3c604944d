#!/usr/bin/env bash
# engines.sh SUITE...: make roots for `make test-engines` below .cache/engines: releases of Debian with their container
# engines. Each takes half a minute and 600 MB. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly ROOTS=.cache/engines
readonly BASE=iptables,mount,ca-certificates,iproute2,uidmap,rootlesskit,procps,passwd
# With a hard limit that an unprivileged kernel gives.
readonly ULIMITS='default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]'

make_root() { # SUITE PACKAGES [OPTIONS...]
  local root=$ROOTS/$1
  [[ -e $root/.made ]] && return
  step "engines: unpacking Debian's $1 with ${2//,/, }"
  rm -rf "$root"
  mmdebstrap --variant=apt --include="$2,$BASE" "${@:3}" "$1" "$root" >"$root.log" 2>&1 ||
    fail "$1 could not be unpacked: $(tail -n 3 "$root.log")"
  mkdir -p "$root/etc/containers"
  printf '[containers]\n%s\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n' "$ULIMITS" \
    >"$root/etc/containers/containers.conf"
  chroot "$root" useradd --create-home rootless
  touch "$root/.made"
}

((EUID == 0)) || fail "make test-engines starts engines in namespaces of their own, which only root may do."
have mmdebstrap || apt_install mmdebstrap
mkdir -p "$ROOTS"
# shellcheck disable=SC2016 # mmdebstrap's shell fills in the root
# gVisor comes from the release's backports, which the mirror of the release has too.
readonly BACKPORTS='sed "s/ bookworm / bookworm-backports /" "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/backports.list" &&
chroot "$1" apt-get update && chroot "$1" apt-get install --yes --no-install-recommends runsc/bookworm-backports'
for suite in "$@"; do
  case $suite in
  bookworm) make_root bookworm docker.io,podman,runc,catatonit --customize-hook="$BACKPORTS" ;;
  trixie) make_root trixie docker.io,podman,runc,catatonit,netavark ;;
  # Its list of packages may be older than it says it is valid for.
  sid) make_root sid docker.io --aptopt='Acquire::Check-Valid-Until "false"' ;;
  *) fail "there is no root for '$suite'" ;;
  esac
done
