//! `vmstrobe demo`: a guest and a crypto device of our own, sampled live; without `/dev/kvm`, the
//! crypto device alone.
//!
//! Invariant: both are the same loop over the same samples, which differ only in what is in them.
//! However it ends, the summary is of all ticks there were.

use std::time::{Duration, Instant};

use vmstrobe::json;
use vmstrobe::{Filter, Names, Options, Request, Session, TARGET as SAMPLER_TARGET, Target};

use crate::args::DemoArgs;
use crate::attach;
use crate::error::Result;
use crate::messages::say_notices;
use crate::out::{Out, say};
use crate::privileges::{self, Needs};
use crate::signals::StopFlag;
use crate::stop;
use crate::terminal::{Screen, has_cursor, size};
use crate::text::begin_wall_ns;
use summary::{RunParameters, Summary};
use view::View;

pub(crate) mod crypto;
mod history;
mod vcpus;
mod device;
mod view;
mod summary;

/// How long it runs if nobody watches and nobody said.
const DURATION_UNWATCHED: Duration = Duration::from_secs(10);
/// How often a terminal is drawn anew.
const FRAME_PERIOD: Duration = Duration::from_millis(200);
/// How often lines are printed where there is no terminal.
const LINES_PERIOD: Duration = Duration::from_secs(1);
/// How often to look for samples.
const POLL_PERIOD: Duration = Duration::from_millis(10);

/// Runs the demo.
///
/// # Errors
/// If sampling fails, or the result cannot be written.
pub(crate) fn run(args: &DemoArgs, out: &mut Out) -> Result<u8> {
    let timing = args.pace.timing()?;
    let broker = Needs::of_demo(args.method.bpf).move_to_broker()?;
    let bpf = attach::bpf_for_sampling(args.method.bpf, broker)?;
    let options =
        Options { bpf, threads: privileges::unprivileged_threads(), ..Options::default() };
    let (attachment, vcpus) = match attach::open_demo(args.vcpus, &options) {
        Ok(attachment) => (attachment, args.vcpus),
        Err(error) => {
            say(format_args!("{error}"));
            say("so there is no guest: vmstrobe samples only its crypto device");
            (attach::open_crypto_device()?, 0)
        }
    };
    let live = out.is_terminal() && has_cursor() && !args.json;
    let unwatched = (!live && args.pace.count.is_none()).then_some(DURATION_UNWATCHED);
    let stop = StopFlag::listen()?;
    // A terminal that is stopped (Ctrl-S) keeps this thread from seeing the first.
    stop::exit_at_second_signal()?;
    let session = attachment.with_own_statistics().start(filters(), timing)?;
    let begin_wall_ns = begin_wall_ns(session.first().window());
    let view = View::new(session.first(), vcpus, args.pace.rate);
    let mut demo = DemoRun {
        session,
        view,
        stop,
        began: Instant::now(),
        duration: args.pace.duration.or(unwatched),
    };
    let shown = match (args.json, live) {
        (true, _) => demo.sample_only(),
        (false, true) => demo.run_on_screen(out),
        (false, false) => demo.run_in_lines(out),
    };
    let seconds = demo.began.elapsed().as_secs_f64();
    let lost_samples = demo.session.lost_samples();
    demo.session.stop()?;
    shown?;
    let read = demo.session.read_status();
    let sampler = demo.session.stop()?;
    let parameters = RunParameters { vcpus, rate_hz: args.pace.rate, seconds, begin_wall_ns };
    let summary = Summary::new(sampler, &parameters, read.as_ref(), lost_samples);
    if args.json {
        out.lines([json::text(&summary)])?;
    } else {
        out.lines(summary.lines())?;
    }
    Ok(0)
}

/// Returns the filters for all that is shown: some statistics of the vCPUs, and all of the crypto
/// device and of the sampler itself.
fn filters() -> Vec<Filter> {
    let request = Request { provider: None, names: Some(Names::exact(vcpus::NAMES)) };
    let vcpus = Filter { providers: Some(vec![request]), ..Filter::all(Target::Vcpu) };
    let others = [Target::Cryptodev, Target::from_name(SAMPLER_TARGET)].map(Filter::all);
    [vcpus].into_iter().chain(others).collect()
}

/// A demo under way.
struct DemoRun {
    session: Session,
    view: View,
    stop: StopFlag,
    began: Instant,
    duration: Option<Duration>,
}

impl DemoRun {
    /// A table that is drawn again and again; its last state remains.
    fn run_on_screen(&mut self, out: &mut Out) -> Result<()> {
        let mut screen = Screen::enter(out)?;
        while !screen.is_closed() && self.take_samples_for(FRAME_PERIOD) {
            let size = size();
            screen.draw(&self.view.screen(size), size)?;
        }
        drop(screen);
        out.lines(self.view.final_lines(size()))
    }

    /// A block a second.
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

    /// Nothing but the sampling.
    fn sample_only(&mut self) -> Result<()> {
        while self.take_samples_for(LINES_PERIOD) {}
        Ok(())
    }

    /// Takes samples for so long; false once it is over.
    fn take_samples_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let finished = self.session.is_finished();
            let mut next = self.session.recv(POLL_PERIOD);
            while let Some(sample) = next {
                self.view.add(&sample);
                next = self.session.try_recv();
            }
            say_notices(self.session.notices());
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
