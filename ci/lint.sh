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
# A VMM that only wants its own vCPUs.
step cargo clippy --package vmstrobe --no-default-features --features kvm -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
# Of what is to be published, everything is in the package. Built it is by the tests already.
step cargo package --workspace --no-verify --allow-dirty --quiet
echo "lint: clean"
