//! A VMM that takes orders: `vmm KIND VCPUS [-name NAME] [--nobody]`.
//!
//! Its vCPUs do not run, so their counters do not change, until the order `run`: then `exits` of
//! each grows by at least the requested number. It answers each line with `ok`, and ends when
//! standard input closes.
//!
//! ```text
//! run N     each vCPU makes N exits
//! dup N     N times a copy of its VM's, its first vCPU's and that vCPU's statistics descriptor
//! fork      a process that sleeps and has all of its KVM descriptors; answers its pid
//! ```

use std::io::{self, BufRead, Error, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::io::{FdFlags, dup, fcntl_setfd};
use vmstrobe::bpf::{Bpf, BpfMode};
use vmstrobe::kvm::OwnKvm;
use vmstrobe_guest::Farm;
use vmstrobe_sampler::{Fanout, Running, Timing};

use super::descriptors::{self, VCPU, VCPU_STATS, VM};
use crate::hostile_host::nobody::become_nobody;
use crate::rig::{Rig, own_kvm, own_kvm_by, rig};

/// The VMM.
#[derive(Debug)]
struct Machine {
    farm: Farm,
    // The stats fds, which are kept open by some kinds.
    _own: Option<Arc<OwnKvm>>,
    _sampling: Option<Running>,
    copies: Vec<OwnedFd>,
    forks: Vec<Child>,
}

/// Runs the commands of standard input until it closes.
///
/// # Errors
///
/// If the arguments or a command make no sense, or KVM refuses.
pub fn run(args: &[String]) -> io::Result<()> {
    descriptors::raise_limit()?;
    let [kind, vcpus, further @ ..] = args else {
        return Err(Error::other("it takes a kind and a number of vCPUs"));
    };
    let vcpus = vcpus.parse().map_err(Error::other)?;
    let farm = Farm::with_vcpus_per_vm(vcpus, vcpus).map_err(Error::other)?;
    let (own, sampling) = statistics(kind, &farm)?;
    if further.iter().any(|word| word == "--nobody") {
        become_nobody()?;
    }
    let (copies, forks) = (Vec::new(), Vec::new());
    let mut machine = Machine { farm, _own: own, _sampling: sampling, copies, forks };
    say("ok")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = match *line.split_whitespace().collect::<Vec<_>>() {
            ["run", exits] => machine.run(exits.parse().map_err(Error::other)?)?,
            ["dup", times] => machine.dup(times.parse().map_err(Error::other)?)?,
            ["fork"] => machine.fork()?,
            _ => return Err(Error::other(format!("there is no command '{line}'"))),
        };
        say(&format!("ok {answer}"))?;
    }
    Ok(())
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Opens the statistics that a VMM of that kind keeps open: `plain` none, as QEMU before 8.1;
/// `stats` a statistics descriptor of the VM and of each vCPU; `embeds` the same, and it samples
/// them itself, by the BPF reader if that is allowed.
fn statistics(kind: &str, farm: &Farm) -> io::Result<(Option<Arc<OwnKvm>>, Option<Running>)> {
    let [of] = farm.vms() else { return Err(Error::other("it takes a vCPU, and one VM")) };
    Ok(match kind {
        "plain" => (None, None),
        "stats" => (Some(own_kvm("own", of.vm(), of.vcpus())), None),
        "embeds" => {
            let bpf = Bpf::new(BpfMode::Auto);
            let provider = own_kvm_by(bpf, "own", of.vm(), of.vcpus());
            let Rig { sampler, .. } = rig(provider, &["vm", "vcpu"], Fanout::Inline);
            let timing = Timing::hz(100.0).map_err(Error::other)?;
            (None, Some(sampler.start(timing).map_err(Error::other)?))
        }
        _ => return Err(Error::other(format!("there is no kind '{kind}'"))),
    })
}

impl Machine {
    fn run(&self, exits: u32) -> io::Result<String> {
        self.farm.run_each(exits, 0).map_err(Error::other)?;
        Ok(String::new())
    }

    fn dup(&mut self, times: usize) -> io::Result<String> {
        let mut kinds = Vec::new();
        for begin in [VM, VCPU, VCPU_STATS] {
            let number = descriptors::own(begin)?.first().copied();
            kinds.extend(number.map(descriptors::copy).transpose()?);
        }
        for _ in 0..times {
            for kind in &kinds {
                self.copies.push(dup(kind)?);
            }
        }
        self.copies.extend(kinds);
        Ok(self.copies.len().to_string())
    }

    fn fork(&mut self) -> io::Result<String> {
        let copies = descriptors::own("anon_inode:kvm-")?.into_iter().map(descriptors::copy);
        let copies = copies.collect::<io::Result<Vec<OwnedFd>>>()?;
        for copy in &copies {
            fcntl_setfd(copy, FdFlags::empty())?;
        }
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = child.id();
        self.forks.push(child);
        Ok(pid.to_string())
    }
}
