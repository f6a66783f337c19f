//! Errors and notices of the library as messages of the command, with the options that help.
//!
//! Invariant: nothing is printed here: a message is a value, and the notices that belong to an
//! error come with it. A message says what to do next. However many processes were left out, a few
//! messages name all of them.

use std::io;
use std::path::Path;

use vmstrobe::serve::DirectoryRefusal;
use vmstrobe::{
    Error as LibraryError, Format, FoundTable, LeftOut, Notice, Object, SocketPeer, VcpuRef,
    VmInfo, WhyLeftOut, name_or_number, vm_name,
};

use crate::error::{Error, with_causes};
use crate::out::reason;
use crate::serve::describe::limit_text;
use crate::text::thousands;

/// The largest number of sources that an error lists.
const LISTED_MAX: usize = 20;
/// The largest number of processes that have a line each.
const LINES_MAX: usize = 20;
/// The largest number of process ids in one line.
const PIDS_MAX: usize = 500;

impl From<LibraryError> for Error {
    fn from(error: LibraryError) -> Self {
        text_of(error)
    }
}

/// Returns the error with the options that help, and with the messages that belong before it.
fn text_of(error: LibraryError) -> Error {
    let text = error.to_string();
    match error {
        LibraryError::Core(error) => error.into(),
        LibraryError::VmRefused(error) => {
            let mut text = with_causes(&error);
            if error.kind() == vmstrobe::ErrorKind::Unsupported {
                text += "; if it is a QEMU, use --from-qmp SOCKET instead";
            }
            Error::failed(text)
        }
        LibraryError::NothingFound { hidden, left_out } => {
            let hidden = hidden.map(|hidden| format!(" ({hidden})")).unwrap_or_default();
            Error::failed(format!(
                "no virtual machine and no table of statistics found on this host: start one, or \
                 try --demo{hidden}"
            ))
            .with_messages_before(of_left_out(&left_out))
        }
        LibraryError::SeveralFound { vms, tables } => several_found(&vms, &tables),
        LibraryError::NothingReadable { left_out, refused } => {
            let refused = refused.into_iter().map(Notice::NotRead);
            let before = of_left_out(&left_out).into_iter().chain(of_notices(refused));
            Error::failed(format!("{text}: `vmstrobe list` says why"))
                .with_messages_before(before.collect())
        }
        LibraryError::NoStatistics { .. } => Error::failed(format!(
            "{text}: give the pid of a VMM, or of a program that publishes statistics; `vmstrobe \
             list` shows them"
        )),
        LibraryError::UnclearSocket { peer, .. } => unclear_socket(&text, &peer),
        LibraryError::OtherQemu { pid, .. } => Error::usage(format!(
            "{text}: give the socket of pid {pid}, or use --from-qmp without -p and --all"
        )),
        LibraryError::SeveralVms { titles } => Error::usage(format!(
            "one socket serves one virtual machine, but the sources are several: {}: select one \
             with -p PID, or serve each on a socket of its own with --qmp-dir DIR",
            titles.join(", ")
        )),
        LibraryError::UnknownProvider { name, .. } if name == crate::args::SCHED => {
            Error::failed(format!(
                "{text}: it exists only for virtual machines on this host that are named by -p or \
                 --all"
            ))
        }
        LibraryError::NoVmStatistics { .. } => Error::failed(format!(
            "{text}: read them from QEMU with --from-qmp SOCKET, or read the vCPUs with --target \
             vcpu"
        )),
        LibraryError::RecordFile { path, source } => Error::failed(file_text(&path, &source)),
        LibraryError::Recording { path, source } => recording_text(&path, &source),
        LibraryError::NoObjects { warnings, .. } => {
            let warnings = warnings.iter().map(|warning| format!(": {}", with_causes(warning)));
            Error::failed(warnings.fold(text, |text, warning| text + &warning))
        }
        LibraryError::VcpusOfTarget { target } => {
            Error::usage(format!("--vcpu selects vCPUs: leave it out for target {target}"))
        }
        LibraryError::UnclearTarget { .. } => Error::usage(format!("{text} with --target")),
        LibraryError::NoSuchStatistic { ref unknown } if unknown.is_empty() => {
            Error::failed(format!("{text}: `vmstrobe schema` lists all statistics"))
        }
        LibraryError::NoSuchStatistic { .. } => {
            Error::failed(format!("{text}; `vmstrobe schema` lists all statistics"))
        }
        LibraryError::NoSuchVcpu { vcpu, known } => no_such_vcpu(&vcpu, &known),
        error => text_of_serving(error),
    }
}

