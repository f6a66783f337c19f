//! What /proc says of a process, as text: when it started, what its fds are, what its VM is called.
//!
//! Invariant: pure functions that take whatever a process may have put there. Nothing makes them
//! panic, and a name never grows over [`NAME_CHARS_MAX`] nor carries what would disturb a terminal.

/// The most characters of a VM's name; the rest is cut off.
const NAME_CHARS_MAX: usize = 128;

/// What an fd of a VMM leads to, by its link in `/proc/<pid>/fd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KvmLink {
    /// A VM: `anon_inode:kvm-vm`.
    Vm,
    /// The vCPU of that id: `anon_inode:kvm-vcpu:N`.
    Vcpu(u32),
    /// A VM's statistics: `anon_inode:kvm-vm-stats`.
    VmStats,
    /// The statistics of the vCPU of that id: `anon_inode:kvm-vcpu-stats:N`.
    VcpuStats(u32),
}

impl KvmLink {
    pub(crate) fn parse(link: &str) -> Option<Self> {
        let name = link.strip_prefix("anon_inode:")?;
        if let Some(id) = name.strip_prefix("kvm-vcpu:") {
            return id.parse().ok().map(Self::Vcpu);
        }
        if let Some(id) = name.strip_prefix("kvm-vcpu-stats:") {
            return id.parse().ok().map(Self::VcpuStats);
        }
        match name {
            "kvm-vm" => Some(Self::Vm),
            "kvm-vm-stats" => Some(Self::VmStats),
            _ => None,
        }
    }
}

/// When the process of this `/proc/<pid>/stat` started, in clock ticks since boot: field 22.
pub(super) fn start_time_ticks(stat: &str) -> Option<u64> {
    // Field 2 is the command in parentheses, and may itself hold parentheses and spaces.
    let (_, from_field_3) = stat.rsplit_once(')')?;
    from_field_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The VM's name in a VMM's `/proc/<pid>/cmdline`: QEMU's `-name`, the `--name` of others,
/// Firecracker's `--id`.
pub(super) fn vm_name(cmdline: &[u8]) -> Option<String> {
    let mut arguments = cmdline.split(|&byte| byte == 0).skip(1);
    let mut name = None;
    while let Some(argument) = arguments.next() {
        let argument = String::from_utf8_lossy(argument);
        let (option, joined) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (&*argument, None),
        };
        let mut value =
            || joined.clone().or_else(|| Some(String::from_utf8_lossy(arguments.next()?).into()));
        match option {
            "-name" | "--name" => name = value().and_then(|value| guest_name(&value)).or(name),
            "--id" => name = name.or_else(|| value().and_then(printable)),
            _ => {}
        }
    }
    name
}

/// The guest in the value of QEMU's `-name`: its first part if that has no key, else the one
/// whose key is `guest`. Two commas are one that does not end a part.
fn guest_name(value: &str) -> Option<String> {
    // A NUL separates arguments, so that none is in the value.
    let value = value.replace(",,", "\0");
    let guest = value.split(',').enumerate().find_map(|(at, part)| match part.split_once('=') {
        Some((key, guest)) => (key == "guest").then_some(guest),
        None => (at == 0).then_some(part),
    });
    printable(guest?.replace('\0', ","))
}

fn printable(name: String) -> Option<String> {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let name: String = name.chars().take(NAME_CHARS_MAX).map(harmless).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_command_is_called() {
        let after = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 8242 20 21";
        for comm in ["bash", "a b", "a) S 1 (b", "", ")))", "(x"] {
            let stat = format!("4711 ({comm}) {after}\n");
            assert_eq!(start_time_ticks(&stat), Some(8242), "{stat}");
        }
        for garbage in ["", ")", "1 (a) S 1 2", "1 (a", ") a b c d e f g h i j k l m n o p q r s t"]
        {
            assert_eq!(start_time_ticks(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn links_are_the_kernels_names() {
        for (link, want) in [
            ("anon_inode:kvm-vm", Some(KvmLink::Vm)),
            ("anon_inode:kvm-vcpu:0", Some(KvmLink::Vcpu(0))),
            ("anon_inode:kvm-vcpu:1023", Some(KvmLink::Vcpu(1023))),
            ("anon_inode:kvm-vm-stats", Some(KvmLink::VmStats)),
            ("anon_inode:kvm-vcpu-stats:7", Some(KvmLink::VcpuStats(7))),
            ("anon_inode:kvm-vcpu-plane1:0", None),
            ("anon_inode:kvm-vcpu:", None),
            ("anon_inode:kvm-vcpu-stats:99999999999", None),
            ("anon_inode:kvm-vcpu-stats:-1", None),
            ("anon_inode:kvm-device", None),
            ("anon_inode:[eventpoll]", None),
            ("/tmp/anon_inode:kvm-vm", None),
            ("socket:[12]", None),
            ("", None),
        ] {
            assert_eq!(KvmLink::parse(link), want, "{link}");
        }
    }

    #[test]
    fn names_are_found_as_vmms_take_them() {
        for (cmdline, want) in [
            ("qemu\0-name\0web\0-m\x0064\0", Some("web")),
            ("qemu\0-name\0web,debug-threads=on\0", Some("web")),
            ("qemu\0-name\0guest=web,debug-threads=on\0", Some("web")),
            ("qemu\0-name\0debug-threads=on,guest=web\0", Some("web")),
            ("qemu\0--name\0web\0", Some("web")),
            ("qemu\0-name\0a,,b,process=x\0", Some("a,b")),
            ("qemu\0-name\0guest=a,,b=c,,\0", Some("a,b=c,")),
            ("qemu\0-name\0a\0-name\0b", Some("b")),
            ("qemu\0-name\0process=x\0", None),
            ("qemu\0-name\0\0", None),
            ("qemu\0-name", None),
            ("qemu\0-m\x0064\0", None),
            ("firecracker\0--id\0fc-1\0--api-sock\0/x\0", Some("fc-1")),
            ("firecracker\0--id=fc-1\0", Some("fc-1")),
            ("lkvm\0run\0--name\0box\0--id\0x\0", Some("box")),
            ("crosvm\0run\0--name=box\0", Some("box")),
            ("-name\0web", None),
            ("", None),
        ] {
            assert_eq!(vm_name(cmdline.as_bytes()).as_deref(), want, "{cmdline:?}");
        }
    }

    #[test]
    fn names_are_short_and_harmless() {
        let long = format!("qemu\0-name\0{}", "ü".repeat(1 << 16));
        assert_eq!(vm_name(long.as_bytes()), Some("ü".repeat(NAME_CHARS_MAX)));
        let escape = vm_name(b"qemu\0-name\0a\x1b[2J\nb\xffc\0").unwrap();
        assert_eq!(escape, "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
    }
}
