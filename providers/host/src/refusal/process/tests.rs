//! Every case of a refusal, as a table: facts, and what is said.

use super::*;
use crate::status::Ids;
use crate::status::tests::plain;

const PTRACE: CapabilitySet = CapabilitySet::SYS_PTRACE;
const SEARCH: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

fn ids(id: u32) -> Ids {
    Ids { real: id, effective: id, saved: id, filesystem: id }
}

/// A process of that user and group that has nothing special.
fn of_user(user: u32) -> Target {
    let status = Status { users: ids(user), groups: ids(user), ..plain() };
    Target { status, owner: user, is_in_our_namespace: true }
}

fn facts(ours: Status, target: Target) -> Facts {
    let (errno, label) = (Errno::ACCESS, String::new());
    Facts {
        step: Step::Look,
        errno,
        ours,
        target: Some(target),
        yama_setting: 0,
        label,
        hiding: None,
    }
}

fn with(effective: CapabilitySet) -> Status {
    Status { effective, permitted: effective, ..plain() }
}

fn root(effective: CapabilitySet) -> Status {
    Status { users: ids(0), groups: ids(0), ..with(effective) }
}

#[track_caller]
fn says(facts: &Facts, want: &str) {
    assert_eq!(reason(facts), want, "{facts:?}");
}

