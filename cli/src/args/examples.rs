//! The examples that close every help text.
//!
//! Invariant: each can be typed as it stands, on a host with one virtual machine or with --demo.

pub(super) const TOP: &str = "\
EXAMPLES
  See what it does, without a virtual machine of yours:
      vmstrobe demo
  Which virtual machines are there, and can they be read?
      vmstrobe list
  What do the vCPUs of process 4711 do in ten seconds?
      vmstrobe stat -p 4711 -d 10s
  What does each of them do while a benchmark runs?
      vmstrobe stat --per-vcpu -- ssh guest ./benchmark

`vmstrobe COMMAND --help` says more about each command.";

pub(super) const DEMO: &str = "\
EXAMPLES
  Watch it until Ctrl-C:
      vmstrobe demo
  Eight vCPUs, ten thousand samples a second, for ten seconds:
      vmstrobe demo --vcpus 8 -r 10k -d 10s
  How late is a tick on this machine, for a script?
      vmstrobe demo -d 5s --json

The duration is 10s if standard output is no terminal; otherwise it has no end.";

pub(super) const LIST: &str = "\
EXAMPLES
  Everything that runs on this host:
      vmstrobe list
  The process ids of all that can be read, for a script:
      vmstrobe list --json | jq '.[] | select(.readable) | .pid'";

pub(super) const SCHEMA: &str = "\
EXAMPLES
  What has the one virtual machine on this host?
      vmstrobe schema
  Everything about halts, of a guest started for this:
      vmstrobe schema --demo --names 'halt_*'
  As QEMU would say it:
      vmstrobe schema --json";

pub(super) const QUERY: &str = "\
EXAMPLES
  All vCPUs of the one virtual machine on this host:
      vmstrobe query
  Exits and halts, but no histograms:
      vmstrobe query --names 'exits,halt_*,-*_hist'
  vCPU 0 of process 4711, for a program:
      vmstrobe query -p 4711 --vcpu 0 --json
  The virtual machine as a whole, where its VMM keeps that open:
      vmstrobe query --target vm";

pub(super) const INFO: &str = "\
EXAMPLES
  All statistics of all vCPUs:
      vmstrobe info stats vcpu
  Without a line that names the provider:
      vmstrobe info stats vcpu '*' kvm
  Two of them, of a guest started for this:
      vmstrobe info stats --demo vcpu exits,halt_exits kvm";

pub(super) const STAT: &str = "\
EXAMPLES
  Ten seconds of the one virtual machine on this host:
      vmstrobe stat -d 10s
  A line a second for exits and halts, until Ctrl-C:
      vmstrobe stat -i 1000 --names exits,halt_exits
  What does each vCPU do while a benchmark runs?
      vmstrobe stat --per-vcpu -o stat.txt -- ssh guest ./benchmark
  The same for a program, one JSON object a line:
      vmstrobe stat -i 100 --json -p 4711
  Try it without a virtual machine of yours:
      vmstrobe stat --demo -d 5s

Rates say how far off they can be: a counter was read at some time within its sample, and no one
knows when exactly. Times of waits are counted when a wait ends, so that over a short interval
their share may exceed 100 %.";
