#!/usr/bin/env bash
# Installs the frameworks whose models' view is recorded into an environment of their own, .cache/frameworks; quick when
# done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly PLACE=.cache/frameworks WANTED=tests/support/frameworks.txt

if ! cmp --silent "$WANTED" "$PLACE/installed.txt"; then
  step "clients: installing pydantic-ai and google-adk (400 MB)"
  rm -rf "$PLACE"
  python3 -m venv "$PLACE"
  "$PLACE/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$WANTED"
  cp "$WANTED" "$PLACE/installed.txt"
fi
