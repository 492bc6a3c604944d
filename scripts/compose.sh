#!/usr/bin/env bash
# Fetches Docker Compose 2 for `make test-frameworks` into .cache/integrations/compose, where `docker` has none: as a
# plugin of its own configuration folder, from Debian's trixie. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly FOLDER=.cache/integrations/compose
readonly PLUGIN=usr/libexec/docker/cli-plugins/docker-compose

[[ ! -x $FOLDER/cli-plugins/docker-compose ]] || exit 0
! docker compose version >/dev/null 2>&1 || exit 0
have mmdebstrap || apt_install mmdebstrap
step "frameworks: fetching Compose 2 from Debian's trixie (80 MB)"
mkdir -p "$FOLDER/cli-plugins"
trap 'rm -f "$FOLDER/packages.tar" "$FOLDER/new"' EXIT
mmdebstrap --quiet --variant=extract --include=docker-compose trixie "$FOLDER/packages.tar"
tar -xOf "$FOLDER/packages.tar" "./$PLUGIN" >"$FOLDER/new"
chmod 755 "$FOLDER/new"
mv "$FOLDER/new" "$FOLDER/cli-plugins/docker-compose"
DOCKER_CONFIG=$FOLDER docker compose version >/dev/null
