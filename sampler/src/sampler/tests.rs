//! Tests of the sampler on a provider whose values tell the reading: the snapshots that readers
//! receive or lose, changes of the objects, and the thread on which replaced things are dropped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::*;
use crate::{HealthWriter, Roster, Subscriber};
use vmstrobe_core::{
    Desc, Filter, Object, Provider, ReadPlan, Registry, RowState, Rows, Schema, Source, Target,
};

/// A provider with a settable number of objects, each value the number of readings so far.
#[derive(Debug)]
struct Numbers {
    schema: Arc<Schema>,
    objects: AtomicUsize,
    reads: Arc<AtomicU64>,
    dropped_on: Arc<Mutex<Vec<ThreadId>>>,
    fails: std::sync::atomic::AtomicBool,
    warnings: Mutex<Vec<Error>>,
    /// The warning that opening an object causes.
    open_warning: Option<&'static str>,
}

struct NumbersSource {
    rows: usize,
    reads: Arc<AtomicU64>,
    dropped_on: Arc<Mutex<Vec<ThreadId>>>,
}

impl Numbers {
    fn new(objects: usize) -> Arc<Self> {
        Arc::new(Self::of(objects, None))
    }

    fn of(objects: usize, open_warning: Option<&'static str>) -> Self {
        Self {
            schema: Schema::new("numbers", Target::Vcpu, vec![Desc::counter("reads", 0)]),
            objects: AtomicUsize::new(objects),
            reads: Arc::default(),
            dropped_on: Arc::default(),
            fails: false.into(),
            warnings: Mutex::default(),
            open_warning,
        }
    }

    fn warn(&self, text: &str) {
        let warning = Error::new(ErrorKind::Unsupported, text);
        self.warnings.lock().expect("no test panics with the lock").push(warning);
    }

    fn dropped_on(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.dropped_on.lock().expect("no test panics with the lock")
    }

    fn registry(self: &Arc<Self>) -> Registry {
        let registry = Registry::default();
        registry.add(Arc::clone(self) as Arc<dyn Provider>);
        registry
    }

    fn filters(&self) -> Vec<Filter> {
        vec![Filter::all(Target::Vcpu)]
    }

    fn roster(self: &Arc<Self>) -> Roster {
        Roster::new(self.registry(), self.filters())
    }

    fn sampler(self: &Arc<Self>) -> (Roster, Sampler, Control) {
        let mut roster = self.roster();
        let sources = roster.open().expect("the provider opens every object");
        let (sampler, control) = Sampler::new(sources, HealthWriter::default(), Fanout::Inline)
            .expect("no thread is started");
        (roster, sampler, control)
    }
}

impl Provider for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.schema)])
    }

    fn objects(&self) -> Result<Vec<Object>> {
        if self.fails.load(SeqCst) {
            return Err(Error::new(ErrorKind::Io, "told to fail"));
        }
        let object = |key| Object {
            path: format!("/n[{key}]").into(),
            index: Some(key as u32),
            schema: Arc::clone(&self.schema),
            key,
        };
        Ok((0..self.objects.load(SeqCst) as u64).map(object).collect())
    }

    fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        self.open_warning.into_iter().for_each(|text| self.warn(text));
        let (reads, dropped_on) = (Arc::clone(&self.reads), Arc::clone(&self.dropped_on));
        Ok(vec![Box::new(NumbersSource { rows: objects.len(), reads, dropped_on })])
    }

    fn warnings(&self) -> Vec<Error> {
        std::mem::take(&mut self.warnings.lock().expect("no test panics with the lock"))
    }
}

impl Source for NumbersSource {
    fn rows(&self) -> usize {
        self.rows
    }

    fn read(&mut self, rows: Rows<'_>) {
        let n = self.reads.fetch_add(1, SeqCst) + 1;
        rows.fill(|_, words| {
            words[0] = n;
            if n % 10 == 9 { RowState::Torn } else { RowState::Good }
        });
    }
}

impl Drop for NumbersSource {
    fn drop(&mut self) {
        self.dropped_on.lock().expect("no test panics with the lock").push(thread::current().id());
    }
}

