#!/usr/bin/env bash
# Install what `make test-deploy` tries the files of deploy/ with, from Debian's packages. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

missing=()
have caddy || missing+=(caddy)
have systemd-analyze || missing+=(systemd)
have docker-compose || missing+=(docker-compose)
if ((${#missing[@]} == 0)); then
  step "Caddy, systemd-analyze and Compose: up to date"
  exit
fi
{ is_debian && can_be_root; } || fail "${missing[*]} is missing. Install it, then run make again."
step "installing ${missing[*]} from Debian's packages"
apt_install "${missing[@]}"
