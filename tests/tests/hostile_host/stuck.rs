//! Processes that cannot be examined: one inside `execve`, and one with a file whose server does
//! not answer for its attributes.

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::hostile_host::fuse::{FuseMount, TABLE};
use vmstrobe_tests::hostile_host::server::Unanswered;

use crate::{
    ATTACKER, START_LIMIT, attacker, goes_on_and_ends, list_shows_web, names, serving_web, vm,
    with_fuse,
};

#[test]
fn a_process_inside_execve_stops_no_scan() {
    with_fuse("hostile_host::stuck::a_process_inside_execve_stops_no_scan", || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let mut fuse = FuseMount::mount(&ATTACKER, Unanswered::Flush);
        let stuck = attacker(&["exec", &fuse.file("anything")]);
        let unanswered = fuse.unanswered_within(START_LIMIT).expect("execve closes the FUSE file");
        assert_eq!(unanswered, format!("Flush of {}", stuck.pid()));

        if let Some(list) = list_shows_web(&mut found) {
            let all = format!("{}{}", list.stdout, list.stderr);
            found.must(list.code == Some(0), || format!("list fails: {list:?}"));
            found.must(names(&all, stuck.pid()), || {
                format!("list does not name pid {} as left out: {all}", stuck.pid())
            });
        }
        goes_on_and_ends(&mut found, &mut serve);
        // The file's server ends first: then nothing waits for it any more.
        drop(fuse);
        found.none();
    });
}

#[test]
fn a_file_whose_attributes_nobody_gets_stops_no_scan() {
    with_fuse("hostile_host::stuck::a_file_whose_attributes_nobody_gets_stops_no_scan", || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let mut fuse = FuseMount::mount(&ATTACKER, Unanswered::AttributesOfOthers);
        let _holder = attacker(&["hold", &fuse.file(TABLE), "-name", "evil"]);
        fuse.detach();

        list_shows_web(&mut found);
        goes_on_and_ends(&mut found, &mut serve);
        drop(fuse);
        found.none();
    });
}
