//! The name of a VM, in the command line of its VMM.
//!
//! Invariant: pure functions that take whatever a process may have put there. Nothing makes them
//! panic, and a name never grows over [`NAME_CHARS_MAX`]. A name of blanks is none: nobody sees it.

/// The most characters of a VM's name; the rest is cut off.
const NAME_CHARS_MAX: usize = 128;

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
            "--id" => name = name.or_else(|| value().and_then(|value| named(&value))),
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
    named(&guest?.replace('\0', ","))
}

/// As much of a name as is kept, if there is any.
fn named(name: &str) -> Option<String> {
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    (!name.trim().is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("qemu\0-name\0 \u{3000}\n\0", None),
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
    fn names_are_short_and_as_they_were_written() {
        let long = format!("qemu\0-name\0{}", "ü".repeat(1 << 16));
        assert_eq!(vm_name(long.as_bytes()), Some("ü".repeat(NAME_CHARS_MAX)));
        let escape = vm_name(b"qemu\0-name\0a\x1b[2J\nb\xffc\0").unwrap();
        assert_eq!(escape, "a\u{1b}[2J\nb\u{fffd}c");
    }
}
