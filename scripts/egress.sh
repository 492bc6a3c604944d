#!/usr/bin/env bash
# Installs what the servers of `make test-egress` need into an environment of their own, .cache/egress; quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

need_npm "egress"
require .cache/egress tests/support/egress.txt "egress: installing servers of gRPC and WebSocket (20 MB)"
