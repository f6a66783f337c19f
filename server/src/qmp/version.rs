//! The version that we report, in the greeting and in the reply to `query-version`.
//!
//! Invariant: the version is that of the QEMU whose replies are followed here, so that clients that
//! rely on it find what they expect; the package names vmstrobe and its own version.

use serde::Serialize;

use vmstrobe_core::json;

/// The QEMU whose replies ours are held against.
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

/// The greeting's line, without its end.
pub(super) fn write_greeting(out: &mut Vec<u8>) {
    // We have nothing that needs to be run out of band, but clients that ask for it get on.
    json::write(out, &Greeting { qmp: Offer { version: VERSION, capabilities: ["oob"] } });
}

/// The return value of `query-version`.
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
