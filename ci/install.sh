#!/usr/bin/env bash
# Installs what the tests want beyond Rust: a QEMU of version 10 or later and tmux, from the system's own packages; beside it,
# unpacked in target/ and not installed, the 7.2 of a release's own, which keeps no stats fds open; and QEMU's QMP library
# for Python, and what reads recordings there, for which the tests have a Python of their own in target/.
# Nothing happens to what is there. What cannot be installed is a note, never a failure: the tests say what they skip.
# VMSTROBE_NO_INSTALL=1 leaves the machine as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wanted=10
package=qemu-system-x86
list=/etc/apt/sources.list.d/vmstrobe-backports.sources
older=7.2
older_qemu=$(realpath -m "${CARGO_TARGET_DIR:-target}/qemu-$older")
library="qemu.qmp>=0.0.6,<0.1"
python=${CARGO_TARGET_DIR:-target}/python
readers=("pyarrow>=26,<27" "polars>=2.1,<3" "pandas>=3.1,<4" "duckdb>=2,<3" "perfetto>=0.59,<1" "hdrhistogram>=0.10,<1")
log=$(mktemp)
trap 'rm -f "$log"' EXIT

note() { echo "install: $*"; }

# The major version of the QEMU that is installed, or that apt would install; 0 if there is none.
installed_major() {
  { qemu-system-x86_64 --version 2>/dev/null || true; } | sed -n '1s/.* version \([0-9]*\).*/\1/p' | grep . || echo 0
}
candidate_major() {
  apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\)\..*/\2/p' | grep . || echo 0
}

# apt, in silence and not for ever; its last words only if it fails.
apt() {
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -y -o DPkg::Lock::Timeout=60 \
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@" >"$log" 2>&1 </dev/null && return
  note "apt-get $* fails: $(grep '^E:' "$log" | tail -n 1)"
  return 1
}

# The first value of a field, or the first mirror of a `deb` line, in the sources that are there.
source_field() { # FIELD
  cat /etc/apt/sources.list.d/debian.sources 2>/dev/null | sed -n "s/^$1: *\([^ ]*\).*/\1/p" | grep -v security | head -n 1 || true
}
mirror() {
  local uri
  uri=$(source_field URIs)
  [ -n "$uri" ] || uri=$(sed -n 's/^deb  *\(\[[^]]*\]  *\)\{0,1\}\([^ ]*\).*/\2/p' /etc/apt/sources.list 2>/dev/null |
    grep -v security | head -n 1 || true)
  echo "$uri"
}

# Adds the release's backports, from the mirror that is in use.
add_backports() { # SUITE
  local uri key
  uri=$(mirror)
  key=$(source_field Signed-By)
  [ -n "$uri" ] || { note "no Debian mirror in apt's sources"; return 1; }
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$1" >"$list"
  [ -z "$key" ] || echo "Signed-By: $key" >>"$list"
  apt update
}

install_qemu() {
  local suite
  apt update || true
  if [ "$(candidate_major)" -lt "$wanted" ] && [ "$ID" = debian ]; then
    suite="$VERSION_CODENAME-backports"
    # A package of the backports may want others of them: -t lets it.
    if add_backports "$suite" && apt install --no-install-recommends -t "$suite" "$package"; then return; fi
    # Sources that do not answer would fail every later update of this machine.
    rm -f "$list"
    apt update || true
  fi
  apt install --no-install-recommends "$package"
}

if [ "$(installed_major)" -ge "$wanted" ]; then
  note "QEMU $(installed_major) is there"
elif [ -n "${VMSTROBE_NO_INSTALL:-}" ]; then
  note "VMSTROBE_NO_INSTALL is set: nothing is installed"
