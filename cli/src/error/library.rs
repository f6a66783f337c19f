//! Errors of the library in the words of the command: with the options that help.

use vmstrobe::{Error as Library, Object, SocketPeer, VcpuRef};

use super::{Error, with_causes};
use crate::notices;

/// The most sources that an error lists.
const LISTED_MAX: usize = 20;

/// Returns the error with the options that help, and says first what belongs to it.
pub(super) fn text_of(error: Library) -> Error {
    let text = error.to_string();
    match error {
        Library::Core(error) => error.into(),
        Library::VmRefused(error) => {
            let mut text = with_causes(&error);
            if error.kind() == vmstrobe::ErrorKind::Unsupported {
                text += "; a QEMU can be asked instead: --from-qmp SOCKET";
            }
            Error::failed(text)
        }
        Library::NothingFound { hidden, left_out } => {
            notices::say_left_out(&left_out);
            let hidden = hidden.map(|hidden| format!(" ({hidden})")).unwrap_or_default();
            Error::failed(format!(
                "no virtual machine and no table of statistics found on this host: start one, or \
                 try --demo{hidden}"
            ))
        }
        Library::SeveralFound { .. } => several_found(&error),
        Library::NothingReadable { notices } => {
            notices::say_notices(notices);
            Error::failed(format!("{text}: `vmstrobe list` says why"))
        }
        Library::NoStatistics { .. } => Error::failed(format!(
            "{text}: give the pid of a VMM, or of a program that publishes statistics; `vmstrobe \
             list` shows them"
        )),
        Library::UnclearSocket { peer, .. } => {
            let advice = match peer {
                SocketPeer::NotRead { pid } => {
                    format!("add -p {pid}, or ask QEMU alone, without -p and --all")
                }
                _ => {
                    "give only its QEMU with -p, or ask QEMU alone, without -p and --all".to_owned()
                }
            };
            Error::usage(format!("{text}: {advice}"))
        }
        Library::OtherQemu { pid, .. } => Error::usage(format!(
            "{text}; give the socket of pid {pid}, or ask QEMU alone, without -p and --all"
        )),
        Library::SeveralVms { titles } => Error::usage(format!(
            "one socket answers for one virtual machine, and these are several: {}. Name one by \
             -p, or give each a socket of its own: --qmp-dir DIR",
            titles.join(", ")
        )),
        Library::UnknownProvider { name, .. } if name == crate::args::SCHED => {
            Error::failed(format!(
                "{text}: it is of virtual machines that run on this host, named by -p or --all"
            ))
        }
        Library::NoVmStatistics { .. } => Error::failed(format!(
            "{text}. Ask QEMU itself: --from-qmp SOCKET; or read the vCPUs: --target vcpu"
        )),
        Library::NoObjects { warnings, .. } => {
            let warnings = warnings.iter().map(|warning| format!(": {}", with_causes(warning)));
            Error::failed(warnings.fold(text, |text, warning| text + &warning))
        }
        Library::VcpusOfTarget { target } => {
            Error::usage(format!("--vcpu selects vCPUs: leave it out for target {target}"))
        }
        Library::UnclearTarget { .. } => Error::usage(format!("{text} with --target")),
        Library::NoSuchStatistic { ref unknown } if unknown.is_empty() => {
            Error::failed(format!("{text}: `vmstrobe schema` shows what there is"))
        }
        Library::NoSuchVcpu { vcpu, known } => no_such_vcpu(&vcpu, &known),
        _ => Error::failed(text),
    }
}

/// Returns the error with a line for each vCPU that there is.
fn no_such_vcpu(vcpu: &VcpuRef, known: &[Object]) -> Error {
    let vcpu = match vcpu {
        VcpuRef::Path(path) => format!("'{path}'"),
        VcpuRef::Index(index) => index.to_string(),
    };
    let line = |object: &Object| {
        let index = object.index.map(|index| format!("{index:>4}  ")).unwrap_or_default();
        format!("  {index}{}", object.path)
    };
    let text = format!("there is no vCPU {vcpu}, only");
    Error::failed(text).above(known.iter().map(line))
}

fn several_found(error: &Library) -> Error {
    let text = error.to_string();
    let what = text.split(": ").next().unwrap_or_default();
    let mut lines = error.found_lines();
    let more = lines.len().saturating_sub(LISTED_MAX);
    lines.truncate(LISTED_MAX);
    if more > 0 {
        lines.push(format!("            and {more} more: see `vmstrobe list`"));
    }
    let text = format!("{what}: choose one with -p PID, or take them all with --all");
    Error::failed(text).above(lines)
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Access, BpfStatus, ErrorKind, Target, VmInfo};

    use super::*;

    #[test]
    fn each_error_has_the_options_that_help() {
        let core = |kind| vmstrobe::CoreError::caused(kind, "not opened", "it is torn");
        for (error, want) in [
            (Library::VmRefused(core(ErrorKind::Denied)), "not opened: it is torn"),
            (
                Library::VmRefused(core(ErrorKind::Unsupported)),
                "not opened: it is torn; a QEMU can be asked instead: --from-qmp SOCKET",
            ),
            (
                Library::VcpusOfTarget { target: Target::Vm },
                "--vcpu selects vCPUs: leave it out for target vm",
            ),
            (
                Library::NoSuchStatistic { unknown: Vec::new() },
                "no statistic is selected: `vmstrobe schema` shows what there is",
            ),
            (
                Library::UnclearTarget { targets: vec![Target::Cryptodev, Target::Vm] },
                "there are no vCPUs here, but objects of target cryptodev and vm: select one with \
                 --target",
            ),
        ] {
            assert_eq!(text_of(error).to_string(), want);
        }
        let text = text_of(Library::NoVmStatistics { bpf: BpfStatus::Off }).to_string();
        assert!(text.contains("switched off. Ask QEMU itself: --from-qmp SOCKET; or"), "{text}");
        let titles = vec!["VM a (pid 1)".to_owned(), "VM b (pid 2)".to_owned()];
        let text = text_of(Library::SeveralVms { titles }).to_string();
        assert!(text.contains("VM a (pid 1), VM b (pid 2)") && text.ends_with("--qmp-dir DIR"));
    }

    #[test]
    fn of_many_sources_some_are_listed() {
        let vm = |pid| VmInfo {
            pid,
            name: None,
            start_time_ticks: 1,
            uid: 0,
            vcpus: 1,
            access: Access::NoStatsFds,
        };
        let text = |count| {
            let vms = (0..count).map(vm).collect();
            text_of(Library::SeveralFound { vms, tables: Vec::new() }).to_string()
        };
        let head = "several virtual machines run on this host: choose one with -p PID, or take \
                    them all with --all\n         0  0\n";
        assert!(text(2).starts_with(head) && text(2).ends_with("\n         1  1"), "{}", text(2));
        assert!(text(31).ends_with("\n            and 11 more: see `vmstrobe list`"));
    }
}
