#!/usr/bin/env bash
# A real Kubernetes cluster on a bare machine, for the suite of the Kubernetes engine.
#
#   cluster.sh built CACHE           exit code 0 if the next one has nothing to do
#   cluster.sh build CACHE           Debian's packages and the four programs of Kubernetes 1.20, once (400 CPU seconds)
#   cluster.sh images DIR [IMAGE…]   the images of the machine's Docker that the nodes are to have
#   cluster.sh up CACHE DIR [NODES]  starts it, two nodes unless told, with the images of DIR
#   cluster.sh down DIR              ends what `up` started
#
# The control plane runs on the host; each node has a network and a mount namespace of its own, a containerd and a
# kubelet. The machine's Docker and containerd are not touched. Needs root, iproute2, iptables, openssl, containerd and
# runc; `build` needs dpkg-dev. PREFIX, PORT and NET keep two clusters of one machine apart.
set -euo pipefail

readonly prefix=${PREFIX:-tk} port=${PORT:-16443} net=${NET:-10.99.0}
readonly etcd_port=$((port + 1)) peer_port=$((port + 2))
# The address of the service `kubernetes`, and what asks for it.
readonly services=10.96.0.0/16 service=10.96.0.1
here=$(dirname "$(readlink -f "$0")")
readonly here

# --- building ---------------------------------------------------------------------------------------------------------

# Debian's own client, with lists of its own: nothing is installed.
packages() { # FOLDER
  local at=$1 url key=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$at"/apt/lists/partial "$at"/apt/cache/archives/partial "$at"/{debs,src,root}
  url=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  printf '%s [signed-by=%s] %s bookworm main\n' deb "$key" "$url" deb-src "$key" "$url" >"$at/apt/sources.list"
  local -a apt=(apt-get -qq -o "Dir::Etc::sourcelist=$at/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$at/apt/lists" -o "Dir::Cache=$at/apt/cache"
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null)
  "${apt[@]}" update
  (cd "$at/debs" && "${apt[@]}" download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev \
    etcd-server kubernetes-client containernetworking-plugins)
  local deb
  for deb in "$at"/debs/*.deb; do dpkg-deb -x "$deb" "$at/root"; done
  (cd "$at/src" && "${apt[@]}" source --download-only kubernetes && dpkg-source -x --no-check kubernetes_*.dsc k120)
}

# The one file that the source lacks, for it is generated.
generate() { # FOLDER for what is built
  local target=pkg/generated/openapi/zz_generated.openapi.go from
  [[ ! -s $target ]] || return 0
  go build -o "$1/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  from=$(grep -rlE --include=*.go '^// \+k8s:openapi-gen=' pkg vendor/k8s.io/ staging/src/k8s.io 2>/dev/null |
    xargs -n1 dirname | sed -e 's,^staging/src/,,' -e 's,^vendor/,,' | sort -u |
    grep -vE 'sample-apiserver|code-generator|kube-aggregator/.*/testdata' |
    sed -e 's,^k8s.io/,k8s.io/kubernetes/vendor/k8s.io/,' -e 's,^pkg/,k8s.io/kubernetes/pkg/,' | paste -sd, -)
  "$1/openapi-gen" --logtostderr -v 0 -i "$from" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$1/violations"
}

