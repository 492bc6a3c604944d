#!/usr/bin/env bash
# Installs the converters of clients into an environment of their own, .cache/converters; quick when done.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
. scripts/steps.sh

require .cache/converters tests/support/converters.txt "the converters of clients"

# llama.cpp's own converter, in the Python that llama-cpp-python carries: a file that needs nothing else. Installing the
# package would compile llama.cpp, so the file is taken out of its source.
readonly LLAMA=0.3.36
readonly CONVERTER=.cache/converters/llama-$LLAMA/llama_grammar.py
if [[ ! -f $CONVERTER ]]; then
  step "the converter of llama.cpp"
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  .cache/converters/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$source" \
    "llama-cpp-python==$LLAMA"
  mkdir -p "${CONVERTER%/*}"
  tar --extract --gzip --to-stdout --file "$source"/*.tar.gz --wildcards '*/llama_cpp/llama_grammar.py' >"$CONVERTER.new"
  mv "$CONVERTER.new" "$CONVERTER"
fi
