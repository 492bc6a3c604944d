#!/usr/bin/env bash
# Builds an image with OpenHands' agent server for `make test-frameworks`, from Debian's packages and those that uv
# fetches here: OpenHands' own image is in a registry. Quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

readonly UV=$1 VERSION=$2
readonly IMAGE=taskcell-test/openhands:latest BASE=taskcell-test/openhands-base:latest
readonly LABEL=taskcell.test.openhands
readonly PACKAGES=bash,ca-certificates,git,procps,python3,tmux
# Debian's trixie has Python 3.13; OpenHands needs 3.12.
readonly SUITE=trixie PYTHON=3.13

[[ $(docker image inspect --format "{{ index .Config.Labels \"$LABEL\" }}" "$IMAGE" 2>/dev/null) != "$VERSION" ]] || exit 0
step "frameworks: building an image with OpenHands' agent server $VERSION (720 MB)"
have mmdebstrap || apt_install mmdebstrap
FOLDER=$(mktemp -d -p /var/tmp taskcell-openhands-XXXXXX)
readonly FOLDER
trap 'rm -rf "$FOLDER"' EXIT
docker image inspect "$BASE" >/dev/null 2>&1 || {
  mmdebstrap --quiet --variant=minbase --include="$PACKAGES" --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$SUITE" "$FOLDER/base.tar" 2>"$FOLDER/log" || fail "$SUITE could not be unpacked: $(tail -n 3 "$FOLDER/log")"
  docker import "$FOLDER/base.tar" "$BASE" >/dev/null
}
mkdir "$FOLDER/context"
"$UV" pip install --quiet --target "$FOLDER/context/packages" --python-version "$PYTHON" \
  "openhands-agent-server==$VERSION"
cat >"$FOLDER/context/openhands-agent-server" <<'SH'
#!/bin/sh
PYTHONPATH=/opt/openhands exec python3 -m openhands.agent_server "$@"
SH
chmod 755 "$FOLDER/context/openhands-agent-server"
cat >"$FOLDER/context/Dockerfile" <<DOCKERFILE
FROM $BASE
RUN useradd --uid 1000 --create-home agent && install -d -o 1000 -g 1000 /workspace
COPY packages /opt/openhands
COPY openhands-agent-server /usr/local/bin/
ENV LITELLM_LOCAL_MODEL_COST_MAP=True OPENHANDS_SUPPRESS_BANNER=1
# What it imports is compiled here, and not at each start of a sandbox.
RUN PYTHONPATH=/opt/openhands python3 -c 'import openhands.agent_server.api'
LABEL $LABEL=$VERSION
USER 1000:1000
ENTRYPOINT ["openhands-agent-server"]
DOCKERFILE
docker build --quiet --tag "$IMAGE" "$FOLDER/context" >/dev/null