/// Returns the error about users, groups and sockets of `serve`; the text of any other.
fn text_of_serving(error: LibraryError) -> Error {
    match error {
        LibraryError::UnknownAccount { account, name } => {
            let file = account.file_name();
            Error::usage(format!(
                "there is no {account} '{name}' in /etc/{file}: if this host knows the {account} \
                 from another source, give its number (`getent {file} {name}` shows it)"
            ))
        }
        LibraryError::SocketDirectory { path, why } => {
            let path = path.display();
            Error::failed(match why {
                DirectoryRefusal::Io(error) => {
                    format!("cannot use --qmp-dir {path}: {}", reason(&error))
                }
                why => format!("--qmp-dir {path} {why}"),
            })
        }
        LibraryError::NoSocketLeft(limit) => Error::failed(limit_text(limit)),
        LibraryError::ChangedWhileOpened { .. } => {
            Error::failed("its process ended or changed while it was opened")
        }
        error => Error::failed(error.to_string()),
    }
}

/// Returns the error about a QMP socket of which the VM is unknown, with the options that help.
fn unclear_socket(text: &str, peer: &SocketPeer) -> Error {
    let advice = match peer {
        SocketPeer::NotRead { pid } => format!("add -p {pid}"),
        _ => "select only its QEMU with -p".to_owned(),
    };
    Error::usage(format!("{text}: {advice}, or use --from-qmp without -p and --all"))
}

/// Returns the error with a line for each vCPU that exists.
fn no_such_vcpu(vcpu: &VcpuRef, known: &[Object]) -> Error {
    let vcpu = match vcpu {
        VcpuRef::Path(path) => format!("'{path}'"),
        VcpuRef::Index(index) => index.to_string(),
    };
    let line = |object: &Object| {
        let index = object.index.map(|index| format!("{index:>4}  ")).unwrap_or_default();
        format!("  {index}{}", object.path)
    };
    let text = format!("there is no vCPU {vcpu}: choose one of these with --vcpu");
    Error::failed(text).with_lines(known.iter().map(line))
}

/// Returns the error with a line for each virtual machine, then for each process with tables.
fn several_found(vms: &[VmInfo], tables: &[FoundTable]) -> Error {
    let what = match vms {
        [] => "several processes on this host have tables of statistics",
        _ => "several virtual machines run on this host",
    };
    let vms = vms.iter().map(|vm| format!("{:>10}  {}", vm.pid, vm_name(vm)));
    let table = |table: &FoundTable| {
        let name = name_or_number(table.comm.clone(), table.pid);
        format!("{:>10}  {name}, a table of {}", table.pid, table.provider)
    };
    let mut lines: Vec<String> = vms.chain(tables.iter().map(table)).collect();
    let more = lines.len().saturating_sub(LISTED_MAX);
    lines.truncate(LISTED_MAX);
    if more > 0 {
        lines.push(format!("            and {more} more: see `vmstrobe list`"));
    }
    let text = format!("{what}: choose one with -p PID, or all with --all");
    Error::failed(text).with_lines(lines)
}

/// Returns the text of an error of opening a file, with what to do.
fn file_text(path: &Path, source: &io::Error) -> String {
    let (path, why) = (path.display(), reason(source));
    match source.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{path} is there already: give another name, or replace it with --overwrite")
        }
        io::ErrorKind::NotFound => {
            format!("cannot open {path}: there is no such file or directory")
        }
        _ => format!("cannot open {path}: {why}"),
    }
}

