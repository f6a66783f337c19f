//! A report of what runs: sampled until the time is over, a signal comes, or a command has ended.
//!
//! Invariant: the report is of all samples from the first one, which is taken before the command
//! starts, to the first one at or behind the end. It is printed however the sampling ends.

use std::process::Child;
use std::time::{Duration, Instant};

use vmstrobe::report::{Report, Reporter};
use vmstrobe::{Attachment, Meter, Session};

use super::write;
use crate::args::ReportArgs;
use crate::child;
use crate::error::{Error, Result};
use crate::limits::OpenFiles;
use crate::messages::of_notices;
use crate::out::{Out, say, say_each};
use crate::sampling::{Sampling, wait};
use crate::signals::StopFlag;
use crate::terminal::show_progress;
use crate::text::{counted, seconds};

/// The longest time between two checks whether the sampling must end.
const POLL_PERIOD: Duration = Duration::from_millis(2);
/// The longest time for which samples are taken between two such checks.
const TAKE_LIMIT: Duration = Duration::from_millis(50);
/// The time between two lines of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// Samples, prints the report, and returns the exit status.
///
/// # Errors
/// If there is nothing to sample, the command cannot be run, or the report cannot be written.
pub(super) fn run(args: &ReportArgs, open_files: OpenFiles, out: &mut Out) -> Result<u8> {
    let timing = args.pace.timing()?;
    let ReportArgs { source, method, select, vcpus, command: words, .. } = args;
    let choose = |from: &Attachment| from.select_each(&select.targets(), &select.selection(vcpus));
    let Sampling { beside, attachment, filters, stop, .. } =
        Sampling::prepare((source, method), words, select.providers(), choose)?;
    let session = attachment.start(filters, timing)?;
    let mut running = Running::new(session, args.pace.duration)?;
    let mut command = beside.start(open_files)?;
    let sampled = running.sample(stop.as_ref(), command.as_mut());
    running.hide_progress();
    // Of all virtual machines, those that end are no reason to fail.
    let has_lost_vm = running.has_lost_vm && !source.all;
    let status = wait(command.as_mut());
    write(args, &[running.finish()?], out)?;
    sampled?;
    Ok(child::exit_status(status?, has_lost_vm))
}

/// A session that is sampled.
struct Running {
    session: Session,
    reporter: Reporter,
    /// It decides which sample is the last.
    meter: Meter,
    has_lost_vm: bool,
    /// A line of progress is on the terminal.
    shows_progress: bool,
}

impl Running {
    fn new(session: Session, duration: Option<Duration>) -> Result<Self> {
        let period_ns = session.period_ns();
        let mut reporter = Reporter::new(period_ns);
        reporter.add(session.first())?;
        let meter = Meter::new(session.first(), period_ns, duration, None);
        Ok(Self { session, reporter, meter, has_lost_vm: false, shows_progress: false })
    }

    /// Takes samples until the sampling must end.
    fn sample(&mut self, stop: Option<&StopFlag>, mut command: Option<&mut Child>) -> Result<()> {
        let mut shown = Instant::now();
        loop {
            // Read before the samples are taken, so that no sample is missed.
            let is_finished = self.session.is_finished();
            let began = Instant::now();
            let mut next = self.session.recv(POLL_PERIOD);
            while let Some(sample) = next {
                self.reporter.add(&sample)?;
                if self.meter.add(&sample).is_last {
                    return Ok(());
                }
                next = (began.elapsed() < TAKE_LIMIT).then(|| self.session.try_recv()).flatten();
            }
            self.say_what_ended();
            if shown.elapsed() >= PROGRESS_PERIOD {
                let samples = counted(self.meter.tally().samples() as usize, "sample");
                let time = self.meter.tally().interval().map_or(0.0, |time| time.seconds);
                show_progress(&format!("{samples} in {}", seconds(time)));
                self.shows_progress = true;
                shown = Instant::now();
            }
            let now_ns = vmstrobe::now_ns();
            let is_over = match command.as_deref_mut() {
                // Signals are forwarded to the command, and the sampling ends with it.
                Some(command) => !matches!(command.try_wait(), Ok(None)),
                None => {
                    let is_without_vm = self.has_lost_vm && self.session.has_ended();
                    is_without_vm || stop.is_some_and(StopFlag::is_set)
                }
            };
            if is_over {
                self.meter.end_at(now_ns);
            }
            if self.meter.must_sample(now_ns) || is_finished && began.elapsed() < TAKE_LIMIT {
                return self.take_rest();
            }
        }
    }

    /// Stops the session, and takes one sample more and those that are queued.
    fn take_rest(&mut self) -> Result<()> {
        let stopped = self.session.stop().map(vmstrobe::Sampler::tick);
        while let Some(sample) = self.session.try_recv() {
            self.reporter.add(&sample)?;
        }
        Ok(stopped.map(|_| ())?)
    }

    fn hide_progress(&mut self) {
        if std::mem::take(&mut self.shows_progress) {
            show_progress("");
        }
    }

    fn say_what_ended(&mut self) {
        let (notices, ended) = (self.session.notices(), self.session.newly_ended());
        if notices.is_empty() && ended.is_empty() {
            return;
        }
        self.hide_progress();
        say_each(of_notices(notices));
        for vm in ended {
            say(format_args!("{} has ended", vm.title));
            self.has_lost_vm = true;
        }
    }

    fn finish(mut self) -> Result<Report> {
        self.say_what_ended();
        let report = self.reporter.finish_session(&mut self.session);
        report.ok_or_else(|| Error::failed("nothing was sampled"))
    }
}
