//! `vmstrobe serve`: QMP sockets of our own for running virtual machines, as they come and go.
//!
//! Invariant: nothing is written to standard output. However it ends, its sockets are removed and
//! what they have done is said; one virtual machine that cannot be served disturbs no other.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_core::Order;
use vmstrobe_sampler::look_pause;
use vmstrobe_server::qmp::{Access, Config};

use crate::args::{OnExit, ServeArgs};
use crate::engine::{FoundVm, Setup, VmRegistry, Vmm, Vms, accel_for_sampling};
use crate::error::{Error, Result, with_causes};
use crate::out::say;
use crate::privileges::Needs;
use crate::terminal::Stop;
use doors::Doors;
use place::Directory;
use roll::Roll;

mod place;
mod roll;
mod doors;

/// How often to look who has come or gone, at most.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often to look whether it is over, or a virtual machine has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until a signal, or until what was named has ended.
///
/// # Errors
/// If what was named cannot be read, or there can be no socket.
pub(crate) fn run(args: &ServeArgs) -> Result<u8> {
    // A second signal must not kill: sudo and timeout send what a terminal has sent already.
    let stop = Stop::listen(false)?;
    // All of it as long as it serves: what is asked for is opened when it is asked for.
    Needs::of(&args.source, args.how.accel).and_to_listen().keep_only();
    let setup = Setup { accel: accel_for_sampling(args.how.accel)?, sched: args.sched };
    let mut doors = Doors::new(config(args)?, keeps_ended(args), !args.source.qmp.is_empty());
    let several = match (&args.qmp_path, &args.qmp_dir) {
        (_, Some(path)) => Some(Several::open(args, path, setup, &mut doors)?),
        (Some(path), None) => {
            doors.open(path.clone(), VmRegistry::named(&args.source, &setup)?, None)?;
            None
        }
        (None, None) => return Err(Error::usage("say where to answer: --qmp or --qmp-dir")),
    };
    doors.say_how_to_try();
    let mut serving = Serving { doors, several, next_look: Instant::now() };
    while !stop.is_asked() {
        serving.doors.close_ended();
        if args.on_exit() == OnExit::End && serving.doors.is_empty() {
            break;
        }
        serving.look_if_due();
        thread::sleep(LOOK);
    }
    say(serving.doors.close());
    Ok(0)
}

/// Who may ask, and how he is answered.
///
/// # Errors
/// If there is no such group.
fn config(args: &ServeArgs) -> Result<Config> {
    let group = args.group.as_deref().map(place::group_id).transpose()?;
    let order = if args.qemu_order { Order::Qemu } else { Order::Schema };
    let complain: fn(&vmstrobe_core::Error) = |error| say(with_causes(error));
    Ok(Config { access: Access { mode: args.mode(), group }, order, complain: Some(complain) })
}

/// Does the socket of a virtual machine outlive it? Of those that come and go, none does.
fn keeps_ended(args: &ServeArgs) -> bool {
    args.on_exit() == OnExit::Wait && !args.follows_all()
}

/// What goes on.
struct Serving {
    doors: Doors,
    several: Option<Several>,
    next_look: Instant,
}

impl Serving {
    /// Looks, about once a second, at what no event tells.
    fn look_if_due(&mut self) {
        let begin = Instant::now();
        if begin < self.next_look {
            return;
        }
        self.doors.vms().for_each(|vm| vm.look());
        if let Some(several) = &mut self.several {
            several.look(&mut self.doors);
        }
        let end = Instant::now();
        self.next_look = end + look_pause(LOOK_PERIOD, end - begin);
    }
}

/// A socket for each virtual machine.
struct Several {
    directory: Directory,
    vms: Vms,
    roll: Roll,
    /// Those that come are served too.
    follows_all: bool,
    /// The last look failed, and it was said.
    is_blind: bool,
}

