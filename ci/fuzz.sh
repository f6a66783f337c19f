#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for a while, and fails on any finding. Needs a nightly compiler; gets cargo-fuzz itself.
#
#   ci/fuzz.sh [SECONDS]    seconds a target; 60 if not given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
cargo +nightly --version >/dev/null || { echo "fuzz: needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked

targets=$(cargo fuzz list)
[ -n "$targets" ] || { echo "fuzz: no targets in fuzz/" >&2; exit 1; }
mkdir -p fuzz/target
failed=0
for target in $targets; do
  log=fuzz/target/$target.log
  # New inputs go to the corpus, which git does not keep; the seeds are real blocks, and what once was a finding.
  mkdir -p "fuzz/corpus/$target"
  options=(-max_total_time="$seconds" -max_len=65536 -rss_limit_mb=512 -timeout=5)
  [ ! -f "fuzz/$target.dict" ] || options+=("-dict=fuzz/$target.dict")
  echo "== $target, $seconds s"
  if cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- "${options[@]}" \
    >"$log" 2>&1 </dev/null; then
    echo "fuzz: $target: $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' "$log"), no finding"
  else
    tail -n 40 "$log"
    echo "fuzz: $target: FAILED, all of it in $log"
    failed=1
  fi
done
exit "$failed"
