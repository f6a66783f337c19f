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
step cargo clippy --package vmstrobe-export -- -D warnings
# A VMM that only wants its own vCPUs.
step cargo clippy --package vmstrobe --no-default-features --features kvm -- -D warnings
# A program that only reads tables: nothing of KVM's is compiled.
step cargo clippy --package vmstrobe --no-default-features --features table -- -D warnings
# A program that only reads recordings.
step cargo clippy --package vmstrobe --no-default-features --features export -- -D warnings
# On another processor: what is of x86-64 alone has a stand-in there. The command and recordings need
# a C compiler for that processor too, and are left out.
other=aarch64-unknown-linux-gnu
if compgen -G "$(rustc --print target-libdir --target "$other")/libstd-*" >/dev/null; then
  step cargo clippy --target "$other" --package vmstrobe --package vmstrobe-guest \
    --features vmstrobe/demo,vmstrobe/json,vmstrobe/kvm-ioctls,vmstrobe/server -- -D warnings
else
  echo "lint: skipped: $other: no standard library for it (rustup target add $other)"
fi
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
# Of what is to be published, everything is in the package. Built it is by the tests already.
step cargo package --workspace --no-verify --allow-dirty --quiet
echo "lint: clean"