#[test]
fn every_tick_is_a_new_snapshot_with_a_window() {
    let (_, mut sampler, control) = Numbers::new(3).sampler();
    let mut last = Window::default();
    for tick in 1..=8 {
        assert_eq!(sampler.tick(), Tick::Published);
        let newest = control.latest().load_full();
        assert_eq!(newest.tick(), tick);
        let values: Vec<u64> = newest.stat("reads").map(|(_, v)| v.words()[0]).collect();
        assert_eq!(values, [tick; 3]);
        let window = newest.window();
        assert!(last.end_ns <= window.begin_ns && window.begin_ns <= window.end_ns);
        last = window;
    }
}

#[test]
fn rows_that_could_not_be_read_are_counted_and_have_no_value() {
    let (_, mut sampler, control) = Numbers::new(3).sampler();
    (0..9).for_each(|_| assert_eq!(sampler.tick(), Tick::Published));
    assert_eq!(control.latest().load_full().stat("reads").count(), 0);
    assert_eq!(sampler.health().counts().unread_rows, 3);
    assert_eq!(sampler.health().counts().rows, 3);
}

#[test]
fn readers_that_hold_everything_starve_the_tick_and_nothing_else() {
    let (_, mut sampler, control) = Numbers::new(1).sampler();
    // The snapshots of the pool, and the first one.
    const ALL: usize = SPARES + 1;
    let mut held = Vec::new();
    while sampler.tick() == Tick::Published {
        held.push(control.latest().load_full());
        assert!(held.len() <= ALL, "there are at most {ALL} snapshots");
    }
    assert_eq!(held.len(), ALL);
    assert_eq!(sampler.health().counts().starved_ticks, 1);
    let ticks: Vec<u64> = held.iter().map(|s| s.tick()).collect();
    assert_eq!(ticks, (1..=ALL as u64).collect::<Vec<_>>());
    held.clear();
    assert_eq!(sampler.tick(), Tick::Published);
    let gap = ALL as u64 + 2;
    assert_eq!(control.latest().load_full().tick(), gap, "the starved tick has a number too");
}

#[test]
fn subscribers_get_every_sample_or_count_it() {
    let (_, mut sampler, control) = Numbers::new(1).sampler();
    let quick = control.subscribe(100).expect("there are fewer subscribers than the limit");
    let slow = control.subscribe(4).expect("there are fewer subscribers than the limit");
    sampler.tick();
    sampler.tick(); // the second: a tick takes one change
    while quick.try_recv().is_some() || slow.try_recv().is_some() {}
    (0..50).for_each(|_| assert_eq!(sampler.tick(), Tick::Published));
    let all: Vec<u64> = std::iter::from_fn(|| quick.try_recv()).map(|s| s.tick()).collect();
    assert_eq!(all, (3..=52).collect::<Vec<_>>());
    let some: Vec<u64> = std::iter::from_fn(|| slow.try_recv()).map(|s| s.tick()).collect();
    assert_eq!(some, [3, 4, 5, 6]);
    assert_eq!((quick.lost_samples(), slow.lost_samples()), (0, 46));
    let counts = sampler.health().counts();
    assert_eq!((counts.lost_samples, counts.subscribers, counts.starved_ticks), (46, 2, 0));
}

#[test]
fn a_dropped_subscriber_makes_room_for_another() {
    let (_, mut sampler, control) = Numbers::new(1).sampler();
    for _ in 0..MAX_SUBSCRIBERS * 3 {
        let subscriber = control.subscribe(2).expect("the subscriber before was dropped");
        (0..4).for_each(|_| assert_eq!(sampler.tick(), Tick::Published));
        assert!(subscriber.try_recv().is_some());
        drop(subscriber);
        (0..2).for_each(|_| assert_eq!(sampler.tick(), Tick::Published));
    }
    assert_eq!(sampler.health().counts().subscribers, 0);
    let held: Vec<_> = (0..MAX_SUBSCRIBERS)
        .map(|_| {
            let subscriber = control.subscribe(1);
            sampler.tick();
            subscriber.expect("there are fewer subscribers than the limit")
        })
        .collect();
    let error = control.subscribe(1).expect_err("the limit is reached");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    drop((sampler, control));
    assert!(held.iter().all(Subscriber::has_ended));
}

