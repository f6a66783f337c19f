//! The examples that close every help text.
//!
//! Invariant: each can be typed as it stands, on a host with one virtual machine or with --demo;
//! only process ids, sockets, files and the provider xyz are anyone's own.

pub(super) const TOP: &str = "\
EXAMPLES
  See what it does, without a virtual machine of yours:
      vmstrobe demo
  Which virtual machines and tables of statistics are there, and can they be read?
      vmstrobe list
  By which ways, and why not by others?
      vmstrobe list -v
  What do the vCPUs of process 4711 do in ten seconds?
      vmstrobe stat -p 4711 -d 10s
  What does each of them do while a benchmark runs?
      vmstrobe stat --per-vcpu -- ssh guest ./benchmark
  What do the crypto devices of a QEMU count?
      vmstrobe query --from-qmp /run/web.qmp --target cryptodev
  A QMP socket for each virtual machine, quicker than QEMU's own and for many clients:
      vmstrobe serve --all --qmp-dir /run/vmstrobe

`vmstrobe COMMAND --help` says more about each command.";

pub(super) const DEMO: &str = "\
EXAMPLES
  Watch it until Ctrl-C:
      vmstrobe demo
  Eight vCPUs, ten thousand samples a second, for ten seconds:
      vmstrobe demo --vcpus 8 -r 10k -d 10s
  How late is a tick on this machine, for a script?
      vmstrobe demo -d 5s --json
  What does a tick cost with a call for each vCPU, and with one for all of them?
      vmstrobe demo --vcpus 64 -d 5s --bpf off
      vmstrobe demo --vcpus 64 -d 5s --bpf require
  What it publishes, from another shell:
      vmstrobe list
      vmstrobe query -p $(pgrep -x vmstrobe) --target cryptodev

The duration is 10s if standard output is no terminal; otherwise it has no end.";

pub(super) const LIST: &str = "\
EXAMPLES
  Everything that runs on this host:
      vmstrobe list
  Which ways to read each virtual machine are open, and why are the others not?
      vmstrobe list -v
  The process ids of all virtual machines that can be read, for a script:
      vmstrobe list --json | jq '.[] | select(.kind == \"vm\" and .readable) | .pid'
  Which programs publish statistics of their own?
      vmstrobe list --json | jq '.[] | select(.kind == \"table\") | [.pid, .provider]'";

pub(super) const SCHEMA: &str = "\
EXAMPLES
  What has the one virtual machine on this host?
      vmstrobe schema
  Everything about halts, of a guest started for this:
      vmstrobe schema --demo --names 'halt_*'
  As QEMU would say it:
      vmstrobe schema --json
  As a QEMU says it, with what only it has:
      vmstrobe schema --from-qmp /run/web.qmp --json
  What does vmstrobe count of itself?
      vmstrobe schema --provider vmstrobe";

pub(super) const QUERY: &str = "\
EXAMPLES
  All vCPUs of the one virtual machine on this host:
      vmstrobe query
  Exits and halts, but no histograms:
      vmstrobe query --names 'exits,halt_*,-*_hist'
  vCPU 0 of process 4711, for a program:
      vmstrobe query -p 4711 --vcpu 0 --json
  The virtual machine as a whole, by the BPF reader or what its VMM keeps open:
      vmstrobe query --target vm
  and where neither is to be had, from its QEMU:
      vmstrobe query --from-qmp /run/web.qmp --target vm
  The crypto devices of a QEMU, for a program:
      vmstrobe query --from-qmp /run/web.qmp --target cryptodev --json
  vCPUs called as their QEMU calls them, and read without asking it:
      vmstrobe query -p 4711 --from-qmp /run/web.qmp
  How long did each vCPU run, how long did it wait for a CPU, and which thread is it?
      vmstrobe query -p 4711 --provider sched
  What a program publishes in a table of its own, by its process, its file or its socket:
      vmstrobe query -p 4711 --provider xyz
      vmstrobe query --table /dev/shm/xyz
      vmstrobe query --from-socket /run/xyz.sock

QEMU needs a QMP socket for that: -qmp unix:/run/web.qmp,server=on,wait=off. It serves one client
at a time there.";

pub(super) const INFO: &str = "\
EXAMPLES
  All statistics of all vCPUs:
      vmstrobe info stats vcpu
  Without a line that names the provider:
      vmstrobe info stats vcpu '*' kvm
  Two of them, of a guest started for this:
      vmstrobe info stats --demo vcpu exits,halt_exits kvm
  All that a QEMU has of its crypto devices:
      vmstrobe info stats --from-qmp /run/web.qmp cryptodev";

pub(super) const STAT: &str = "\
EXAMPLES
  Ten seconds of the one virtual machine on this host:
      vmstrobe stat -d 10s
  A line a second for exits and halts, until Ctrl-C:
      vmstrobe stat -i 1000 --names exits,halt_exits
  What does each vCPU do while a benchmark runs?
      vmstrobe stat --per-vcpu -o stat.txt -- ssh guest ./benchmark
  How much of its time does each vCPU wait for a CPU of the host: what its guest sees as steal?
      vmstrobe stat --provider sched --per-vcpu -d 10s
  The same for a program, one JSON object a line:
      vmstrobe stat -i 100 --json -p 4711
  Ten seconds of a program's own statistics, each object by itself:
      vmstrobe stat -p 4711 --provider xyz --per-vcpu -d 10s
  All vCPUs of all virtual machines ten thousand times a second, in one call each time, or not:
      vmstrobe stat --all -r 10k --names exits,halt_exits -d 10s --bpf require
  Nothing loaded into the kernel:
      vmstrobe stat -d 10s --bpf off
  Try it without a virtual machine of yours:
      vmstrobe stat --demo -d 5s

Rates say how far off they can be: a counter was read at some time within its sample, and no one
knows when exactly. Times of waits are counted when a wait ends, so that over a short interval
their share may exceed 100 %.";

pub(super) const SERVE: &str = "\
EXAMPLES
  Try it with a guest that is started for this:
      vmstrobe serve --demo --qmp /tmp/demo.sock
  and ask it from another shell, with QEMU's own qmp-shell,
      qmp-shell -p /tmp/demo.sock
      (QEMU) query-stats target=vcpu
  or by hand, a line each:
      socat - UNIX-CONNECT:/tmp/demo.sock
      {\"execute\": \"qmp_capabilities\"}
      {\"execute\": \"query-stats\", \"arguments\": {\"target\": \"vcpu\"}}
  The one virtual machine on this host:
      vmstrobe serve --qmp /run/web.sock
  With what only its QEMU knows: QOM paths, the VM as a whole, crypto devices:
      vmstrobe serve -p 4711 --from-qmp /run/web.qmp --qmp /run/web.sock
  A socket for each virtual machine, as they come and go, for the users of group kvm:
      mkdir -p /run/vmstrobe
      vmstrobe serve --all --qmp-dir /run/vmstrobe --group kvm
  For two of them, and not only until they end:
      vmstrobe serve -p 4711 -p 4712 --qmp-dir /run/vmstrobe --on-exit wait
  With how long each vCPU waits for a CPU of the host, and when its thread runs:
      vmstrobe serve --sched --qmp /run/web.sock
  For a client that counts on the order in which QEMU lists things:
      vmstrobe serve --qmp /run/web.sock --qemu-order

Whoever may connect sees all statistics, and can change nothing.";
