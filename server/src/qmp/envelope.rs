//! The envelope of a request: `execute`, `arguments` and `id`.
//!
//! Invariant: the checks and their texts are QEMU's (`qapi/qmp-dispatch.c`). Of several wrong
//! members the first in the text is named; QEMU names the first in a hash table.

use std::borrow::Cow;

use super::refusal::Refusal;
use super::value::{Dict, Value};

/// A request that has the right form.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request<'a> {
    pub(super) command: Cow<'a, str>,
    /// Whether the command came as `exec-oob`.
    pub(super) is_oob: bool,
    /// The arguments; empty if there were none.
    pub(super) arguments: Dict<'a>,
    /// The value to echo in the reply; any JSON value.
    pub(super) id: Option<Value<'a>>,
}

/// The refusal of a text that is no request, and the `id` to echo if the text was an object that
/// has one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unfit<'a> {
    pub(super) refusal: Refusal,
    pub(super) id: Option<Value<'a>>,
}

/// Takes a text as a request. `exec-oob` is a member like `execute` only if `oob_is_on`, which the
/// client asks for when it negotiates.
///
/// # Errors
/// The refusal of the first wrong member, or that `execute` is missing.
pub(super) fn request(value: Value<'_>, oob_is_on: bool) -> Result<Request<'_>, Unfit<'_>> {
    let Value::Dict(dict) = value else {
        return Err(Unfit {
            refusal: Refusal::generic("QMP input must be a JSON object"),
            id: None,
        });
    };
    let fault = first_fault(&dict, oob_is_on);
    let (mut command, mut is_oob, mut arguments, mut id) = (None, false, Dict::default(), None);
    for (name, value) in dict {
        match (name.as_ref(), value) {
            ("id", value) => id = Some(value),
            ("arguments", Value::Dict(dict)) => arguments = dict,
            ("execute" | "exec-oob", Value::String(string)) => {
                is_oob = name == "exec-oob";
                command = Some(string);
            }
            _ => {}
        }
    }
    let fault = match (fault, command) {
        (None, Some(command)) => return Ok(Request { command, is_oob, arguments, id }),
        (None, None) => "QMP input lacks member 'execute'".to_owned(),
        (Some(fault), _) => fault,
    };
    Err(Unfit { refusal: Refusal::generic(fault), id })
}

/// Returns the error for the first wrong member in the text.
fn first_fault(dict: &Dict<'_>, oob_is_on: bool) -> Option<String> {
    let has_oob = oob_is_on && matches!(dict.get("exec-oob"), Some(Value::String(_)));
    let fault = |name: &str, value: &Value<'_>| match (name, value) {
        // QEMU checks `exec-oob` before `execute`, whichever was sent first.
        ("execute", Value::String(_)) if has_oob => Some("clashes with 'exec-oob'"),
        ("execute", Value::String(_)) | ("arguments", Value::Dict(_)) | ("id", _) => None,
        ("exec-oob", Value::String(_)) if oob_is_on => None,
        ("exec-oob", _) if oob_is_on => Some("must be a string"),
        ("execute", _) => Some("must be a string"),
        ("arguments", _) => Some("must be an object"),
        _ => Some("is unexpected"),
    };
    dict.iter().find_map(|(name, value)| {
        let fault = fault(name, value)?;
        Some(format!("QMP input member '{name}' {fault}"))
    })
}

#[cfg(test)]
mod tests;
