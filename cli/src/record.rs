//! `vmstrobe record`: every sample in a file, or the newest in memory until something happens.
//!
//! Invariant: the command that is recorded starts after the first sample and is waited for. What
//! was recorded is reported however the recording ends.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use vmstrobe::control::ControlSocket;
use vmstrobe::export::Metadata;
use vmstrobe::{
    Attachment, Broker, DumpRequest, FileOptions, Filter, FlightOptions, Format, Recording,
    Session, Trigger, TriggerRule,
};

use crate::args::{FileArgs, FlightArgs, ParquetLayout, RecordArgs, WriteArgs};
use crate::child;
use crate::error::{Error, Result};
use crate::limits::OpenFiles;
use crate::messages::of_notices;
use crate::out::{Out, reason, say, say_each};
use crate::sampling::{Sampling, wait};
use crate::signals::{DumpFlag, StopFlag};
use crate::terminal::show_progress;
use on_trigger::OnTrigger;

mod control;
mod dry_run;
mod on_trigger;
pub(crate) mod report;

/// The time between two checks whether the recording must end.
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// The time between two lines of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// Records, and returns the exit status.
///
/// # Errors
/// If there is nothing to record, the command cannot be run, or the file cannot be written.
pub(crate) fn run(args: &RecordArgs, open_files: OpenFiles, out: &mut Out) -> Result<u8> {
    if let Some(recording) = &args.flight.dry_run {
        return dry_run::run(&args.flight, recording, out);
    }
    let timing = args.pace.timing()?;
    let RecordArgs { source, method, select, vcpus, command: words, .. } = args;
    let choose = |from: &Attachment| from.select_each(&select.targets(), &select.selection(vcpus));
    let Sampling { beside, broker, attachment, mut filters, stop } =
        Sampling::prepare((source, method), words, select.providers(), choose)?;
    let dump = args.flight.last.map(|_| DumpFlag::listen()).transpose()?;
    let recorder = Recorder::new(args, &attachment, &filters, broker.clone())?;
    if args.file.histlog.is_some() {
        add_histogram(&mut filters, &args.file.histlog_stat, &attachment)?;
    }
    let listener = control::listen(&args.control, broker)?;
    let registry = attachment.registry().clone();
    let session = attachment.start(filters, timing)?;
    let period_ns = session.period_ns();
    let recording = recorder.start(session)?;
    let mut running = Running {
        control: control::serve(listener, registry, recording.handle()),
        recording,
        period_ns,
        began: Instant::now(),
        has_lost_vm: false,
        dump,
        on_trigger: OnTrigger::new(args.flight.on_trigger.clone()),
    };
    let mut command = beside.start(open_files)?;
    running.wait(args.pace.duration, stop.as_ref(), command.as_mut());
    // Of all virtual machines, those that end are no reason to fail.
    let has_lost_vm = running.has_lost_vm && !source.all;
    let recorded = running.finish();
    let status = wait(command.as_mut());
    recorded?;
    Ok(child::exit_status(status?, has_lost_vm))
}

/// Adds the sampler's own statistics if the histogram is one of them.
///
/// # Errors
/// If there is no such histogram.
fn add_histogram(filters: &mut Vec<Filter>, name: &str, attachment: &Attachment) -> Result<()> {
    let schemas = attachment.schemas()?;
    let has = |schema: &&std::sync::Arc<vmstrobe::Schema>| {
        let desc = schema.find(name).map(|at| &schema.descs()[at]);
        desc.is_some_and(|desc| desc.stat_type.is_histogram())
    };
    let Some(schema) = schemas.iter().find(has) else {
        return Err(Error::usage(format!(
            "--histlog-stat: there is no histogram '{name}' here; `vmstrobe schema --names \
             '*_hist'` lists them"
        )));
    };
    if filters.iter().all(|filter| filter.target != *schema.target()) {
        filters.push(Filter::all(schema.target().clone()));
    }
    Ok(())
}

/// The files or the flight recorder, before there is a session to record.
enum Recorder<'a> {
    Files(&'a RecordArgs, Box<FileOptions>),
    Flight(Box<FlightOptions>),
}

