//! The members of an object, taken one by one in the order of the command's QAPI definition. A
//! member that is left at the end is unexpected.
//!
//! Invariant: texts and paths are those of QEMU's visitor (`qapi/qobject-input-visitor.c`). If
//! members are taken in the order of the definition, the first refusal is QEMU's. Of several
//! unexpected members the first in the text is named; QEMU names the first in a hash table.

use super::refusal::Refusal;
use super::value::{Dict, Value};

/// The members of an object, and which of them have been taken.
#[derive(Debug)]
pub(super) struct Members<'v> {
    dict: &'v Dict<'v>,
    /// The path of the object: empty for a command's arguments, else such as `providers[0]`.
    at: String,
    /// The indexes of the members that have been taken.
    taken: Vec<usize>,
}

impl<'v> Members<'v> {
    /// Begins with the arguments of a command.
    pub(super) fn of_arguments(dict: &'v Dict<'v>) -> Self {
        Self { dict, at: String::new(), taken: Vec::new() }
    }

    /// Takes the value at `path` as an object.
    ///
    /// # Errors
    /// GenericError if it is no object.
    pub(super) fn of(value: &'v Value<'v>, path: String) -> Result<Self, Refusal> {
        match value {
            Value::Dict(dict) => Ok(Self { dict, at: path, taken: Vec::new() }),
            _ => Err(bad_type(&path, "object")),
        }
    }

    /// Takes a string that must be present.
    ///
    /// # Errors
    /// GenericError if it is absent or no string.
    pub(super) fn string(&mut self, name: &str) -> Result<&'v str, Refusal> {
        let string = self.optional_string(name)?;
        string
            .ok_or_else(|| Refusal::generic(format!("Parameter '{}' is missing", self.path(name))))
    }

    /// Takes a string, if it is present.
    ///
    /// # Errors
    /// GenericError if it is no string.
    pub(super) fn optional_string(&mut self, name: &str) -> Result<Option<&'v str>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(string)) => Ok(Some(string)),
            Some(_) => Err(bad_type(&self.path(name), "string")),
        }
    }

    /// Takes an integer, if it is present.
    ///
    /// # Errors
    /// GenericError if it is no `i64`. A double is no integer, whatever its value.
    pub(super) fn optional_int(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Int(int)) => Ok(Some(*int)),
            Some(_) => Err(bad_type(&self.path(name), "integer")),
        }
    }

    /// Takes a list, if it is present.
    ///
    /// # Errors
    /// GenericError if it is no list.
    pub(super) fn optional_list(&mut self, name: &str) -> Result<Option<&'v [Value<'v>]>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::List(items)) => Ok(Some(items)),
            Some(_) => Err(bad_type(&self.path(name), "array")),
        }
    }

    /// Takes a list of strings, if it is present.
    ///
    /// # Errors
    /// GenericError if it is no list, or an item is no string.
    pub(super) fn optional_strings(&mut self, name: &str) -> Result<Option<Vec<&'v str>>, Refusal> {
        let Some(items) = self.optional_list(name)? else { return Ok(None) };
        let strings = items.iter().enumerate().map(|(index, item)| match item {
            Value::String(string) => Ok(string.as_ref()),
            _ => Err(bad_type(&format!("{}[{index}]", self.path(name)), "string")),
        });
        strings.collect::<Result<_, _>>().map(Some)
    }

    /// Returns the path of a member: `target`, `providers[0].names`.
    pub(super) fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Checks that every member has been taken.
    ///
    /// # Errors
    /// GenericError that names the first member in the text that has not.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let left = self.dict.iter().enumerate().find(|(index, _)| !self.taken.contains(index));
        match left {
            None => Ok(()),
            Some((_, (name, _))) => {
                Err(Refusal::generic(format!("Parameter '{}' is unexpected", self.path(name))))
            }
        }
    }

    fn take(&mut self, name: &str) -> Option<&'v Value<'v>> {
        let dict = self.dict;
        let (index, (_, value)) = dict.iter().enumerate().find(|(_, (key, _))| *key == name)?;
        if !self.taken.contains(&index) {
            self.taken.push(index);
        }
        Some(value)
    }
}

/// Makes the refusal of a value that an enumeration does not have. `name` is the name of the member
/// without its path; an item of a list has no name, for which QEMU writes `null`.
pub(super) fn bad_enum(name: Option<&str>, value: &str) -> Refusal {
    let name = name.unwrap_or("null");
    Refusal::generic(format!("Parameter '{name}' does not accept value '{value}'"))
}

pub(super) fn bad_type(path: &str, expected: &str) -> Refusal {
    Refusal::generic(format!("Invalid parameter type for '{path}', expected: {expected}"))
}

#[cfg(test)]
mod tests;
