#!/usr/bin/env bash
# Install the conformance suite of MCP into .cache/conformance, for `make test-conformance`. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

# Exact versions: the list of expected failures (tests/http/conformance/expected.toml) is about these scenarios.
# The suite needs a newer Node.js than Debian has.
readonly SUITE=(@modelcontextprotocol/conformance@0.2.0-alpha.12 node@22.23.3)
readonly PLACE=.cache/conformance

if [[ -r $PLACE/installed && $(cat "$PLACE/installed") == "${SUITE[*]}" ]]; then
  step "conformance suite: up to date"
  exit
fi
if ! have npm; then
  { is_debian && can_be_root; } || fail "npm is missing. Install Node.js with npm, then run make again."
  step "conformance suite: installing npm from Debian's packages"
  apt_install npm
fi
step "conformance suite: installing ${SUITE[*]} (240 MB)"
mkdir -p "$PLACE"
npm install --prefix "$PLACE" --no-audit --no-fund --no-save --loglevel error "${SUITE[@]}" </dev/null
echo "${SUITE[*]}" >"$PLACE/installed"
