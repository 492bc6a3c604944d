#!/usr/bin/env bash
# Install the browser that `make test-browser` opens pages in, from Debian's packages. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

if have chromium; then
  step "Chromium: up to date"
  exit
fi
{ is_debian && can_be_root; } || fail "Chromium is missing. Install it, then run make again."
step "installing Chromium from Debian's packages"
apt_install chromium
