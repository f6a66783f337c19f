//! Values that are asked for now.

use std::sync::Barrier;

use super::*;

fn device_target() -> Target {
    Target::from_name("device")
}

/// Schemas of these targets, with one statistic each.
fn schemas_of(targets: &[&str]) -> String {
    let of = |target: &&str| {
        let stats = "{\"name\": \"x\", \"type\": \"cumulative\"}";
        format!("{{\"provider\": \"crypto\", \"target\": \"{target}\", \"stats\": [{stats}]}}")
    };
    format!("[{}]", targets.iter().map(of).collect::<Vec<_>>().join(", "))
}

impl Fake {
    fn asked(&self, target: &str) -> u64 {
        self.model().asked.get(target).copied().unwrap_or(0)
    }
}

/// A caller with a source of its own: it wants values of one target that are newer than its call.
struct Caller<'a> {
    fake: &'a Fake,
    qmp: &'a Qmp,
    target: &'a str,
    source: Box<dyn Source>,
}

impl<'a> Caller<'a> {
    fn new(fake: &'a Fake, qmp: &'a Qmp, target: &'a str) -> Self {
        let mut objects = qmp.objects().unwrap();
        objects.retain(|object| object.schema.target().name() == target);
        Self { fake, qmp, target, source: open_all(qmp, &objects).remove(0) }
    }

    /// One refresh, and what it shows: it must be from a later query than any that was read before.
    fn refresh(&mut self) {
        let before = self.fake.asked(self.target);
        self.qmp.refresh(&Target::from_name(self.target)).unwrap();
        let (mut states, mut words) = tick(&mut *self.source, 1);
        // The poller was interrupted while it wrote the next.
        while states == [RowState::Torn] {
            (states, words) = tick(&mut *self.source, 1);
        }
        assert_eq!(states, [RowState::Good]);
        assert!(words[0] > before, "answer {} to a call after query {before}", words[0]);
    }
}

#[test]
fn what_is_shown_was_asked_for_after_the_call() {
    const REFRESHES: usize = 1_000;
    let fake = Fake::start();
    fake.set(Manner::Counts);
    fake.model().schemas = schemas_of(&["device", "queue", "idle"]);
    let qmp = fake.connect();
    assert_eq!(qmp.objects().unwrap().len(), 3);
    let (begin, renewals) = (Instant::now(), fake.model().renewals);
    let (idle, device) = (fake.asked("idle"), fake.asked("device"));
    let end = begin + RENEW_PERIOD * 5 / 2;
    thread::scope(|scope| {
        for target in ["device", "queue"].repeat(3) {
            let mut caller = Caller::new(&fake, &qmp, target);
            scope.spawn(move || {
                let mut refreshes = 0;
                while refreshes < REFRESHES || Instant::now() < end {
                    caller.refresh();
                    refreshes += 1;
                    // So that calls come at any time of a query.
                    thread::sleep(Duration::from_micros(refreshes as u64 % 7 * 40));
                }
            });
        }
    });
    let took = begin.elapsed();
    let (idle, device) = (fake.asked("idle") - idle, fake.asked("device") - device);
    let renewals = fake.model().renewals - renewals;
    println!("{device} queries of one target in {took:?}, {idle} rounds, {renewals} renewals");
    assert!(device > REFRESHES as u64);
    // The rounds go on as if nobody called, neither more often nor never.
    let rounds = took.as_millis() / QMP_PERIOD.as_millis();
    assert!(u128::from(idle) <= rounds + 1 && u128::from(idle) >= rounds / 4, "{idle} of {rounds}");
    assert!(renewals >= 1 && renewals as u128 <= rounds / 10 + 1, "{renewals}");
}

#[test]
fn many_callers_at_a_time_share_a_query() {
    const CALLERS: usize = 16;
    let fake = Fake::start();
    let qmp = fake.connect();
    fake.set(Manner::Late(100));
    let (asked, barrier) = (fake.asked("device"), Barrier::new(CALLERS));
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                barrier.wait();
                qmp.refresh(&device_target()).unwrap();
            });
        }
    });
    let asked = fake.asked("device") - asked;
    // One that was under way, one for those who came first, one for the others, and a round's.
    assert!((1..=4).contains(&asked), "{asked} queries for {CALLERS} callers");
}

