//! The packets' text: what each says, written and read.
//!
//! Invariant: whatever text is read becomes a message within the limits or is refused, and a text
//! that was written here is never refused.

use std::fmt;

use vmstrobe_core::text::printable;
use vmstrobe_core::{Error, ErrorKind, Result};

/// The one version so far.
pub(super) const VERSION: u64 = 1;
/// The most bytes of a packet.
pub(crate) const MAX_PACKET_BYTES: usize = 512;
/// The most bytes of an object's path.
pub(crate) const MAX_PATH_BYTES: usize = 255;

const HELLO: &str = "vmstrobe-handover";

/// The key of an export: it differs from all others of its server, for as long as they are
/// connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The number of the offer that it belongs to; all exports of one VM belong to one.
    pub(super) offer: u64,
    pub(super) export: u64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.offer, self.export)
    }
}

/// The kind of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A VM's stats fd, and its object's path.
    Vm { path: Box<str> },
    /// A vCPU's stats fd, its index and its object's path.
    Vcpu { index: u32, path: Box<str> },
    /// A table's memfd. The paths of its objects stand in the table.
    Table,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The first.
    Hello { version: u64 },
    /// The second and last, if as many are connected as may be.
    Full,
    /// A descriptor comes with this one, and with no other.
    ExportedFd(Key, Kind),
    /// The export of that key is withdrawn.
    Gone(Key),
    /// Everything that there is for now has been sent.
    All,
}

impl Message {
    /// # Errors
    /// `Malformed` if it is none, of which the text says why.
    pub(super) fn parse(packet: &[u8]) -> Result<Self> {
        let text = str::from_utf8(packet).ok().filter(|text| printable(text) == *text);
        let text = text.ok_or_else(|| malformed("a packet that is no line of text"))?;
        let unknown = || malformed(format!("the unknown packet '{text}'"));
        let Some((word, rest)) = text.split_once(' ') else {
            return match text {
                "full" => Ok(Self::Full),
                "all" => Ok(Self::All),
                _ => Err(unknown()),
            };
        };
        match (word, rest) {
            (HELLO, version) => {
                let version = version.parse().map_err(|_| unknown())?;
                Ok(Self::Hello { version })
            }
            ("gone", key) => Ok(Self::Gone(parse_key(key).ok_or_else(unknown)?)),
            ("table", key) => {
                Ok(Self::ExportedFd(parse_key(key).ok_or_else(unknown)?, Kind::Table))
            }
            ("kvm-vm", rest) => {
                let (key, path) = rest.split_once(' ').ok_or_else(unknown)?;
                let kind = Kind::Vm { path: parse_path(path)? };
                Ok(Self::ExportedFd(parse_key(key).ok_or_else(unknown)?, kind))
            }
            ("kvm-vcpu", rest) => {
                let (key, rest) = rest.split_once(' ').ok_or_else(unknown)?;
                let (index, path) = rest.split_once(' ').ok_or_else(unknown)?;
                let index = index.parse().map_err(|_| unknown())?;
                let kind = Kind::Vcpu { index, path: parse_path(path)? };
                Ok(Self::ExportedFd(parse_key(key).ok_or_else(unknown)?, kind))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version } => write!(f, "{HELLO} {version}"),
            Self::Full => f.write_str("full"),
            Self::ExportedFd(key, Kind::Vm { path }) => write!(f, "kvm-vm {key} {path}"),
            Self::ExportedFd(key, Kind::Vcpu { index, path }) => {
                write!(f, "kvm-vcpu {key} {index} {path}")
            }
            Self::ExportedFd(key, Kind::Table) => write!(f, "table {key}"),
            Self::Gone(key) => write!(f, "gone {key}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// A path as it can be sent: as long as may be, and printable.
pub(super) fn sent_path(path: &str) -> Box<str> {
    let path = printable(path);
    let ends = path.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|&end| end <= MAX_PATH_BYTES).last().unwrap_or(0);
    path[..end].into()
}

fn parse_path(path: &str) -> Result<Box<str>> {
    if path.len() > MAX_PATH_BYTES {
        return Err(malformed(format!("a path of {} bytes", path.len())));
    }
    Ok(path.into())
}

fn parse_key(key: &str) -> Option<Key> {
    let (offer, export) = key.split_once('.')?;
    Some(Key { offer: offer.parse().ok()?, export: export.parse().ok()? })
}

/// The server has sent something that no server sends.
pub(super) fn malformed(what: impl fmt::Display) -> Error {
    let text = format!("the program there broke the protocol: it sent {what}");
    Error::new(ErrorKind::Malformed, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { offer: 3, export: 17 };

    fn refusal(packet: &[u8]) -> String {
        let error = Message::parse(packet).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        error.to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let path: Box<str> = "/vm/my vm/vcpu[0]".into();
        for (message, text) in [
            (Message::Hello { version: 1 }, "vmstrobe-handover 1"),
            (Message::Full, "full"),
            (
                Message::ExportedFd(KEY, Kind::Vm { path: path.clone() }),
                "kvm-vm 3.17 /vm/my vm/vcpu[0]",
            ),
            (
                Message::ExportedFd(KEY, Kind::Vcpu { index: 9, path }),
                "kvm-vcpu 3.17 9 /vm/my vm/vcpu[0]",
            ),
            (Message::ExportedFd(KEY, Kind::Table), "table 3.17"),
            (Message::Gone(KEY), "gone 3.17"),
            (Message::All, "all"),
        ] {
            assert_eq!(message.to_string(), text);
            assert_eq!(Message::parse(text.as_bytes()).unwrap(), message);
        }
    }

    #[test]
    fn the_longest_that_is_sent_is_taken() {
        let key = Key { offer: u64::MAX, export: u64::MAX };
        for path in ["", " ", "/a\0\n\x1b[2J", &"x".repeat(1 << 16), &"\u{85}ü".repeat(1 << 16)] {
            let kind = Kind::Vcpu { index: u32::MAX, path: sent_path(path) };
            let text = Message::ExportedFd(key, kind.clone()).to_string();
            assert!(text.len() <= MAX_PACKET_BYTES);
            assert_eq!(Message::parse(text.as_bytes()).unwrap(), Message::ExportedFd(key, kind));
        }
        assert_eq!(&*sent_path("/a\nb"), "/a\u{fffd}b");
        assert_eq!(sent_path(&"x".repeat(1 << 16)).len(), MAX_PATH_BYTES);
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        for text in [
            "",
            " ",
            "all ",
            "all 1",
            "ALL",
            "full 1",
            "vmstrobe-handover",
            "vmstrobe-handover x",
            "vmstrobe-handover 1 2",
            "vmstrobe-handover -1",
            "gone",
            "gone 1",
            "gone 1.",
            "gone 1.2.3",
            "gone 1.99999999999999999999",
            "table 1.2 x",
            "kvm-vm 1.2",
            "kvm-vcpu 1.2 3",
            "kvm-vcpu 1.2 x /a",
            "kvm-vcpu 1.2 4294967296 /a",
            "anything",
        ] {
            let error = refusal(text.as_bytes());
            assert!(error.contains(&format!("the unknown packet '{text}'")), "{error}");
        }
        for packet in [&b"all\n"[..], b"all\0", b"kvm-vm 1.2 /\x1b[2J", b"\xff", &[0; 512]] {
            assert!(refusal(packet).contains("no line of text"));
        }
        let long = format!("kvm-vm 1.2 {}", "x".repeat(MAX_PATH_BYTES + 1));
        assert!(refusal(long.as_bytes()).contains("a path of 256 bytes"));
    }
}
