//! The keys that go through time, and a spike of 2 ms that is found in the past.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe::table::{TableConfig, TableSchema, TableWriter};
use vmstrobe_core::Target;
use vmstrobe_tests::require::require_tmux;
use vmstrobe_tests::tmux::Tmux;

use super::{ago_ms, demo, time_of_day_ms};
use crate::cli::tables::directory;

/// The keys of the help that are tested here.
pub(super) const KEYS: &[&str] = &["← →", "Shift ← →", ", .", "Space", "Home End", "n N", "+ -"];

/// The time that screens and keys may take on a busy machine, in ms.
const SLACK_MS: f64 = 900.0;

#[test]
fn arrows_go_back_and_forward() {
    let Some(tmux) = demo("") else { return };
    thread::sleep(Duration::from_secs(4));
    let mut at_ms = None;
    // Each step is from the moment that was shown, while time goes on.
    for (key, step_ms) in [
        ("Left", None),
        ("Left", Some(-100.0)),
        ("S-Left", Some(-1000.0)),
        ("Right", Some(100.0)),
        ("S-Right", Some(1000.0)),
    ] {
        tmux.keys(&[key]);
        let screen = tmux.wait("the past of another moment", |screen| {
            screen[0].contains("BACK IN TIME") && at_ms != Some(time_of_day_ms(screen))
        });
        let now_ms = time_of_day_ms(&screen);
        if let (Some(step), Some(before)) = (step_ms, at_ms) {
            assert!((now_ms - before - step).abs() < 30.0, "{key}: {before} {now_ms}");
        }
        at_ms = Some(now_ms);
    }
    let before = ago_ms(&tmux.screen());
    tmux.wait("time goes on", |screen| ago_ms(screen) > before + 300.0);
    tmux.keys(&["End"]);
    let screen = tmux.wait_for("● live");
    assert!(!screen[0].contains("BACK"), "{screen:?}");
}

#[test]
fn space_pauses_and_home_goes_to_the_oldest() {
    let Some(tmux) = demo("--last 5s") else { return };
    tmux.keys(&["Space"]);
    let screen = tmux.wait_for("PAUSED");
    let paused_ms = time_of_day_ms(&screen);
    tmux.wait("time goes on", |screen| ago_ms(screen) > 1000.0);
    assert!((time_of_day_ms(&tmux.screen()) - paused_ms).abs() < 1.0);
    tmux.keys(&["Space"]);
    tmux.wait_for("● live");
    thread::sleep(Duration::from_secs(3));
    tmux.keys(&["Home"]);
    let screen = tmux.wait_for("BACK IN TIME");
    assert!((3000.0..5000.0 + SLACK_MS).contains(&ago_ms(&screen)), "{}", screen[0]);
    // The oldest moves on: the one that is shown is held no longer.
    tmux.wait_for("older than the 5 s that are kept");
    tmux.keys(&["End"]);
    tmux.wait_for("● live");
}

#[test]
fn single_samples_and_the_zoom() {
    let Some(tmux) = demo("") else { return };
    thread::sleep(Duration::from_secs(2));
    tmux.keys(&["S-Left"]);
    let begin = time_of_day_ms(&tmux.wait_for("BACK IN TIME"));
    for (key, is_later) in [(",", false), (".", true)] {
        let before = time_of_day_ms(&tmux.screen());
        tmux.text(key);
        let screen = tmux.wait("another sample", |screen| time_of_day_ms(screen) != before);
        let by = time_of_day_ms(&screen) - before;
        // At 250 Hz, but for ticks that were missed.
        assert!((3.0..200.0).contains(&by.abs()) && (by > 0.0) == is_later, "{key} {by}");
    }
    assert!((time_of_day_ms(&tmux.screen()) - begin).abs() < 200.0);
    tmux.keys(&["End"]);
    tmux.wait_for("−8 s");
    tmux.text("+");
    tmux.wait_for("−4 s");
    tmux.text("+");
    tmux.wait("2.5 s", |screen| screen.iter().any(|line| line.contains("−2.0 s")));
    tmux.text("--");
    tmux.wait_for("−8 s");
}

