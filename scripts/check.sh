#!/usr/bin/env bash
# Every check that needs no engine, cheapest first; ends at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly BIN=.venv/bin
readonly CODE=(server tests scripts bench)

step "format"
"$BIN/ruff" format --check "${CODE[@]}"
step "lint"
"$BIN/ruff" check "${CODE[@]}"
step "types"
"$BIN/mypy"
(cd scripts && MYPYPATH=../server:. "../$BIN/mypy" --config-file ../pyproject.toml --cache-dir ../.mypy_cache/scripts ./*.py)
step "layers"
"$BIN/lint-imports" --no-logo
"$BIN/python" scripts/c_layers.py
step "sizes, widths and names"
"$BIN/python" scripts/house.py
step "shell scripts"
shellcheck --external-sources scripts/*.sh deploy/image/build.sh tests/kubernetes/cluster.sh .ci/run
step "supervisor under sanitizers"
mkdir -p .cache
"$BIN/python" server/supervisor/build.py --sanitize .cache/supervisor-sanitized
TASKCELL_SUPERVISOR_BINARY="$PWD/.cache/supervisor-sanitized" scripts/tests.sh -q tests/supervisor
