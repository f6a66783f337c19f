//! The examples at the end of each help text.
//!
//! Invariant: each example can be typed as it stands, on a host with one virtual machine or with
//! --demo. Only process ids, sockets, files and the provider xyz differ from host to host.

pub(super) const TOP: &str = "\
EXAMPLES
  See vmstrobe at work; no virtual machine is needed:
      vmstrobe demo
  List the virtual machines and tables on this host, and whether they can be read:
      vmstrobe list
  Show the methods by which each can be read, and why others cannot be used:
      vmstrobe list -v
  Watch all virtual machines live, and go back in time:
      vmstrobe top --all
  Measure the vCPUs of process 4711 for ten seconds:
      vmstrobe stat -p 4711 -d 10s
  Measure each vCPU while a benchmark runs:
      vmstrobe stat --per-vcpu -- ssh guest ./benchmark
  Read the statistics of QEMU's crypto devices:
      vmstrobe query --from-qmp /run/web.qmp --target cryptodev
  Serve a QMP socket for each virtual machine, for many clients:
      vmstrobe serve --all --qmp-dir /run/vmstrobe

`vmstrobe COMMAND --help` explains each command.";

pub(super) const DEMO: &str = "\
EXAMPLES
  Watch the demo until Ctrl-C:
      vmstrobe demo
  Sample eight vCPUs ten thousand times a second, for ten seconds:
      vmstrobe demo --vcpus 8 -r 10k -d 10s
  Measure how late ticks are on this machine, for a script:
      vmstrobe demo -d 5s --json
  Compare the cost of a tick with one call per vCPU and with one call for all vCPUs:
      vmstrobe demo --vcpus 64 -d 5s --bpf off
      vmstrobe demo --vcpus 64 -d 5s --bpf require
  Read the table that the demo publishes, from another shell:
      vmstrobe list
      vmstrobe query -p $(pgrep -x vmstrobe) --target cryptodev

On a terminal the demo runs until Ctrl-C; otherwise it runs for 10 s.";

pub(super) const LIST: &str = "\
EXAMPLES
  List all virtual machines and tables on this host:
      vmstrobe list
  Show the methods by which each can be read, and why others cannot be used:
      vmstrobe list -v
  Print the process ids of all virtual machines that can be read, for a script:
      vmstrobe list --json | jq '.[] | select(.kind == \"vm\" and .readable) | .pid'
  Print the programs that publish statistics of their own:
      vmstrobe list --json | jq '.[] | select(.kind == \"table\") | [.pid, .provider]'";

pub(super) const SCHEMA: &str = "\
EXAMPLES
  Show the statistics of the only virtual machine on this host:
      vmstrobe schema
  Show all statistics about halts of a guest that is started for this:
      vmstrobe schema --demo --names 'halt_*'
  Print the reply of QEMU's query-stats-schemas:
      vmstrobe schema --json
  Include statistics that only QEMU has, such as those of crypto devices:
      vmstrobe schema --from-qmp /run/web.qmp --json
  Show the statistics that a recording has:
      vmstrobe schema --replay run.arrows
  Show vmstrobe's statistics of itself:
      vmstrobe schema --provider vmstrobe";

pub(super) const QUERY: &str = "\
EXAMPLES
  Read all vCPUs of the only virtual machine on this host:
      vmstrobe query
  Read exits and halts, but no histograms:
      vmstrobe query --names 'exits,halt_*,-*_hist'
  Read vCPU 0 of process 4711, for a program:
      vmstrobe query -p 4711 --vcpu 0 --json
  Read the statistics of the virtual machine as a whole:
      vmstrobe query --target vm
  Read those from QEMU, if neither the BPF reader nor a stats fd is available:
      vmstrobe query --from-qmp /run/web.qmp --target vm
  Read the crypto devices of a QEMU, for a program:
      vmstrobe query --from-qmp /run/web.qmp --target cryptodev --json
  Read vCPUs from the kernel, under QEMU's names:
      vmstrobe query -p 4711 --from-qmp /run/web.qmp
  Show how long each vCPU ran and waited for a host CPU, and its thread id:
      vmstrobe query -p 4711 --provider sched
  Read the table of a program, by its process, its file or its socket:
      vmstrobe query -p 4711 --provider xyz
      vmstrobe query --table /dev/shm/xyz
      vmstrobe query --from-socket /run/xyz.sock
  Read the last sample of a recording, or the one 1.5 s after its begin:
      vmstrobe query --replay run.arrows
      vmstrobe query --replay run.arrows --at 1.5s

