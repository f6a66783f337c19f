//! One of the servers that get the same requests, and what comes back from all of them.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Instant;

use vmstrobe_tests::replies::{Alike, difference};
use vmstrobe_tests::requests::{Request, Requests, Wanted};
use vmstrobe_tests::rig::show;
use vmstrobe_tests::wire::{Wire, answer, probe};

use super::report::Report;

/// The number of times that QEMU is asked again whether a value of its own has changed since.
const ASKED_AGAIN: u32 = 3;

/// A connection to one of them.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    alike: Alike,
    wire: Wire,
}

/// The replies to each request of a window.
type Replies = Vec<Vec<Vec<u8>>>;

impl Side {
    #[track_caller]
    pub(crate) fn connect(
        name: &'static str,
        alike: Alike,
        connect: fn(&Path) -> io::Result<Wire>,
        socket: &Path,
    ) -> Side {
        let wire = connect(socket).unwrap_or_else(|error| panic!("{name}: {error}"));
        Side { name, alike, wire }
    }

    /// Sends a window in these pieces, and sorts what comes back by request.
    fn exchange(&mut self, window: &Window, pieces: &[&[u8]]) -> Result<Replies, String> {
        for piece in pieces {
            self.wire.send(piece).map_err(|error| format!("takes no more: {error}"))?;
        }
        let last = window.number(window.requests.len());
        let lines = self.wire.lines_before(last);
        let mut lines: VecDeque<_> = lines.map_err(|error| format!("is silent: {error}"))?.into();
        let mut replies = Replies::new();
        for (i, request) in window.requests.iter().enumerate() {
            let count = match request.wanted {
                Wanted::ParseError => {
                    let end = answer(window.number(i));
                    let its_own = lines.iter().position(|line| *line == end);
                    its_own.ok_or("does not answer after what is malformed")?
                }
                _ => lines.len().min(1),
            };
            replies.push(lines.drain(..count).collect());
            if request.wanted == Wanted::ParseError {
                lines.pop_front();
            }
        }
        match lines.pop_front() {
            None => Ok(replies),
            Some(line) => Err(format!("says more than it was asked: {}", line.escape_ascii())),
        }
    }
}

/// Requests in flight at once, and the number of the first.
struct Window {
    first: u64,
    requests: Vec<Request>,
}

impl Window {
    /// The number of the probe behind a request, or behind the last: no other window has it.
    fn number(&self, i: usize) -> usize {
        usize::try_from(self.first).expect("it is no more than was asked for") * 2 + i
    }

    /// The bytes to send, as they may come from a client that does not wait for replies.
    fn text(&self, requests: &mut Requests) -> Vec<u8> {
        let mut text = Vec::new();
        for (i, request) in self.requests.iter().enumerate() {
            text.extend_from_slice(&request.text);
            if request.wanted == Wanted::ParseError {
                text.extend(probe(self.number(i)));
            } else {
                text.extend_from_slice(requests.separator());
            }
        }
        text.extend(probe(self.number(self.requests.len())));
        text
    }
}

/// A run: the requests to send, their number, and how many are in flight at once.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) requests: Requests,
    /// Of those requests.
    pub(crate) seed: u64,
    /// The number of requests in all.
    pub(crate) count: u64,
    /// The number of requests in flight at once.
    pub(crate) window: u64,
}

/// Sends them to QEMU and to the others.
///
/// # Panics
///
/// If a reply differs; with all that it takes to ask it again.
#[track_caller]
pub(crate) fn compare(run: Run, mut reference: Side, others: &mut [Side]) {
    let Run { mut requests, seed, count, window } = run;
    println!("VMSTROBE_QMP_SEED={seed} VMSTROBE_QMP_REQUESTS={count}");
    let (start, mut report) = (Instant::now(), Report::new(seed));
    for first in (0..count).step_by(usize::try_from(window).expect("it is small")) {
        let end = count.min(first + window);
        let window =
            Window { first, requests: (first..end).map(|_| requests.next_request()).collect() };
        let text = window.text(&mut requests);
        let pieces = requests.split(&text);
        let (theirs, ours) = thread::scope(|scope| {
            let exchange = |side| scope.spawn(|| Side::exchange(side, &window, &pieces));
            let reference = exchange(&mut reference);
            let others: Vec<_> = others.iter_mut().map(exchange).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
            (join(reference), others.into_iter().map(join).collect::<Vec<_>>())
        });
        let theirs = report.take(reference.name, &window.requests, first, theirs);
        for (side, ours) in others.iter_mut().zip(ours) {
            let ours = report.take(side.name, &window.requests, first, ours);
            for (i, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
                let request = &window.requests[i];
                let Some(why) = difference(request.wanted, side.alike, theirs, ours) else {
                    continue;
                };
                if !has_changed(request, theirs, &mut reference, side) {
                    report.differs(first + i as u64, side.name, &why, request, theirs, ours);
                }
            }
        }
    }
    report.end();
    let names: Vec<_> = others.iter().map(|side| side.name).collect();
    let seconds = start.elapsed().as_secs_f64();
    show(&format!("{count} requests of seed {seed} to QEMU and {names:?}: {seconds:.1} s"));
}

/// Whether it differs only because QEMU counts something even at rest: its own reply is another
/// now, and ours is the same as that.
fn has_changed(
    request: &Request,
    theirs: &[Vec<u8>],
    reference: &mut Side,
    side: &mut Side,
) -> bool {
    let [was] = theirs else { return false };
    (0..ASKED_AGAIN).any(|_| {
        let ask = |side: &mut Side| side.wire.ask(&request.text).expect("it has answered before");
        let (before, ours, now) = (ask(reference), ask(side), ask(reference));
        before == now
            && *was != now
            && difference(request.wanted, side.alike, &[now], &[ours]).is_none()
    })
}
