//! The only VM of a host is found by itself, however many vmstrobes look at it.

use std::thread::sleep;
use std::time::Duration;

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::run::{Run, vmstrobe};
use vmstrobe_tests::host::serve_dir::ServeDir;

use crate::{READ_LIMIT, START_LIMIT, exits, lists, vcpu_paths, vmm, with_namespaces};

/// The number of queries, each of which must find the VM.
const QUERIES: usize = 20;
/// The time in which a server has looked for VMs: it looks once a second.
const LOOKS: Duration = Duration::from_secs(2);

#[test]
fn the_only_vm_is_found_beside_vmstrobes() {
    with_namespaces("shared_host::only::the_only_vm_is_found_beside_vmstrobes", || {
        let mut found = Findings::default();
        let web = vmm("stats", "web", 4);
        let pid = web.pid().to_string();
        let serve = ServeDir::all();
        found.note("serve", serve.serves_within(START_LIMIT, "web", 4));
        let _stat = Run::start(&["stat", "-p", &pid, "-d", "60s"]);
        let _one = ServeDir::with(&["-p", &pid]);

        let want = vcpu_paths("web", 4);
        let mut wrong = Vec::new();
        for _ in 0..QUERIES {
            // Two at a time: each is a vmstrobe beside the other.
            let other = Run::start(&["query", "--names", "exits", "--json"]);
            match exits(&[]) {
                Ok(seen) if seen.iter().map(|(path, _)| path).eq(&want) => {}
                Ok(seen) => wrong.push(format!("{} objects", seen.len())),
                Err(why) => wrong.push(why),
            }
            found.note("the other query", other.output_within(READ_LIMIT));
        }
        found.must(wrong.is_empty(), || {
            format!("{} of {QUERIES} queries do not find it: {}", wrong.len(), wrong[0])
        });
        lists(&mut found, "one VM, three vmstrobes", &[(web.pid(), 4)]);
        let names = serve.names();
        found.must(names == ["web.sock"], || format!("serve --all has {names:?}"));
        found.none();
    });
}

#[test]
fn without_a_vm_no_vmstrobe_is_taken_for_one() {
    with_namespaces("shared_host::only::without_a_vm_no_vmstrobe_is_taken_for_one", || {
        let mut found = Findings::default();
        let mut serve = ServeDir::with(&["--all", "--on-exit", "end"]);
        let ended = serve.ends_within(READ_LIMIT);
        if let Some(status) = found.note("serve --on-exit end", ended) {
            found.must(status.code() == Some(1), || format!("it ends with {status}"));
        }
        drop(serve);
        let waits = ServeDir::all();
        sleep(LOOKS);
        let output = vmstrobe(READ_LIMIT, &["query"]);
        if let Some(output) = found.note("query", output) {
            found.must(output.code == Some(1), || format!("query finds a VM: {output:?}"));
        }
        lists(&mut found, "no VM, one vmstrobe", &[]);
        let names = waits.names();
        found.must(names.is_empty(), || format!("serve --all has {names:?}"));
        found.none();
    });
}