--from-qmp needs a QMP socket of QEMU: start it with -qmp unix:/run/web.qmp,server=on,wait=off.
Such a socket serves one client at a time, so give vmstrobe one of its own.";

pub(super) const INFO: &str = "\
EXAMPLES
  Print all statistics of all vCPUs:
      vmstrobe info stats vcpu
  Print the same without the line that names the provider:
      vmstrobe info stats vcpu '*' kvm
  Print two statistics of a guest that is started for this:
      vmstrobe info stats --demo vcpu exits,halt_exits kvm
  Print those of a recording, 20 ms after its begin:
      vmstrobe info stats --replay run.arrows --at 20ms vcpu
  Print the statistics of QEMU's crypto devices:
      vmstrobe info stats --from-qmp /run/web.qmp cryptodev";

pub(super) const STAT: &str = "\
EXAMPLES
  Measure the only virtual machine on this host for ten seconds:
      vmstrobe stat -d 10s
  Print exits and halts every second, until Ctrl-C:
      vmstrobe stat -i 1000 --names exits,halt_exits
  Measure each vCPU while a benchmark runs:
      vmstrobe stat --per-vcpu -o stat.txt -- ssh guest ./benchmark
  Measure steal: how long each vCPU waits for a host CPU:
      vmstrobe stat --provider sched --per-vcpu -d 10s
  Print ten JSON objects per second, for a program:
      vmstrobe stat -i 100 --json -p 4711
  Measure the statistics that a program publishes, each object separately:
      vmstrobe stat -p 4711 --provider xyz --per-vcpu -d 10s
  Sample all vCPUs of all virtual machines at 10 kHz, with one call per sample, or fail:
      vmstrobe stat --all -r 10k --names exits,halt_exits -d 10s --bpf require
  Load nothing into the kernel:
      vmstrobe stat -d 10s --bpf off
  Measure a recording, each 100 ms of it, or five seconds from its begin:
      vmstrobe stat --replay run.arrows -i 100
      vmstrobe stat --replay run.arrows -d 5s --per-vcpu
  Try stat on a guest that is started for this:
      vmstrobe stat --demo -d 5s

Rates are printed with their error bounds: a counter is read at an unknown time within the window
of its sample. Waiting times are counted when a wait ends, so over a short interval their share can
exceed 100 %.";

#[cfg(feature = "top")]
pub(super) const WATCH: &str = "\
EXAMPLES
  Watch the only virtual machine on this host:
      vmstrobe top
  Watch all virtual machines on this host:
      vmstrobe top --all
  Keep the last five minutes to go back to:
      vmstrobe top -p 4711 --last 5m
  Play a recording, forwards and back; ten times as fast:
      vmstrobe top --replay run.arrows --speed 10
  Print five tables as text, one each second:
      vmstrobe top -b -n 5
  Try it on a guest that is started for this, without colours, in ASCII:
      NO_COLOR=1 vmstrobe top --demo --ascii

In the screen, ? shows all keys.";

pub(super) const RECORD: &str = "\
EXAMPLES
  Record the only virtual machine on this host, all its statistics, for ten seconds:
      vmstrobe record -o run.arrows -d 10s
  Record every virtual machine of this host, also those that start later, until Ctrl-C:
      vmstrobe record --all -o host.arrows
  Record vCPUs and the virtual machine as a whole, but no devices:
      vmstrobe record -o run.arrows --target vcpu --target vm -d 10s
  Record exits and halts at 10 kHz while a benchmark runs:
      vmstrobe record -o run.arrows -r 10k --names 'exits,halt_*' -- ssh guest ./benchmark
  Write one file an hour, and keep the last 20 GiB:
      vmstrobe record -o run.arrows --split 1h --keep 20GiB
  Write ten samples a second for a spreadsheet:
      vmstrobe record -o run.csv --every 100ms -d 60s
  Keep the last 30 seconds, and write them when you ask for it (or kill -USR2 $!):
      vmstrobe record --last 30s -o '/var/tmp/{vm}-{time}.arrows' &
      vmstrobe dump
  Write them 5 s after a vCPU exited more than 50,000 times a second for 5 ms:
      vmstrobe record --last 30s --when 'exits.rate > 50k' --for 5ms --after 5s
  Find out how often a condition would have been true in a recording (--json for a program):
      vmstrobe record --dry-run run.arrows --when 'exits.rate > 50k' --for 5ms --hold-off 1s
  Try it on a guest that is started for this:
      vmstrobe record --demo -o demo.arrows -d 5s

