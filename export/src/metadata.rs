//! The circumstances of a recording: who made it, where, when and how.
//!
//! Invariant: metadata that was written as pairs of keys and texts is read back equal; keys that a
//! later version adds are ignored.

/// The circumstances of a recording, which the caller fills in. Nothing in it is needed to read
/// the values.
///
/// ```
/// use vmstrobe_export::Metadata;
/// let metadata = Metadata {
///     host: Some("node7".into()),
///     hz: Some(1000.0),
///     labels: vec![("run".into(), "baseline".into())],
///     ..Metadata::default()
/// };
/// assert_eq!(metadata.version, env!("CARGO_PKG_VERSION"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The version of vmstrobe that made the recording.
    pub version: String,
    /// The name of the host.
    pub host: Option<String>,
    /// The release of the host's kernel.
    pub kernel: Option<String>,
    /// The clock that the windows are of, such as `CLOCK_MONOTONIC`.
    pub clock: Option<String>,
    /// The rate of the ticks, in Hz.
    pub hz: Option<f64>,
    /// The filter by which the statistics were selected.
    pub filter: Option<String>,
    /// The method by which they were read, such as `bpf`.
    pub method: Option<String>,
    /// The name of the VM to which objects belong whose paths name none, as the paths of a single
    /// QEMU do.
    pub vm: Option<String>,
    /// Labels that the user gave, each a key and a text.
    pub labels: Vec<(String, String)>,
}

/// The key of the format's version, by which a recording is recognised.
pub(crate) const FORMAT_KEY: &str = "vmstrobe.format";
/// The version of the format that is written.
pub(crate) const FORMAT: &str = "1";
/// The beginning of the key of a label.
const LABEL: &str = "label.";

impl Default for Metadata {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            host: None,
            kernel: None,
            clock: None,
            hz: None,
            filter: None,
            method: None,
            vm: None,
            labels: Vec::new(),
        }
    }
}

impl Metadata {
    /// Returns the metadata as keys and texts, without those that are absent.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let texts = [
            ("host", &self.host),
            ("kernel", &self.kernel),
            ("clock", &self.clock),
            ("hz", &self.hz.map(|hz| hz.to_string())),
            ("filter", &self.filter),
            ("method", &self.method),
            ("vm", &self.vm),
        ];
        let head = [(FORMAT_KEY, FORMAT), ("vmstrobe.version", &*self.version)];
        let mut pairs: Vec<(String, String)> =
            head.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let present = texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
        pairs.extend(present.map(|(key, text)| (key.to_owned(), text)));
        let labels = self.labels.iter();
        pairs.extend(labels.map(|(key, text)| (format!("{LABEL}{key}"), text.clone())));
        pairs
    }

    /// Returns the metadata that these keys and texts give.
    pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Self {
        let mut metadata = Self { version: String::new(), ..Self::default() };
        for (key, text) in pairs {
            let place = match &**key {
                "vmstrobe.version" => {
                    metadata.version.clone_from(text);
                    continue;
                }
                "hz" => {
                    metadata.hz = text.parse().ok();
                    continue;
                }
                "host" => &mut metadata.host,
                "kernel" => &mut metadata.kernel,
                "clock" => &mut metadata.clock,
                "filter" => &mut metadata.filter,
                "method" => &mut metadata.method,
                "vm" => &mut metadata.vm,
                _ => {
                    let label = key.strip_prefix(LABEL);
                    let label = label.map(|label| (label.to_owned(), text.clone()));
                    metadata.labels.extend(label);
                    continue;
                }
            };
            *place = Some(text.clone());
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_survives_the_way_there_and_back() {
        let full = Metadata {
            host: Some("a\n\"b".into()),
            kernel: Some("6.18".into()),
            clock: Some("CLOCK_MONOTONIC".into()),
            hz: Some(0.1),
            filter: Some("vcpu: exits".into()),
            method: Some("bpf".into()),
            vm: Some("web".into()),
            labels: vec![("run".into(), "1".into()), ("label.run".into(), "".into())],
            ..Metadata::default()
        };
        for metadata in [full, Metadata::default()] {
            let mut pairs = metadata.pairs();
            pairs.push(("of a later version".into(), "x".into()));
            assert_eq!(Metadata::from_pairs(&pairs), metadata);
        }
    }
}
