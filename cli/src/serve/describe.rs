//! The texts that name the virtual machine, the program or the demo's guest behind a socket.
//!
//! Invariant: each text is one line; an object that several providers have is counted once.

use std::collections::HashSet;
use std::path::Path;

use vmstrobe::{Attachment, Object, Target, demo};

use crate::text::counted;

/// Returns the name of the virtual machine, of the first member if there is none, or of the demo.
pub(super) fn name(vm: &Attachment) -> &str {
    vm.main().map_or(demo::NAME, |member| &member.name)
}

/// Returns the process, if it is known.
pub(super) fn pid(vm: &Attachment) -> Option<u32> {
    vm.main().map_or(Some(std::process::id()), |member| member.pid)
}

/// Returns the title: `VM web (pid 4711)`.
pub(super) fn title(vm: &Attachment) -> &str {
    vm.main().map_or("the demo guest", |member| &member.title)
}

/// Returns the title with the number of its objects: `VM web (pid 4711, 4 vCPUs)`.
fn title_with_counts(vm: &Attachment) -> String {
    with_counts(title(vm), &vm.objects().unwrap_or_default())
}

/// Returns the titles of the members beside the virtual machine.
fn other_titles(vm: &Attachment) -> Vec<&str> {
    let main = vm.main().map(|member| &*member.title);
    let titles = vm.members().iter().map(|member| &*member.title);
    titles.filter(|title| Some(*title) != main).collect()
}

/// Returns true if there are vCPUs, and no statistics of the virtual machine as a whole.
pub(super) fn lacks_vm_statistics(vm: &Attachment) -> bool {
    let objects = vm.objects().unwrap_or_default();
    let has = |target: Target| objects.iter().any(|object| *object.schema.target() == target);
    has(Target::Vcpu) && !has(Target::Vm)
}

/// Adds the numbers of objects to a title: `VM web (pid 4711, 4 vCPUs)`.
fn with_counts(title: &str, objects: &[Object]) -> String {
    let mut counts: Vec<(&Target, usize)> = Vec::new();
    let mut seen = HashSet::new();
    // Several providers may have statistics of one object.
    for object in objects.iter().filter(|one| seen.insert((one.schema.target(), &one.path))) {
        let target = object.schema.target();
        match counts.iter_mut().find(|(known, _)| *known == target) {
            Some((_, count)) => *count += 1,
            None => counts.push((target, 1)),
        }
    }
    // The title names the one virtual machine already.
    counts.retain(|(target, _)| **target != Target::Vm);
    let count = |(target, count): &(&Target, usize)| match target {
        Target::Vcpu => counted(*count, "vCPU"),
        target => counted(*count, &format!("{target} object")),
    };
    let counts = counts.iter().map(count).collect::<Vec<_>>().join(", ");
    match title.strip_suffix(')') {
        _ if counts.is_empty() => title.to_owned(),
        Some(open) => format!("{open}, {counts})"),
        None => format!("{title} ({counts})"),
    }
}

/// Returns the line about a new socket: the title, the path, and the other members.
pub(super) fn announcement(vm: &Attachment, path: &Path) -> String {
    announcement_of(&title_with_counts(vm), path, &other_titles(vm))
}

fn announcement_of(title: &str, path: &Path, other_titles: &[&str]) -> String {
    let mut text = format!("serving {title} at {}", path.display());
    if !other_titles.is_empty() {
        text += &format!(", with {}", other_titles.join(", "));
    }
    text
}

/// Quotes a word for a shell if the shell would not read it as one word.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:,@%=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Registry, Schema};

    use super::*;

    fn object(target: &str) -> Object {
        let schema = Schema::new("kvm", Target::from_name(target), Vec::new());
        Object { path: "/a".into(), index: None, schema, key: 0 }
    }

    #[test]
    fn an_object_counts_once() {
        let at = |path: &str| Object { path: path.into(), ..object("vcpu") };
        let objects = [at("/a"), at("/b"), at("/a")];
        assert_eq!(with_counts("VM web (pid 1)", &objects), "VM web (pid 1, 2 vCPUs)");
    }

    #[test]
    fn a_title_has_the_number_of_objects() {
        for (title, targets, want) in [
            ("VM web (pid 1)", &["vm", "vcpu", "vcpu"][..], "VM web (pid 1, 2 vCPUs)"),
            (
                "VM web (pid 1)",
                &["vcpu", "cryptodev"],
                "VM web (pid 1, 1 vCPU, 1 cryptodev object)",
            ),
            ("VM web (pid 1)", &["vm"], "VM web (pid 1)"),
            ("the demo guest", &["vcpu"], "the demo guest (1 vCPU)"),
            ("the table /a", &["queue", "queue"], "the table /a (2 queue objects)"),
        ] {
            let each = targets.iter().enumerate();
            let at = |at: usize| format!("/{at}").into_boxed_str();
            let objects: Vec<Object> =
                each.map(|(i, target)| Object { path: at(i), ..object(target) }).collect();
            assert_eq!(with_counts(title, &objects), want);
        }
    }

    #[test]
    fn an_attachment_without_members_is_the_demo() {
        let demo = Attachment::of(Registry::default());
        assert_eq!((name(&demo), title(&demo)), ("demo", "the demo guest"));
        assert_eq!((pid(&demo), other_titles(&demo)), (Some(std::process::id()), vec![]));
        assert!(!lacks_vm_statistics(&demo));
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, want) in [
            ("/run/web-1.sock", "/run/web-1.sock"),
            ("größe", "größe"),
            ("dir/web 1.sock", "'dir/web 1.sock'"),
            ("a$(b)`c`\"d\"", "'a$(b)`c`\"d\"'"),
            ("it's;", r"'it'\''s;'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(path), want);
        }
    }

    #[test]
    fn the_announcement_is_one_line() {
        let line = |other_titles: &[&str]| {
            announcement_of("VM web (pid 4711, 4 vCPUs)", Path::new("/run/web.sock"), other_titles)
        };
        assert_eq!(line(&[]), "serving VM web (pid 4711, 4 vCPUs) at /run/web.sock");
        let with = ", with QEMU web (/run/web.qmp), the table /dev/shm/xyz";
        assert!(line(&["QEMU web (/run/web.qmp)", "the table /dev/shm/xyz"]).ends_with(with));
    }
}