impl<'a> Recorder<'a> {
    fn new(
        args: &'a RecordArgs,
        attachment: &Attachment,
        filters: &[Filter],
        broker: Broker,
    ) -> Result<Self> {
        let vm = match args.source.demo {
            true => Some(vmstrobe::demo::NAME.to_owned()),
            false => attachment.main().map(|member| member.name.clone()),
        };
        let metadata = Metadata {
            filter: Some(report::filter_text(filters, args.select.of.names.as_ref())),
            vm: vm.filter(|_| attachment.check_one_vm().is_ok()),
            labels: args.file.write.labels.clone(),
            ..Metadata::default()
        };
        check_every(args)?;
        Ok(match args.flight.last {
            None => Self::Files(args, Box::new(file_options(&args.file, metadata, broker))),
            Some(last) => {
                let trigger = trigger(args, attachment, filters)?;
                Self::Flight(Box::new(flight_options(args, last, trigger, metadata, broker)?))
            }
        })
    }

    fn start(self, session: Session) -> Result<Recording> {
        Ok(match self {
            Self::Files(args, mut options) => {
                let path = args.output.as_deref().expect("clap requires it without --last");
                options.format = format(path, &args.file.write);
                session.record_to(path, *options)?
            }
            Self::Flight(options) => session.fly(*options).map_err(no_place_for_dumps)?,
        })
    }
}

/// Returns the error of a flight recorder that cannot begin.
fn no_place_for_dumps(error: vmstrobe::Error) -> Error {
    match error {
        vmstrobe::Error::RecordFile { path, source } => Error::failed(format!(
            "no dump can be written into the directory {}: {}: choose another with -o",
            path.display(),
            reason(&source)
        )),
        error => error.into(),
    }
}

/// Checks that samples are thinned only in a table or in lines, which people look at.
///
/// # Errors
/// If another format should be thinned.
fn check_every(args: &RecordArgs) -> Result<()> {
    let format = args.output.as_deref().and_then(Format::of);
    let is_text = matches!(format, None | Some(Format::Csv | Format::JsonLines));
    if args.file.write.every.is_none() || (is_text && args.flight.last.is_none()) {
        return Ok(());
    }
    Err(Error::usage(
        "--every thins .csv and .jsonl: for other formats choose a lower rate with -r, or thin the \
         recording with `vmstrobe convert --every`",
    ))
}

fn file_options(args: &FileArgs, metadata: Metadata, broker: Broker) -> FileOptions {
    let FileArgs { write, split, keep, flush, histlog, histlog_stat } = args;
    FileOptions {
        histlog: histlog.clone().map(|path| (path, histlog_stat.clone())),
        compression: write.compress,
        every: write.every,
        split: *split,
        keep_bytes: *keep,
        overwrite: write.overwrite,
        flush: *flush,
        metadata,
        broker,
        ..FileOptions::default()
    }
}

/// Returns the format that a path and the layout of Parquet stand for.
pub(crate) fn format(path: &Path, write: &WriteArgs) -> Option<Format> {
    Format::of(path).map(|format| match (format, write.layout) {
        (Format::Parquet, ParquetLayout::Wide) => Format::WideParquet,
        (format, _) => format,
    })
}

fn flight_options(
    args: &RecordArgs,
    last: Duration,
    trigger: Option<Trigger>,
    metadata: Metadata,
    broker: Broker,
) -> Result<FlightOptions> {
    let template = args.output.clone().unwrap_or_else(|| "{vm}-{time}.arrows".into());
    if Format::of(&template) != Some(Format::Arrows) {
        let name = template.display();
        return Err(Error::usage(format!(
            "a flight recorder writes .arrows, not '{name}': let the name end in .arrows, and use \
             `vmstrobe convert` afterwards"
        )));
    }
    let FlightArgs { memory, after, .. } = &args.flight;
    Ok(FlightOptions {
        last,
        memory_bytes: usize::try_from(*memory).unwrap_or(usize::MAX),
        template,
        compression: args.file.write.compress,
        trigger,
        after: after.unwrap_or_default(),
        metadata,
        broker,
    })
}

