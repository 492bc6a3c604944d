#!/usr/bin/env bash
# From a bare Debian machine (root or sudo, Python 3.11) to a working checkout: engine, .venv, default image.
# Every step says one line, is skipped when it is done, and says what to do where it cannot go on.
# --check: install what `make check` needs instead of the engine and the image.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly IMAGE=taskcell/base:latest
readonly STAMP=.venv/.taskcell-installed
# Where the package's build puts the compiled supervisor.
readonly SUPERVISOR=server/taskcell/supervisor/bin
# Seconds. Another bootstrap on a slow line may be building; longer means that it hangs.
readonly LOCK_TIMEOUT=1800
# What builds the package; installed first, so that the package's own build needs no second download of zig.
readonly BUILD_TOOLS=(hatchling editables ziglang)

take_the_lock() {
  have flock || fail "The program flock is missing; install util-linux, then run make again."
  mkdir -p .cache
  exec 9>.cache/bootstrap.lock
  flock --nonblock 9 && return
  step "another bootstrap of this checkout runs; waiting for it"
  flock --timeout "$LOCK_TIMEOUT" 9 || fail "The other bootstrap did not end within $LOCK_TIMEOUT seconds; end it, then run make again."
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# find_python TEST: the first Python >= 3.11 that passes TEST too.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if have "$name" && is_new_enough "$name" && "$1" "$name"; then
      echo "$name"
      return
    fi
  done
  return 1
}

choose_python() {
  local python
  find_python makes_environments && return
  need_to_install "Python >= 3.11 with its venv module" >&2
  python=$(find_python true) || python=""
  step "python: installing ${python:-python3} with its venv module from Debian's packages" >&2
  if [[ -n $python ]]; then
    apt_install "$(basename "$(readlink -f "$(command -v "$python")")")-venv" >&2
  else
    apt_install python3 python3-venv >&2
  fi
  find_python makes_environments ||
    fail "Debian's packages have no Python >= 3.11 here. Install one with its venv module, then run make again."
}

# What an installation was made from: one line that changes when it must be made again.
installation_inputs() {
  {
    echo "$PWD"
    .venv/bin/python --version
    find pyproject.toml constraints.txt server/taskcell/__init__.py server/supervisor -type f \
      ! -path '*/tests/*' ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c 1-16
}

is_installed() {
  is_new_enough .venv/bin/python && [[ -x .venv/bin/taskcell && -d $SUPERVISOR && -r $STAMP ]] &&
    [[ $(cat "$STAMP") == "$(installation_inputs)" ]]
}

prepare_environment() {
  if is_installed; then
    step "python: .venv is up to date"
    return
  fi
  if ! is_new_enough .venv/bin/python || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    local python
    python=$(choose_python)
    step "python: creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  step "python: installing the pinned packages into .venv"
  pip_install "${BUILD_TOOLS[@]}"
  step "python: compiling the supervisor and installing taskcell (the first time takes about a minute)"
  pip_install --no-build-isolation -e '.[dev]'
  installation_inputs >"$STAMP"
}

# pip's output is shown only when it fails: where several indexes are configured it warns about each package.
pip_install() {
  local log=.cache/pip.log
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt "$@" \
    >"$log" 2>&1 </dev/null 9>&- && return
  grep -v '^WARNING' "$log" | tail -n 15 >&2 || true
  fail "pip could not install $*; its last lines stand above. Mend that (network, disk, pip's configuration), then run make again."
}

image_definition() { .venv/bin/python -c 'from taskcell.images.default import definition_hash; print(definition_hash())'; }

built_definition() {
  engine_answer label "$IMAGE" taskcell.definition 2>/dev/null ||
    docker image inspect --format '{{index .Config.Labels "taskcell.definition"}}' "$IMAGE" 2>/dev/null || true
}

prepare_image() {
  local wanted
  wanted=$(image_definition)
  if [[ $(built_definition) == "$wanted" ]]; then
    step "image: $IMAGE is up to date"
    return
  fi
  if ! have mmdebstrap && is_debian && can_be_root; then
    step "image: installing mmdebstrap, which builds it without an image registry"
    apt_install mmdebstrap debian-archive-keyring
  fi
  step "image: building $IMAGE (about a minute)"
  .venv/bin/taskcell image build 9>&- ||
    fail "The image $IMAGE could not be built; the reason stands above. Mend that, then run make again."
}

install_check_tools() {
  local missing=()
  have shellcheck || missing+=(shellcheck)
  have gcc || missing+=(gcc libc6-dev)
  ((${#missing[@]})) || return 0
  need_to_install "${missing[0]}"
  step "check: installing ${missing[*]} from Debian's packages"
  apt_install "${missing[@]}"
}

take_the_lock
prepare_environment
if [[ ${1:-} == --check ]]; then
  install_check_tools
else
  scripts/engine.sh start
  prepare_image
fi
