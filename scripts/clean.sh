#!/usr/bin/env bash
# Delete what was built or installed into the checkout; `make stop` needs what is in .cache/dockerd.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

step "deleting .venv, build results and caches"
rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
rm -rf server/taskcell/supervisor/bin
find . -name .git -prune -o -type d -name __pycache__ -print0 | xargs -0 -r rm -rf
find .cache -mindepth 1 -maxdepth 1 ! -name dockerd ! -name bootstrap.lock -exec rm -rf {} + 2>/dev/null || true
