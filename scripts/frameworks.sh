#!/usr/bin/env bash
# Installs the frameworks whose models' view is recorded into an environment of their own, .cache/frameworks; quick when
# done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

require .cache/frameworks tests/support/frameworks.txt "clients: installing pydantic-ai and google-adk (400 MB)"
