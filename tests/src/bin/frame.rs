//! Reads frames of the BPF reader in a process of its own, or is the sampler that lends them:
//! started by the tests, in whose hands it is.
//!
//!     frame whole|rows READS     standard input is a frame's descriptor
//!     frame sample|borrow SOCKET

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match vmstrobe_tests::frame::modes::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frame: {error}");
            ExitCode::FAILURE
        }
    }
}
