//! The error replies of QMP.
//!
//! Invariant: class and text are those of QEMU 10.0 where QEMU would refuse the same request.

use serde::Serialize;
use vmstrobe_core::Error;

/// An error reply: QAPI `QapiErrorClass` and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    pub(super) class: Class,
    pub(super) desc: String,
}

/// QAPI `QapiErrorClass`, the classes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Class {
    GenericError,
    CommandNotFound,
}

impl Refusal {
    /// Makes a refusal of the class `GenericError`, which most are.
    pub(super) fn generic(desc: impl Into<String>) -> Self {
        Self { class: Class::GenericError, desc: desc.into() }
    }

    /// Makes a refusal for a command that does not exist or is not available now.
    pub(super) fn not_found(desc: impl Into<String>) -> Self {
        Self { class: Class::CommandNotFound, desc: desc.into() }
    }
}

impl From<Error> for Refusal {
    /// Makes a refusal of the class `GenericError` with the error's text and its causes.
    fn from(error: Error) -> Self {
        Self::generic(format!("{error:#}"))
    }
}
