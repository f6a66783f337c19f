#!/usr/bin/env bash
# The models of the lock-free protocols under loom, which runs every interleaving that the memory model allows.
# Models are tests named loom_*.
#
#   ci/loom.sh            all models pass
#   ci/loom.sh --weaken   each model fails once its protocol is weakened: what it proves, it can see
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg loom"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"

# Weakenings, one a line; no `|` within a field. The folder that has the file's src/ names the crate.
weakenings() {
  cat <<'TABLE'
# file|sed expression|model|what
core/src/seq.rs|/W1, pairs with R2/d|loom_seq_is_whole|the fence W1 of the sequence lock: removed
core/src/seq.rs|s/fence(Ordering::Release);/fence(Ordering::Acquire);/|loom_seq_is_whole|the fence W1: acquire for release
core/src/seq.rs|/R2, pairs with W1/d|loom_seq_is_whole|the fence R2: removed
core/src/seq.rs|/R1, pairs with W2/d|loom_seq_number|the fence R1: removed
core/src/seq.rs|s/wrapping_add(1), Ordering::Release/wrapping_add(1), Ordering::Relaxed/|loom_seq_number|the store W2: relaxed for release
core/src/seq.rs|s/if before & 1 == 1/if false/|loom_seq_is_whole|the odd number: not looked at
core/src/seq.rs|s/if is_still(seq, before)/if true/|loom_seq_is_whole|the number behind the words: not looked at
core/src/seq.rs|/R2, pairs with W1/d|loom_seq_memory|memory that changes hands, the reader's fence: removed
core/src/seq.rs|/W1, pairs with R2/d|loom_seq_memory|memory that changes hands, the writer's fence: removed
providers/host/src/gone_epoch.rs|s/fetch_add(1, Ordering::Release)/fetch_add(1, Ordering::Relaxed)/|loom_gone_epoch|the epoch of what is gone: relaxed for release
providers/host/src/gone_epoch.rs|s/load(Ordering::Acquire)/load(Ordering::Relaxed)/|loom_gone_epoch|the epoch of what is gone: relaxed for acquire
sampler/src/pool.rs|s/if Arc::get_mut(&mut self.buffers.at.).is_some()/if true/|loom_pool|the pool: a buffer taken without asking who holds it
TABLE
}

models() { # NAME CRATE [CARGO-ARGUMENTS]
  local name=$1 crate=$2 where
  shift 2
  # core's models stand beside what they model; the others put loom's atomics in the place of std's.
  case $crate in core) where=(--lib) ;; *) where=(--test loom) ;; esac
  timeout 900 cargo test --quiet -p "vmstrobe-$crate" --release "${where[@]}" "$@" -- "$name" </dev/null
}

# Weakens one place of the copy, and holds that the model fails: not that it does not compile, not that it hangs.
weaken() { # FILE EXPRESSION MODEL WHAT
  local file=$1 expression=$2 model=$3 what=$4 status=0 crate=${1%%/src/*}
  crate=${crate##*/}
  sed -i -e "$expression" "$tree/$file" || return 1
  if cmp -s "$file" "$tree/$file"; then
    echo "not weakened $what: the expression changes nothing in $file"
    return 1
  fi
  if ! (cd "$tree" && models "$model" "$crate" --no-run) >"$log" 2>&1; then
    tail -n 30 "$log"
    echo "weakened $what: does not compile"
    return 1
  fi
  (cd "$tree" && models "$model" "$crate") >"$log" 2>&1 || status=$?
  case $status in
    0) echo "weakened $what: model $model passes all the same, or is not there"; return 1 ;;
    124) echo "weakened $what: model $model does not end"; return 1 ;;
    *) echo "weakened $what: model $model fails, as it must" ;;
  esac
}

case "${1:-}" in
  "")
    export CARGO_TARGET_DIR="$PWD/target/loom"
    mkdir -p "$CARGO_TARGET_DIR"
    log=$CARGO_TARGET_DIR/log
    for crate in core host sampler; do models loom_ "$crate"; done 2>&1 | tee "$log"
    count=$(awk '/^test result: ok/ { count += $4 } END { print count + 0 }' "$log")
    echo "loom: $count models pass"
    # None at all: then they are not found, which proves nothing.
    [ "$count" -gt 0 ]
    ;;
  --weaken)
    export CARGO_TARGET_DIR="$PWD/target/loom-weaken"
    # In one place, not in a new one each time: cargo would compile our crates anew and keep what it made.
    tree=$CARGO_TARGET_DIR/tree log=$CARGO_TARGET_DIR/log
    rm -rf "$tree" && mkdir -p "$tree"
    tar -c --exclude=./.git --exclude=./target --exclude=./fuzz . | tar -x -C "$tree"
    count=0 wrong=0
    while IFS='|' read -r file expression model what; do
      case $file in "#"* | "") continue ;; esac
      count=$((count + 1))
      weaken "$file" "$expression" "$model" "$what" || wrong=$((wrong + 1))
      [ ! -f "$file" ] || cp "$file" "$tree/$file"
    done < <(weakenings)
    echo "$count weakenings, $wrong not as they must be"
    [ "$wrong" = 0 ]
    ;;
  *)
    echo "usage: ci/loom.sh [--weaken]" >&2
    exit 2
    ;;
esac