#[test]
fn what_is_missing_for_another_users_process_is_named() {
    let none = CapabilitySet::empty();
    for (has, lacks, these) in [
        (none, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", "these capabilities"),
        (PTRACE, "CAP_DAC_READ_SEARCH", "that capability"),
        (SEARCH, "CAP_SYS_PTRACE", "that capability"),
    ] {
        let belongs = format!("user 7, lacks {lacks}: run vmstrobe as root");
        let of =
            |user: u32| format!("it belongs to user {user}, and vmstrobe, which runs as {belongs}");
        says(&facts(with(has), of_user(9)), &format!("{} or as user 9, or give it {these}", of(9)));
        // To be that user is no more than to be root, or not enough.
        says(&facts(with(has), of_user(0)), &format!("{}, or give it {these}", of(0)));
        let mut strong = of_user(9);
        strong.status.permitted = CapabilitySet::NET_ADMIN;
        says(&facts(with(has), strong), &format!("{}, or give it {these}", of(9)));
        let far = Target { is_in_our_namespace: false, ..of_user(9) };
        says(&facts(with(has), far), &format!("{}, or give it {these}", of(9)));
    }
    let mut changing = of_user(9);
    changing.status.users.effective = 0;
    changing.owner = 0;
    says(
        &facts(plain(), changing),
        "it belongs to several users (real 9, effective 0, saved 9), and vmstrobe, which runs as \
         user 7, lacks CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run vmstrobe as root, or give it \
         these capabilities",
    );
}

#[test]
fn ones_own_process_may_be_out_of_reach_as_well() {
    let undumpable = Target { owner: 0, ..of_user(7) };
    says(
        &facts(plain(), undumpable),
        "it belongs to user 7, as vmstrobe does, but has changed its user or gained rights (it is \
         not dumpable), and vmstrobe lacks CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run vmstrobe as \
         root, or give it these capabilities",
    );
    let mut of_group = of_user(7);
    of_group.status.groups = ids(8);
    says(
        &facts(plain(), of_group),
        "it is of group 8, and vmstrobe lacks CAP_SYS_PTRACE: run vmstrobe as root, or give it \
         that capability",
    );
    let mut strong = of_user(0);
    strong.status.permitted = CapabilitySet::all();
    says(
        &facts(root(CapabilitySet::CHOWN), strong),
        "it has capabilities that vmstrobe has not, and vmstrobe lacks CAP_SYS_PTRACE: give it \
         that capability (what it runs in withholds them: --cap-add, CapabilityBoundingSet=)",
    );
}

#[test]
fn yama_is_named_where_it_is_the_reason() {
    for scope in [1, 2] {
        let facts = Facts { step: Step::Borrow, yama_setting: scope, ..facts(plain(), of_user(7)) };
        let want = format!(
            "kernel.yama.ptrace_scope is {scope}, and vmstrobe lacks CAP_SYS_PTRACE: run vmstrobe \
             as root, or give it that capability"
        );
        says(&facts, &want);
    }
    let at_3 = |step, ours| Facts { step, yama_setting: 3, ..facts(ours, of_user(7)) };
    let all = || root(CapabilitySet::all());
    let closed = "kernel.yama.ptrace_scope is 3, which forbids it to everyone until the next boot: \
                  boot with another value";
    says(&at_3(Step::Borrow, all()), closed);
    says(&at_3(Step::Borrow, plain()), closed);
    says(
        &at_3(Step::Borrow, root(CapabilitySet::empty())),
        &format!(
            "{closed}; besides, it belongs to user 7, and vmstrobe, which runs as user 0, lacks \
             CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: give it these capabilities (what it runs in \
             withholds them: --cap-add, CapabilityBoundingSet=)"
        ),
    );
    // Reading links is no attaching.
    for ours in [all(), plain()] {
        let text = reason(&at_3(Step::Look, ours));
        assert!(!text.contains("yama") && !text.contains("CAP_"), "{text}");
    }
    let text = reason(&Facts { yama_setting: 1, ..facts(plain(), of_user(9)) });
    assert!(text.contains("lacks CAP_SYS_PTRACE and ") && !text.contains("as user 9"), "{text}");
}

#[test]
fn with_all_rights_it_is_something_else() {
    let all = || root(CapabilitySet::all());
    let borrow = |ours: Status| Facts { step: Step::Borrow, ..facts(ours, of_user(9)) };
    let filtered = || Status { has_seccomp: true, ..all() };
    says(
        &borrow(filtered()),
        "vmstrobe has the rights for it, so that a seccomp filter of a container or a service \
         forbids it, or a security module: let the filter allow pidfd_getfd; see the audit log",
    );
    assert!(reason(&facts(filtered(), of_user(9))).contains("let the filter allow reading /proc;"));
    let far = Target { is_in_our_namespace: false, ..of_user(9) };
    // Everyone may do that, so no right can be missing.
    let ours = Status { has_seccomp: true, ..plain() };
    let held = Facts { step: Step::Hold, ..facts(ours, far.clone()) };
    assert!(reason(&held).contains("let the filter allow pidfd_open;"), "{}", reason(&held));
    let hiding = Some("/proc hides it".to_owned());
    assert_eq!(reason(&Facts { target: None, hiding, ..held.clone() }), reason(&held));
    let text = reason(&facts(filtered(), far));
    assert!(text.starts_with("it is in another user namespace, where vmstrobe's "), "{text}");
    let labelled = Facts { label: "libvirt-\u{1b}7 (enforce)\0".to_owned(), ..borrow(all()) };
    let text = reason(&labelled);
    assert!(text.contains("the process is 'libvirt-\u{1b}7 (enforce)' forbids"), "{text}");
    let filtered = Facts { label: "virt_t\0".to_owned(), ..borrow(filtered()) };
    let text = reason(&filtered);
    let both = "forbids it, or the security module, to which the process is 'virt_t': let the";
    assert!(text.contains(both), "{text}");
    let text = reason(&borrow(all()));
    assert!(
        text.contains("although vmstrobe has the rights for it: a security module may"),
        "{text}"
    );
}

#[test]
fn a_call_that_is_not_there_is_the_kernels_or_a_filters() {
    let facts = |ours| Facts { errno: Errno::NOSYS, step: Step::Borrow, ..facts(ours, of_user(9)) };
    says(&facts(plain()), "this kernel has no pidfd_getfd: use Linux 5.6 or later");
    let text = reason(&facts(Status { has_seccomp: true, ..plain() }));
    assert!(
        text.starts_with("the kernel is older than 5.6 and has no pidfd_getfd, or a"),
        "{text}"
    );
}

#[test]
fn a_process_that_is_hidden_is_so_by_its_mount() {
    let hidden = |hiding| Facts { target: None, hiding, ..facts(plain(), of_user(9)) };
    says(&hidden(Some("/proc hides it".to_owned())), "/proc hides it");
    assert!(reason(&hidden(None)).ends_with(": run vmstrobe as root"));
}

#[test]
fn the_facts_of_a_process_are_found() {
    let pid = std::process::id();
    let facts = Facts::of(pid, Step::Look, Errno::PERM, None).unwrap();
    let target = facts.target.unwrap();
    assert_eq!(target.status.users, facts.ours.users);
    assert!(target.is_in_our_namespace && target.is_dumpable());
    let none = Facts::of(u32::MAX, Step::Look, Errno::PERM, None).unwrap();
    assert!(none.target.is_none() && none.label.is_empty());
}
