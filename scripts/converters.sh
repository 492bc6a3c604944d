#!/usr/bin/env bash
# Installs the converters of clients into an environment of their own, .cache/converters; quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly PLACE=.cache/converters WANTED=tests/support/converters.txt

if ! cmp --silent "$WANTED" "$PLACE/installed.txt"; then
  step "the converters of clients"
  rm -rf "$PLACE"
  python3 -m venv "$PLACE"
  "$PLACE/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$WANTED"
  cp "$WANTED" "$PLACE/installed.txt"
fi
