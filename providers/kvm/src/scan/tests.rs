//! Tests of dividing a process's fds among its VMs, and of the errors for processes that have none.

use super::*;

/// `group` of a compact text: `v` a VM, `c0` a vCPU, `s0` its statistics, `S` a VM's; the fds are
/// 10, 11 and so on.
pub(crate) fn vms_of(links: &str) -> Vec<VmFds> {
    let link = |word: &str| match word.split_at(1) {
        ("v", "") => KvmLink::Vm,
        ("S", "") => KvmLink::VmStats,
        ("c", id) => KvmLink::Vcpu(id.parse().unwrap()),
        ("s", id) => KvmLink::VcpuStats(id.parse().unwrap()),
        _ => panic!("{word}"),
    };
    group(&(10..).zip(links.split_whitespace().map(link)).collect::<Vec<_>>())
}

/// For each VM its vCPUs, its vCPU statistics and its own.
fn check(links: &str, want: &[(&str, &str, &str)]) {
    let text = |fds: &BTreeMap<u32, RawFd>| {
        fds.iter().map(|(id, fd)| format!("{id}:{fd}")).collect::<Vec<_>>().join(" ")
    };
    let got: Vec<_> = vms_of(links)
        .iter()
        .map(|vm| {
            let own = vm.vm_stats.map_or(String::new(), |fd| fd.to_string());
            (text(&vm.vcpus), text(&vm.vcpu_stats), own)
        })
        .collect();
    let want: Vec<_> =
        want.iter().map(|&(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).collect();
    assert_eq!(got, want, "{links}");
}

#[test]
fn one_vm_has_everything() {
    check("v c0 c1", &[("0:11 1:12", "", "")]);
    // As QEMU 10 does it, and as OwnKvm.
    check("v c0 s0 c1 s1", &[("0:11 1:13", "0:12 1:14", "")]);
    check("v S c1 c0 s0 s1", &[("0:13 1:12", "0:14 1:15", "11")]);
    // The vCPUs' own fds may be closed, and the VM's may have been moved up.
    check("v s0 s1", &[("", "0:11 1:12", "")]);
    check("c0 s0 v", &[("0:10", "0:11", "")]);
    check("", &[]);
    check("c0 s0", &[]);
}

#[test]
fn a_leaked_fd_gives_way_to_the_newest() {
    check("v c0 s0 c1 s1 s1 s1", &[("0:11 1:13", "0:12 1:16", "")]);
    check("v S S", &[("", "", "12")]);
}

#[test]
fn vms_one_after_the_other() {
    check("v c0 s0 S v c0 c1 s0 s1 S", &[("0:11", "0:12", "13"), ("0:15 1:16", "0:17 1:18", "19")]);
    check("v c0 v c0", &[("0:11", "", ""), ("0:13", "", "")]);
    // The second's vCPU was plugged again.
    check("v c0 s0 v c0 s0 s0", &[("0:11", "0:12", ""), ("0:14", "0:16", "")]);
}

#[test]
fn all_vms_first() {
    check(
        "v v c0 c1 c0 c1 S s0 s1 S s0 s1",
        &[("0:12 1:13", "0:17 1:18", "16"), ("0:14 1:15", "0:20 1:21", "19")],
    );
    check("v v S S", &[("", "", "12"), ("", "", "13")]);
}

#[test]
fn statistics_after_all_vcpus() {
    check("v c0 v c0 c1 s0 s0 s1", &[("0:11", "0:15", ""), ("0:13 1:14", "0:16 1:17", "")]);
    // The first is the one that has vCPU 1.
    check("v c0 c1 v c0 s0 s1 s0", &[("0:11 1:12", "0:15 1:16", ""), ("0:14", "0:17", "")]);
    check("v c0 c1 v c0 s1", &[("0:11 1:12", "1:15", ""), ("0:14", "", "")]);
    check("v c0 v c1 s0 s1", &[("0:11", "0:14", ""), ("1:13", "1:15", "")]);
}

#[test]
fn a_vm_held_twice_is_one() {
    check("v v c0 s0 c1 s1", &[("0:12 1:14", "0:13 1:15", "")]);
    check("v S c0 s0 v", &[("0:12", "0:13", "11")]);
    check("v", &[("", "", "")]);
}

#[test]
fn only_some_keep_statistics() {
    check("v c0 v c0 s0", &[("0:11", "", ""), ("0:13", "0:14", "")]);
    check("v c0 S v c0", &[("0:11", "", "12"), ("0:14", "", "")]);
}

/// The objects of each VM with their fds: the statistics, a bar, and their own.
#[track_caller]
fn check_objects(links: &str, want: &[&str]) {
    let got: Vec<String> = vms_of(links)
        .iter()
        .map(|vm| {
            let object = |object: ObjectFds| {
                let id = object.vcpu.map_or("vm".to_owned(), |id| id.to_string());
                let number = |(fd, link): Place| {
                    let fits = match (object.vcpu, link) {
                        (None, KvmLink::Vm | KvmLink::VmStats) => true,
                        (Some(id), KvmLink::Vcpu(of) | KvmLink::VcpuStats(of)) => id == of,
                        _ => false,
                    };
                    assert!(fits, "{object:?}");
                    fd.to_string()
                };
                let stats = object.stats.map_or(String::new(), number);
                let object_fds: Vec<_> =
                    object.object_fds.iter().map(|&place| number(place)).collect();
                format!("{id}:{stats}|{}", object_fds.join(","))
            };
            vm.objects().map(object).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(got, want, "{links}");
}

#[test]
fn each_object_has_its_own_fd_and_maybe_one_of_its_statistics() {
    check_objects("v", &["vm:|10"]);
    check_objects("v c0 c1", &["vm:|10 0:|11 1:|12"]);
    check_objects("v c1 c0", &["vm:|10 0:|12 1:|11"]);
    check_objects("v S c0 s0 c1", &["vm:11|10 0:13|12 1:|14"]);
    check_objects("v s1 c0", &["vm:|10 0:|12 1:11|"]);
    check_objects("c0 s0", &[]);
}

#[test]
fn vms_of_one_process_have_each_their_own_fds() {
    check_objects("v c0 v c0 c1", &["vm:|10 0:|11", "vm:|12 0:|13 1:|14"]);
    check_objects("v v c0 c1 c0 c1", &["vm:|10 0:|12 1:|13", "vm:|11 0:|14 1:|15"]);
    check_objects("v c0 v c0 s0", &["vm:|10 0:|11", "vm:|12 0:14|13"]);
    check_objects("v v", &["vm:|10", "vm:|11"]);
}

#[test]
fn a_vm_that_is_held_twice_has_both_fds() {
    check_objects("v v c0", &["vm:|10,11 0:|12"]);
    check_objects("v c0 v S", &["vm:|10 0:|11", "vm:13|12"]);
    check_objects("v S c0 v v", &["vm:11|10,13,14 0:|12"]);
    // Nothing tells to which of the two VMs the third fd belongs.
    check_objects("v c0 v c0 v", &["vm:|10 0:|11", "vm:|12 0:|13"]);
}

#[test]
fn access_says_what_there_is() {
    for (links, want, text) in [
        (
            vec![KvmLink::Vcpu(0)],
            Access::NoStatsFds,
            "keeps no stats fds open (QEMU 8.1 and later do)",
        ),
        (
            vec![KvmLink::Vcpu(0), KvmLink::VcpuStats(0)],
            Access::StatsFds { vcpus: 1, vm: false },
            "stats fds of its vCPUs",
        ),
        (
            vec![KvmLink::VmStats, KvmLink::VcpuStats(0), KvmLink::VcpuStats(3)],
            Access::StatsFds { vcpus: 2, vm: true },
            "stats fds of the VM and its vCPUs",
        ),
        (
            vec![KvmLink::VmStats],
            Access::StatsFds { vcpus: 0, vm: true },
            "stats fd of the VM alone",
        ),
    ] {
        let links: Vec<_> = (10..).zip([vec![KvmLink::Vm], links].concat()).collect();
        let access = group(&links)[0].access();
        assert_eq!(access, want);
        assert_eq!(access.to_string(), text);
    }
}

#[test]
fn a_process_without_a_vm_is_named() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = child.id();
    let error = scan(pid).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "pid {pid} (sleep) has no KVM virtual machine open: give the pid of a VMM; \
             `vmstrobe list` shows them"
        )
    );
    assert_eq!(
        scan(pid).unwrap_err().to_string(),
        format!("there is no process {pid}: it may have ended")
    );
}