impl Several {
    /// Opens the sockets of those there are.
    ///
    /// # Errors
    /// If one that was named cannot be served; of `--all`, if there is none and nobody waits for
    /// one.
    fn open(args: &ServeArgs, path: &Path, setup: Setup, doors: &mut Doors) -> Result<Self> {
        let mut several = Self {
            directory: Directory::new(path)?,
            vms: Vms::new(&args.source, setup)?,
            roll: Roll::default(),
            follows_all: args.follows_all(),
            is_blind: false,
        };
        let mut named = several.vms.named(&args.source)?;
        if !several.follows_all {
            several.vms.share_out(&mut named)?;
        }
        for vm in named {
            several.serve(vm, None, doors)?;
        }
        if several.follows_all {
            let found = several.vms.look()?;
            found.hidden.iter().for_each(say);
            several.update(&found.vms, doors);
            several.check_found(args.on_exit(), doors)?;
            // Its virtual machine may be yet to come.
            several.vms.share_out(doors.vms()).unwrap_or_else(say);
        }
        Ok(several)
    }

    fn check_found(&self, on_exit: OnExit, doors: &Doors) -> Result<()> {
        if !doors.is_empty() {
            return Ok(());
        }
        if on_exit == OnExit::End {
            return Err(Error::failed(
                "no virtual machine on this host can be served: `vmstrobe list` says why; or wait \
                 for one with --on-exit wait",
            ));
        }
        let place = self.directory.path().join("NAME.sock");
        let place = place.display();
        say(format_args!("no virtual machine yet: each will be at {place} by its name"));
        Ok(())
    }

    /// Looks who has come or gone, and which QEMU has been started again.
    fn look(&mut self, doors: &mut Doors) {
        if self.follows_all {
            match self.vms.look() {
                Ok(found) => {
                    self.is_blind = false;
                    self.update(&found.vms, doors);
                }
                Err(error) if !self.is_blind => {
                    self.is_blind = true;
                    say(format_args!("cannot look for virtual machines: {error}"));
                }
                Err(_) => {}
            }
        }
        doors.vms().for_each(|vm| self.vms.add_qemus(vm));
    }

    fn update(&mut self, found: &[FoundVm], doors: &mut Doors) {
        let vmms: Vec<Vmm> = found.iter().map(|vm| vm.vmm).collect();
        let changes = self.roll.compare(&vmms, &doors.vmms());
        doors.close_gone(&changes.gone);
        for vmm in changes.came {
            let Some(found) = found.iter().find(|found| found.vmm == vmm) else { continue };
            match self.serve_found(found, doors) {
                Ok(()) => self.roll.accept(vmm),
                Err(error) if self.roll.refuse(vmm) => {
                    say(format_args!("left out: {}: {error}", found.title));
                }
                Err(_) => {}
            }
        }
    }

    fn serve_found(&self, found: &FoundVm, doors: &mut Doors) -> Result<()> {
        match &found.refused {
            Some(why) => Err(Error::failed(why)),
            None => self.serve(self.vms.open(found.vmm.pid)?, Some(found.vmm), doors),
        }
    }

    fn serve(&self, vm: VmRegistry, vmm: Option<Vmm>, doors: &mut Doors) -> Result<()> {
        let path = self.directory.socket(vm.name(), vm.pid(), |path| doors.has(path));
        doors.open(path, vm, vmm)
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
    fn a_socket_outlives_its_vm_only_if_it_was_named() {
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
    fn who_may_ask_and_how_he_is_answered() {
        let asked = config(&args("--qmp a --group 7 --qemu-order")).expect("it has a number");
        assert_eq!(asked.access, Access { mode: 0o660, group: Some(7) });
        assert_eq!(asked.order, Order::Qemu);
        let plain = config(&args("--qmp a")).expect("there is nothing to be refused");
        assert_eq!((plain.access, plain.order), (Access::default(), Order::Schema));
        let error = config(&args("--qmp a --group nobody-has-this")).expect_err("there is none");
        assert_eq!(error.kind, crate::error::Kind::Usage);
    }
}