#[test]
fn changes_without_a_tick_are_limited() {
    let (_, _sampler, control) = Numbers::new(1).sampler();
    let mut subscribers = Vec::new();
    let error = loop {
        match control.subscribe(1) {
            Ok(subscriber) => subscribers.push(subscriber),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(subscribers.len() < MAX_SUBSCRIBERS);
}

#[test]
fn the_roster_changes_between_two_ticks() {
    let numbers = Numbers::new(2);
    let (mut roster, mut sampler, control) = numbers.sampler();
    let subscriber = control.subscribe(1000).expect("there are fewer subscribers than the limit");
    sampler.tick();
    assert!(roster.refresh().0.is_none(), "nothing has changed");
    for objects in [3, 1, 0, 4] {
        numbers.objects.store(objects, SeqCst);
        let sources = roster.refresh().0.expect("the number of objects has changed");
        control.replace(sources).expect("the sampler ticks");
        (0..5).for_each(|_| assert_eq!(sampler.tick(), Tick::Published));
        let newest = control.latest().load_full();
        assert_eq!(newest.layout().rows(), objects);
    }
    let rows: Vec<usize> =
        std::iter::from_fn(|| subscriber.try_recv()).map(|s| s.layout().rows()).collect();
    let want: Vec<usize> =
        [2; 1].into_iter().chain([3, 1, 0, 4].into_iter().flat_map(|n| [n; 5])).collect();
    assert_eq!(rows, want);
    assert_eq!(sampler.health().counts().starved_ticks, 0);
}

#[test]
fn replaced_sources_are_dropped_by_the_control_plane() {
    let numbers = Numbers::new(2);
    let (mut roster, sampler, control) = numbers.sampler();
    let running = sampler
        .start(Timing::hz(2000.0).expect("the rate is within the bounds"))
        .expect("a thread can be started");
    for objects in [3, 4, 5] {
        numbers.objects.store(objects, SeqCst);
        control
            .replace(roster.refresh().0.expect("the number of objects has changed"))
            .expect("the sampler ticks");
        let deadline = Instant::now() + Duration::from_secs(10);
        while control.latest().load_full().layout().rows() != objects {
            assert!(Instant::now() < deadline, "the sampler did not take the change");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(5));
        control.collect();
    }
    let here = thread::current().id();
    assert_eq!(*numbers.dropped_on(), [here, here, here]);
    drop(running);
}

#[test]
fn a_watched_roster_updates_the_sampler_and_reports_an_error_once() {
    let numbers = Numbers::new(1);
    let (roster, sampler, control) = numbers.sampler();
    let running = sampler
        .start(Timing::hz(1000.0).expect("the rate is within the bounds"))
        .expect("a thread can be started");
    let (reports, report) = reports();
    let watch = roster.watch(control.clone(), Duration::from_millis(2), report);
    let watch = watch.expect("a thread can be started");
    let wait_for = |rows| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while control.latest().load_full().layout().rows() != rows {
            assert!(Instant::now() < deadline, "the sampler never had {rows} rows");
            thread::sleep(Duration::from_millis(1));
        }
    };
    numbers.objects.store(7, SeqCst);
    wait_for(7);
    numbers.fails.store(true, SeqCst);
    wait_for(0);
    thread::sleep(Duration::from_millis(20));
    numbers.fails.store(false, SeqCst);
    wait_for(7);
    drop(watch);
    assert_eq!(*reports.lock().expect("no test panics with the lock"), ["told to fail"]);
    drop(running);
}

/// Returns a list of texts, and a function that adds the text of an error to it.
fn reports() -> (Arc<Mutex<Vec<String>>>, impl FnMut(&Error) + Send + 'static) {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let texts = Arc::clone(&reports);
    let report = move |error: &Error| {
        texts.lock().expect("no test panics with the lock").push(error.to_string())
    };
    (reports, report)
}

#[test]
fn a_watched_roster_reports_each_warning_and_error_once() {
    let numbers = Numbers::new(1);
    let (roster, _sampler, control) = numbers.sampler();
    let (reports, report) = reports();
    let watch = roster.watch(control.clone(), Duration::from_millis(1), report);
    let watch = watch.expect("a thread can be started");
    let reported = || reports.lock().expect("no test panics with the lock").clone();
    let wait_for = |count| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while reported().len() < count {
            assert!(
                Instant::now() < deadline,
                "there were never {count} reports: {:?}",
                reported()
            );
            thread::sleep(Duration::from_millis(1));
        }
        // Time in which a report could be repeated.
        thread::sleep(Duration::from_millis(20));
    };
    numbers.warn("first");
    wait_for(1);
    numbers.fails.store(true, SeqCst);
    wait_for(2);
    numbers.warn("second");
    wait_for(3);
    drop(watch);
    assert_eq!(reported(), ["first", "told to fail", "second"]);
}