elif [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  note "QEMU $wanted or later is wanted; only root on a system with apt-get gets it from here"
else
  # ID and VERSION_CODENAME.
  . /etc/os-release
  if install_qemu; then note "QEMU $(installed_major) is there now"; else note "nothing is installed"; fi
fi

if command -v tmux >/dev/null; then
  note "tmux is there"
elif [ -n "${VMSTROBE_NO_INSTALL:-}" ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  note "no tmux; only root on a system with apt-get gets it from here"
elif apt install --no-install-recommends tmux || { apt update && apt install --no-install-recommends tmux; }; then
  note "tmux is there now"
fi

# The newest version of a package, of the older QEMU's release, in the sources that are there.
older_version() { # PACKAGE
  apt-cache madison "$1" 2>/dev/null | sed -n "s/^[^|]*| *\(\([0-9]*:\)\{0,1\}$older[+.~-][^ ]*\) .*/\1/p" | head -n 1 || true
}

# Downloads a package and unpacks it.
unpack() { # PACKAGE INTO
  local version
  version=$(older_version "$1")
  [ -n "$version" ] || { note "no $1 $older in apt's sources"; return 1; }
  rm -f ./"$1"_*.deb
  apt download "$1=$version" && dpkg -x ./"$1"_*.deb "$2" && rm -f ./"$1"_*.deb
}

# A script that runs it from beside the script. Firmware is the system's, of which it has none of its own.
wrapper() {
  # shellcheck disable=SC2016 # for the script
  printf '%s\n' '#!/bin/sh' \
    'here=$(dirname "$(readlink -f "$0")")/tree/usr' \
    'exec "$here/bin/qemu-system-x86_64" -L "$here/share/qemu" -L /usr/share/seabios -L /usr/share/qemu "$@"'
}

# The libraries that it wants are those of a later one: what is missing all the same comes from the system's packages.
libraries() { # PROGRAM DEB_DEPENDS
  if ! ldd "$1" 2>/dev/null | grep -q 'not found'; then return; fi
  [ "$(id -u)" = 0 ] || { note "QEMU $older lacks libraries: $(ldd "$1" | grep 'not found' | tr -s '\n\t' ' ')"; return 1; }
  # shellcheck disable=SC2046 # a list
  apt install --no-install-recommends $(echo "$2" | tr ',' '\n' | sed 's/^ *//; s/ .*//' | grep -v '^qemu-')
}

install_older() (
  rm -rf "$older_qemu"
  mkdir -p "$older_qemu" && cd "$older_qemu" || return 1
  if [ -z "$(older_version "$package")" ] && [ "$(id -u)" = 0 ]; then apt update || true; fi
  unpack qemu-system-data tree && unpack "$package" tree || return 1
  depends=$(apt-cache show "$package=$(older_version "$package")" | sed -n 's/^Depends: //p' | head -n 1)
  libraries tree/usr/bin/qemu-system-x86_64 "$depends" || return 1
  wrapper >qemu-system-x86_64
  chmod +x qemu-system-x86_64
  ./qemu-system-x86_64 --version >"$log" 2>&1 || { note "QEMU $older does not start: $(tail -n 1 "$log")"; return 1; }
)

if [ -x "$older_qemu/qemu-system-x86_64" ]; then
  note "QEMU $older is there"
elif [ -n "${VMSTROBE_NO_INSTALL:-}" ]; then
  :
elif ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  note "no apt-get: no QEMU $older"
elif install_older; then
  note "QEMU $older is there now"
else
  # Half of it would pass for all of it.
  rm -rf "$older_qemu"
  note "no QEMU $older"
fi

# pip asks wherever the machine has it ask, in silence and not for ever.
install_library() {
  mkdir -p "${python%/*}"
  if python3 -m venv --clear "$python" >"$log" 2>&1 </dev/null &&
    timeout 120 "$python/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 "$library" \
      >"$log" 2>&1 </dev/null; then return; fi
  # Half of it would pass for all of it.
  rm -rf "$python"
  note "no ${library%%>*} for Python: $(tail -n 1 "$log")"
  return 1
}

if [ -x "$python/bin/qmp-shell" ]; then
  note "${library%%>*} is there"
elif [ -n "${VMSTROBE_NO_INSTALL:-}" ]; then
  :
elif ! command -v python3 >/dev/null; then
  note "no python3: no ${library%%>*}"
elif install_library; then
  note "${library%%>*} is there now"
fi

# Programs that read recordings. The file `readers` is made last, and lists them: all are there.
install_readers() {
  mkdir -p "${python%/*}"
  [ -x "$python/bin/pip" ] || python3 -m venv "$python" >"$log" 2>&1 </dev/null || return 1
  timeout 300 "$python/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 "${readers[@]}" \
    >"$log" 2>&1 </dev/null || return 1
  echo "${readers[*]}" >"$python/readers"
}

if [ "$(cat "$python/readers" 2>/dev/null)" = "${readers[*]}" ]; then
  note "readers of recordings are there"
elif [ -n "${VMSTROBE_NO_INSTALL:-}" ]; then
  :
elif ! command -v python3 >/dev/null; then
  note "no python3: no readers of recordings"
elif install_readers; then
  note "readers of recordings are there now"
else
  note "no readers of recordings: $(tail -n 1 "$log")"
fi
