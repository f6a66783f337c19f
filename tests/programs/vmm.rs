//! A VMM that is controlled by the tests: see `vmstrobe_tests::host::machine`.

use std::process::ExitCode;

use vmstrobe_tests::host::machine;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match machine::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmm: {error}");
            ExitCode::FAILURE
        }
    }
}
