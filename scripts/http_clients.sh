#!/usr/bin/env bash
# Install the libraries of MCP clients that speak HTTP into .cache/clients-http, for `make test-clients`. Quick if done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

# Exact versions: what a client does changes from one to the next. The Inspector needs a newer Node.js than Debian has.
readonly NODE_PACKAGES=(
  node@22.23.3 @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0 @modelcontextprotocol/inspector@2.12.0
)
readonly PYTHON_V1=mcp==1.30.0 FASTMCP=fastmcp==4.2.3
readonly WANTED="${NODE_PACKAGES[*]} $PYTHON_V1 $FASTMCP"
readonly PLACE=.cache/clients-http

if has_installed "$PLACE" "$WANTED"; then
  step "clients over HTTP: up to date"
  exit
fi
need_npm "clients over HTTP"
step "clients over HTTP: installing $WANTED (520 MB)"
rm -rf "$PLACE"
npm_install "$PLACE" "${NODE_PACKAGES[@]}"
pip_install "$PLACE/python-v1" "$PYTHON_V1"
pip_install "$PLACE/fastmcp" "$FASTMCP"
echo "$WANTED" >"$PLACE/installed"
