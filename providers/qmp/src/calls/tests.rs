//! Callers in threads, and a poller of ours that answers when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmstrobe_testing::soon;

use super::*;

/// Longer than anything takes here that does not wait for it.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn calls() -> Arc<Calls> {
    let calls = Calls::new().unwrap();
    calls.set_open(true);
    Arc::new(calls)
}

/// A call in a thread of its own, once it waits.
fn caller(calls: &Arc<Calls>, target: Target) -> thread::JoinHandle<Asked<()>> {
    let (theirs, before) = (Arc::clone(calls), calls.last());
    let caller = thread::spawn(move || theirs.call(&target, LONG));
    assert!(soon(LONG, || calls.last() > before));
    caller
}

#[test]
fn an_answer_is_to_calls_made_before_the_question() {
    let calls = calls();
    let first = [Target::Vm, Target::Vm, Target::Vcpu].map(|target| caller(&calls, target));
    assert_eq!(calls.wanted(), [Target::Vm, Target::Vcpu]);
    // QEMU is asked, and meanwhile another calls.
    let last = calls.last();
    let late = caller(&calls, Target::Vm);
    assert!(calls.is_waited_for(&Target::Vm, last));
    calls.answer(&Target::Vm, last, &Ok(()));
    assert!(!calls.is_waited_for(&Target::Vm, last));
    assert_eq!(calls.wanted(), [Target::Vcpu, Target::Vm]);
    let [one, other, vcpu] = first;
    assert!(one.join().unwrap().is_ok() && other.join().unwrap().is_ok());
    thread::sleep(SHORT);
    assert!(!late.is_finished() && !vcpu.is_finished());
    for target in [Target::Vm, Target::Vcpu] {
        calls.answer(&target, calls.last(), &Ok(()));
    }
    assert!(late.join().unwrap().is_ok() && vcpu.join().unwrap().is_ok());
    assert!(calls.state().calls.is_empty() && !calls.is_any_waiting());
}

#[test]
fn a_refusal_is_told_to_all_who_called() {
    let calls = calls();
    let callers = [Target::Vcpu, Target::Vcpu].map(|target| caller(&calls, target));
    let refusal = Refusal { class: "GenericError".to_owned(), desc: "not now".to_owned() };
    calls.answer(&Target::Vcpu, calls.last(), &Err(refusal.clone()));
    for caller in callers {
        let answer = caller.join().unwrap();
        assert!(matches!(&answer, Err(Fault::Refused(told)) if *told == refusal), "{answer:?}");
    }
}

#[test]
fn a_call_ends_at_its_limit_and_is_forgotten() {
    let calls = calls();
    let before = Instant::now();
    assert!(matches!(calls.call(&Target::Vm, SHORT), Err(Fault::Late)));
    let took = before.elapsed();
    assert!(took >= SHORT && took < LONG, "{took:?}");
    assert!(calls.state().calls.is_empty() && calls.wanted().is_empty());
    // An answer that comes now is nobody's.
    calls.answer(&Target::Vm, calls.last(), &Ok(()));
    assert!(matches!(calls.call(&Target::Vm, SHORT), Err(Fault::Late)));
}

#[test]
fn nobody_waits_for_one_who_is_not_there() {
    let calls = calls();
    let callers = [Target::Vm, Target::Vcpu].map(|target| caller(&calls, target));
    calls.set_open(false);
    assert!(callers.into_iter().all(|caller| caller.join().unwrap().is_ok()));
    assert!(calls.call(&Target::Vm, LONG).is_ok());
    assert_eq!(calls.last(), 2, "that was no call");
    calls.set_open(true);
    assert!(matches!(calls.call(&Target::Vm, SHORT), Err(Fault::Late)));
}

#[test]
fn the_bell_is_rung_by_each_call_and_taken_once() {
    let calls = calls();
    assert!(!calls.is_rung());
    let callers = [Target::Vm, Target::Vm].map(|target| caller(&calls, target));
    assert!(calls.is_rung());
    assert!(!calls.is_rung());
    calls.set_open(false);
    assert!(callers.into_iter().all(|caller| caller.join().unwrap().is_ok()));
}

/// A target, how often it was asked for, and what is shown of it: the number of the question that
/// was answered last.
#[derive(Debug)]
struct Counted {
    target: Target,
    asked: AtomicU64,
    shown: AtomicU64,
}

/// A poller of ours that waits for the bell alone, until it is over.
fn answer_by_the_bell(calls: &Calls, counted: &[Counted], is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        let mut fds = [PollFd::from_borrowed_fd(calls.bell(), PollFlags::IN)];
        let limit = Timespec { tv_sec: LONG.as_secs() as i64 * 2, tv_nsec: 0 };
        poll(&mut fds, Some(&limit)).unwrap();
        calls.is_rung();
        while calls.is_any_waiting() {
            for target in calls.wanted() {
                let of_target = counted.iter().find(|counted| counted.target == target).unwrap();
                let last = calls.last();
                let question = of_target.asked.fetch_add(1, Ordering::SeqCst) + 1;
                // Here others call.
                thread::yield_now();
                of_target.shown.store(question, Ordering::SeqCst);
                calls.answer(&target, last, &Ok(()));
            }
        }
    }
}

#[test]
fn of_thousands_of_calls_none_is_lost_and_none_is_answered_too_early() {
    const CALLERS: usize = 4;
    const CALLS_EACH: u64 = 3_000;
    let calls = calls();
    let counted = [Target::Vm, Target::Vcpu].map(|target| Counted {
        target,
        asked: AtomicU64::new(0),
        shown: AtomicU64::new(0),
    });
    let is_over = AtomicBool::new(false);
    let call = |of_target: &Counted| {
        let before = of_target.asked.load(Ordering::SeqCst);
        let is_answered = calls.call(&of_target.target, LONG).is_ok();
        is_answered && of_target.shown.load(Ordering::SeqCst) > before
    };
    let are_well = thread::scope(|scope| {
        let poller = scope.spawn(|| answer_by_the_bell(&calls, &counted, &is_over));
        let caller = |at: usize| {
            let of_target = &counted[at % counted.len()];
            scope.spawn(move || (0..CALLS_EACH).all(|_| call(of_target)))
        };
        let callers: Vec<_> = (0..CALLERS).map(caller).collect();
        let are_well: Vec<bool> = callers.into_iter().map(|c| c.join().unwrap()).collect();
        is_over.store(true, Ordering::SeqCst);
        calls.ring();
        poller.join().unwrap();
        are_well
    });
    assert_eq!(are_well, [true; CALLERS]);
    assert_eq!(calls.last(), CALLERS as u64 * CALLS_EACH);
    let asked: u64 = counted.iter().map(|counted| counted.asked.load(Ordering::SeqCst)).sum();
    assert!(asked <= calls.last(), "{asked} questions to {} calls", calls.last());
}
