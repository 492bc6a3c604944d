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

install_python() {
  python3 -m venv "$PLACE/$1"
  "$PLACE/$1/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
}

if [[ -r $PLACE/installed && $(cat "$PLACE/installed") == "$WANTED" ]]; then
  step "clients over HTTP: up to date"
  exit
fi
if ! have npm; then
  { is_debian && can_be_root; } || fail "npm is missing. Install Node.js with npm, then run make again."
  step "clients over HTTP: installing npm from Debian's packages"
  apt_install npm
fi
step "clients over HTTP: installing $WANTED (520 MB)"
rm -rf "$PLACE"
mkdir -p "$PLACE"
npm install --prefix "$PLACE" --no-audit --no-fund --no-save --loglevel error "${NODE_PACKAGES[@]}" </dev/null
install_python python-v1 "$PYTHON_V1"
install_python fastmcp "$FASTMCP"
echo "$WANTED" >"$PLACE/installed"
