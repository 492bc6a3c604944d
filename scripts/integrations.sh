#!/usr/bin/env bash
# Installs a framework, for `make test-frameworks`, into .cache/integrations/NAME: the extra of that name, with the
# package's own dependencies, what its suite needs, and this checkout; or, where the client alone has such an extra, the
# client as `pip install ./client` has it. Quick when done. uv does it: pip takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly NAME=$1
readonly HOME_OF_ALL=.cache/integrations
readonly FOLDER=$HOME_OF_ALL/$NAME
readonly CONSTRAINTS=tests/integrations/constraints.txt
readonly BESIDE=tests/integrations/requirements/$NAME.txt
readonly UV=uv==0.13.9

# Some frameworks need a newer Python than taskcell does. pyenv keeps Pythons that no name on the path leads to.
newest_python() {
  local found
  for found in python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234].*/bin/python3; do
    "$found" -c 'import ensurepip, venv' >/dev/null 2>&1 && command -v "$found" && return
  done
  command -v python3
}

PYTHON=$(newest_python)
readonly PYTHON
mapfile -t WANTED < <(
  python3 - "$NAME" <<'PYTHON'
import sys, tomllib

for place in ("pyproject.toml", "client/pyproject.toml"):
    project = tomllib.load(open(place, "rb"))["project"]
    if extra := project["optional-dependencies"].get(sys.argv[1]):
        print(*project["dependencies"], *extra, "pytest", "hypothesis", sep="\n")
PYTHON
)
[[ ! -r $BESIDE ]] || mapfile -t -O "${#WANTED[@]}" WANTED < <(grep -v '^#' "$BESIDE")
readonly WANTED
STATE="$PYTHON ${WANTED[*]} $(<"$CONSTRAINTS")"
readonly STATE
readonly PROGRAM=$HOME_OF_ALL/uv/bin/uv
# Hard links into uv's cache are not had across file systems, which it warns of.
export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never

install_all() {
  has_installed "$HOME_OF_ALL/uv" "$UV" || {
    rm -rf "$HOME_OF_ALL/uv"
    pip_install "$HOME_OF_ALL/uv" "$UV"
    echo "$UV" >"$HOME_OF_ALL/uv/installed"
  }
  step "frameworks: installing $NAME"
  rm -rf "$FOLDER"
  "$PROGRAM" venv --quiet --python "$PYTHON" "$FOLDER"
  "$PROGRAM" pip install --quiet --python "$FOLDER/bin/python" --constraint "$CONSTRAINTS" "${WANTED[@]}" pip
  # The checkout itself, whose supervisor is built already.
  [[ $NAME == openhands ]] || "$FOLDER/bin/python" - "$PWD/server" <<'PYTHON'
import pathlib, sys, sysconfig

pathlib.Path(sysconfig.get_path("purelib"), "taskcell.pth").write_text(sys.argv[1] + "\n")
PYTHON
  echo "$STATE" >"$FOLDER/installed"
}

has_installed "$FOLDER" "$STATE" || install_all
[[ $NAME == openhands ]] || exit 0
# The client as it is now: a package, for the environment must not see the server.
"$PROGRAM" pip install --quiet --python "$FOLDER/bin/python" --constraint "$CONSTRAINTS" \
  --reinstall-package taskcell-client "./client[openhands]"
scripts/openhands_image.sh "$PROGRAM" "$(sed -n 's/^openhands-sdk==//p' "$CONSTRAINTS")"
