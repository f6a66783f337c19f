//! `vmstrobe demo`: samples a guest and a crypto device of its own, and shows them live; without
//! `/dev/kvm`, the crypto device alone.
//!
//! Invariant: one loop serves both cases; only the objects in the samples differ. The summary at
//! the end is of all ticks, however the demo ends.

use std::time::{Duration, Instant};

use vmstrobe::json;
use vmstrobe::{Filter, Names, Options, Request, Session, TARGET as SAMPLER_TARGET, Target};

use crate::args::DemoArgs;
use crate::attach;
use crate::error::{Error, Result};
use crate::messages::of_notices;
use crate::out::{Out, say, say_each};
use crate::privileges::{self, Needs};
use crate::signals::StopFlag;
use crate::stop;
use crate::terminal::{Screen, has_cursor, size};
use view::View;

mod chart;
mod vcpus;
mod device;
mod view;
mod summary;

/// The default duration if the output is not a terminal.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// The time between two frames on a terminal.
const FRAME_PERIOD: Duration = Duration::from_millis(200);
/// The time between two blocks of lines without a terminal.
const LINES_PERIOD: Duration = Duration::from_secs(1);
/// The longest wait for a sample.
const POLL_PERIOD: Duration = Duration::from_millis(10);

/// Runs the demo and prints its summary.
///
/// # Errors
/// If sampling fails, or the output cannot be written.
pub(crate) fn run(args: &DemoArgs, out: &mut Out) -> Result<u8> {
    let timing = args.pace.timing()?;
    let broker = Needs::of_demo(args.method.bpf).move_to_broker()?;
    let bpf = attach::bpf_for_sampling(args.method.bpf, broker)?;
    let options =
        Options { bpf, threads: privileges::unprivileged_threads(), ..Options::default() };
    let (attachment, vcpus) = match vmstrobe::demo::start(args.vcpus, &options) {
        Ok(attachment) => (attachment, args.vcpus),
        Err(error) => {
            say(Error::from(error));
            say("no guest is started: the demo samples only its crypto device");
            (vmstrobe::demo::start_crypto_device(&options)?, 0)
        }
    };
    let live = out.is_terminal() && has_cursor() && !args.json;
    let default_duration = (!live && args.pace.count.is_none()).then_some(DEFAULT_DURATION);
    let stop = StopFlag::listen()?;
    // A stopped terminal (Ctrl-S) blocks this thread, which then cannot see the first signal.
    stop::exit_at_second_signal()?;
    let session = attachment.with_own_statistics().start(filters(), timing)?;
    let view = View::new(session.first(), vcpus, args.pace.rate);
    let mut demo = DemoRun {
        session,
        view,
        stop,
        began: Instant::now(),
        duration: args.pace.duration.or(default_duration),
    };
    let shown = match (args.json, live) {
        (true, _) => demo.sample_only(),
        (false, true) => demo.run_on_screen(out),
        (false, false) => demo.run_in_lines(out),
    };
    let seconds = demo.began.elapsed().as_secs_f64();
    let summary = demo.session.summary(args.pace.rate, seconds)?;
    shown?;
    match args.json {
        true => out.lines([json::text(&summary)])?,
        false => out.lines(summary::lines(&summary))?,
    }
    Ok(0)
}

/// Returns the filters of the demo: some statistics of the vCPUs, and all of the crypto device and
/// of the sampler itself.
fn filters() -> Vec<Filter> {
    let request = Request { provider: None, names: Some(Names::exact(vcpus::NAMES)) };
    let vcpus = Filter { providers: Some(vec![request]), ..Filter::all(Target::Vcpu) };
    let others = [Target::Cryptodev, Target::from_name(SAMPLER_TARGET)].map(Filter::all);
    [vcpus].into_iter().chain(others).collect()
}

/// A demo that runs.
struct DemoRun {
    session: Session,
    view: View,
    stop: StopFlag,
    began: Instant,
    duration: Option<Duration>,
}

impl DemoRun {
    /// Shows a table that refreshes, and prints its last state at the end.
    fn run_on_screen(&mut self, out: &mut Out) -> Result<()> {
        let mut screen = Screen::enter(out)?;
        while !screen.is_closed() && self.take_samples_for(FRAME_PERIOD) {
            let size = size();
            screen.draw(&self.view.screen(size), size)?;
        }
        drop(screen);
        out.lines(self.view.final_lines(size()))
    }

    /// Prints a block of lines each second.
    fn run_in_lines(&mut self, out: &mut Out) -> Result<()> {
        out.lines(self.view.title())?;
        while !out.is_closed() {
            let more = self.take_samples_for(LINES_PERIOD);
            out.lines(self.view.lines(self.began.elapsed()))?;
            out.flush()?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Samples without output.
    fn sample_only(&mut self) -> Result<()> {
        while self.take_samples_for(LINES_PERIOD) {}
        Ok(())
    }

    /// Takes samples for this time. Returns false once the demo must end.
    fn take_samples_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let finished = self.session.is_finished();
            let mut next = self.session.recv(POLL_PERIOD);
            while let Some(sample) = next {
                self.view.add(&sample);
                next = self.session.try_recv();
            }
            say_each(of_notices(self.session.notices()));
            let is_over = self.duration.is_some_and(|duration| self.began.elapsed() >= duration);
            if is_over || finished || self.stop.is_set() {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }
}
