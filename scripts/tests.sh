#!/usr/bin/env bash
# Runs the test suite, in as many processes as the machine has cores, two at least; arguments go to pytest, as `-n 0`.
# A few tests that fail are run once more, alone, and named: on a busy machine a wait that is too short, here or in the
# engine, is no fault of the code. It is one of the test's, to be mended; more failures than that are never run again.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly PYTEST=(.venv/bin/python -m pytest) RUN_AGAIN_AT_MOST=5 FAILED=.pytest_cache/v/cache/lastfailed
# What pytest exits with when tests failed, and nothing else was wrong.
readonly TESTS_FAILED=1

failed() {
  .venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$FAILED"
}

rm -f "$FAILED" # what failed in an earlier run
cores=$(nproc)
code=0
"${PYTEST[@]}" --numprocesses "$((cores > 2 ? cores : 2))" --dist loadfile "$@" || code=$?
((code == TESTS_FAILED)) || exit "$code"
names=$(failed)
count=$(wc -l <<<"$names")
((count <= RUN_AGAIN_AT_MOST)) || exit "$code"
step "$count failed; once more, alone"
"${PYTEST[@]}" --last-failed --last-failed-no-failures none "$@" || exit $?
step "passed alone, failed beside others; mend these tests:"
echo "$names"
