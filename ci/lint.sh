#!/usr/bin/env bash
# What a look can tell without a run: formatting, lints, documentation. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
  echo "== $*"
  "$@"
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
# As others may build it: the features that the workspace turns on are off here.
step cargo clippy --package vmstrobe-core -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
echo "lint: clean"
