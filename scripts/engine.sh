#!/usr/bin/env bash
# engine.sh start: see that a container engine answers, installing and starting Docker Engine where none does.
# engine.sh stop:  stop the dockerd that `start` started by hand, and no other.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

# The engine's API must know cgroup namespaces and the mounts that a sandbox needs: Docker Engine 20.10.
readonly MINIMUM_API=1.41
# Seconds. dockerd is ready in two to five; a first start on a slow disk creates its file systems before.
readonly START_TIMEOUT=60
# Seconds. dockerd gives each container 15 to stop, then stops its own containerd.
readonly STOP_TIMEOUT=60
readonly STATE=.cache/dockerd

engine_version() { engine_answer version 2>/dev/null || engine_version_by_client; }

# Only the docker program can reach an engine over ssh or TLS.
engine_version_by_client() {
  have docker && timeout 20 docker version --format '{{.Server.APIVersion}} {{.Server.Version}} docker' 2>/dev/null
}

is_our_dockerd() {
  [[ -r $STATE/pid ]] || return 1
  local pid started
  read -r pid started <"$STATE/pid"
  [[ -n $started && $(start_time "$pid") == "$started" ]]
}

# A process's start time, in clock ticks since boot: with the pid it names one process for ever.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

check_version() {
  local api=$1 version=$2 address=$3
  [[ $(printf '%s\n' "$MINIMUM_API" "$api" | sort -V | head -n 1) == "$MINIMUM_API" ]] ||
    fail "The engine at $address is version $version (API $api); taskcell needs Docker Engine >= 20.10 (API $MINIMUM_API). Update it, then run make again."
  step "engine: version $version answers at $address"
}

refuse_to_guess() {
  [[ -z ${DOCKER_HOST:-} ]] ||
    fail "DOCKER_HOST is $DOCKER_HOST, but no engine answers there. Start that engine or unset DOCKER_HOST, then run make again."
  [[ $EUID -eq 0 || ! -S /var/run/docker.sock || -w /var/run/docker.sock ]] ||
    fail "You may not use /var/run/docker.sock. Run 'sudo usermod -aG docker $USER', log in again, then run make again."
}

install_engine() {
  have dockerd && return
  need_to_install "Docker Engine"
  step "engine: installing Docker Engine from Debian's packages (a minute or two)"
  apt_install docker.io iptables ca-certificates
}

# A pid file that outlived its daemon names whatever has the number now, and dockerd then refuses to start.
remove_stale_pid_files() {
  local file pid name
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [[ -e $file ]] || continue
    pid=$(as_root cat "$file")
    name=$(basename "$file" .pid)
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "${name/#docker/dockerd}" ]] || as_root rm -f "$file"
  done
}

start_by_systemd() {
  step "engine: starting docker.service"
  as_root systemctl start docker.service ||
    fail "systemd could not start docker.service; 'journalctl -u docker.service -n 30' says why. Mend that, then run make again."
}

# The lock that bootstrap.sh holds (file descriptor 9) must not live on in the daemon.
start_by_hand() {
  step "engine: starting dockerd (log: $STATE/log)"
  mkdir -p "$STATE"
  remove_stale_pid_files
  # shellcheck disable=SC2016 # the inner shell expands it
  as_root bash -c 'setsid dockerd >"$1/log" 2>&1 </dev/null 9>&- & echo $! >"$1/pid.new"' start "$STATE"
  local pid
  pid=$(cat "$STATE/pid.new")
  echo "$pid $(start_time "$pid")" >"$STATE/pid"
  as_root rm -f "$STATE/pid.new"
}

# An installed init script may have started a daemon already: that one is ours as well, and no second can run.
take_up_installed() {
  local pid
  pid=$(as_root cat /var/run/docker.pid 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || return 1
  mkdir -p "$STATE"
  [[ $1 == installed_now ]] && echo "$pid $(start_time "$pid")" >"$STATE/pid"
  step "engine: dockerd runs already (pid $pid); waiting for it"
}

last_lines() { grep -sv 'level=info' "$STATE/log" | tail -n 10 >&2 || true; }

wait_for_answer() {
  local deadline=$((SECONDS + START_TIMEOUT))
  until engine_version >/dev/null; do
    if [[ -e $STATE/pid ]] && ! is_our_dockerd; then
      last_lines
      rm -f "$STATE/pid"
      fail "dockerd ended while starting; its last lines stand above. Mend what they name, then run make again."
    fi
    if ((SECONDS >= deadline)); then
      last_lines
      fail "No engine answered within $START_TIMEOUT seconds. Look at $STATE/log or at the engine's own log, then run make again."
    fi
    sleep 0.2
  done
}

start() {
  local answer installed=before
  if ! answer=$(engine_version); then
    refuse_to_guess
    have dockerd || installed=installed_now
    install_engine
    can_be_root || fail "No engine answers and you are not root and have no sudo. Have an administrator start one, then run make again."
    if ! take_up_installed "$installed"; then
      if [[ -d /run/systemd/system ]]; then start_by_systemd; else start_by_hand; fi
    fi
    wait_for_answer
    answer=$(engine_version)
  fi
  # shellcheck disable=SC2086 # three words
  check_version $answer
}

stop() {
  if [[ ! -e $STATE/pid ]]; then
    step "engine: none was started from here, so none is stopped"
    return
  fi
  local pid deadline=$((SECONDS + STOP_TIMEOUT))
  read -r pid _ <"$STATE/pid"
  if is_our_dockerd; then
    step "engine: stopping dockerd (pid $pid)"
    as_root kill -TERM "$pid"
    while is_our_dockerd; do
      ((SECONDS < deadline)) || fail "dockerd (pid $pid) did not stop within $STOP_TIMEOUT seconds; look at $STATE/log."
      sleep 0.1
    done
  else
    step "engine: the dockerd that was started from here is gone already"
  fi
  rm -f "$STATE/pid"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *)
    echo "usage: scripts/engine.sh start|stop" >&2
    exit 2
    ;;
esac
