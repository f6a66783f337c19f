#!/usr/bin/env bash
# All tests, as a developer runs them: unit, integration and documentation tests, that the benches compile, and the
# memory-model checks. What a test could not do on this machine is repeated at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

# Runs a step to its end and keeps its words; a step that fails does not hide the others.
step() {
  echo "== $*"
  "$@" 2>&1 | tee -a "$log" || failed+=("$*")
}

ci/install.sh
# What tests start is built beforehand, so that no test spends its time on it.
step cargo build --package vmstrobe-cli
step cargo build --package vmstrobe-examples --examples
# Cargo runs one test binary after the other: what is timed has a binary of its own.
step cargo test --workspace --no-fail-fast
# Built without KVM's statistics, a process with a table has that.
step cargo test --package vmstrobe --no-default-features --features table --lib processes
# A few pairs of each figure, to see that all of them run. What they come to is for a quiet machine and
# an optimised build, which would take four minutes more.
step cargo bench -p vmstrobe-benches --bench ratios --profile dev -- --quick
step cargo check --workspace --benches
step ci/loom.sh
if [ -d "${CARGO_TARGET_DIR:-target}/metriken" ]; then
  step ci/metriken.sh
else
  echo "skipped: ci/metriken.sh: metriken-query: not built yet, which takes minutes" | tee -a "$log"
fi

echo
# The line may begin behind libtest's own words.
grep -o 'skipped: .*' "$log" || true
echo "$(grep -c 'skipped: ' "$log" || true) skipped"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all passed"
