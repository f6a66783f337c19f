//! `vmstrobe serve`: a QMP socket for each running virtual machine, also for those that start
//! later.
//!
//! Invariant: nothing is written to standard output. The server ends within a second of a signal
//! and removes its sockets, unless SIGKILL ends it. A virtual machine that cannot be served, and a
//! user with many, take no more resources from others than docs/qmp.md and docs/shared-hosts.md
//! allow.

use std::thread;
use std::time::Duration;

use vmstrobe::demo;
use vmstrobe::serve::{DirectoryConfig, Serving, ServingConfig, SocketFiles, group_id};
use vmstrobe::server::qmp::{Access, Config};
use vmstrobe::{Attachment, Options, Order};

use crate::args::{OnExit, ServeArgs};
use crate::attach;
use crate::error::{Error, Result, with_causes};
use crate::out::say;
use crate::privileges::{Needs, seccomp, unprivileged_threads};
use crate::signals::StopFlag;
use crate::stop;
use crate::text::shell_word;
use describe::totals;
use log::Log;

pub(crate) mod describe;
mod log;

/// The time between two checks whether the server must end or a virtual machine has ended.
const POLL_PERIOD: Duration = Duration::from_millis(50);

/// Serves until a signal, or until the virtual machines have ended.
///
/// # Errors
/// If a source that was named cannot be read, or a socket cannot be created.
pub(crate) fn run(args: &ServeArgs) -> Result<u8> {
    // Module `stop` has the effect of a second signal, and of a main thread that does not end.
    let stop = StopFlag::listen()?;
    seccomp::install_filter();
    let files = SocketFiles::default();
    stop::exit_in_time(files.clone())?;
    let needs = match &args.replay.replay.file {
        Some(_) => Needs::of_files(),
        None => Needs::of(&args.source, args.method.bpf),
    };
    let broker = needs.with_listening().move_to_broker()?;
    let bpf = attach::bpf_for_sampling(args.method.bpf, broker.clone())?;
    let options = attach::options(&args.source, bpf, args.sched);
    let (server, keeps_ended) = (config(args)?, keeps_ended(args));
    let mut serving = Serving::new(ServingConfig { server, keeps_ended, files, broker });
    // Nothing can be done about what a recording lacks.
    let mut log = Log::new(!args.source.qmp.is_empty() || args.replay.replay.file.is_some());
    let opened = open(args, options, &mut serving, &stop);
    log.note(serving.events());
    opened?;
    if args.follows_all() && serving.is_empty() && !stop.is_set() {
        say_none_yet(args, &serving)?;
    }
    log.end_start();
    if let Some(path) = serving.first_path() {
        let path = shell_word(&path.to_string_lossy());
        say(format_args!("try it: qmp-shell -p {path}, then query-stats target=vcpu"));
    }
    while !stop.is_set() {
        log.announce_due();
        serving.poll(&|| stop.is_set());
        log.note(serving.events());
        if args.on_exit() == OnExit::End && serving.is_empty() {
            break;
        }
        thread::sleep(POLL_PERIOD);
    }
    let unannounced = log.end();
    say(totals(&serving.close(), unannounced));
    Ok(0)
}

/// Opens the sockets of the virtual machines that run.
///
/// # Errors
/// If a source that was named cannot be read, or a socket cannot be created.
fn open(args: &ServeArgs, options: Options, serving: &mut Serving, stop: &StopFlag) -> Result<()> {
    let Some(path) = args.qmp_dir.clone() else {
        let no_socket = || Error::usage("no socket is given: add --qmp PATH or --qmp-dir DIR");
        let path = args.qmp_path.clone().ok_or_else(no_socket)?;
        return Ok(serving.serve_at(path, open_one(args, &options)?)?);
    };
    let directory = DirectoryConfig {
        path,
        trusted_users: args.vm_users.clone(),
        sources: args.source.sources(),
        options: options.clone(),
    };
    match args.source.demo || args.replay.replay.file.is_some() {
        true => {
            let own = open_one(args, &options)?;
            let name = own.main().map_or_else(|| demo::NAME.to_owned(), |one| one.name.clone());
            serving.serve_own_in(directory, &name, own)?;
        }
        false => serving.serve_in(directory, &|| stop.is_set())?,
    }
    Ok(())
}

/// Opens what one socket serves: the recording, or the sources.
///
/// # Errors
/// If it cannot be read.
fn open_one(args: &ServeArgs, options: &Options) -> Result<Attachment> {
    match &args.replay.replay.file {
        Some(path) => Ok(Attachment::replayed(path, args.replay.speed, options)?),
        None => attach::open_one(&args.source, options),
    }
}

/// Prints where virtual machines that start later will be served.
///
/// # Errors
/// If the user does not want to wait for one.
fn say_none_yet(args: &ServeArgs, serving: &Serving) -> Result<()> {
    if args.on_exit() == OnExit::End {
        return Err(Error::failed(
            "no virtual machine on this host can be served: `vmstrobe list` says why; --on-exit \
             wait waits for one",
        ));
    }
    if let Some(directory) = serving.directory() {
        let path = directory.join("NAME.sock");
        let path = path.display();
        say(format_args!("no virtual machine runs yet: each will be served at {path}"));
    }
    Ok(())
}

/// Returns the configuration of each server: the access to its socket and the order of its answers.
///
/// # Errors
/// If the group does not exist.
fn config(args: &ServeArgs) -> Result<Config> {
    let group = args.group.as_deref().map(group_id).transpose()?;
    let order = if args.qemu_order { Order::Qemu } else { Order::Schema };
    let complain: fn(&vmstrobe::CoreError) = |error| say(with_causes(error));
    let access = Access { mode: args.mode(), group };
    Ok(Config {
        access,
        order,
        complain: Some(complain),
        threads: unprivileged_threads(),
        ..Config::default()
    })
}

/// Returns true if the socket of a virtual machine stays after its end. With `--all` none stays.
fn keeps_ended(args: &ServeArgs) -> bool {
    args.on_exit() == OnExit::Wait && !args.follows_all()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn args(line: &str) -> ServeArgs {
        let words = ["serve"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).expect(line).serve
    }

    #[test]
    fn only_the_socket_of_a_named_vm_stays_after_its_end() {
        for (line, keeps) in [
            ("--qmp a", false),
            ("--qmp a --on-exit wait", true),
            ("-p 1 --qmp-dir d --on-exit wait", true),
            ("-p 1 --qmp-dir d", false),
            ("--all --qmp-dir d", false),
            ("--all --qmp-dir d --on-exit end", false),
        ] {
            assert_eq!(keeps_ended(&args(line)), keeps, "{line}");
        }
    }

    #[test]
    fn the_configuration_has_access_and_order() {
        let asked = config(&args("--qmp a --group 7 --qemu-order")).expect("the group is a number");
        assert_eq!(asked.access, Access { mode: 0o660, group: Some(7) });
        assert_eq!(asked.order, Order::Qemu);
        let plain = config(&args("--qmp a")).expect("the line has no group");
        assert_eq!((plain.access, plain.order), (Access::default(), Order::Schema));
        let error =
            config(&args("--qmp a --group nobody-has-this")).expect_err("it does not exist");
        assert_eq!(error.kind, crate::error::Kind::Usage);
    }
}
