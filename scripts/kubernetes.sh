#!/usr/bin/env bash
# kubernetes.sh SECONDS COMMAND [ARGUMENT...]: run a command beside a cluster of two nodes, which is started for it and
# ended after it. SECONDS: after which all of that must be over; 0: no bound. What does not run is named.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly CLUSTER=tests/kubernetes/cluster.sh CACHE=.cache/kubernetes
readonly IMAGES=(taskcell/base:latest taskcell/server:latest)
# Seconds of the build on a busy machine with two cores, and of the cluster's start with the server's image.
readonly BUILDS=500 STARTS=120

within=$1
shift

has_time_for() { ((within == 0 || SECONDS + $1 <= within)); }

leave_out() { # WHY
  echo "kubernetes: NOT RUN: $1"
  exit 0
}

$CLUSTER built $CACHE || has_time_for $((BUILDS + STARTS)) ||
  leave_out "Kubernetes is not in $CACHE yet; building it takes up to $BUILDS s, and WITHIN=$within leaves less."
for tool in containerd runc ip iptables nsenter openssl; do
  have "$tool" || fail "A cluster needs $tool: install containerd, runc, iproute2, iptables, util-linux and openssl."
done
((EUID == 0)) || fail "This starts nodes in namespaces of their own, which only root may do."
if ! $CLUSTER built $CACHE; then
  is_debian || fail "Kubernetes is built from Debian's packages, and this is not Debian."
  have dpkg-source || fail "The build needs dpkg-source: install dpkg-dev."
  step "kubernetes: building Kubernetes 1.20 from Debian's sources, once"
  mkdir -p "$(dirname $CACHE)"
  $CLUSTER build $CACHE
fi
has_time_for $STARTS || leave_out "$((within - SECONDS)) s are left of WITHIN=$within, and the cluster takes $STARTS s."

had_image=true
docker image inspect taskcell/server:latest >/dev/null 2>&1 || had_image=false
folder=$(mktemp -d /var/tmp/taskcell-kubernetes-XXXXXX)
# shellcheck disable=SC2317 # the trap calls it
end_cluster() {
  local code=$?
  trap '' INT TERM
  [[ ! -d $folder/pki ]] || $CLUSTER down "$folder" || code=1
  rm -rf "$folder"
  $had_image || docker image rm taskcell/server:latest >/dev/null || code=1
  exit "$code"
}
trap end_cluster EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "kubernetes: building the server's image"
deploy/image/build.sh >/dev/null
step "kubernetes: starting a cluster of two nodes"
$CLUSTER images "$folder" "${IMAGES[@]}"
$CLUSTER up $CACHE "$folder"
export TASKCELL_TEST_KUBECONFIG=$folder/admin.kubeconfig TASKCELL_TEST_CLUSTER=$folder
TASKCELL_TEST_KUBECTL=$PWD/$CACHE/P/root/usr/bin/kubectl
export TASKCELL_TEST_KUBECTL
step "kubernetes: $*"
run=("$@")
((within == 0)) || run=(timeout --signal=INT --kill-after=60 $((within - SECONDS)) "$@")
code=0
"${run[@]}" || code=$?
if ((within > 0 && code == 124)); then
  echo "kubernetes: NOT RUN TO ITS END: WITHIN=$within was over; what did run stands above."
  code=0
fi
exit "$code"
