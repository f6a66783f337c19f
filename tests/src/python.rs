//! A Python of the tests' own, with libraries that `ci/install.sh` installs.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Output, run_within};
use crate::require::require;

/// The environment variable that names a directory with a Python that has the libraries.
const PYTHON_ENV: &str = "VMSTROBE_PYTHON";

/// Returns the directory of that Python: `target/python`, or what `VMSTROBE_PYTHON` names.
fn directory() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    // ci/install.sh has made it, beside target/<profile>/deps.
    let made =
        test.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("python");
    env::var_os(PYTHON_ENV).map_or(made, PathBuf::from)
}

/// Returns the path of a program of that Python: the interpreter or `qmp-shell`.
pub fn python_program(name: &str) -> PathBuf {
    directory().join("bin").join(name)
}

/// Requires `qemu.qmp`: QEMU's QMP library.
pub fn require_qmp_library() -> bool {
    let shell = python_program("qmp-shell");
    let there = shell.metadata().map(drop).map_err(|error| format!("{}: {error}", shell.display()));
    require("qemu.qmp", there)
}

/// Requires `readers`: pyarrow, polars, pandas and DuckDB, which read recordings.
pub fn require_readers() -> bool {
    // Made last, when all of them were installed.
    let mark = directory().join("readers");
    let there = mark.metadata().map(drop).map_err(|error| format!("{}: {error}", mark.display()));
    require("readers", there)
}

/// Runs a script of `tests/readers` to its end, in that Python.
pub fn run_reader(script: &str, args: &[&str], limit: Duration) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(script);
    let script = script.to_str().expect("the path is text");
    run_within(limit, python_program("python3"), &[&[script], args].concat())
}
