//! Parts of the texts of errors.
//!
//! Invariant: a list that is empty has a sentence of its own.

use vmstrobe_core::{Object, Target, VcpuRef};
use vmstrobe_host::VmInfo;

use super::SocketPeer;
use crate::unknown_name::UnknownName;

/// Returns the text from a place on, if there is any.
pub(super) fn rest(text: &str, at: usize) -> &str {
    match text.get(at..) {
        None | Some("") => "its end",
        Some(rest) => rest,
    }
}

pub(super) fn several(vms: &[VmInfo]) -> &'static str {
    match vms {
        [] => "several processes on this host have tables of statistics",
        _ => "several virtual machines run on this host",
    }
}

pub(super) fn no_objects(target: &Target, provider: Option<&str>, known: &[Target]) -> String {
    let of = provider.map(|name| format!(" of provider '{name}'")).unwrap_or_default();
    match known {
        [] => format!("there are no objects of target '{target}'{of} here"),
        _ => {
            let known = joined(known.iter().map(Target::name));
            format!("there are no objects of target '{target}'{of} here, only of {known}")
        }
    }
}

pub(super) fn no_statistic(unknown: &[UnknownName]) -> String {
    match unknown {
        [] => "no statistic is selected".to_owned(),
        _ => unknown.iter().map(UnknownName::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// Returns a vCPU as a user names it.
pub(super) fn vcpu_text(vcpu: &VcpuRef) -> String {
    match vcpu {
        VcpuRef::Path(path) => format!("'{path}'"),
        VcpuRef::Index(index) => index.to_string(),
    }
}

pub(super) fn paths(objects: &[Object]) -> String {
    objects.iter().map(|object| &*object.path).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for SocketPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WithoutVm { pid, comm } => write!(f, "pid {pid} ({comm}), which has no VM"),
            Self::NotRead { pid } => write!(f, "pid {pid}, which is not read"),
            Self::Unknown => f.write_str("a process that the kernel does not name"),
        }
    }
}

/// Returns a list of names, each once, in the order of the alphabet: `a`, `a and b`, `a, b and c`.
pub(crate) fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_once_and_in_order() {
        assert_eq!(joined(["b", "a", "b", "c"]), "a, b and c");
        assert_eq!((joined(["a", "a"]), joined([])), ("a".to_owned(), String::new()));
    }
}