# Kubernetes with Debian's Go and the libraries that come with the source: nothing else is fetched. Its reflect2 1.0.1
# calls a function of the runtime that Go 1.18 has changed, and the API server crashes: Debian's 1.0.2 takes its place.
# Without the providers of clouds and the shim for Docker, it takes half the time. Static, so that it may be cached.
programs() { # PACKAGES BIN
  local root=$1/root work=$2/.work name versions=""
  local vendor=k8s.io/kubernetes/vendor/k8s.io
  mkdir -p "$work"/{gopath/src/k8s.io,cache,tmp}
  ln -sfn "$1/src/k120" "$work/gopath/src/k8s.io/kubernetes"
  export GOROOT=$root/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/cache GOTMPDIR=$work/tmp GO111MODULE=off
  export CGO_ENABLED=0 GOFLAGS=-trimpath GOPROXY=off HOME=$work PATH=$root/usr/lib/go-1.19/bin:$PATH
  cd "$GOPATH/src/k8s.io/kubernetes"
  rm -f vendor/github.com/modern-go/reflect2/*
  cp "$root"/usr/share/gocode/src/github.com/modern-go/reflect2/* vendor/github.com/modern-go/reflect2/
  generate "$work"
  for name in component-base/version client-go/pkg/version; do
    versions+=" -X $vendor/$name.gitVersion=v1.20.2 -X $vendor/$name.gitMajor=1 -X $vendor/$name.gitMinor=20"
  done
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
    go build -tags providerless,dockerless -ldflags "-s -w$versions" -o "$2/$name" "./cmd/$name"
  done
}

built() { # CACHE
  [[ -e $1/.made ]]
}

build() { # CACHE: what is left there is BIN with the programs, and P/root with etcd, kubectl and the network's plugins
  if built "$1"; then return; fi
  rm -rf "$1" && mkdir -p "$1/BIN"
  local at log
  at=$(readlink -f "$1") log=$1.log
  (packages "$at/P" && programs "$at/P" "$at/BIN") >"$log" 2>&1 || {
    echo "Kubernetes could not be built: $(tail -n 3 "$log")" >&2
    exit 1
  }
  chmod -R u+w "$at/BIN/.work"
  rm -rf "$at/BIN/.work" "$at"/P/{src,debs,apt} "$at"/P/root/usr/{lib,share}/go-1.19 "$at/P/root/usr/share/gocode"
  touch "$at/.made"
}

# --- images -----------------------------------------------------------------------------------------------------------

images() { # DIR [IMAGE…]
  local at=$1/images name
  mkdir -p "$at/pause"
  "$here/../../.venv/bin/python" -m ziglang cc -target x86_64-linux-musl -Os -static -o "$at/pause/pause" "$here/pause.c"
  tar --create --directory "$at/pause" pause |
    docker import --change 'ENTRYPOINT ["/pause"]' - test.invalid/pause:1 >/dev/null
  docker save --output "$at/pause.tar" test.invalid/pause:1
  for name in "${@:2}"; do docker save --output "$at/$(tr /: -- <<<"$name").tar" "$name"; done
  docker image rm test.invalid/pause:1 >/dev/null
}

# --- starting ---------------------------------------------------------------------------------------------------------

run() { # NAME COMMAND…: in the background, with a log and a pid
  local name=$1
  shift
  setsid "$@" >"$dir/log/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/pids/$name"
}

wait_for() { # NAME SECONDS COMMAND…
  local name=$1 end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { echo "$name did not come: $(tail -5 "$dir/log/$name.log")" >&2; exit 1; }
    sleep 0.1
  done
}

certificate() { # NAME SUBJECT [SAN]
  openssl ecparam -genkey -name prime256v1 -noout -out "pki/$1.key"
  openssl req -new -key "pki/$1.key" -subj "$2" -out "pki/$1.csr"
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 30 -out "pki/$1.crt" \
    -extfile <(printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}") 2>/dev/null
}

kubeconfig() { # NAME SERVER
  cat >"$1.kubeconfig" <<Y
{"apiVersion": "v1", "kind": "Config", "current-context": "c",
 "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
 "clusters": [{"name": "c", "cluster": {"server": "https://$2:$port", "certificate-authority": "$dir/pki/ca.crt"}}],
 "users": [{"name": "u", "user": {"client-certificate": "$dir/pki/$1.crt", "client-key": "$dir/pki/$1.key"}}]}
Y
}

keys() { # NODES
  openssl ecparam -genkey -name prime256v1 -noout -out pki/ca.key
  openssl req -x509 -new -key pki/ca.key -subj /CN=test-ca -days 30 -out pki/ca.crt
  openssl ecparam -genkey -name prime256v1 -noout -out pki/sa.key
  openssl ec -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null
  certificate apiserver /CN=apiserver "IP:127.0.0.1,IP:$net.1,IP:$service,DNS:localhost"
  certificate admin /O=system:masters/CN=admin && kubeconfig admin 127.0.0.1
  certificate controller /CN=system:kube-controller-manager && kubeconfig controller 127.0.0.1
  certificate scheduler /CN=system:kube-scheduler && kubeconfig scheduler 127.0.0.1
  local i
  for i in $(seq "$1"); do certificate "n$i" "/O=system:nodes/CN=system:node:n$i" && kubeconfig "n$i" "$net.1"; done
}

# An engine of this machine may have packets between interfaces dropped, those of a bridge too.
between_nodes() { iptables "$1" FORWARD -i "$prefix-br" -o "$prefix-br" -j ACCEPT; } # -I or -D

# A bridge between the nodes' namespaces and the API server. What shares a node's network finds the API as in any
# cluster; pods with a network of their own reach nothing.
networks() { # NODES
  ip link add "$prefix-br" type bridge
  ip addr add "$net.1/24" dev "$prefix-br"
  ip link set "$prefix-br" up
  between_nodes -I
  local i
  for i in $(seq "$1"); do
    mkdir -p "$dir/n$i" # by which `down` knows of it
    ip netns add "$prefix-n$i"
    ip link add "$prefix-v$i" type veth peer name eth0 netns "$prefix-n$i"
    ip link set "$prefix-v$i" master "$prefix-br" up
    nsenter --net="/run/netns/$prefix-n$i" sh -c "ip link set lo up; ip link set eth0 up
      ip addr add $net.1$i/24 dev eth0; ip route add default via $net.1
      iptables -t nat -A OUTPUT -d $service -p tcp --dport 443 -j DNAT --to-destination $net.1:$port"
  done
}

control_plane() {
  run etcd "$root/usr/bin/etcd" --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" \
    --advertise-client-urls "http://127.0.0.1:$etcd_port" --listen-peer-urls "http://127.0.0.1:$peer_port" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" --initial-cluster "default=http://127.0.0.1:$peer_port"
  run apiserver "$bin/kube-apiserver" "--etcd-servers=http://127.0.0.1:$etcd_port" --secure-port="$port" \
    --bind-address=0.0.0.0 --advertise-address="$net.1" --tls-cert-file=pki/apiserver.crt \
    --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt --anonymous-auth=false \
    --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
    --kubelet-preferred-address-types=InternalIP --service-cluster-ip-range="$services" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --endpoint-reconciler-type=none \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/sa.pub \
    --service-account-signing-key-file=pki/sa.key
  wait_for apiserver 120 "${kubectl[@]}" get --raw /readyz
  run controller "$bin/kube-controller-manager" --kubeconfig=controller.kubeconfig --root-ca-file=pki/ca.crt \
    --service-account-private-key-file=pki/sa.key --use-service-account-credentials --port=0 --secure-port=0 \
    --resource-quota-sync-period=5s \
    --controllers='*,-nodeipam,-route,-service' --leader-elect=false --node-monitor-period=2s \
    --node-monitor-grace-period=10s
  run scheduler "$bin/kube-scheduler" --kubeconfig=scheduler.kubeconfig --port=0 --secure-port=0 --leader-elect=false
}

containerd_settings() { # FOLDER of the node
  cat <<Y
version = 2
root = "$1/ctr"
state = "$1/run/ctr"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$1/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "test.invalid/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$root/usr/lib/cni"
    conf_dir = "$1/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
Y
}

kubelet_settings() { # NUMBER of the node
  cat <<Y
{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "address": "$net.1$1", "port": 10250,
 "readOnlyPort": 0, "healthzPort": 0, "authorization": {"mode": "AlwaysAllow"}, "cgroupDriver": "cgroupfs",
 "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false},
                    "x509": {"clientCAFile": "$dir/pki/ca.crt"}},
 "cgroupRoot": "/$prefix-n$1", "enforceNodeAllocatable": ["pods"], "failSwapOn": false, "makeIPTablesUtilChains": false,
 "resolvConf": "", "imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "100Mi"},
 "podPidsLimit": 1024, "nodeStatusUpdateFrequency": "4s", "featureGates": {"SizeMemoryBackedVolumes": true}}
Y
}

# A cgroup of the node's own in every hierarchy that can be written (links to others cannot).
cgroups() { # NUMBER
  local at file
  for at in /sys/fs/cgroup/*/; do
    if [[ -L ${at%/} ]] || ! mkdir -p "${at}$prefix-n$1" 2>/dev/null; then continue; fi
    for file in cpuset.cpus cpuset.mems; do
      [[ ! -e $at$file || -e ${at}cgroup.controllers ]] || cat "$at$file" >"${at}$prefix-n$1/$file"
    done
  done
}

