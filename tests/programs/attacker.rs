//! The program of a hostile user, controlled by the tests: see
//! `vmstrobe_tests::hostile_host::attacks`.

use std::process::ExitCode;

use vmstrobe_tests::hostile_host::attacks;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match attacks::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attacker: {error}");
            ExitCode::FAILURE
        }
    }
}
