//! Copies of a VM's descriptors, in the process that made it and in forks of it, are still one VM.

use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::serve_dir::ServeDir;

use crate::{exits, lists, queries, vmm, with_namespaces};

/// The exits that each vCPU makes first: values that would show a sum of copies.
const EXITS: &str = "run 500";

/// The longest time until the VM is served with its own number of vCPUs.
const SERVE_LIMIT: Duration = Duration::from_secs(5);

/// A VMM and the commands that it is given; none of them may change what is read of it.
struct Case {
    what: &'static str,
    kind: &'static str,
    told: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { what: "copies of all", kind: "stats", told: &["dup 400"] },
    Case { what: "a fork", kind: "stats", told: &["fork"] },
    Case {
        what: "three forks and copies",
        kind: "stats",
        told: &["fork", "fork", "dup 20", "fork"],
    },
    Case { what: "a fork without statistics descriptors", kind: "plain", told: &["fork"] },
    Case { what: "copies without statistics descriptors", kind: "plain", told: &["dup 400"] },
];

/// Checks that the VM is listed once, read once and served once after the commands.
///
/// Returns its forks, which outlive it.
fn check(found: &mut Findings, case: &Case) -> Vec<Pid> {
    let mut web = vmm(case.kind, "web", 4);
    web.tell(EXITS);
    let pid = web.pid();
    let argument = pid.to_string();
    // Without statistics descriptors it takes the BPF reader, which this machine may not allow.
    let before = exits(&["-p", &argument]);
    let mut forks = Vec::new();
    for command in case.told {
        let answer = web.tell(command);
        if *command == "fork" {
            let pid = answer.parse().ok().and_then(Pid::from_raw);
            forks.push(pid.expect("the VMM answers with the pid of its fork"));
        }
    }
    lists(found, case.what, &[(pid, 4)]);
    let Ok(before) = before else {
        let is_plain = case.kind == "plain";
        found.must(is_plain, || format!("{}: {before:?}", case.what));
        return forks;
    };
    for args in [&["-p", &*argument][..], &[], &["--all"]] {
        let mut found_here = Findings::default();
        queries(&mut found_here, args, "web", 4);
        match exits(args) {
            // The vCPUs do not run, so the values do not change.
            Ok(after) if found_here.is_empty() && after != before => {
                found.note(case.what, Err::<(), _>(format!("{args:?}: {before:?}, now {after:?}")));
            }
            _ => {}
        }
        found.add(case.what, found_here);
    }
    let serve = ServeDir::all();
    found.note(case.what, serve.serves_within(SERVE_LIMIT, "web", 4));
    let names = serve.names();
    found.must(names == ["web.sock"], || format!("{}: serve has {names:?}", case.what));
    forks
}

#[test]
fn copies_of_a_vms_descriptors_are_one_vm() {
    with_namespaces("shared_host::copies::copies_of_a_vms_descriptors_are_one_vm", || {
        let mut found = Findings::default();
        for case in CASES {
            let forks = check(&mut found, case);
            forks.into_iter().for_each(end);
        }
        found.none();
    });
}

/// Ends a fork, which became a child of this process, the first of its namespace.
fn end(fork: Pid) {
    kill_process(fork, Signal::KILL).expect("the fork has not been reaped");
    waitpid(Some(fork), WaitOptions::empty()).expect("the fork is a child of the first process");
}
