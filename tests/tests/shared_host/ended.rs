//! VMs that have ended, and the processes that still hold descriptors of theirs.

use std::time::Duration;

use vmstrobe_tests::host::findings::{Findings, is_so_within};
use vmstrobe_tests::host::run::vmstrobe;
use vmstrobe_tests::host::serve_dir::ServeDir;

use crate::{READ_LIMIT, START_LIMIT, lists, queries, vmm, with_namespaces};

/// The longest time until the end of a VM is noticed.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// Checks that `query` and `list` find no VM.
fn none_is_found(found: &mut Findings, what: &str) {
    if let Some(output) = found.note(what, vmstrobe(READ_LIMIT, &["query", "--names", "exits"])) {
        let right = output.code == Some(1) && output.stdout.is_empty();
        found.must(right, || format!("{what}: query finds a VM: {output:?}"));
    }
    lists(found, what, &[]);
}

#[test]
fn a_server_that_outlives_its_vm_is_not_taken_for_it() {
    with_namespaces(
        "shared_host::ended::a_server_that_outlives_its_vm_is_not_taken_for_it",
        || {
            let mut found = Findings::default();
            let web = vmm("stats", "web", 4);
            let serve = ServeDir::with(&["-p", &web.pid().to_string(), "--on-exit", "wait"]);
            assert_eq!(serve.serves_within(START_LIMIT, "web", 4), Ok(()));
            web.kill();
            none_is_found(&mut found, "a server without its VM");
            found.none();
        },
    );
}

#[test]
fn a_process_with_the_descriptors_of_a_vm_that_has_ended_is_not_taken_for_it() {
    let name = "shared_host::ended::\
                a_process_with_the_descriptors_of_a_vm_that_has_ended_is_not_taken_for_it";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let mut web = vmm("stats", "web", 4);
        let fork = web.tell("fork");
        let serve = ServeDir::all();
        assert_eq!(serve.serves_within(START_LIMIT, "web", 4), Ok(()));
        lists(&mut found, "a VM and a fork of its maker", &[(web.pid(), 4)]);
        queries(&mut found, &[], "web", 4);
        web.kill();
        let gone = || !serve.names().contains(&"web.sock".to_owned());
        found.must(is_so_within(NOTICE_LIMIT, gone), || {
            format!("serve has {:?} after the end of the maker", serve.names())
        });
        let what = format!("a fork (pid {fork}) without its maker");
        none_is_found(&mut found, &what);
        let names = serve.names();
        found.must(names.is_empty(), || format!("{what}: serve has {names:?}"));
        found.none();
    });
}
