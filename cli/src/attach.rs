//! From the arguments to an attachment: what the user named, or a guest of our own.
//!
//! Invariant: what the library has to say about it is said before anything is printed.

use vmstrobe::{Attachment, Bpf, Options};

use crate::args::{ProviderSet, Source};
use crate::demo;
use crate::error::Result;
use crate::notices::say_notices;

/// Opens what the user named; if they named nothing and a source is needed, the only virtual
/// machine on this host, or else the only program with tables. The sampler's own statistics are
/// always there.
///
/// # Errors
/// If what the user named cannot be read, or it is not clear what is meant.
pub(crate) fn open(source: &Source, providers: ProviderSet, bpf: Bpf) -> Result<Attachment> {
    let options = source.options(bpf, providers == ProviderSet::WithSched);
    let attachment = match providers {
        _ if source.demo => demo::attachment(demo::VCPUS, &options)?,
        ProviderSet::Own if !source.is_named() => Attachment::of(vmstrobe::Registry::default()),
        _ => Attachment::open(&source.sources(), &options)?,
    };
    say_notices(attachment.notices());
    Ok(attachment.with_own_statistics())
}

/// Opens what the user named as one virtual machine, without the sampler's own statistics, for a
/// server that passes them on.
///
/// # Errors
/// As [`open`], or if it is several virtual machines.
pub(crate) fn open_one(source: &Source, options: &Options) -> Result<Attachment> {
    if source.demo {
        return demo::attachment(demo::VCPUS, options);
    }
    let attachment = Attachment::open(&source.sources(), options)?;
    attachment.check_one_vm()?;
    say_notices(attachment.notices());
    Ok(attachment)
}
