//! A writer of tables, hostile in most modes and honest in a few, which is started and controlled
//! by the tests.
//!
//!     hostile MODE sealed|unsealed|PATH [IMAGE]
//!
//! It prints `ok` when its table exists, and ends when standard input closes.

use std::process::ExitCode;

use vmstrobe_tests::hostile::evil::Place;
use vmstrobe_tests::hostile::modes;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [mode, place] => modes::run(mode, &Place::from_arg(place), "sample"),
        [mode, place, image] => modes::run(mode, &Place::from_arg(place), image),
        _ => Err(std::io::Error::other("it takes a mode, a place and perhaps an image")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}
