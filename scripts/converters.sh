#!/usr/bin/env bash
# Installs the converters of clients into an environment of their own, .cache/converters; quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

require .cache/converters tests/support/converters.txt "the converters of clients"