/// Returns the trigger of the condition, if there is one.
///
/// # Errors
/// If its statistics do not exist, or are not recorded.
fn trigger(
    args: &RecordArgs,
    attachment: &Attachment,
    filters: &[Filter],
) -> Result<Option<Trigger>> {
    let Some(rule) = rule(&args.flight, Some(args.flight.max_dumps)) else { return Ok(None) };
    Trigger::new(rule.clone(), &attachment.schemas()?)?;
    let condition = rule.condition.to_string();
    let trigger = Trigger::new(rule, &attachment.selected_schemas(filters)?);
    // The statistics exist: what is wrong is that they are left out.
    let trigger = trigger.map_err(|_| {
        Error::usage(format!(
            "--when: '{condition}' compares statistics that are not recorded: let --names, \
             --target and --provider include them"
        ))
    });
    Ok(Some(trigger?))
}

/// Returns the rule of the condition, if there is one, with at most so many triggers.
fn rule(args: &FlightArgs, triggers_max: Option<u64>) -> Option<TriggerRule> {
    let condition = args.when.clone()?;
    let hold_for = args.hold_for.unwrap_or_default();
    Some(TriggerRule { condition, hold_for, hold_off: args.hold_off, triggers_max })
}

/// A recording that runs.
struct Running {
    // In this order: clients may read the virtual machine of the demo, which ends with the session.
    control: Option<ControlSocket>,
    recording: Recording,
    period_ns: u64,
    began: Instant,
    has_lost_vm: bool,
    dump: Option<DumpFlag>,
    on_trigger: OnTrigger,
}

impl Running {
    /// Waits until the recording must end.
    fn wait(
        &mut self,
        duration: Option<Duration>,
        stop: Option<&StopFlag>,
        mut command: Option<&mut Child>,
    ) {
        let mut shown = Instant::now();
        loop {
            std::thread::sleep(POLL_PERIOD);
            self.report_events();
            if self.dump.as_ref().is_some_and(DumpFlag::take) {
                let request = DumpRequest { cause: "signal".to_owned(), last: None, path: None };
                self.recording.dump(request, None);
            }
            if shown.elapsed() >= PROGRESS_PERIOD {
                let progress = self.recording.progress();
                show_progress(&report::progress_line(&progress, self.period_ns));
                shown = Instant::now();
            }
            let is_over = match command.as_deref_mut() {
                Some(command) => !matches!(command.try_wait(), Ok(None)),
                None => stop.is_some_and(StopFlag::is_set),
            };
            let is_late = duration.is_some_and(|duration| self.began.elapsed() >= duration);
            let is_without_vm = self.has_lost_vm && self.recording.session().has_ended();
            let session = self.recording.session().is_finished();
            if is_over || is_late || is_without_vm || session || self.recording.is_finished() {
                return;
            }
        }
    }

    /// Reports notices, members that have ended, dumps, and what clients asked for.
    fn report_events(&mut self) {
        let session = self.recording.session();
        let (notices, ended) = (session.notices(), session.newly_ended());
        let dumps = self.recording.dumps();
        let asked = self.control.as_ref().map(ControlSocket::events).unwrap_or_default();
        if notices.is_empty() && ended.is_empty() && dumps.is_empty() && asked.is_empty() {
            return;
        }
        show_progress("");
        say_each(of_notices(notices));
        for vm in ended {
            say(format_args!("{} has ended", vm.title));
            self.has_lost_vm = true;
        }
        dumps.iter().for_each(|dump| self.on_trigger.report_dump(dump));
        control::report(asked);
    }

    /// Ends the recording, and reports what was recorded.
    fn finish(mut self) -> Result<()> {
        self.report_events();
        show_progress("");
        let (period_ns, is_flight) = (self.period_ns, self.dump.is_some());
        control::report(self.control.take().map(ControlSocket::close).unwrap_or_default());
        let Self { recording, mut on_trigger, .. } = self;
        let recorded = recording.stop()?;
        recorded.dumps.iter().for_each(|dump| on_trigger.report_dump(dump));
        say_each(report::summary(&recorded, period_ns, is_flight));
        Ok(())
    }
}
