//! A report of the differences found, with enough to send the requests again by hand.

use vmstrobe_tests::requests::Request;

/// After so many differences the rest is of no interest.
const DIFFERENCES_MAX: usize = 10;
/// Longer replies are shown around the place where they differ.
const SHOWN_MAX: usize = 700;

pub(super) struct Report {
    seed: u64,
    found: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Report { seed, found: Vec::new() }
    }

    /// The replies of a window; without them there is no going on.
    #[track_caller]
    pub(super) fn take<T>(
        &mut self,
        who: &str,
        requests: &[Request],
        first: u64,
        replies: Result<T, String>,
    ) -> T {
        match replies {
            Ok(replies) => replies,
            Err(why) => {
                let requests: Vec<String> =
                    requests.iter().map(|request| shown(&request.text, 0)).collect();
                let sent = requests.join("\n    ");
                let end = first + requests.len() as u64 - 1;
                self.found.push(format!("requests {first} to {end}: {who} {why}\n    {sent}"));
                self.panic()
            }
        }
    }

    #[track_caller]
    pub(super) fn differs(
        &mut self,
        number: u64,
        who: &str,
        why: &str,
        request: &Request,
        theirs: &[Vec<u8>],
        ours: &[Vec<u8>],
    ) {
        let (theirs, ours) = (theirs.concat(), ours.concat());
        let at = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
        self.found.push(format!(
            "request {number}, {who}: {why}\n    request {}\n    QEMU    {}\n    ours    {}",
            shown(&request.text, 0),
            shown(&theirs, at),
            shown(&ours, at),
        ));
        if self.found.len() >= DIFFERENCES_MAX {
            self.panic();
        }
    }

    #[track_caller]
    pub(super) fn end(&self) {
        if !self.found.is_empty() {
            self.panic();
        }
    }

    #[track_caller]
    fn panic(&self) -> ! {
        let (count, found) = (self.found.len(), self.found.join("\n  "));
        panic!("VMSTROBE_QMP_SEED={}: {count} found:\n  {found}", self.seed);
    }
}

/// The bytes in ASCII, all of them or those around that place.
fn shown(bytes: &[u8], at: usize) -> String {
    if bytes.len() <= SHOWN_MAX {
        return bytes.escape_ascii().to_string();
    }
    let start = at.saturating_sub(SHOWN_MAX / 2).min(bytes.len() - SHOWN_MAX);
    let part = bytes[start..start + SHOWN_MAX].escape_ascii();
    format!("bytes {start}.. of {}: {part}", bytes.len())
}
