//! The command `vmstrobe`: parses the arguments, runs a command, and returns the exit status.
//!
//! Invariant: data goes to standard output and messages go to standard error. A closed pipe is
//! success. The exit status is 0 for success, 1 for a failure and 2 for a wrong command line.

#![forbid(unsafe_code)]

mod error;
mod args;
mod privileges;
mod limits;
mod attach;
mod messages;
mod read_status;

mod out;
mod text;
mod width;
mod table;
mod terminal;
mod signals;
mod stop;
mod child;
mod sampling;

mod list;
mod schema;
mod query;
mod stat;
#[cfg(feature = "top")]
mod top;
mod record;
mod recorders;
mod convert;
mod report;
mod serve;
mod demo;

use std::process::ExitCode;

use args::Command;
use error::{Error, Kind, Result};
use limits::OpenFiles;
use out::{Out, say_each, say_lines};

fn main() -> ExitCode {
    let mut out = Out::stdout();
    let open_files = OpenFiles::raise();
    let done = args::parse().and_then(|command| run(command, open_files, &mut out));
    // Output that was written before an error must still reach the reader.
    let flushed = out.flush();
    let status = done.and_then(|status| flushed.map(|()| status));
    ExitCode::from(status.unwrap_or_else(|error| show(&error, &mut out)))
}

/// Prints help on standard output, or an error and the messages before it on standard error, and
/// returns the exit status.
fn show(error: &Error, out: &mut Out) -> u8 {
    if error.kind == Kind::Help {
        let shown = out.as_is(&error.to_string()).and_then(|()| out.flush());
        return shown.map_or_else(|error| show(&error, out), |()| 0);
    }
    say_each(error.messages_before());
    say_lines(error.lines());
    error.status()
}

fn run(command: Command, open_files: OpenFiles, out: &mut Out) -> Result<u8> {
    match command {
        Command::Demo(args) => demo::run(&args, out),
        Command::List(args) => list::run(&args, out),
        Command::Schema(args) => schema::run(&args, out),
        Command::Query(args) => query::run(&args, out),
        Command::Info { info: args::Info::Stats(args) } => query::info(&args, out),
        Command::Stat(args) => stat::run(&args, open_files, out),
        #[cfg(feature = "top")]
        Command::Top(args) => top::run(&args, out),
        Command::Record(args) => record::run(&args, open_files, out),
        Command::Dump(args) => recorders::dump(&args, out),
        Command::Mark(args) => recorders::mark(&args, out),
        Command::Convert(args) => convert::run(&args),
        Command::Report(args) => report::run(&args, open_files, out),
        Command::Serve(args) => serve::run(&args),
    }
}
