//! Requests made up at random, as no client would write them all: of every command that QEMU and
//! `vmstrobe serve` share, right, wrong in every place, spelled in every way, and malformed.
//!
//! Invariant: the same seed and vocabulary give the same requests; none of them is a command that
//! changes QEMU or that only one side has; and each leaves a reader of JSON where it was before,
//! so that the next request is answered.

mod command;
mod hmp;
mod json;
mod malformed;
mod word;

pub use json::Json;

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::Value;

/// The names and paths that QEMU has, each once: requests are made of them.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Names of statistics, those of all targets.
    pub names: Vec<String>,
    /// QOM paths of vCPUs.
    pub vcpus: Vec<String>,
}

/// The replies that a request must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One reply, the same from both.
    Same,
    /// One reply; the same only in `--qemu-order`, where crypto devices ignore `names` as QEMU's.
    SameInQemuOrder,
    /// A `JSON parse error`, in any words, and any number of further replies.
    ParseError,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes, whole; a white space or another request may follow.
    pub text: Vec<u8>,
    /// The replies that it must get.
    pub wanted: Wanted,
}

/// The maker of requests.
#[derive(Clone, Debug)]
pub struct Requests {
    rng: Rng,
    vocabulary: Vocabulary,
    malformed_percent: u32,
}

/// Of 100 requests, how many are malformed.
const MALFORMED_PERCENT: u32 = 5;

impl Vocabulary {
    /// Of the replies to `query-stats-schemas` and to `query-stats` of all vCPUs.
    ///
    /// # Panics
    ///
    /// If they are none.
    pub fn new(schemas: &Value, vcpus: &Value) -> Self {
        let list = |value: &Value| value.as_array().expect("QAPI has a list here").clone();
        let text = |value: &Value| value.as_str().expect("QAPI has a text here").to_owned();
        let schemas = list(schemas);
        let stats = schemas.iter().flat_map(|schema| list(&schema["stats"]));
        let names: BTreeSet<String> = stats.map(|stat| text(&stat["name"])).collect();
        let vcpus = list(vcpus).iter().map(|result| text(&result["qom-path"])).collect();
        Vocabulary { names: names.into_iter().collect(), vcpus }
    }
}

impl Requests {
    /// The requests of this seed.
    pub fn new(seed: u64, vocabulary: Vocabulary) -> Self {
        let malformed_percent = MALFORMED_PERCENT;
        Requests { rng: Rng::with_seed(seed), vocabulary, malformed_percent }
    }

    /// Others, none of which is malformed.
    pub fn well_formed(self) -> Self {
        Requests { malformed_percent: 0, ..self }
    }

    /// The next one.
    pub fn next_request(&mut self) -> Request {
        let (rng, vocabulary) = (&mut self.rng, &self.vocabulary);
        let request = command::request(rng, vocabulary);
        let style = json::Style::any(rng);
        if rng.u32(..100) < self.malformed_percent {
            let text = malformed::text(rng, &request, style);
            return Request { text, wanted: Wanted::ParseError };
        }
        let wanted = if command::filters_cryptodev(&request) {
            Wanted::SameInQemuOrder
        } else {
            Wanted::Same
        };
        Request { text: json::text(rng, &request, style), wanted }
    }

    /// Parts the bytes anywhere, as a client's writes may: seldom, and then into many pieces.
    pub fn split<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = match self.rng.u32(..10) {
            0 => 3,
            1 | 2 => 200,
            _ => return vec![bytes],
        };
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let at = self.rng.usize(1..=longest.min(bytes.len()));
            let (piece, rest) = bytes.split_at(at);
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// Returns bytes to stand between two requests: nothing at all, or white space of any kind.
    pub fn separator(&mut self) -> &'static [u8] {
        const BETWEEN: &[&[u8]] = &[b"\n", b"\n", b"\n", b"\r\n", b" ", b"\t", b" \r\n\t \n", b""];
        BETWEEN[self.rng.usize(..BETWEEN.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Vocabulary {
            names: texts(&["exits", "halt_wait_ns", "sym-encrypt-ops"]),
            vcpus: texts(&["/machine/unattached/device[0]"]),
        }
    }

    #[test]
    fn a_seed_gives_the_same_requests_again() {
        let texts = |seed| {
            let mut requests = Requests::new(seed, vocabulary());
            (0..200).map(|_| requests.next_request().text).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
    }

    #[test]
    fn what_is_to_be_answered_is_json_and_what_is_malformed_is_not() {
        let mut requests = Requests::new(3, vocabulary());
        let (mut answered, mut malformed) = (0, 0);
        for _ in 0..5000 {
            let Request { text, wanted } = requests.next_request();
            let parsed = serde_json::from_slice::<Value>(&text);
            let deep = parsed.as_ref().is_err_and(|error| error.to_string().contains("recursion"));
            let shown = String::from_utf8_lossy(&text);
            if wanted == Wanted::ParseError {
                // The one thing that serde_json lets pass in a value that it keeps.
                assert!(parsed.is_err() || shown.contains("\\u0074wice"), "{shown}");
                malformed += 1;
            } else {
                assert!(parsed.is_ok() || deep, "{shown}: {parsed:?}");
                answered += 1;
            }
        }
        assert!(answered > 4000 && malformed > 100, "{answered} {malformed}");
    }

    #[test]
    fn pieces_are_the_whole() {
        let mut requests = Requests::new(4, vocabulary());
        let bytes: Vec<u8> = (0..=255).collect();
        for _ in 0..100 {
            assert_eq!(requests.split(&bytes).concat(), bytes);
        }
    }
}
