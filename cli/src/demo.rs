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
use crate::signals::Stop;
use crate::stop;
use crate::terminal::{Screen, has_cursor, size};
use crate::text::begin_wall_ns;
use summary::{Load, Summary};
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
const FRAME: Duration = Duration::from_millis(200);
/// How often lines are printed where there is no terminal.
const LINES: Duration = Duration::from_secs(1);
/// How often to look for samples.
const LOOK: Duration = Duration::from_millis(10);

/// Runs the demo.
///
/// # Errors
/// If sampling fails, or the result cannot be written.
pub(crate) fn run(args: &DemoArgs, out: &mut Out) -> Result<u8> {
    let timing = args.pace.timing()?;
    let broker = Needs::of_demo(args.how.bpf).leave_to_broker()?;
    let bpf = attach::bpf_for_sampling(args.how.bpf, broker)?;
    let options = Options { bpf, threads: privileges::threads(), ..Options::default() };
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
    let stop = Stop::listen()?;
    // A terminal that is stopped (Ctrl-S) keeps this thread from seeing the first.
    stop::end_at_second_signal()?;
    let session = attachment.with_own_statistics().start(filters(), timing)?;
    let begin_wall_ns = begin_wall_ns(session.first().window());
    let view = View::new(session.first(), vcpus, args.pace.rate);
    let mut show = Show {
        session,
        view,
        stop,
        began: Instant::now(),
        duration: args.pace.duration.or(unwatched),
    };
    let shown = match (args.json, live) {
        (true, _) => show.silently(),
        (false, true) => show.on_screen(out),
        (false, false) => show.as_lines(out),
    };
    let seconds = show.began.elapsed().as_secs_f64();
    let lost_samples = show.session.lost_samples();
    show.session.stop()?;
    shown?;
    let read = show.session.read_status();
    let sampler = show.session.stop()?;
    let load = Load { vcpus, rate_hz: args.pace.rate, seconds, begin_wall_ns };
    let summary = Summary::new(sampler, &load, read.as_ref(), lost_samples);
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
struct Show {
    session: Session,
    view: View,
    stop: Stop,
    began: Instant,
    duration: Option<Duration>,
}

impl Show {
    /// A table that is drawn again and again; its last state remains.
    fn on_screen(&mut self, out: &mut Out) -> Result<()> {
        let mut screen = Screen::enter(out)?;
        while !screen.is_closed() && self.go_on(FRAME) {
            let size = size();
            screen.draw(&self.view.screen(size), size)?;
        }
        drop(screen);
        out.lines(self.view.remains(size()))
    }

    /// A block a second.
    fn as_lines(&mut self, out: &mut Out) -> Result<()> {
        out.lines(self.view.title())?;
        while !out.is_closed() {
            let more = self.go_on(LINES);
            out.lines(self.view.lines(self.began.elapsed()))?;
            out.flush()?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Nothing but the sampling.
    fn silently(&mut self) -> Result<()> {
        while self.go_on(LINES) {}
        Ok(())
    }

    /// Takes samples for so long; false once it is over.
    fn go_on(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let finished = self.session.is_finished();
            let mut next = self.session.recv(LOOK);
            while let Some(sample) = next {
                self.view.add(&sample);
                next = self.session.try_recv();
            }
            say_notices(self.session.notices());
            let over = self.duration.is_some_and(|duration| self.began.elapsed() >= duration);
            if over || finished || self.stop.is_asked() {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }
}