#[test]
fn a_call_waits_neither_for_a_round_nor_for_a_rest() {
    const QUERY: Duration = Duration::from_millis(40);
    let targets = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"];
    let fake = Fake::start();
    fake.model().schemas = schemas_of(&targets);
    let qmp = fake.connect();
    // A round takes 320 ms, and a rest as long.
    fake.set(Manner::Late(QUERY.as_millis() as u64));
    for (after, when) in [("t1", "in a round"), ("t7", "in a rest")] {
        let asked = fake.asked(after);
        assert!(soon(Duration::from_secs(5), || fake.asked(after) > asked + 1));
        let before = Instant::now();
        qmp.refresh(&Target::from_name("t0")).unwrap();
        let took = before.elapsed();
        // The query under way and its own.
        assert!(took < QUERY * 5, "{when}: {took:?}");
    }
}

#[test]
fn who_does_not_answer_is_busy_within_the_limit() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    qmp.refresh(&device_target()).unwrap();
    fake.set(Manner::Silent);
    for _ in 0..3 {
        let before = Instant::now();
        let error = qmp.refresh(&device_target()).unwrap_err();
        let took = before.elapsed();
        assert!(took >= REPLY_LIMIT && took < REPLY_LIMIT + AT_ONCE, "{took:?}");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("does not answer within 1s"), "{error}");
    }
    assert_eq!(row.state(), RowState::Stale);
    // QEMU is not asked for a target that none of its schemas has.
    let before = Instant::now();
    qmp.refresh(&Target::Vcpu).unwrap();
    assert!(before.elapsed() < AT_ONCE);

    fake.set(Manner::Answers);
    fake.model().stats = device("/objects/a", "8");
    qmp.refresh(&device_target()).unwrap();
    assert_eq!(row.words(), [8]);
    assert_eq!(fake.connections(), 1, "the same connection");
}

#[test]
fn one_who_refuses_is_quoted_and_the_rows_grow_old() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    assert_eq!(row.state(), RowState::Good);
    fake.set(Manner::Refuses);
    // An answer may have been under way.
    let _ = (qmp.refresh(&device_target()), row.state());
    let error = qmp.refresh(&device_target()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("not now"), "{error}");
    assert!(matches!(row.state(), RowState::Aged(_)), "{:?}", row.state());
    fake.set(Manner::Answers);
    qmp.refresh(&device_target()).unwrap();
    assert_eq!(row.state(), RowState::Good);
}

#[test]
fn of_one_who_is_gone_the_rows_say_so_and_it_is_no_error() {
    for manner in [Manner::CutsOff, Manner::WrongId] {
        let fake = Fake::start();
        let qmp = fake.connect();
        let mut row = Row::first(&qmp);
        fake.set(manner);
        // It may still be connected the first time, and is not the second.
        for _ in 0..2 {
            let before = Instant::now();
            qmp.refresh(&device_target()).unwrap();
            assert!(before.elapsed() < AT_ONCE, "{manner:?}");
            assert_eq!(row.state(), RowState::Gone);
            assert!(qmp.objects().unwrap().is_empty());
        }
        fake.set(Manner::Answers);
        assert!(soon(RENEW_PERIOD * 4, || !qmp.objects().unwrap().is_empty()), "{manner:?}");
        let mut back = Row::first(&qmp);
        let _ = back.state();
        qmp.refresh(&device_target()).unwrap();
        assert_eq!(back.state(), RowState::Good);
    }
}

#[test]
fn objects_are_as_new_as_the_values() {
    let fake = Fake::start();
    let qmp = fake.connect();
    for path in ["/objects/b", "/objects/c", "/objects/d"] {
        fake.model().stats = device(path, "1");
        qmp.refresh(&device_target()).unwrap();
        assert_eq!(&*qmp.objects().unwrap()[0].path, path);
    }
}