node() { # NUMBER
  local at=$dir/n$1
  mkdir -p "$at"/{ctr,run,kubelet,cni}
  echo '{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "mtu": 1400, "ipam": {"type": "host-local",' \
    "\"dataDir\": \"$at/ipam\", \"ranges\": [[{\"subnet\": \"10.244.$1.0/24\"}]]}}]}" >"$at/cni/10-ptp.conflist"
  containerd_settings "$at" >"$at/containerd.toml"
  kubelet_settings "$1" >"$at/kubelet.yaml"
  cgroups "$1"
  # Not `ip netns exec`: it mounts a new /sys, without the cgroups. Two kubelets would delete each other's logs.
  cat >"$at/start.sh" <<Y
mount -t tmpfs tmpfs /var/log; mkdir -p /var/log/pods /var/log/containers /var/lib/kubelet
mount -t tmpfs tmpfs /var/lib/kubelet
containerd --config $at/containerd.toml >$dir/log/containerd-n$1.log 2>&1 & echo \$! >$dir/pids/containerd-n$1
until ctr -a $at/run/containerd.sock version >/dev/null 2>&1; do sleep 0.1; done
exec $bin/kubelet --config=$at/kubelet.yaml --kubeconfig=$dir/n$1.kubeconfig --container-runtime=remote \
  --container-runtime-endpoint=unix://$at/run/containerd.sock --root-dir=$at/kubelet --cert-dir=$at/pki \
  --hostname-override=n$1 --node-ip=$net.1$1
Y
  run "kubelet-n$1" nsenter --net="/run/netns/$prefix-n$1" unshare -m bash "$at/start.sh"
}

