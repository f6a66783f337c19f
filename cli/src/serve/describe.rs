//! The texts about sockets and what is behind them.
//!
//! Invariant: each text is one line.

use std::time::Duration;

use vmstrobe::Target;
use vmstrobe::serve::{LimitReached, ServedVm};
use vmstrobe::server::qmp::Counts;

use crate::text::{counted, thousands};

/// The time that a VM which started later is served before it is announced, so that a process which
/// creates short-lived VMs does not fill the log.
pub(super) const ANNOUNCED_AFTER: Duration = Duration::from_secs(3);

/// Returns the title: `VM web (pid 4711)`.
pub(super) fn title(vm: &ServedVm) -> &str {
    vm.title.as_deref().unwrap_or("the demo guest")
}

/// Returns true if there are vCPUs, and no statistics of the virtual machine as a whole.
pub(super) fn lacks_vm_statistics(vm: &ServedVm) -> bool {
    let has = |target: Target| vm.objects.iter().any(|(known, _)| *known == target);
    has(Target::Vcpu) && !has(Target::Vm)
}

/// Adds the numbers of objects to a title: `VM web (pid 4711, 4 vCPUs)`.
fn with_counts(title: &str, objects: &[(Target, usize)]) -> String {
    // The title names the one virtual machine already.
    let counts = objects.iter().filter(|(target, _)| *target != Target::Vm);
    let count = |(target, count): &(Target, usize)| match target {
        Target::Vcpu => counted(*count, "vCPU"),
        target => counted(*count, &format!("{target} object")),
    };
    let counts = counts.map(count).collect::<Vec<_>>().join(", ");
    match title.strip_suffix(')') {
        _ if counts.is_empty() => title.to_owned(),
        Some(open) => format!("{open}, {counts})"),
        None => format!("{title} ({counts})"),
    }
}

/// Returns the line about a new socket: the title, the path, and the other members.
pub(super) fn announcement(vm: &ServedVm) -> String {
    let title = with_counts(title(vm), &vm.objects);
    let mut text = format!("serving {title} at {}", vm.path.display());
    if !vm.other_titles.is_empty() {
        text += &format!(", with {}", vm.other_titles.join(", "));
    }
    text
}

/// Returns the line about a virtual machine with this title, and others, without a socket.
pub(super) fn waiting_line(title: &str, others: usize, limit: LimitReached) -> String {
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    format!("no socket for {title}{more} until one becomes free: {}", limit_text(limit))
}

/// Returns the text of a limit, with the option that helps.
pub(crate) fn limit_text(limit: LimitReached) -> String {
    let help = if limit == LimitReached::All { "" } else { " (see --vm-user)" };
    format!("{limit}{help}")
}

/// Returns the line at the end: the sums of the counts of all sockets, and the number of virtual
/// machines that ended before they were announced.
pub(super) fn totals(counts: &Counts, unannounced: usize) -> String {
    let clients = counted(counts.clients_served as usize, "client");
    let requests = counted(counts.requests as usize, "request");
    let mut text = format!("answered {requests} of {clients}");
    let (refused, dropped) = (counts.clients_refused, counts.clients_dropped);
    if refused > 0 {
        text += &format!("; refused {}, beyond the limit of clients", thousands(refused));
    }
    if dropped > 0 {
        text += &format!("; dropped {} that did not read their answers", thousands(dropped));
    }
    if unannounced > 0 {
        let vms = counted(unannounced, "virtual machine");
        text += &format!("; {vms} came and went within {} s", ANNOUNCED_AFTER.as_secs());
    }
    if counts.unread_rows > 0 {
        let rows = counted(counts.unread_rows as usize, "row");
        text += &format!("; {rows} could not be read");
    }
    text
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Attachment, Registry};

    use super::*;

    fn demo() -> ServedVm {
        ServedVm::new("/run/web.sock".into(), &Attachment::of(Registry::default()), None)
    }

    #[test]
    fn a_title_has_the_number_of_objects() {
        for (title, objects, want) in [
            ("VM web (pid 1)", &[("vm", 1), ("vcpu", 2)][..], "VM web (pid 1, 2 vCPUs)"),
            (
                "VM web (pid 1)",
                &[("vcpu", 1), ("cryptodev", 1)],
                "VM web (pid 1, 1 vCPU, 1 cryptodev object)",
            ),
            ("VM web (pid 1)", &[("vm", 1)], "VM web (pid 1)"),
            ("the demo guest", &[("vcpu", 1)], "the demo guest (1 vCPU)"),
            ("the table /a", &[("queue", 2)], "the table /a (2 queue objects)"),
        ] {
            let objects = objects.iter().map(|(name, count)| (Target::from_name(name), *count));
            assert_eq!(with_counts(title, &objects.collect::<Vec<_>>()), want);
        }
    }

    #[test]
    fn providers_of_this_process_are_the_demo() {
        let mut vm = demo();
        assert_eq!(title(&vm), "the demo guest");
        assert!(!lacks_vm_statistics(&vm));
        vm.objects = vec![(Target::Vcpu, 4)];
        assert!(lacks_vm_statistics(&vm));
        vm.objects.push((Target::Vm, 1));
        assert!(!lacks_vm_statistics(&vm));
    }

    #[test]
    fn the_announcement_is_one_line() {
        let mut vm = demo();
        vm.title = Some("VM web (pid 4711)".to_owned());
        vm.objects = vec![(Target::Vm, 1), (Target::Vcpu, 4)];
        assert_eq!(announcement(&vm), "serving VM web (pid 4711, 4 vCPUs) at /run/web.sock");
        vm.other_titles =
            ["QEMU web (/run/web.qmp)", "the table /dev/shm/xyz"].map(str::to_owned).to_vec();
        let with = ", with QEMU web (/run/web.qmp), the table /dev/shm/xyz";
        assert!(announcement(&vm).ends_with(with));
    }

    #[test]
    fn the_text_names_the_limit_that_is_reached_and_the_option() {
        let line = waiting_line("VM d (pid 4)", 0, LimitReached::All);
        let want = "no socket for VM d (pid 4) until one becomes free: there are 256 sockets \
                    already, which is the limit";
        assert_eq!(line, want);
        let line = waiting_line("VM a (pid 1)", 2, LimitReached::User(1000));
        let want = "no socket for VM a (pid 1) and 2 more until one becomes free: user 1000 has 64 \
                    sockets already, which is the limit for a user who is not trusted (see \
                    --vm-user)";
        assert_eq!(line, want);
        let text = limit_text(LimitReached::Untrusted);
        assert!(text.ends_with("the limit for all of them together (see --vm-user)"), "{text}");
    }

    #[test]
    fn the_final_message_has_the_counts() {
        let mut counts = Counts::default();
        assert_eq!(totals(&counts, 0), "answered 0 requests of 0 clients");
        (counts.clients_served, counts.requests) = (1, 1204);
        assert_eq!(totals(&counts, 0), "answered 1,204 requests of 1 client");
        (counts.clients_served, counts.requests) = (2, 2408);
        (counts.clients_refused, counts.clients_dropped) = (2, 1);
        let want = "answered 2,408 requests of 2 clients; refused 2, beyond the limit of \
                    clients; dropped 1 that did not read their answers";
        assert_eq!(totals(&counts, 0), want);
        counts.unread_rows = 3;
        let more = "; 1 virtual machine came and went within 3 s; 3 rows could not be read";
        assert_eq!(totals(&counts, 1), format!("{want}{more}"));
    }
}
