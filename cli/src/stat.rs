//! `vmstrobe stat`: deltas and rates over a time, in intervals, or while a command runs.
//!
//! Invariant: every interval lies between two samples. The first sample is taken before the command
//! starts and the last after it has ended. The results so far are printed however the measurement
//! ends. A command that was started is waited for. The command runs, and the output file is opened,
//! with all capabilities that vmstrobe was started with.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe::json::{self, EventEntry, IntervalReport};
use vmstrobe::{Attachment, Meter, SampleStream, Snapshot, Tally};

use crate::args::StatArgs;
use crate::child;
use crate::error::{Error, Result};
use crate::limits::OpenFiles;
use crate::messages::of_notices;
use crate::out::{Out, say, say_each};
use crate::sampling::{Replaying, Sampling, wait};
use crate::signals::StopFlag;
use crate::terminal;
use crate::text;
use report::{Report, Style};

pub(crate) mod report;

/// The longest time between two checks whether the measurement must end.
const POLL_PERIOD: Duration = Duration::from_millis(2);
/// The longest time for which samples are taken between two such checks.
const TAKE_LIMIT: Duration = Duration::from_millis(50);

/// Measures, prints the reports, and returns the exit status.
///
/// # Errors
/// If there is nothing to measure, the command cannot be run, or a report cannot be written.
pub(crate) fn run(args: &StatArgs, open_files: OpenFiles, out: &mut Out) -> Result<u8> {
    if let Some(recording) = &args.replay.file {
        return run_replay(args, recording, out);
    }
    let timing = args.pace.timing()?;
    check_interval(args.interval, timing.period_ns)?;
    // Before capabilities are dropped, because opening the file needs them.
    let mut file = args.output.as_deref().map(Out::file).transpose()?;
    let out = file.as_mut().unwrap_or(out);
    let StatArgs { source, method, select, vcpus, command: words, .. } = args;
    let choose = |from: &Attachment| from.select(&select.selection(vcpus)).map(|one| vec![one]);
    let Sampling { beside, attachment, filters, stop, .. } =
        Sampling::prepare((source, method), words, select.providers(), choose)?;
    let session = attachment.start(filters, timing)?;
    let mut measurement = Measurement::new(args, session, out);
    say_what_is_left_out(args);
    let mut command = beside.start(open_files)?;
    let measured = measurement.measure(stop.as_ref(), command.as_mut());
    // Of all virtual machines, those that end are no reason to fail.
    let has_lost_vm = measurement.has_lost_vm && !source.all;
    let status = wait(command.as_mut());
    measured.and_then(|()| out.flush())?;
    Ok(child::exit_status(status?, has_lost_vm))
}

/// Measures a recording, and prints the reports.
///
/// # Errors
/// If the recording cannot be read, or a report cannot be written. What stands before damage has
/// been reported then.
fn run_replay(args: &StatArgs, recording: &Path, out: &mut Out) -> Result<u8> {
    let mut file = args.output.as_deref().map(Out::file).transpose()?;
    let out = file.as_mut().unwrap_or(out);
    let Replaying { replay, options, stop } =
        Replaying::prepare(recording, &args.select, &args.vcpus)?;
    let session = replay.start(args.replay.speed, &options.threads)?;
    check_interval(args.interval, session.period_ns())?;
    let mut measurement = Measurement::new(args, session, out);
    say_what_is_left_out(args);
    let measured = measurement.measure(Some(&stop), None);
    out.flush()?;
    measured.map(|()| 0)
}

fn say_what_is_left_out(args: &StatArgs) {
    if args.interval.is_some() && !args.zeros && !args.json {
        say("statistics that do not change in an interval are left out of it (-z shows them)");
    }
}

/// Checks that an interval is not shorter than the time between two samples.
fn check_interval(interval: Option<Duration>, period_ns: u64) -> Result<()> {
    match interval {
        Some(interval) if interval.as_nanos() < period_ns.into() => {
            let (interval, rate) = (interval.as_secs_f64(), 1e9 / period_ns as f64);
            let (interval, rate) = (text::seconds(interval), text::hertz(rate));
            Err(Error::usage(format!(
                "an interval of {interval} is shorter than the time between two samples at {rate}: \
                 choose a higher rate (-r) or a longer interval (-i)"
            )))
        }
        _ => Ok(()),
    }
}

/// A measurement that runs.
struct Measurement<'a, S> {
    session: S,
    out: &'a mut Out,
    style: Style,
    meter: Meter,
    reported: u64,
    /// The number of lost samples that earlier reports had.
    lost_samples: u64,
    has_lost_vm: bool,
}

