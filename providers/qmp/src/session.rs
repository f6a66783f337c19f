//! One connection to a QMP socket: from connecting to a command and its answer.
//!
//! QEMU answers in order, so a command is sent only when the one before has been answered. One that
//! is not answered in time stays owed: the connection is kept, and the next answer that comes is
//! that one's ([`Session::settle`]).
//!
//! Invariant: every wait has an end, and ends at once when the [`Wake`] says so, but for a look at
//! the process behind a socket that does not greet. Nothing that the peer sends makes one longer:
//! the time is asked before each read.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use vmstrobe_core::{Error, ErrorKind};
use vmstrobe_host::{Broker, Host, clock_ns, procfs, refusal, refusal::path::Use};

use super::ask::{Ask, Asked, Fault, GREETING_LIMIT, REPLY_LIMIT, Wake, failed};
use super::framer::Framer;
use super::message::{self, Answer, Anything, Deserialize};
use super::peer::{self, Peer};

/// The most answers to another client that are passed over. A client has at most so many under way.
const OTHERS_ANSWERS_MAX: usize = 16;
/// Ids of commands begin again here. QEMU reads a command byte by byte, 3 us each (10.0.2), so they
/// are short; never are two commands under way.
const IDS: u64 = 100;
/// The pause before a socket whose queue is full is tried again.
const QUEUE_POLL: Duration = Duration::from_millis(10);
/// The most bytes of one read.
const READ_BYTES: usize = 1 << 16;

/// A connection that has been greeted.
#[derive(Debug)]
pub(super) struct Session {
    socket: OwnedFd,
    wake: Arc<Wake>,
    framer: Framer,
    read: Box<[u8]>,
    last_id: u64,
    deadline: Instant,
    /// The command whose answer has not come yet.
    owed: Option<u64>,
}