/// Returns the error of writing or reading a recording, with what is left of it.
fn recording_text(file: &Path, source: &vmstrobe::export::Error) -> Error {
    let path = file.display();
    Error::failed(match source {
        vmstrobe::export::Error::Write { whole_bytes, source } => {
            let left = written_text(Format::of(file), *whole_bytes);
            format!("cannot write {path}: {}; {left}", reason(source))
        }
        vmstrobe::export::Error::Damaged { .. } => {
            format!("{path}: {source}; `vmstrobe convert` keeps what stands before that")
        }
        other => format!("{path}: {}", with_causes(other)),
    })
}

/// Returns what is left of a file that could not be written to its end.
fn written_text(format: Option<Format>, whole_bytes: u64) -> String {
    match format {
        // Without the footer, which comes last, no byte of it can be read.
        Some(format) if !format.is_good_unfinished() => "nothing of it can be read, because a \
             Parquet file is good only when it is finished: make room, or record to .arrows, which \
             is good up to its last second"
            .to_owned(),
        _ if whole_bytes == 0 => "nothing of it is good".to_owned(),
        _ => format!("its first {} are good", crate::text::bytes(whole_bytes as f64)),
    }
}

/// Returns the messages of notices, each of one line. If a limit of open files is the cause of one,
/// its message names it.
pub(crate) fn of_notices(notices: impl IntoIterator<Item = Notice>) -> Vec<String> {
    notices.into_iter().flat_map(of_notice).collect()
}

fn of_notice(notice: Notice) -> Vec<String> {
    let message = match notice {
        Notice::LeftOut(processes) => return of_left_out(&processes),
        Notice::NotRead(error) => {
            let error = Error::from(error);
            let left_out = format!("left out: {error}");
            return error.messages_before().iter().cloned().chain([left_out]).collect();
        }
        Notice::OnlyVm { pid, error } => {
            let error = with_causes(&error);
            format!("pid {pid}: only the VM is read, not the tables: {error}")
        }
        Notice::OnlyTables { pid, error } => {
            let error = with_causes(&error);
            format!("pid {pid}: only the tables are read, not the VM: {error}")
        }
        Notice::Provider(error) => with_causes(&error),
        other => other.to_string(),
    };
    vec![message]
}

/// Returns a message for each process that cannot be examined, and one for all those for which
/// there was no time.
pub(crate) fn of_left_out(left_out: &[LeftOut]) -> Vec<String> {
    let is_late = |one: &&LeftOut| one.why == WhyLeftOut::NoTime;
    let (late, others): (Vec<&LeftOut>, Vec<&LeftOut>) = left_out.iter().partition(is_late);
    let line = |one: &&LeftOut| format!("left out: pid {} ({}): {}", one.pid, one.comm, one.why);
    let mut messages: Vec<String> = others.iter().take(LINES_MAX).map(line).collect();
    let more = others.get(LINES_MAX..).unwrap_or_default();
    if !more.is_empty() {
        messages.push(format!("also left out: {}", pids_text(more)));
    }
    if !late.is_empty() {
        messages.push(format!(
            "left out: {}: there was no time left to examine them; name one with -p PID",
            pids_text(&late)
        ));
    }
    messages
}

