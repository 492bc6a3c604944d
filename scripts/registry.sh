#!/usr/bin/env bash
# Installs an image registry and a maker of password files, both Debian's packages, for `make test-registry`.
set -euo pipefail

if command -v docker-registry >/dev/null && command -v htpasswd >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "Install docker-registry and htpasswd (apache2-utils), then run this again." >&2
    exit 1
fi
sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
"${sudo[@]}" apt-get update
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker-registry apache2-utils