#[test]
fn a_warning_is_no_error_and_is_returned_by_the_next_refresh() {
    let numbers = Arc::new(Numbers::of(1, Some("told to warn")));
    let mut roster = numbers.roster();
    numbers.warn("first");
    assert_eq!(roster.objects().expect("a warning is no error").len(), 1);
    assert_eq!(roster.open().expect("a warning is no error").layout().rows(), 1);
    let mut texts = || {
        let (sources, errors) = roster.refresh();
        (sources.is_some(), errors.iter().map(Error::to_string).collect::<Vec<_>>())
    };
    let both = vec!["first".to_owned(), "told to warn".to_owned()];
    assert_eq!(texts(), (false, both));
    assert_eq!(texts(), (false, vec![]));
    numbers.objects.store(2, SeqCst);
    assert_eq!(
        texts(),
        (true, vec!["told to warn".to_owned()]),
        "a warning comes with the look that opens"
    );
    assert_eq!(texts(), (false, vec![]));
}

#[test]
fn a_run_ends_after_its_number_of_deadlines() {
    let (_, sampler, _control) = Numbers::new(1).sampler();
    let timing = Timing {
        ticks_max: Some(200),
        ..Timing::hz(4000.0).expect("the rate is within the bounds")
    };
    let running = sampler.start(timing).expect("a thread can be started");
    while !running.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    let sampler = running.stop().expect("the sampler's thread does not panic");
    let counts = sampler.health().counts();
    assert_eq!(counts.ticks + counts.missed_ticks, 200);
    assert_eq!(sampler.health().lateness().count, counts.ticks);
}

#[test]
fn every_thread_runs_the_function_first() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&names);
    let threads = ThreadStart::new(move || {
        let name = thread::current().name().map(str::to_owned);
        noted
            .lock()
            .expect("no test panics with the lock")
            .push(name.expect("each thread has a name"));
        Ok(())
    });
    let numbers = Numbers::new(4);
    let mut roster = Roster::with_threads(numbers.registry(), numbers.filters(), threads.clone());
    let sources = roster.open().expect("the provider opens every object");
    let health_writer = HealthWriter::default();
    let (sampler, control) =
        Sampler::with_threads(sources, health_writer, Fanout::Threads(2), threads)
            .expect("the function succeeds");
    let running = sampler.start(Timing::hz(1000.0).expect("1 kHz is a rate"));
    let watch = roster.watch(control, Duration::from_secs(1), |_| {});
    let _both = (running.expect("the function succeeds"), watch.expect("the function succeeds"));
    let mut names = names.lock().expect("no test panics with the lock").clone();
    names.sort_unstable();
    assert_eq!(names, ["vmstrobe-0", "vmstrobe-1", "vmstrobe-roster", "vmstrobe-tick"]);
}

#[test]
fn a_thread_whose_function_fails_is_not_started() {
    let threads = ThreadStart::new(|| Err(Error::new(ErrorKind::Denied, "told to fail")));
    let numbers = Numbers::new(1);
    let mut roster = Roster::with_threads(numbers.registry(), numbers.filters(), threads.clone());
    let mut sampler = |fanout| {
        let sources = roster.open().expect("the provider opens every object");
        Sampler::with_threads(sources, HealthWriter::default(), fanout, threads.clone())
    };
    let error = sampler(Fanout::Threads(2)).map(drop).expect_err("the reading threads fail");
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
    let cause = cause.expect("the pool's error has a cause").to_string();
    assert!(cause.contains("told to fail"), "{cause}");
    let (sampler, control) = sampler(Fanout::Inline).expect("no thread is started");
    let rate = Timing::hz(1000.0).expect("1 kHz is a rate");
    let error = sampler.start(rate).map(drop).expect_err("its thread fails");
    assert_eq!(error.kind(), ErrorKind::Denied);
    let watch = roster.watch(control, Duration::from_secs(1), |_| {});
    assert_eq!(watch.map(drop).expect_err("its thread fails").kind(), ErrorKind::Denied);
}