/// Returns the number of processes and their ids, up to [`PIDS_MAX`].
fn pids_text(processes: &[&LeftOut]) -> String {
    let numbers = processes.iter().take(PIDS_MAX).map(|one| one.pid.to_string());
    let numbers = numbers.collect::<Vec<_>>().join(" ");
    let and_so_on = if processes.len() > PIDS_MAX { " ..." } else { "" };
    let (count, noun) = match processes.len() {
        1 => (String::new(), "pid"),
        count => (format!("{} processes, ", thousands(count as u64)), "pids"),
    };
    format!("{count}{noun} {numbers}{and_so_on}")
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Access, BpfStatus, ErrorKind, Target, VmInfo};

    use super::*;

    fn left_out(pids: std::ops::Range<u32>, why: WhyLeftOut) -> Vec<LeftOut> {
        pids.map(|pid| LeftOut { pid, comm: "p".to_owned(), why }).collect()
    }

    #[test]
    fn each_error_names_the_options_that_help() {
        let core = |kind| vmstrobe::CoreError::caused(kind, "not opened", "it is torn");
        for (error, want) in [
            (LibraryError::VmRefused(core(ErrorKind::Denied)), "not opened: it is torn"),
            (
                LibraryError::VmRefused(core(ErrorKind::Unsupported)),
                "not opened: it is torn; if it is a QEMU, use --from-qmp SOCKET instead",
            ),
            (
                LibraryError::VcpusOfTarget { target: Target::Vm },
                "--vcpu selects vCPUs: leave it out for target vm",
            ),
            (
                LibraryError::NoSuchStatistic { unknown: Vec::new() },
                "no statistic is selected: `vmstrobe schema` lists all statistics",
            ),
            (
                LibraryError::UnclearTarget { targets: vec![Target::Cryptodev, Target::Vm] },
                "there are no vCPUs here, but objects of target cryptodev and vm: select one with \
                 --target",
            ),
        ] {
            assert_eq!(text_of(error).to_string(), want);
        }
        let text = text_of(LibraryError::NoVmStatistics { bpf: BpfStatus::Off }).to_string();
        assert!(
            text.contains("switched off: read them from QEMU with --from-qmp SOCKET, or"),
            "{text}"
        );
        let titles = vec!["VM a (pid 1)".to_owned(), "VM b (pid 2)".to_owned()];
        let text = text_of(LibraryError::SeveralVms { titles }).to_string();
        assert!(text.contains("VM a (pid 1), VM b (pid 2)") && text.ends_with("--qmp-dir DIR"));
    }

    #[test]
    fn errors_of_serving_name_its_options() {
        let path = || "/run/x".into();
        let directory = |why| LibraryError::SocketDirectory { path: path(), why };
        let denied = std::io::Error::from_raw_os_error(13);
        let account = vmstrobe::serve::Account::Group;
        for (error, want) in [
            (
                directory(DirectoryRefusal::Missing),
                "--qmp-dir /run/x does not exist: create it first",
            ),
            (
                directory(DirectoryRefusal::NotADirectory),
                "--qmp-dir /run/x is not a directory: give one for sockets",
            ),
            (
                directory(DirectoryRefusal::TooLong { bytes_max: 77 }),
                "--qmp-dir /run/x is too long: the path of a socket has at most 107 bytes; give a \
                 directory of at most 77",
            ),
            (
                directory(DirectoryRefusal::Io(denied)),
                "cannot use --qmp-dir /run/x: Permission denied",
            ),
            (
                LibraryError::UnknownAccount { account, name: "web".to_owned() },
                "there is no group 'web' in /etc/group: if this host knows the group from another \
                 source, give its number (`getent group web` shows it)",
            ),
            (
                LibraryError::ChangedWhileOpened { pid: 7 },
                "its process ended or changed while it was opened",
            ),
            (LibraryError::SamplerFailed, "the sampler has failed"),
        ] {
            assert_eq!(text_of(error).to_string(), want);
        }
        let error = LibraryError::UnknownAccount { account, name: "web".to_owned() };
        assert_eq!(text_of(error).kind, crate::error::Kind::Usage);
    }

    #[test]
    fn an_error_of_writing_says_what_is_left() {
        let text = |name: &str, whole_bytes| {
            let full = std::io::Error::from_raw_os_error(28);
            let source = vmstrobe::export::Error::Write { whole_bytes, source: full };
            text_of(LibraryError::Recording { path: name.into(), source }).to_string()
        };
        let full = |name: &str| format!("cannot write {name}: No space left on device; ");
        assert_eq!(text("a.arrows", 2048), full("a.arrows") + "its first 2.00 KiB are good");
        assert_eq!(text("a.arrows", 0), full("a.arrows") + "nothing of it is good");
        assert_eq!(text("a.hlog", 1024), full("a.hlog") + "its first 1.00 KiB are good");
        let parquet = text("a-2.parquet", 0);
        assert!(parquet.starts_with(&(full("a-2.parquet") + "nothing of it can be read")));
        assert!(!parquet.contains("are good"), "{parquet}");
    }

    #[test]
    fn the_notices_of_an_error_come_with_it() {
        let core = || vmstrobe::CoreError::new(ErrorKind::Denied, "it is another's");
        let silent = left_out(7..9, WhyLeftOut::Silent);
        let none = LibraryError::NothingFound { hidden: None, left_out: silent.clone() };
        let left_out = of_left_out(&silent);
        assert_eq!(text_of(none).messages_before(), left_out);
        let nested =
            LibraryError::NothingReadable { left_out: silent.clone(), refused: Vec::new() };
        let refused = vec![LibraryError::Core(core()), nested];
        let error = text_of(LibraryError::NothingReadable { left_out: silent, refused });
        let want = [
            &left_out[0],
            &left_out[1],
            "left out: it is another's",
            &left_out[0],
            &left_out[1],
            "left out: none of the virtual machines and tables on this host can be read: \
             `vmstrobe list` says why",
        ];
        assert_eq!(error.messages_before(), want);
        assert_eq!(error.lines().len(), 1);
    }

    #[test]
    fn at_most_twenty_sources_are_listed() {
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
            text_of(LibraryError::SeveralFound { vms, tables: Vec::new() }).to_string()
        };
        let head = "several virtual machines run on this host: choose one with -p PID, or all with \
                    --all\n         0  0\n";
        assert!(text(2).starts_with(head) && text(2).ends_with("\n         1  1"), "{}", text(2));
        assert!(text(31).ends_with("\n            and 11 more: see `vmstrobe list`"));
        let table = |pid, comm: &str| FoundTable { pid, comm: comm.into(), provider: "xyz".into() };
        let text = several_found(&[], &[table(8, " "), table(9, "p")]).to_string();
        assert!(text.starts_with("several processes on this host have tables"), "{text}");
        assert!(text.ends_with("\n         8  8, a table of xyz\n         9  p, a table of xyz"));
    }

    #[test]
    fn processes_without_time_share_one_line() {
        let all = [
            left_out(7..8, WhyLeftOut::Silent),
            left_out(8..9, WhyLeftOut::NoTime),
            left_out(9..10, WhyLeftOut::Crowded),
            left_out(10..11, WhyLeftOut::NoTime),
        ];
        let lines = of_left_out(&all.concat());
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("left out: pid 7 (p): could not be examined"), "{lines:?}");
        assert!(lines[1].starts_with("left out: pid 9 (p): has more"), "{lines:?}");
        assert!(lines[2].starts_with("left out: 2 processes, pids 8 10: there was"), "{lines:?}");
    }

    #[test]
    fn many_processes_have_few_lines() {
        let lines = |why, count: u32| of_left_out(&left_out(1..count + 1, why));
        assert!(lines(WhyLeftOut::Silent, 0).is_empty());
        assert_eq!(lines(WhyLeftOut::Silent, 20).len(), 20);
        let of_21 = lines(WhyLeftOut::Silent, 21);
        assert_eq!(of_21.last().map(String::as_str), Some("also left out: pid 21"));
        let late = lines(WhyLeftOut::NoTime, 1200);
        assert!(late[0].starts_with("left out: 1,200 processes, pids 1 2"), "{late:?}");
        assert!(late[0].contains(" 499 500 ...: there was"), "{late:?}");
    }
}
