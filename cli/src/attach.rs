//! From the arguments to an attachment: the sources that the user named, or the demo; and the BPF
//! reader that the attachment may use.
//!
//! Invariant: the library's notices about an attachment are printed before any of its data.

use std::path::Path;

use vmstrobe::{Attachment, Bpf, BpfMode, Broker, Moment, Options, demo};

use crate::args::{BpfWhen, MethodArgs, ProviderSet, SourceArgs};
use crate::error::{Error, Result, with_causes};
use crate::messages::of_notices;
use crate::out::say_each;
use crate::privileges::{self, Needs};

/// Opens the sources that the user named. Without any, opens the only virtual machine on this host,
/// or else the only program with tables, if a source is needed. Adds the sampler's own statistics.
///
/// # Errors
/// If a source cannot be read, or none was named and there are several.
pub(crate) fn open(source: &SourceArgs, providers: ProviderSet, bpf: Bpf) -> Result<Attachment> {
    let options = options(source, bpf, providers == ProviderSet::WithSched);
    let attachment = match providers {
        _ if source.demo => demo::start(demo::VCPUS, &options)?,
        ProviderSet::OwnOnly if !source.is_named() => Attachment::of(vmstrobe::Registry::default()),
        _ => Attachment::open(&source.sources(), &options)?,
    };
    say_each(of_notices(attachment.notices()));
    Ok(attachment.with_own_statistics())
}

/// Opens what a command reads once: the sample of that moment, if the user named a recording, or
/// else the sources as [`open`] does.
///
/// # Errors
/// As [`open`], or if the recording has no such sample.
pub(crate) fn open_for_reading(
    source: &SourceArgs,
    (recording, moment): (Option<&Path>, Moment),
    providers: ProviderSet,
    method: &MethodArgs,
) -> Result<Attachment> {
    if let Some(path) = recording {
        return open_recording(path, moment, &replay_options()?);
    }
    let broker = Needs::of(source, method.bpf).move_to_broker()?;
    open(source, providers, bpf_for_reading(method.bpf, broker)?)
}

/// Opens the sample of a recording at a moment.
///
/// # Errors
/// If the recording cannot be read up to there, or has no such sample.
pub(crate) fn open_recording(path: &Path, moment: Moment, options: &Options) -> Result<Attachment> {
    let attachment = Attachment::recorded(path, moment, options)?;
    say_each(of_notices(attachment.notices()));
    Ok(attachment)
}

/// Returns the options with which a recording is opened.
///
/// # Errors
/// If the broker cannot be started.
pub(crate) fn replay_options() -> Result<Options> {
    let bpf = Bpf::with_broker(BpfMode::Off, Needs::of_files().move_to_broker()?);
    Ok(options(&SourceArgs::default(), bpf, false))
}

/// Opens the sources that the user named as one virtual machine, for a server. Leaves out the
/// sampler's own statistics.
///
/// # Errors
/// As [`open`], or if the sources are several virtual machines.
pub(crate) fn open_one(source: &SourceArgs, options: &Options) -> Result<Attachment> {
    if source.demo {
        return Ok(demo::start(demo::VCPUS, options)?);
    }
    let attachment = Attachment::open(&source.sources(), options)?;
    attachment.check_one_vm()?;
    say_each(of_notices(attachment.notices()));
    Ok(attachment)
}

/// Returns the options with which the library opens these sources.
pub(crate) fn options(source: &SourceArgs, bpf: Bpf, sched: bool) -> Options {
    let (on_any_kernel, threads) = (source.on_any_kernel, privileges::unprivileged_threads());
    Options { bpf, sched, on_any_kernel, threads }
}

/// Returns the BPF reader for a command that samples. A reader that is required is tried at once,
/// any other when there is something to read.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_sampling(when: BpfWhen, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Auto, broker)
}

/// Returns the BPF reader for a command that reads once. Unless it is required, it reads only
/// objects that no other method can read: for others, loading a program is not worth it.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_reading(when: BpfWhen, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Needed, broker)
}

fn bpf(when: BpfWhen, auto: BpfMode, broker: Broker) -> Result<Bpf> {
    let mode = match when {
        BpfWhen::Auto => auto,
        BpfWhen::Off => BpfMode::Off,
        BpfWhen::Require => BpfMode::Require,
    };
    let bpf = Bpf::with_broker(mode, broker);
    if when == BpfWhen::Require {
        let explain = |error| Error::failed(format!("--bpf require: {}", with_causes(&error)));
        bpf.check().map_err(explain)?;
    }
    Ok(bpf)
}

#[cfg(test)]
mod tests {
    use vmstrobe::BpfStatus;

    use super::*;

    #[test]
    fn the_option_decides_the_mode_of_the_bpf_reader() {
        let mode = |when| bpf_for_sampling(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Auto));
        assert_eq!(mode(BpfWhen::Off), Some(BpfMode::Off));
        let mode = |when| bpf_for_reading(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Needed));
        // On this machine the reader can be used, or the error says why not.
        match bpf_for_sampling(BpfWhen::Require, Broker::default()) {
            Ok(bpf) => assert!(matches!(bpf.status(), BpfStatus::Open(_)), "{bpf:?}"),
            Err(error) => assert!(error.to_string().starts_with("--bpf require: "), "{error}"),
        }
    }
}