#[test]
fn marks_are_gone_to() {
    let Some(tmux) = demo("") else { return };
    tmux.text("n");
    tmux.wait_for("there are no marks or triggers");
    let mut marked = Vec::new();
    for text in ["first", "second"] {
        tmux.text("m");
        tmux.wait_for("mark:");
        tmux.text(text);
        tmux.keys(&["Enter"]);
        let screen = tmux.wait_for("marked ");
        let line = screen.last().expect("a screen has lines");
        let time = line.trim().strip_prefix("marked ").expect("the time of the mark");
        marked.push(time.to_owned());
        thread::sleep(Duration::from_millis(700));
    }
    tmux.text("N");
    let at = |time: &str| format!("BACK IN TIME  {}", &time[..8]);
    tmux.wait_for(&at(&marked[1]));
    tmux.text("N");
    tmux.wait("the first mark", |screen| {
        let shown = time_of_day_ms(screen);
        let line = [format!(" {}", marked[0])];
        (shown - time_of_day_ms(&line)).abs() < 100.0
    });
    tmux.text("n");
    tmux.wait("the second mark", |screen| {
        let line = [format!(" {}", marked[1])];
        (time_of_day_ms(screen) - time_of_day_ms(&line)).abs() < 100.0
    });
    // Their texts stand below the line of what is held.
    tmux.wait_for("second");
}

/// A queue that gets a request each ms, and 5,000 in 2 ms once it is asked to.
struct Spiky {
    is_over: Arc<AtomicBool>,
    spike: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Spiky {
    fn start(path: &std::path::Path) -> Self {
        let (is_over, spike) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (over, asked, path) = (Arc::clone(&is_over), Arc::clone(&spike), path.to_owned());
        let thread = thread::spawn(move || {
            let table = TableWriter::at(&path, TableConfig::of("xyz")).expect("the path is free");
            let mut schema = TableSchema::new(Target::from_name("queue"));
            let requests = schema.counter("requests");
            let queue = table.add("/xyz/queue[0]", &schema).expect("the table has a free slot");
            let requests = queue.get(requests);
            let begin = Instant::now();
            let mut counted = 0;
            while !over.load(Ordering::Relaxed) {
                // As many as there are ms, also after a sleep that was too long.
                let due = begin.elapsed().as_millis() as u64;
                requests.add(due - counted);
                counted = due;
                if asked.swap(false, Ordering::Relaxed) {
                    let spike = Instant::now();
                    for step in 1..=20_u64 {
                        while spike.elapsed() < Duration::from_micros(step * 100) {}
                        requests.add(250);
                    }
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
        Self { is_over, spike, thread: Some(thread) }
    }
}

impl Drop for Spiky {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A drop must not panic.
            let _ = thread.join();
        }
    }
}

/// Returns the highest rate that the title of the chart names, per second.
fn highest(screen: &[String]) -> f64 {
    let title = screen.iter().find(|line| line.contains(" max ")).expect("there is a chart");
    let (_, text) = title.split_once(" max ").expect("it names the highest rate");
    let mut words = text.split_whitespace();
    let number: f64 = words.next().expect("a number").replace(',', "").parse().expect("a number");
    match words.next() {
        Some("k") => number * 1e3,
        Some("M") => number * 1e6,
        _ => number,
    }
}

#[test]
fn a_spike_of_2_ms_is_found_10_s_later() {
    if !require_tmux() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("table");
    let spiky = Spiky::start(&path);
    let name = path.display();
    while !path.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let tmux = Tmux::open((80, 24), &format!("vmstrobe top --table {name}"));
    tmux.wait_for("requests/s");
    thread::sleep(Duration::from_secs(2));
    // A quiet chart: 1,000 requests a second, whatever the stretch over which they are counted.
    let quiet = highest(&tmux.screen());
    spiky.spike.store(true, Ordering::Relaxed);
    let spiked = Instant::now();
    tmux.text("m");
    tmux.wait_for("mark:");
    tmux.text("spike");
    tmux.keys(&["Enter"]);
    tmux.wait_for("marked ");
    // It leaves the chart of the last 10 s.
    thread::sleep(Duration::from_secs(11).saturating_sub(spiked.elapsed()));
    tmux.wait("the spike has left the chart", |screen| highest(screen) < 50_000.0);
    tmux.text("N");
    let screen = tmux.wait("the spike is in the chart again", |screen| {
        screen[0].contains("BACK IN TIME") && highest(screen) > 100_000.0
    });
    let ago = ago_ms(&screen);
    assert!((9_000.0..50_000.0).contains(&ago), "{}", screen[0]);
    // 5,000 requests in 2 ms, of which 10 ms have nearly all: half a million per second, seen over
    // 10 ms; and all of it once the chart shows each ms.
    for _ in 0..6 {
        tmux.text("+");
    }
    thread::sleep(Duration::from_millis(500));
    // The chart is 156 ms long by now. The mark came behind the spike, later on a busy machine.
    let near = (0..30).find_map(|_| {
        let screen = tmux.screen();
        if highest(&screen) > 1_000_000.0 {
            return Some(screen);
        }
        tmux.keys(&["Left"]);
        thread::sleep(Duration::from_millis(300));
        None
    });
    let near = near.expect("the spike by ms is before the mark");
    assert!(highest(&near) < 6_000_000.0, "{near:?}");
    assert!(quiet < 50_000.0, "{quiet}");
}
