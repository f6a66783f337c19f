//! Tests of the texts of faults, and of which one counts. No privilege is needed.

use std::thread;

use vmstrobe_core::Schema;

use super::*;
use crate::tests::{named, objects};

/// A plan of two statistics, of three objects.
fn rig() -> (BpfHealth, Arc<ReadPlan>, Vec<Object>) {
    let counter = |name, at| vmstrobe_core::Desc::counter(name, at);
    let descs = vec![counter("exits", 0), counter("nmi_injections", 8), counter("halts", 16)];
    let schema = Schema::new("kvm", vmstrobe_core::Target::Vcpu, descs);
    (BpfHealth::default(), named(&schema, &["exits", "halts"]), objects(&schema, 3))
}

fn outside(row: usize, column: usize) -> Fault {
    Fault::Outside(Outside { row, column, values: [10, 3, 12] })
}

#[test]
fn nothing_is_said_as_long_as_it_is_believed() {
    let (health, plan, objects) = rig();
    let fault = health.add_source(&plan, &objects);
    assert!(!health.is_given_up() && health.why().is_none() && fault.text().is_none());
}

#[test]
fn each_fault_has_its_text() {
    let refused = |errno| Fault::Unread(Unread::Refused(errno));
    for (fault, text) in [
        (refused(Errno::PERM), format!("the kernel did not run its program: {}", Errno::PERM)),
        (refused(Errno::NOMEM), format!("the kernel did not run its program: {}", Errno::NOMEM)),
        (Fault::Unread(Unread::Incomplete), "its program did not finish".to_owned()),
        (
            outside(2, 1),
            "it read halts of /vm/x/vcpu[2] as 3, while pread read 10 before and 12 \
             after it"
                .to_owned(),
        ),
        // Behind the objects.
        (
            outside(3, 0),
            "it read exits of the guest of the self-test as 3, while pread read 10 before and 12 \
             after it"
                .to_owned(),
        ),
    ] {
        let (health, plan, objects) = rig();
        health.give_up(&health.add_source(&plan, &objects), fault);
        assert!(health.is_given_up());
        assert_eq!(health.why(), Some(text.clone()));
        assert_eq!(health.why(), Some(text), "and it stays so");
    }
}

#[test]
fn the_first_reason_counts() {
    let (health, plan, objects) = rig();
    let fault = health.add_source(&plan, &objects);
    health.give_up_because("somebody says so");
    health.give_up_because("another one, too");
    health.give_up(&fault, outside(0, 0));
    assert_eq!(health.why().as_deref(), Some("somebody says so"));

    // Also if nobody asks in between.
    let (health, ..) = rig();
    health.give_up(&health.add_source(&plan, &objects), outside(1, 0));
    health.give_up_because("somebody says so");
    assert!(health.why().unwrap().starts_with("it read exits of /vm/x/vcpu[1] as"));
}

/// Sources come and go with every roster.
#[test]
fn witnesses_that_had_nothing_to_say_are_forgotten() {
    let (health, plan, objects) = rig();
    let kept = health.add_source(&plan, &objects);
    for _ in 0..100 {
        health.add_source(&plan, &objects);
    }
    // The last one goes when the next one comes.
    assert_eq!(health.state().faults.len(), 2);
    drop(kept);
    let faulty = health.add_source(&plan, &objects);
    health.give_up(&faulty, outside(0, 0));
    drop(faulty);
    health.add_source(&plan, &objects);
    assert_eq!(health.state().faults.len(), 2);
    assert!(health.why().is_some(), "what its source has seen outlives it");
}

/// The tick must not wait for who asks.
#[test]
fn faults_are_noted_while_others_ask() {
    let (health, plan, objects) = rig();
    let faults: Vec<_> = (0..4).map(|_| health.add_source(&plan, &objects)).collect();
    thread::scope(|scope| {
        let asker = scope.spawn(|| {
            loop {
                if let Some(why) = health.why() {
                    break why;
                }
            }
        });
        let held = health.state();
        for (row, fault) in faults.iter().enumerate().take(3) {
            // In this thread, which holds the lock already: a second one would never come.
            health.give_up(fault, outside(row, 0));
        }
        drop(held);
        assert!(
            asker.join().unwrap().ends_with("as 3, while pread read 10 before and 12 after it")
        );
    });
}