impl Session {
    /// Connects, is greeted, and leaves negotiation mode.
    pub(super) fn open(
        path: &Path,
        host: &Host,
        wake: &Arc<Wake>,
        deadline: Instant,
    ) -> Asked<Self> {
        let until = deadline.min(Instant::now() + GREETING_LIMIT);
        let mut session = Self {
            socket: connected(path, host.broker(), wake, until)?,
            wake: Arc::clone(wake),
            framer: Framer::default(),
            read: vec![0; READ_BYTES].into(),
            // Unlike those of the client before, whoever that was.
            last_id: clock_ns(),
            deadline,
            owed: None,
        };
        let greeting = session.receive(until).map_err(|fault| match fault {
            Fault::Late if !session.framer.is_inside() => {
                let text = peer::no_greeting(path, Peer::of(session.peer_pid(), host).as_ref());
                Error::new(ErrorKind::Busy, text).into()
            }
            Fault::Late => {
                let text = format!(
                    "{} sends only a part of a QMP greeting: is it QEMU's QMP socket?",
                    path.display()
                );
                Error::new(ErrorKind::Malformed, text).into()
            }
            fault => fault,
        })?;
        message::greeting(session.framer.text(greeting))
            .map_err(|error| Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        session.negotiate()?;
        Ok(session)
    }

    /// Leaves negotiation mode. What QEMU was doing for the client before us it still answers, and
    /// to us: that is not ours (seen with QEMU 10.0.2).
    fn negotiate(&mut self) -> Asked<()> {
        let deadline = self.reply_deadline();
        self.last_id += 1;
        let id = self.last_id;
        self.send(message::request("qmp_capabilities", None, id).as_bytes(), deadline)?;
        self.owed = Some(id);
        let mut text = self.answer(deadline)?;
        for _ in 0..OTHERS_ANSWERS_MAX {
            if !message::is_anothers(self.framer.text(text.clone()), id) {
                break;
            }
            text = self.answer(deadline)?;
        }
        match message::answer::<Anything>(self.framer.text(text), id)? {
            Answer::Return(_) => Ok(()),
            Answer::Refused(refusal) => Err(Fault::Refused(refusal)),
        }
    }

    /// Returns the process that made the socket listen: QEMU, or the one that started it and handed
    /// the socket over.
    pub(super) fn peer_pid(&self) -> Option<u32> {
        procfs::peer_pid(&self.socket)
    }

    /// Waits for an answer that is still owed. From now on, nothing is waited for beyond the
    /// deadline. To be called before the first command of a round.
    pub(super) fn settle(&mut self, deadline: Instant) -> Asked<()> {
        self.deadline = deadline;
        let Some(id) = self.owed else { return Ok(()) };
        let answer = self.answer(self.reply_deadline())?;
        Ok(message::settled(self.framer.text(answer), id)?)
    }

    fn reply_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + REPLY_LIMIT)
    }

    /// Waits until that time, which gives false, or until the bell rings or the peer has closed the
    /// connection.
    pub(super) fn rest(&self, bell: BorrowedFd<'_>, until: Instant) -> Asked<bool> {
        let closed = (self.socket.as_fd(), PollFlags::RDHUP);
        self.wake.wait(&[closed, (bell, PollFlags::IN)], until)
    }

    /// The next text that is no event.
    fn answer(&mut self, deadline: Instant) -> Asked<Range<usize>> {
        loop {
            let text = self.receive(deadline)?;
            if !message::is_event(self.framer.text(text.clone())) {
                self.owed = None;
                return Ok(text);
            }
        }
    }

    /// The next text.
    fn receive(&mut self, deadline: Instant) -> Asked<Range<usize>> {
        loop {
            if let Some(text) = self.framer.next_text()? {
                return Ok(text);
            }
            if Instant::now() >= deadline {
                return Err(Fault::Late);
            }
            self.wake.wait(&[(self.socket.as_fd(), PollFlags::IN)], deadline)?;
            match recv(&self.socket, &mut *self.read, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(closed().into()),
                Ok((_, bytes)) => self.framer.push(&self.read[..bytes]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(failed("read from", errno).into()),
            }
        }
    }

    fn send(&mut self, mut text: &[u8], deadline: Instant) -> Asked<()> {
        let whole = text.len();
        while !text.is_empty() {
            match send(&self.socket, text, SendFlags::NOSIGNAL) {
                Ok(bytes) => text = &text[bytes..],
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                    self.wake.wait(&[(self.socket.as_fd(), PollFlags::OUT)], deadline)?;
                }
                Err(Errno::AGAIN | Errno::INTR) if text.len() == whole => return Err(Fault::Late),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(closed().into()),
                Err(errno) => return Err(failed("write to", errno).into()),
            }
        }
        Ok(())
    }
}

impl Ask for Session {
    /// Waits at most [`REPLY_LIMIT`]. All that was asked before has been answered.
    fn ask<'a, T: Deserialize<'a>>(
        &'a mut self,
        command: &str,
        arguments: Option<&str>,
    ) -> Asked<T> {
        debug_assert!(self.owed.is_none(), "settled first");
        let deadline = self.reply_deadline();
        self.last_id = (self.last_id + 1) % IDS;
        let id = self.last_id;
        self.send(message::request(command, arguments, id).as_bytes(), deadline)?;
        self.owed = Some(id);
        let text = self.answer(deadline)?;
        match message::answer(self.framer.text(text), id)? {
            Answer::Return(value) => Ok(value),
            Answer::Refused(refusal) => Err(Fault::Refused(refusal)),
        }
    }

    fn clock_ns(&self) -> u64 {
        clock_ns()
    }
}

