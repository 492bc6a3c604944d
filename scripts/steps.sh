# What the scripts share: how a step is announced, how they give up, and how something is installed.
# Sourced, with the repository's root as the working directory.
# shellcheck shell=bash

step() { printf '==> %s\n' "$*"; }

fail() {
  printf 'taskcell: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_debian() {
  [[ -r /etc/os-release ]] && have apt-get && (
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ " ${ID:-} ${ID_LIKE:-} " == *" debian "* ]]
  )
}

can_be_root() { [[ $EUID -eq 0 ]] || { have sudo && sudo -v; }; }

as_root() {
  if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# Before .venv exists any Python will do.
engine_answer() {
  local python=.venv/bin/python
  [[ -x $python ]] || python=python3
  "$python" scripts/engine_answer.py "$@"
}

# need_to_install WHAT: give up, with what to do, where packages cannot be installed for the user.
need_to_install() {
  is_debian ||
    fail "$1 is missing and this is not Debian or Ubuntu. Install Docker Engine >= 20.10 and Python >= 3.11, then run make again."
  can_be_root ||
    fail "$1 is missing and you are not root and have no sudo. Have an administrator install it, then run make again."
}

# apt_install PACKAGE…: refresh the lists once, then install; the output is shown only when it fails.
# File descriptor 9 is bootstrap.sh's lock: a daemon that a package starts must not keep it.
apt_install() {
  local log=.cache/apt.log
  mkdir -p .cache
  : >"$log"
  if [[ -z ${APT_LISTS_FRESH:-} ]]; then
    as_root apt-get update >>"$log" 2>&1 9>&- || apt_failed "$log" "$@"
    APT_LISTS_FRESH=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null 9>&- ||
    apt_failed "$log" "$@"
}

apt_failed() {
  local log=$1
  shift
  tail -n 15 "$log" >&2
  fail "apt-get could not install $*; its last lines stand above. Mend apt (network, sources, disk), then run make again."
}

# need_npm WHAT: install npm for it, where it is missing.
need_npm() {
  have npm && return
  { is_debian && can_be_root; } || fail "npm is missing. Install Node.js 20 or newer with npm, then run make again."
  step "$1: installing npm from Debian's packages"
  apt_install npm
}

# npm_install FOLDER PACKAGE…: of exact versions, into a folder of their own.
npm_install() {
  local folder=$1
  shift
  mkdir -p "$folder"
  npm install --prefix "$folder" --no-audit --no-fund --no-save --loglevel error "$@" </dev/null
}

# has_installed FOLDER WANTED: a run before has installed just that, and written it down.
has_installed() { [[ -r $1/installed && $(cat "$1/installed") == "$2" ]]; }

# pip_install FOLDER ARGUMENT…: into a new virtual environment in that folder.
pip_install() {
  local folder=$1
  shift
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# require FOLDER FILE WHAT: what a file of requirements names, in an environment of its own; quick when it is there.
require() {
  cmp --silent "$2" "$1/installed.txt" && return
  step "$3"
  rm -rf "$1"
  pip_install "$1" --requirement "$2"
  cp "$2" "$1/installed.txt"
}
