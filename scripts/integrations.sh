#!/usr/bin/env bash
# Installs a framework, for `make test-frameworks`: the extra of that name, into .cache/integrations/NAME, with the
# package's own dependencies, what its suite needs, and this checkout. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly NAME=$1
readonly FOLDER=.cache/integrations/$NAME
readonly CONSTRAINTS=tests/integrations/constraints.txt
readonly BESIDE=tests/integrations/requirements/$NAME.txt

# Some frameworks need a newer Python than taskcell does. pyenv keeps Pythons that no name on the path leads to.
newest_python() {
  local found
  for found in python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234].*/bin/python3; do
    "$found" -c 'import ensurepip, venv' >/dev/null 2>&1 && echo "$found" && return
  done
  echo python3
}

mapfile -t WANTED < <(
  python3 - "$NAME" <<'PYTHON'
import sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")
PYTHON
)
[[ ! -r $BESIDE ]] || mapfile -t -O "${#WANTED[@]}" WANTED < <(grep -v '^#' "$BESIDE")
readonly WANTED
VENV_PYTHON=$(newest_python)
readonly VENV_PYTHON
STATE="$VENV_PYTHON ${WANTED[*]} $(<"$CONSTRAINTS")"
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
