//! The version that we report, in the greeting and in the reply to `query-version`.
//!
//! Invariant: the version is that of the QEMU that this server imitates, so that clients that
//! depend on the version work. The package names vmstrobe and its own version.

use serde::Serialize;

use vmstrobe_core::json;

/// The version of QEMU that the replies are compared with.
const QEMU: Qemu = Qemu { micro: 2, minor: 0, major: 10 };
const PACKAGE: &str = concat!("vmstrobe ", env!("CARGO_PKG_VERSION"));

/// QAPI `VersionInfo`.
#[derive(Serialize)]
struct VersionInfo {
    qemu: Qemu,
    package: &'static str,
}

/// QAPI `VersionTriple`.
#[derive(Serialize)]
struct Qemu {
    micro: u32,
    minor: u32,
    major: u32,
}

#[derive(Serialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    qmp: Offer,
}

#[derive(Serialize)]
struct Offer {
    version: VersionInfo,
    capabilities: [&'static str; 1],
}

const VERSION: VersionInfo = VersionInfo { qemu: QEMU, package: PACKAGE };

/// Appends the greeting without a line end.
pub(super) fn write_greeting(out: &mut Vec<u8>) {
    // No command runs out of band, but clients that ask for the capability continue to work.
    json::write(out, &Greeting { qmp: Offer { version: VERSION, capabilities: ["oob"] } });
}

/// Appends the return value of `query-version`.
pub(super) fn write_version(out: &mut Vec<u8>) {
    json::write(out, &VERSION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_spelt_as_qemus() {
        let mut out = Vec::new();
        write_greeting(&mut out);
        let want = concat!(
            r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "#,
            r#""package": "vmstrobe "#,
            env!("CARGO_PKG_VERSION"),
            r#""}, "capabilities": ["oob"]}}"#,
        );
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
