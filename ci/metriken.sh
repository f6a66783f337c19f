#!/usr/bin/env bash
# Reads wide Parquet files by metriken-query, the reader of Rezolus' viewer. It brings 97 crates, which take about four
# minutes to build for the first time; so ci/test.sh runs this only where they have been built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/metriken cargo test --locked --manifest-path tests/metriken/Cargo.toml
