#!/usr/bin/env bash
# engine_in_root.sh ROOT COMMAND...: run an engine of another Debian in its own root, mounts and network.
# What it listens on and keeps is to be below /var/tmp, which it shares with this machine, as it does /tmp.
set -euo pipefail
[[ ${INSIDE:-} ]] || INSIDE=1 exec unshare --mount --net --propagation private "$0" "$@"
unset INSIDE
root=$1
shift
mount --bind "$root" "$root"
for shared in proc sys dev tmp var/tmp; do mount --rbind "/$shared" "$root/$shared"; done
mount -t tmpfs tmpfs "$root/run"
ip link set lo up
# Not chroot: the kernel makes no user namespace below one, and no engine remounts its root.
mkdir -p "$root/.before"
cd "$root"
pivot_root . .before
cd /
umount -l /.before
exec "$@"
