//! Very many descriptors: of one VM, which is served all the same, and of many processes, which are
//! all examined.

use std::thread::sleep;
use std::time::Duration;

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::helper::Helper;
use vmstrobe_tests::host::serve_dir::ServeDir;

use crate::{
    END_LIMIT, START_LIMIT, VMM, attacker, goes_on_and_ends, is_served, list_shows_web,
    serving_web, vm, with_namespaces, with_the_machine,
};

/// The command that copies each of three descriptors of a VM 1500 times.
const COPIES: &str = "dup 1500";
/// The number of descriptors that the server may have: the soft limit of most systems.
const SERVER_DESCRIPTORS: u64 = 1024;
/// The number of these that must stay free for clients and new VMs.
const RESERVE: usize = 64;
/// The time in which the server has looked at the copies: it looks once a second.
const LOOKS: Duration = Duration::from_secs(3);

/// The number of processes with descriptors of no interest.
const PROCESSES: usize = 100;
/// The longest time until a VM that starts beside these processes is served.
const SCAN_LIMIT: Duration = Duration::from_secs(20);
/// The number of descriptors of each.
const DESCRIPTORS: usize = 19_900;

/// Starts a VM of the other user, which will copy its descriptors.
fn flooder() -> Helper {
    Helper::start(&VMM, &["stats", "1", "-name", "flood", "--nobody"])
}

/// Checks that all VMs are served, and that the server has descriptors left for more.
fn others_are_served(mut found: Findings, mut serve: ServeDir) {
    is_served(&mut found, &serve, "web", 4);
    is_served(&mut found, &serve, "flood", 1);
    if let Some(open) = found.note("serve", serve.descriptors()) {
        let most = SERVER_DESCRIPTORS as usize - RESERVE;
        found.must(open <= most, || format!("serve has {open} descriptors open"));
    }
    goes_on_and_ends(&mut found, &mut serve);
    found.none();
}

#[test]
fn a_vm_that_copies_its_descriptors_when_it_is_served_takes_none_of_others() {
    let name = "hostile_host::floods::\
                a_vm_that_copies_its_descriptors_when_it_is_served_takes_none_of_others";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let (_web, mut flood) = (vm("web", 4), flooder());
        let serve = ServeDir::all_with_descriptors(SERVER_DESCRIPTORS);
        found.note("serve", serve.serves_within(START_LIMIT, "web", 4));
        found.note("serve", serve.serves_within(START_LIMIT, "flood", 1));
        flood.tell(COPIES);
        sleep(LOOKS);
        others_are_served(found, serve);
    });
}

#[test]
fn a_vm_that_has_copies_of_its_descriptors_takes_none_of_others() {
    let name = "hostile_host::floods::a_vm_that_has_copies_of_its_descriptors_takes_none_of_others";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let (_web, mut flood) = (vm("web", 4), flooder());
        flood.tell(COPIES);
        let serve = ServeDir::all_with_descriptors(SERVER_DESCRIPTORS);
        found.note("serve", serve.serves_within(START_LIMIT, "web", 4));
        others_are_served(found, serve);
    });
}

#[test]
fn processes_with_many_descriptors_are_looked_at_within_bounds() {
    let name = "hostile_host::floods::processes_with_many_descriptors_are_looked_at_within_bounds";
    with_the_machine(name, || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let (processes, descriptors) = (PROCESSES.to_string(), DESCRIPTORS.to_string());
        let crowd = attacker(&["many", &processes, "descriptors", &descriptors]);
        if let Some(list) = list_shows_web(&mut found) {
            found.must(list.code == Some(0), || format!("list fails: {list:?}"));
            // No look examines all of them within this time.
            let named = list.stderr.contains("pid") || list.stderr.contains("process");
            found.must(named, || format!("list does not say what it left out: {list:?}"));
        }
        // SIGTERM comes in the middle of its first look, and after it.
        for pause in [Duration::from_millis(300), Duration::from_millis(1500)] {
            let mut serve = ServeDir::all();
            sleep(pause);
            let what = format!("serve, {pause:?} after its start");
            found.note(&what, serve.terminate_within(END_LIMIT));
        }
        drop(crowd);
        found.none();
    });
}

#[test]
fn a_scan_of_many_descriptors_serves_what_comes() {
    with_the_machine("hostile_host::floods::a_scan_of_many_descriptors_serves_what_comes", || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let (processes, descriptors) = (PROCESSES.to_string(), DESCRIPTORS.to_string());
        let _crowd = attacker(&["many", &processes, "descriptors", &descriptors]);
        sleep(LOOKS);
        is_served(&mut found, &serve, "web", 4);
        let _late = vm("late", 2);
        found.note("serve", serve.serves_within(SCAN_LIMIT, "late", 2));
        found.note("serve", serve.terminate_within(END_LIMIT));
        found.none();
    });
}
