//! The beginning of each command that samples until it is told to end: `stat` and `record`.
//!
//! Invariant: capabilities are dropped before another thread starts, but for the two that need
//! them. Until a measured command is started, signals have their default effect: they end vmstrobe.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use vmstrobe::{Attachment, Broker, Filter, Moment, Options, Replay};

use crate::args::{MethodArgs, ProviderSet, SelectArgs, SourceArgs, VcpuArgs};
use crate::attach;
use crate::child;
use crate::error::{Error, Result};
use crate::limits::OpenFiles;
use crate::messages::of_notices;
use crate::out::{reason, say_each};
use crate::privileges::{Launcher, Needs};
use crate::signals::StopFlag;
use crate::stop;

/// The objects to be sampled, and the events that end the sampling.
pub(crate) struct Sampling<'a> {
    pub(crate) beside: Beside<'a>,
    pub(crate) broker: Broker,
    pub(crate) attachment: Attachment,
    pub(crate) filters: Vec<Filter>,
    /// The flag of the signals that end the command; `None` if they are a measured command's.
    pub(crate) stop: Option<StopFlag>,
}

/// The command beside which is sampled, before it is started, if there is one.
pub(crate) struct Beside<'a> {
    launcher: Option<Launcher>,
    words: &'a [OsString],
    broker: Broker,
}

impl<'a> Sampling<'a> {
    /// Drops capabilities, and opens what the user named. `words` is the command beside which is
    /// sampled, `providers` what `select` selects from.
    ///
    /// # Errors
    /// If there is nothing to sample, or signals cannot be received.
    pub(crate) fn prepare(
        (source, method): (&SourceArgs, &MethodArgs),
        words: &'a [OsString],
        providers: ProviderSet,
        select: impl FnOnce(&Attachment) -> vmstrobe::Result<Vec<Filter>>,
    ) -> Result<Self> {
        // Before capabilities are dropped, because starting the command needs them.
        let launcher = (!words.is_empty()).then(Launcher::new).transpose()?;
        let mut needs = Needs::of(source, method.bpf);
        if launcher.is_some() {
            needs = needs.with_signalling();
        }
        let broker = needs.move_to_broker()?;
        let bpf = attach::bpf_for_sampling(method.bpf, broker.clone())?;
        let attachment = attach::open(source, providers, bpf)?;
        let filters = select(&attachment)?;
        say_each(of_notices(attachment.notices()));
        let stop = words.is_empty().then(StopFlag::listen).transpose()?;
        if stop.is_some() {
            stop::exit_at_second_signal()?;
        }
        let beside = Beside { launcher, words, broker: broker.clone() };
        Ok(Self { beside, broker, attachment, filters, stop })
    }
}

impl Beside<'_> {
    /// Starts the command, with the limit of open files that vmstrobe was started with.
    ///
    /// # Errors
    /// As [`child::start`].
    pub(crate) fn start(self, open_files: OpenFiles) -> Result<Option<Child>> {
        let Some(launcher) = self.launcher else { return Ok(None) };
        let command = child::start(launcher, self.words, self.broker)?;
        open_files.restore_for(&command);
        Ok(Some(command))
    }
}

/// A recording in the place of a running machine, opened for a command that takes its samples, with
/// what was selected of it.
pub(crate) struct Replaying {
    pub(crate) replay: Replay,
    pub(crate) options: Options,
    pub(crate) stop: StopFlag,
}

impl Replaying {
    /// Drops capabilities, and opens the recording.
    ///
    /// # Errors
    /// If it cannot be read, has nothing of what is selected, or signals cannot be received.
    pub(crate) fn prepare(path: &Path, select: &SelectArgs, vcpus: &VcpuArgs) -> Result<Self> {
        let options = attach::replay_options()?;
        // As of a running machine, what there is at the begin is selected from.
        let first = attach::open_recording(path, Moment::After(Duration::ZERO), &options)?;
        let filter = first.select(&select.selection(vcpus))?;
        say_each(of_notices(first.notices()));
        let stop = StopFlag::listen()?;
        stop::exit_at_second_signal()?;
        let replay = Replay::open_by(path, options.bpf.broker())?.with_filters(vec![filter]);
        Ok(Self { replay, options, stop })
    }
}

/// Waits for the command's end.
///
/// # Errors
/// If the system refuses.
pub(crate) fn wait(command: Option<&mut Child>) -> Result<Option<ExitStatus>> {
    let status = command.map(Child::wait).transpose();
    status
        .map_err(|error| Error::failed(format!("cannot wait for the command: {}", reason(&error))))
}