In Python: pyarrow.ipc.open_stream('run.arrows').read_pandas()";

pub(super) const REPORT: &str = "\
EXAMPLES
  Summarise a recording:
      vmstrobe record --demo -o run.arrows -d 10s
      vmstrobe report run.arrows
  Show what a change of the guest did:
      vmstrobe record -o before.arrows -d 60s
      vmstrobe record -o after.arrows -d 60s
      vmstrobe report before.arrows after.arrows
  Summarise a few statistics of one vCPU:
      vmstrobe report run.arrows --names 'exits,halt_*' --vcpu 0
  Sample the only virtual machine on this host for ten seconds, and summarise that:
      vmstrobe report -d 10s
  Summarise what happens while a benchmark runs, for an issue or a wiki:
      vmstrobe report --markdown -o report.md -- ssh guest ./benchmark
  Print the highest rates of exits over 10 ms, for a script:
      vmstrobe report run.arrows --names exits --json | jq '.reports[].stats[].bins[0].max'
  Try it on a guest that is started for this:
      vmstrobe report --demo -d 5s

A rate over 10 ms is a growth in that time, divided by it; the mean is over the whole time.";

pub(super) const DUMP: &str = "\
EXAMPLES
  Have the only recorder of this user write what it holds:
      vmstrobe record --demo --last 30s &
      vmstrobe dump
  Write the last 10 seconds to a file:
      vmstrobe dump --last 10s -o incident.arrows
  Ask one of several recorders, by its process id:
      vmstrobe dump -p 4711
  Ask a recorder that listens elsewhere:
      vmstrobe record --demo --last 30s --control /tmp/control.sock &
      vmstrobe dump --control /tmp/control.sock";

pub(super) const MARK: &str = "\
EXAMPLES
  Note in all recordings of this user that a benchmark begins:
      vmstrobe mark 'benchmark begins'
  Note it in one of them, by its process id:
      vmstrobe mark -p 4711 'benchmark begins'";

pub(super) const CONVERT: &str = "\
EXAMPLES
  Write Parquet, for DuckDB, pandas and many others:
      vmstrobe convert run.arrows run.parquet
  Write a trace for ui.perfetto.dev:
      vmstrobe convert run.arrows run.pftrace
  Write ten samples a second of two statistics, for a spreadsheet:
      vmstrobe convert run.arrows run.csv --every 100ms --names exits,halt_exits
  Repair a recording whose end is torn, so that every reader takes it:
      vmstrobe convert torn.arrows good.arrows";

pub(super) const SERVE: &str = "\
EXAMPLES
  Try serve on a guest that is started for this:
      vmstrobe serve --demo --qmp /tmp/demo.sock
  Query that guest from another shell with QEMU's qmp-shell,
      qmp-shell -p /tmp/demo.sock
      (QEMU) query-stats target=vcpu
  or by hand, one request per line:
      socat - UNIX-CONNECT:/tmp/demo.sock
      {\"execute\": \"qmp_capabilities\"}
      {\"execute\": \"query-stats\", \"arguments\": {\"target\": \"vcpu\"}}
  Serve the only virtual machine on this host:
      vmstrobe serve --qmp /run/web.sock
  Include data that only QEMU has: QOM paths, the VM as a whole, crypto devices:
      vmstrobe serve -p 4711 --from-qmp /run/web.qmp --qmp /run/web.sock
  Serve a socket for each virtual machine while it runs, for the users of group kvm:
      mkdir -p /run/vmstrobe
      vmstrobe serve --all --qmp-dir /run/vmstrobe --group kvm
  Serve two virtual machines, and continue after they have ended:
      vmstrobe serve -p 4711 -p 4712 --qmp-dir /run/vmstrobe --on-exit wait
  Include how long each vCPU's thread ran, and how long it waited for a host CPU:
      vmstrobe serve --sched --qmp /run/web.sock
  Serve a recording as if it happened now, and its last values for ever after:
      vmstrobe serve --replay run.arrows --qmp /tmp/run.sock --on-exit wait
  Answer in QEMU's own order, for a client that depends on it:
      vmstrobe serve --qmp /run/web.sock --qemu-order

A client that may connect can read all statistics and can change nothing.";