/// A socket connected to that path by the broker, which never blocks.
fn connected(path: &Path, broker: &Broker, wake: &Wake, deadline: Instant) -> Asked<OwnedFd> {
    let file = path.to_owned();
    let meant = broker.run_apart(move || fs::metadata(file))?;
    let meant = meant.map_err(|error| cannot_connect(broker, path, error))?;
    if !meant.file_type().is_socket() {
        let text =
            format!("{} is no socket: give the path of QEMU's -qmp unix:PATH", path.display());
        return Err(Error::new(ErrorKind::NotFound, text).into());
    }
    let address = SocketAddrUnix::new(path).map_err(|errno| {
        let text = format!("{} is too long for the path of a socket", path.display());
        Error::caused(ErrorKind::Unsupported, text, errno)
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make a socket", errno))?;
        let address = address.clone();
        match broker.run_apart(move || connect(&socket, &address).map(|()| socket))? {
            Ok(socket) => return Ok(socket),
            // Others wait to be served: QEMU's queue has room for one or two.
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                wake.wait(&[], Instant::now() + QUEUE_POLL)?;
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                return Err(Error::new(ErrorKind::Busy, peer::no_greeting(path, None)).into());
            }
            Err(errno) => return Err(cannot_connect(broker, path, errno.into()).into()),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Io, "QEMU has closed the QMP connection")
}

/// Makes the error for a path that cannot be connected to, with what to do about it.
fn cannot_connect(broker: &Broker, path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        let why = refusal::path::reason(broker, path, Use::Connect);
        return Error::new(ErrorKind::Denied, format!("cannot connect to {shown}: {why}"));
    }
    let (kind, text) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            format!("there is no {shown}: start QEMU with -qmp unix:{shown},server=on,wait=off"),
        ),
        io::ErrorKind::ConnectionRefused => (
            ErrorKind::NotFound,
            format!("nobody listens on {shown}: the QEMU that made it has ended"),
        ),
        _ => (ErrorKind::Io, format!("cannot connect to {shown}")),
    };
    Error::caused(kind, text, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_cannot_connect_is_told_what_to_do() {
        for (errno, kind, words) in [
            (Errno::NOENT, ErrorKind::NotFound, "start QEMU with -qmp unix:/x/qmp,server=on"),
            (Errno::CONNREFUSED, ErrorKind::NotFound, "nobody listens on /x/qmp"),
            (Errno::ACCESS, ErrorKind::Denied, "cannot connect to /x/qmp: the directory /x "),
            (Errno::PERM, ErrorKind::Denied, "run vmstrobe as root"),
            (Errno::PROTOTYPE, ErrorKind::Io, "cannot connect to /x/qmp"),
        ] {
            let error = cannot_connect(&Broker::default(), Path::new("/x/qmp"), errno.into());
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    fn session(socket: UnixStream) -> Session {
        socket.set_nonblocking(true).unwrap();
        Session {
            socket: socket.into(),
            wake: Wake::new().unwrap(),
            framer: Framer::default(),
            read: vec![0; READ_BYTES].into(),
            last_id: 6,
            deadline: Instant::now() + GREETING_LIMIT,
            owed: None,
        }
    }

    #[test]
    fn answers_to_the_client_before_are_passed_over_but_not_without_end() {
        for (others, is_ours_heard) in [(0, true), (OTHERS_ANSWERS_MAX, true), (100, false)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let answer = |id: usize| format!("{{\"return\": {{}}, \"id\": {id}}}\r\n");
            let text: String = (0..others).map(|at| answer(47 + at)).chain([answer(7)]).collect();
            theirs.write_all(text.as_bytes()).unwrap();
            let outcome = session(ours).negotiate();
            assert_eq!(outcome.is_ok(), is_ours_heard, "{others}: {outcome:?}");
        }
    }

    #[test]
    fn a_rest_ends_when_the_peer_closes_or_the_bell_rings_and_not_when_it_sends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (session, bell) = (session(ours), Wake::new().unwrap());
        theirs.write_all(b"{\"event\": \"STOP\"}").unwrap();
        let before = Instant::now();
        assert!(matches!(session.rest(bell.as_fd(), before + QUEUE_POLL), Ok(false)));
        assert!(before.elapsed() >= QUEUE_POLL);
        bell.signal();
        assert!(matches!(session.rest(bell.as_fd(), before + GREETING_LIMIT), Ok(true)));
        let bell = Wake::new().unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(session.rest(bell.as_fd(), before + GREETING_LIMIT), Ok(true)));
        assert!(before.elapsed() < GREETING_LIMIT);
    }
}
