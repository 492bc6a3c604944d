#!/usr/bin/env bash
# Install the command lines of MCP clients that npm has into .cache/clients, for `make test-clients`. Quick when done.
# --npm: only npm itself, for the clients of tests/clients/matrix.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

# Exact versions: what a client says changes from one to the next.
readonly CLIENTS=(@anthropic-ai/claude-code@2.1.197 @google/gemini-cli@0.61.0 @openai/codex@0.171.0)
readonly HOME_OF_CLIENTS=.cache/clients

need_npm clients
[[ ${1:-} == --npm ]] && exit
scripts/frameworks.sh
if has_installed "$HOME_OF_CLIENTS" "${CLIENTS[*]}"; then
  step "clients: up to date"
  exit
fi
step "clients: installing ${CLIENTS[*]} (800 MB)"
npm_install "$HOME_OF_CLIENTS" "${CLIENTS[@]}"
echo "${CLIENTS[*]}" >"$HOME_OF_CLIENTS/installed"
