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

if has_installed "$PLACE" "${SUITE[*]}"; then
  step "conformance suite: up to date"
  exit
fi
need_npm "conformance suite"
step "conformance suite: installing ${SUITE[*]} (240 MB)"
npm_install "$PLACE" "${SUITE[@]}"
echo "${SUITE[*]}" >"$PLACE/installed"