impl<'a, S: SampleStream> Measurement<'a, S> {
    fn new(args: &StatArgs, session: S, out: &'a mut Out) -> Self {
        let period_ns = session.period_ns();
        let meter = Meter::new(session.first(), period_ns, args.pace.duration, args.interval);
        let style = Style {
            json: args.json,
            per_object: args.per_vcpu,
            zeros: args.zeros,
            timed: args.interval.is_some(),
            width: terminal::width_of(out),
        };
        Self { session, out, style, meter, reported: 0, lost_samples: 0, has_lost_vm: false }
    }

    /// Takes samples and prints reports until the measurement ends.
    fn measure(&mut self, stop: Option<&StopFlag>, mut command: Option<&mut Child>) -> Result<()> {
        loop {
            // Read before the samples are taken, so that no sample is missed.
            let finished = self.session.is_finished();
            let mut next = self.session.recv(POLL_PERIOD);
            let (began, mut drained) = (Instant::now(), true);
            while let Some(sample) = next {
                let (reported, is_last) = self.take(&sample)?;
                if is_last {
                    return self.finish();
                }
                // A report can take longer than an interval, and a sample longer than a tick. The
                // checks below must still be made.
                drained = !reported && began.elapsed() < TAKE_LIMIT;
                next = if drained { self.session.try_recv() } else { None };
            }
            self.report_ended();
            let now_ns = self.session.now_ns();
            if self.must_end(stop, command.as_deref_mut()) {
                self.meter.end_at(now_ns);
                self.meter.join_intervals();
                self.session.end_soon();
            }
            if self.meter.must_sample(now_ns) {
                self.take_last_sample()?;
                return self.finish();
            }
            if finished && drained {
                // It has an error if the sampler has failed, or the recording is damaged.
                let stopped = self.session.stop();
                self.finish()?;
                return Ok(stopped?);
            }
        }
    }

    fn must_end(&self, stop: Option<&StopFlag>, command: Option<&mut Child>) -> bool {
        match command {
            // Signals are forwarded to the command, and the measurement ends with it.
            Some(command) => !matches!(command.try_wait(), Ok(None)),
            None => {
                let is_without_vm = self.has_lost_vm && self.session.has_ended();
                is_without_vm || stop.is_some_and(StopFlag::is_set) || self.out.is_closed()
            }
        }
    }

    /// Adds a sample. Returns whether it ended an interval, which was reported, and whether it is
    /// the last one.
    fn take(&mut self, sample: &Arc<Snapshot>) -> Result<(bool, bool)> {
        let added = self.meter.add(sample);
        if let Some(tally) = &added.interval {
            self.report(tally, false)?;
            self.out.flush()?;
        }
        Ok((added.interval.is_some(), added.is_last))
    }

    /// Takes a sample now, because the next regular one would come after the end.
    fn take_last_sample(&mut self) -> Result<()> {
        self.session.take_last()?;
        while let Some(sample) = self.session.try_recv() {
            self.take(&sample)?;
        }
        Ok(())
    }

    /// Prints the report for the time after the last full interval.
    fn finish(&mut self) -> Result<()> {
        self.report_ended();
        let begin = self.meter.tally().begin();
        if self.meter.tally().samples() > 0 {
            let tally = self.meter.take_tally();
            self.report(&tally, true)?;
        } else if let (Style { timed: true, json: false, .. }, Some(read)) =
            (self.style, self.session.read_status())
        {
            let time = report::time(begin, self.meter.start_ns());
            self.out.lines([report::read_line(&read, &time)])?;
        }
        Ok(())
    }

    fn report(&mut self, tally: &Tally, is_last: bool) -> Result<()> {
        let lost_samples = self.session.lost_samples();
        // People get the method once, at the end.
        let says_read = is_last || self.style.json;
        let read = if says_read { self.session.read_status() } else { None };
        let lost_in_interval = lost_samples - self.lost_samples;
        let (start_ns, is_first) = (self.meter.start_ns(), self.reported == 0);
        (self.lost_samples, self.reported) = (lost_samples, self.reported + 1);
        let (lost_samples, per_object) = (lost_in_interval, self.style.per_object);
        let events = self.session.events();
        let events: &[EventEntry<'_>] = &events.iter().map(EventEntry::from).collect::<Vec<_>>();
        if self.style.json {
            let report = IntervalReport { tally, lost_samples, read, per_object, events };
            self.out.lines([json::text(&report)])
        } else {
            let report = Report { tally, lost_samples, start_ns, is_first, read, events };
            self.out.lines(report.lines(self.style))
        }
    }

    fn report_ended(&mut self) {
        say_each(of_notices(self.session.notices()));
        for vm in self.session.newly_ended() {
            say(format_args!("{} has ended", vm.title));
            self.has_lost_vm = true;
        }
    }
}
