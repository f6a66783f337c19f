//! `vmstrobe serve`: a QMP socket for each running virtual machine, also for those that start
//! later.
//!
//! Invariant: nothing is written to standard output. The server ends within a second of a signal
//! and removes its sockets, unless SIGKILL ends it. A virtual machine that cannot be served, and a
//! user with many, take no more resources from others than docs/qmp.md and docs/shared-hosts.md
//! allow.

use std::thread;
use std::time::{Duration, Instant};

use vmstrobe::host::trim_memory;
use vmstrobe::{Order, look_pause};
use vmstrobe_server::qmp::{Access, Config};

use crate::args::{OnExit, ServeArgs};
use crate::attach;
use crate::error::{Error, Result, with_causes};
use crate::out::say;
use crate::privileges::{Needs, seccomp, unprivileged_threads};
use crate::signals::StopFlag;
use crate::stop::{self, SocketFiles};
use vm_servers::VmServers;
use vm_sockets::VmSockets;

mod accounts;
mod directory;
mod quota;
mod describe;
mod log;
mod vm_sockets;
mod vm_servers;

/// The shortest time between two searches for virtual machines.
const SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// The time between two checks whether the server must end or a virtual machine has ended.
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// The number of searches after which freed memory is returned once clients have left.
const TRIMS: u32 = 10;

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
    let broker = Needs::of(&args.source, args.method.bpf).with_listening().move_to_broker()?;
    let bpf = attach::bpf_for_sampling(args.method.bpf, broker.clone())?;
    let options = attach::options(&args.source, bpf, args.sched);
    let asks_qemu = !args.source.qmp.is_empty();
    let mut vm_sockets = VmSockets::new(config(args)?, keeps_ended(args), asks_qemu, files, broker);
    let vm_servers = match (&args.qmp_path, &args.qmp_dir) {
        (_, Some(path)) => Some(VmServers::open(args, path, options, &mut vm_sockets, &stop)?),
        (Some(path), None) => {
            vm_sockets.open(path.clone(), attach::open_one(&args.source, &options)?, None)?;
            None
        }
        (None, None) => {
            return Err(Error::usage("no socket is given: add --qmp PATH or --qmp-dir DIR"));
        }
    };
    vm_sockets.say_how_to_try();
    let mut serving = Serving {
        vm_sockets,
        vm_servers,
        freed: FreedMemory::default(),
        next_look: Instant::now(),
    };
    while !stop.is_set() {
        serving.vm_sockets.close_ended();
        if args.on_exit() == OnExit::End && serving.vm_sockets.is_empty() {
            break;
        }
        serving.look_if_due(&stop);
        thread::sleep(POLL_PERIOD);
    }
    say(serving.vm_sockets.close());
    Ok(0)
}

/// Returns the configuration of each server: the access to its socket and the order of its answers.
///
/// # Errors
/// If the group does not exist.
fn config(args: &ServeArgs) -> Result<Config> {
    let group = args.group.as_deref().map(accounts::group_id).transpose()?;
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

/// The state of the running server.
struct Serving {
    vm_sockets: VmSockets,
    vm_servers: Option<VmServers>,
    freed: FreedMemory,
    next_look: Instant,
}

impl Serving {
    /// Searches, about once a second, for changes of which there is no event.
    fn look_if_due(&mut self, stop: &StopFlag) {
        let begin = Instant::now();
        if begin < self.next_look {
            return;
        }
        self.vm_sockets.vms().for_each(|vm| vm.look());
        self.freed.trim(self.vm_sockets.clients_gone());
        let mut took = begin.elapsed();
        let mut is_unfinished = false;
        if let Some(vm_servers) = &mut self.vm_servers {
            let look = vm_servers.look(&mut self.vm_sockets, stop);
            took += look.took;
            is_unfinished = look.is_unfinished;
        }
        let pause = if is_unfinished { POLL_PERIOD } else { look_pause(SEARCH_PERIOD, took) };
        self.next_look = Instant::now() + pause;
    }
}

/// Returns the freed memory of clients' streams, up to 100 MiB, from the C library to the kernel.
#[derive(Debug, Default)]
struct FreedMemory {
    /// The number of clients that had left at the last search.
    clients_gone: u64,
    trims_left: u32,
}

impl FreedMemory {
    /// Returns freed memory if clients have left, now and after the next searches, because the
    /// threads of their streams may end later than the clients.
    fn trim(&mut self, clients_gone: u64) {
        // The number falls if a socket was closed, with all of its clients.
        if clients_gone != self.clients_gone {
            self.trims_left = TRIMS;
        }
        self.clients_gone = clients_gone;
        if self.trims_left > 0 {
            self.trims_left -= 1;
            trim_memory();
        }
    }
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
