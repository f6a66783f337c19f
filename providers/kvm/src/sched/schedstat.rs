//! A thread's times in /proc: `/proc/<pid>/task/<tid>/schedstat`.
//!
//! One file, held open, is read by one `pread`, which takes some 750 ns. The kernel answers it anew
//! each time, and with ESRCH from the thread's end on, even if another thread has its number then.
//!
//! Invariant: three numbers of that thread, or an error; nothing that a file may hold makes this
//! panic.

use std::fs::File;
use std::io::{self, ErrorKind as Kind};

use rustix::io::{Errno, pread};
use vmstrobe_core::{Error, ErrorKind, Result};

/// The number of words that there are of a thread: see [`WORD_NAMES`].
pub const WORDS: usize = 4;
/// The names of the words, in the order of their data.
pub const WORD_NAMES: [&str; WORDS] = ["run_delay", "run_time", "timeslices", "thread_id"];
/// The words that only grow: all before the thread's id.
pub const GROWING: std::ops::Range<usize> = 0..THREAD_ID;
/// The index of the thread's id among the words.
pub const THREAD_ID: usize = 3;

/// More than the longest line: three numbers of 20 digits, each with one byte behind it.
const LINE_BYTES: usize = 64;

/// A thread's times, to be read again and again.
#[derive(Debug)]
pub struct Schedstat {
    file: File,
    thread_id: u32,
}

impl Schedstat {
    /// Opens the times of a thread of that process. To be called by the broker, to which /proc
    /// shows all processes; reading takes no right.
    ///
    /// # Errors
    /// `NotFound` if it has no such thread, or this kernel no such file.
    pub fn open(pid: u32, thread_id: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/task/{thread_id}/schedstat"))?;
        Ok(Self { file, thread_id })
    }

    /// Returns the id of the thread.
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// Reads the thread's words now.
    ///
    /// # Errors
    /// `ESRCH` if the thread has ended, `EBADMSG` if the file has something else than three
    /// numbers.
    pub fn read(&self) -> std::result::Result<[u64; WORDS], Errno> {
        let mut line = [0; LINE_BYTES];
        let bytes = pread(&self.file, &mut line, 0)?;
        let [run_time, run_delay, timeslices] = parse(&line[..bytes]).ok_or(Errno::BADMSG)?;
        Ok([run_delay, run_time, timeslices, self.thread_id.into()])
    }
}

/// Whether this kernel accounts for what threads wait.
///
/// # Errors
/// `Unsupported` if it does not, or if there is no /proc.
pub fn check() -> Result<()> {
    let unsupported = |text: &str| Err(Error::new(ErrorKind::Unsupported, text));
    let mut line = [0; LINE_BYTES];
    let own = File::open("/proc/thread-self/schedstat");
    let bytes = own.and_then(|file| Ok(pread(file, &mut line, 0)?));
    match bytes.map(|bytes| parse(&line[..bytes])) {
        // This thread has run, or else it would not ask.
        Ok(Some([.., timeslices])) if timeslices > 0 => Ok(()),
        Ok(Some(_)) => unsupported(
            "this kernel does not count how long threads wait for a CPU: boot it without \
             nodelayacct",
        ),
        Ok(None) => {
            unsupported("/proc/<pid>/schedstat does not have the three numbers that it should have")
        }
        Err(error)
            if error.kind() == Kind::NotFound && File::open("/proc/thread-self").is_err() =>
        {
            unsupported(
                "how long threads wait for a CPU is read from /proc, which is not mounted: mount \
                 it (mount -t proc proc /proc)",
            )
        }
        Err(error) if error.kind() == Kind::NotFound => unsupported(
            "this kernel does not count how long threads wait for a CPU: it has no \
             /proc/<pid>/schedstat, which comes with CONFIG_TASK_DELAY_ACCT or CONFIG_SCHEDSTATS",
        ),
        Err(error) => {
            Err(Error::caused(ErrorKind::Io, "cannot read /proc/thread-self/schedstat", error))
        }
    }
}

/// Time on a CPU, time waiting for one, both in ns, and how often it was given one: the kernel's
/// order (`proc_pid_schedstat`).
fn parse(line: &[u8]) -> Option<[u64; 3]> {
    let mut numbers = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let mut next = || numbers.next()?.parse().ok();
    let parsed = [next()?, next()?, next()?];
    numbers.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn own_thread() -> u32 {
        rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
    }

    #[test]
    fn three_numbers_and_nothing_else() {
        let most = format!("{0} {0} {0}\n", u64::MAX);
        assert!(most.len() <= LINE_BYTES);
        for (line, want) in [
            ("1 2 3\n", Some([1, 2, 3])),
            ("0 0 0\n", Some([0; 3])),
            (&most, Some([u64::MAX; 3])),
            ("1 2\n", None),
            ("1 2 3 4\n", None),
            ("1 2 -3\n", None),
            ("1 2 18446744073709551616\n", None),
            ("a b c\n", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()), want, "{line}");
        }
        assert_eq!(parse(b"1 2 \xff\n"), None);
    }

    #[test]
    fn a_thread_that_runs_is_seen_to() {
        if check().is_err() {
            return;
        }
        let own = Schedstat::open(std::process::id(), own_thread()).unwrap();
        let before = own.read().unwrap();
        assert_eq!(before[THREAD_ID], u64::from(own.thread_id()));
        // Each sleep is another time slice, and each wake-up waits for a CPU.
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        let after = own.read().unwrap();
        assert!(GROWING.zip(before).all(|(word, before)| before <= after[word]));
        assert!(after[1] > before[1] && after[2] >= before[2] + 10, "{before:?} {after:?}");
    }

    #[test]
    fn a_thread_that_has_ended_is_no_more() {
        if check().is_err() {
            return;
        }
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            tell.send(own_thread()).unwrap();
            let _ = ended.recv();
        });
        let id = told.recv().unwrap();
        let times = Schedstat::open(std::process::id(), id).unwrap();
        times.read().unwrap();
        drop(end);
        other.join().unwrap();
        let gone = || times.read() == Err(Errno::SRCH);
        assert!(vmstrobe_testing::soon(std::time::Duration::from_secs(5), gone));
        let error = Schedstat::open(std::process::id(), id).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        // A thread, but of another process.
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let error = Schedstat::open(child.id(), own_thread()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
