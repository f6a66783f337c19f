//! Why a request is refused, in QEMU's words.
//!
//! Invariant: class and text are what QEMU 10.0 would have said.

use serde::Serialize;

/// An error reply: QAPI `QapiErrorClass` and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    pub(super) class: Class,
    pub(super) desc: String,
}

/// QAPI `QapiErrorClass`, as far as we have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Class {
    GenericError,
    CommandNotFound,
}

impl Refusal {
    /// Of the class that most are of.
    pub(super) fn generic(desc: impl Into<String>) -> Self {
        Self { class: Class::GenericError, desc: desc.into() }
    }

    /// A command that there is not, or not now.
    pub(super) fn not_found(desc: impl Into<String>) -> Self {
        Self { class: Class::CommandNotFound, desc: desc.into() }
    }
}
