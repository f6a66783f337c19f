//! One look at all processes: who is found, who is left out, and where the next look begins.

use std::os::fd::AsFd;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use vmstrobe_guest::{Irqchip, Vm as Guest};
use vmstrobe_table::{TableWriter, Tables};
use vmstrobe_testing::has_kvm;

use super::*;

#[test]
fn a_vm_is_found_in_the_process_that_made_it_and_not_in_one_that_inherits_it() {
    if !has_kvm() || !vmstrobe_host::procfs::sees_every_process() {
        return;
    }
    let vm = Guest::new(Irqchip::None).unwrap();
    let vcpu = vm.vcpu(0).unwrap();
    let stats = vmstrobe_kvm::kvm_get_stats_fd(vcpu.fd()).unwrap();
    let all = [vm.fd(), vcpu.fd(), stats.as_fd()];
    let inherited = |flags| all.iter().for_each(|fd| fcntl_setfd(fd, flags).unwrap());
    inherited(FdFlags::empty());
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    inherited(FdFlags::CLOEXEC);
    let host = Host::default();
    let has_it = || host.look(child.id(), Care::FULL).is_ok_and(|seen| seen.kvm.len() >= 3);
    assert!(vmstrobe_testing::soon(Duration::from_secs(5), has_it));
    let found = scan_all_by(&host).unwrap().vms;
    let has = |pid| found.iter().any(|vm| vm.pid == pid);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has(std::process::id()));
    assert!(!has(child.id()));
}

#[test]
fn who_was_not_looked_at_comes_first_in_the_next_look() {
    let host = Host::default();
    let pids = [3, 5, 7, 9];
    assert_eq!(host.first_of(&pids), 0);
    host.begin_with(Some(7));
    assert_eq!(host.first_of(&pids), 2);
    // It has ended.
    host.begin_with(Some(8));
    assert_eq!(host.first_of(&pids), 3);
    host.begin_with(None);
    assert_eq!(host.first_of(&pids), 0);
}

#[test]
fn what_there_is_no_time_for_is_named() {
    let host = Host::default();
    let begin = Instant::now().checked_sub(LOOK_LIMIT + Duration::from_secs(1)).unwrap();
    let mut survey = Survey::new(&host, begin);
    assert_eq!(survey.look(std::process::id(), u32::MAX).unwrap(), None);
    let [left_out] = &survey.finish().left_out[..] else { panic!("one is left out") };
    assert_eq!((left_out.pid, left_out.why), (std::process::id(), WhyLeftOut::NoTime));
    assert!(left_out.why.to_string().starts_with("there was no time left"));
}

#[test]
fn a_table_of_this_process_is_found_once() {
    let table = TableWriter::new("find-me").unwrap();
    let again = table.descriptor().unwrap();
    let mine = |found: &FoundTable| found.pid == std::process::id();
    let mine = || scan_all().unwrap().tables.into_iter().filter(mine).collect::<Vec<_>>();
    let is_it = |found: &&FoundTable| found.provider == "find-me";
    assert_eq!(mine().iter().filter(is_it).count(), 1);
    // A table that a process only reads, mapped or not, is no table of that process.
    let tables = Tables::new().unwrap();
    tables.add_fd(again).unwrap();
    drop(table);
    assert_eq!(mine().iter().filter(is_it).count(), 0);
    drop(tables);
    assert_eq!(mine().iter().filter(is_it).count(), 0);
}

#[test]
fn this_host_can_be_scanned() {
    let found = scan_all().unwrap();
    assert!(found.vms.is_sorted_by_key(|vm| vm.pid));
}
