#!/usr/bin/env bash
# Build the image of the server, taskcell/server:latest or the tag that is given, on the default image of sandboxes.
# It asks no image registry; Python's packages come by pip as this machine has it set up. `make setup` comes first.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly TAG=${1:-taskcell/server:latest} PYTHON=.venv/bin/python
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# The image's Python decides which packages fit: the same minor version as the one here, or pip looks for others' wheels.
"$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$context/wheels" .
"$PYTHON" -m pip download --quiet --only-binary :all: --python-version 3.11 --constraint constraints.txt \
  --dest "$context/wheels" "$context"/wheels/taskcell-*.whl
cp deploy/image/Dockerfile "$context"
docker build --quiet --network none --tag "$TAG" "$context"
