//! Files that are not what they seem: a table by their name, statistics by their number. A process
//! that closes a copy of such a file waits for the file's server.

use std::fs;
use std::time::{Duration, Instant};

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::run;
use vmstrobe_tests::hostile_host::fuse::{FuseMount, TABLE};
use vmstrobe_tests::hostile_host::server::Unanswered;

use crate::{
    ATTACKER, READ_LIMIT, attacker, goes_on_and_ends, list_shows_web, serving_web, vm, with_fuse,
};

/// The number of queries of the VM with the flipped numbers.
const TRIES: usize = 30;
/// The time for which a server runs beside it.
const TRY_TIME: Duration = Duration::from_secs(10);

#[test]
fn a_file_with_the_name_of_a_table_delays_no_look() {
    with_fuse("hostile_host::forged::a_file_with_the_name_of_a_table_delays_no_look", || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let mut fuse = FuseMount::mount(&ATTACKER, Unanswered::FlushOfOthers);
        let holder = attacker(&["hold", &fuse.file(TABLE), "-name", "evil"]);
        fuse.detach();
        let pid = holder.pid().to_string();
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("the attacker runs").flatten();
        let links = links.flat_map(|entry| fs::read_link(entry.path()));
        let forged = format!("/{TABLE}");
        assert!(links.into_iter().any(|link| link.to_string_lossy() == forged), "{forged}");

        // The answer does not matter.
        found.note("query -p", run::vmstrobe(READ_LIMIT, &["query", "-p", &pid]));
        list_shows_web(&mut found);
        goes_on_and_ends(&mut found, &mut serve);
        drop(fuse);
        found.none();
    });
}

#[test]
fn a_file_sent_as_a_table_delays_no_look() {
    with_fuse("hostile_host::forged::a_file_sent_as_a_table_delays_no_look", || {
        let mut found = Findings::default();
        let fuse = FuseMount::mount(&ATTACKER, Unanswered::FlushOfOthers);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = directory.path().join("lender").into_os_string().into_string();
        let socket = socket.expect("the path is text");
        let _lender = attacker(&["lend", &fuse.file("anything"), &socket]);
        for attempt in ["first", "second"] {
            let query = run::vmstrobe(READ_LIMIT, &["query", "--from-socket", &socket]);
            let Some(query) = found.note(&format!("the {attempt} query"), query) else { break };
            let is_refused =
                query.code == Some(1) && query.stderr.contains("something else as 'table 1.1'");
            found.must(is_refused, || format!("the {attempt} query: {query:?}"));
        }
        drop(fuse);
        found.none();
    });
}

#[test]
fn a_descriptor_number_that_is_reused_delays_no_look() {
    with_fuse("hostile_host::forged::a_descriptor_number_that_is_reused_delays_no_look", || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let fuse = FuseMount::mount(&ATTACKER, Unanswered::FlushOfOthers);
        let flipper = attacker(&["flip", &fuse.file("anything"), "-name", "evil"]);
        let pid = flipper.pid().to_string();
        let begin = Instant::now();
        for attempt in 1..=TRIES {
            // The answer does not matter.
            let query = run::vmstrobe(READ_LIMIT, &["query", "-p", &pid]);
            if found.note(&format!("attempt {attempt} of query -p"), query).is_none() {
                break;
            }
        }
        std::thread::sleep(TRY_TIME.saturating_sub(begin.elapsed()));
        goes_on_and_ends(&mut found, &mut serve);
        drop(fuse);
        found.none();
    });
}
