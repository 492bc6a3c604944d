#!/usr/bin/env bash
# Installs a framework, for `make test-frameworks`: the extra of that name, into .cache/integrations/NAME, with the
# package's own dependencies and this checkout. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly NAME=$1
readonly FOLDER=.cache/integrations/$NAME
readonly CONSTRAINTS=tests/integrations/constraints.txt

mapfile -t WANTED < <(
  python3 - "$NAME" <<'PYTHON'
import sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")
PYTHON
)
readonly WANTED
STATE="${WANTED[*]} $(<"$CONSTRAINTS")"
readonly STATE
has_installed "$FOLDER" "$STATE" && exit
step "frameworks: installing $NAME"
rm -rf "$FOLDER"
pip_install "$FOLDER" --constraint "$CONSTRAINTS" "${WANTED[@]}" pytest hypothesis
# The checkout itself, whose supervisor is built already.
"$FOLDER/bin/python" - "$PWD/server" <<'PYTHON'
import pathlib, sys, sysconfig

pathlib.Path(sysconfig.get_path("purelib"), "taskcell.pth").write_text(sys.argv[1] + "\n")
PYTHON
echo "$STATE" >"$FOLDER/installed"