up() { # CACHE DIR [NODES]
  local cache
  cache=$(readlink -f "$1")
  root=$cache/P/root bin=$cache/BIN
  [[ ! -e /run/netns/$prefix-n1 ]] || { echo "A cluster with PREFIX=$prefix is up already; choose another." >&2; exit 1; }
  mkdir -p "$2"/{pki,log,pids,images}
  dir=$(readlink -f "$2")
  local nodes=${3:-2} i tar
  cd "$dir"
  kubectl=("$root/usr/bin/kubectl" --kubeconfig "$dir/admin.kubeconfig")
  keys "$nodes"
  networks "$nodes"
  control_plane
  for i in $(seq "$nodes"); do node "$i"; done
  for i in $(seq "$nodes"); do
    wait_for "kubelet-n$i" 120 ctr -a "$dir/n$i/run/containerd.sock" version
    for tar in "$dir"/images/*.tar; do ctr -a "$dir/n$i/run/containerd.sock" -n k8s.io images import "$tar" >/dev/null; done
  done
  for i in $(seq "$nodes"); do
    wait_for "kubelet-n$i" 180 "${kubectl[@]}" wait --for=condition=Ready "node/n$i" --timeout=1s
  done
  wait_for controller 60 "${kubectl[@]}" get serviceaccount default
}

# --- ending -----------------------------------------------------------------------------------------------------------

end() { # NAME
  [[ ! -f $dir/pids/$1 ]] || kill "$(<"$dir/pids/$1")" 2>/dev/null || true
}

end_node() { # NUMBER
  local socket=$dir/n$1/run/containerd.sock name
  for name in $(ctr -a "$socket" -n k8s.io tasks ls -q 2>/dev/null); do
    ctr -a "$socket" -n k8s.io tasks kill -s KILL "$name" 2>/dev/null || true
  done
  sleep 0.5
  for name in $(ctr -a "$socket" -n k8s.io tasks ls -q 2>/dev/null); do
    ctr -a "$socket" -n k8s.io tasks rm -f "$name" >/dev/null 2>&1 || true
  done
  for name in $(ctr -a "$socket" -n k8s.io containers ls -q 2>/dev/null); do
    ctr -a "$socket" -n k8s.io containers rm "$name" >/dev/null 2>&1 || true
  done
  end "containerd-n$1"
  ip link del "$prefix-v$1" 2>/dev/null || true
  ip netns del "$prefix-n$1" 2>/dev/null || true
}

down() { # DIR
  dir=$(readlink -f "$1")
  local name i at
  local -a nodes
  mapfile -t nodes < <(find "$dir" -maxdepth 1 -name 'n[0-9]*' -type d -printf '%f\n' | tr -d n)
  for i in "${nodes[@]}"; do end "kubelet-n$i"; done
  for name in scheduler controller apiserver etcd; do end "$name"; done
  sleep 1
  for i in "${nodes[@]}"; do end_node "$i"; done
  ip link del "$prefix-br" 2>/dev/null || true
  between_nodes -D 2>/dev/null || true
  sleep 1
  for i in "${nodes[@]}"; do
    for at in /sys/fs/cgroup/*/"$prefix-n$i"; do find "$at" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  done
}

case ${1:-} in
  built | build | images | up | down) "$@" ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
