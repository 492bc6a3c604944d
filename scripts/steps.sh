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
