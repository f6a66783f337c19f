//! Packets over a Unix socket, and the descriptors that go with them (`SCM_RIGHTS` in unix(7)):
//! between this process and its helper, and from whoever hands descriptors over.
//!
//! Invariant: nothing is allocated and no lock is taken, because the helper process works with
//! this, too. A descriptor that arrives is closed on exec, and is in what [`receive`] returns, so
//! that the caller decides where it is closed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// More descriptors than a packet may have, and than [`receive`] has room for.
pub const MAX_FDS: usize = 8;

/// A packet that arrived; its bytes are where the caller wanted them.
#[derive(Debug)]
pub struct Received {
    /// The number of bytes; 0 at the end of the connection.
    pub bytes: usize,
    /// The descriptors that came with it, in their order.
    pub fds: [Option<OwnedFd>; MAX_FDS],
    /// True if the packet had more bytes than there was room for.
    pub is_cut: bool,
    /// True if there were more descriptors: more than room for them here, or in this process.
    pub are_fds_cut: bool,
}

/// Sends a packet of these parts, whole or not at all, with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // There is room for just this.
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, parts, &mut control, flags | SendFlags::NOSIGNAL).map(drop)
}

/// Receives a packet.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive(
    socket: impl AsFd,
    into: &mut [u8],
    flags: RecvFlags,
) -> rustix::io::Result<Received> {
    // For one descriptor and what aligns it, in which the kernel finds room for a few more.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags)?;
    let mut fds = [const { None }; MAX_FDS];
    let mut free = fds.iter_mut();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for (fd, free) in rights.zip(&mut free) {
                *free = Some(fd);
            }
        }
    }
    let is_cut = got.flags.contains(ReturnFlags::TRUNC);
    let are_fds_cut = got.flags.contains(ReturnFlags::CTRUNC);
    Ok(Received { bytes: got.bytes, fds, is_cut, are_fds_cut })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn descriptors_arrive_closed_on_exec_and_too_many_are_seen() {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let file = File::open("/dev/null").unwrap();
        let mut bytes = [0; 4];
        for (sent, are_too_many) in [(0, false), (1, false), (MAX_FDS, true)] {
            let fds = vec![file.as_fd(); sent];
            let parts = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
            send(&theirs, &parts, &fds, SendFlags::empty()).unwrap();
            let got = receive(&ours, &mut bytes, RecvFlags::empty()).unwrap();
            assert_eq!((got.bytes, &bytes[..3], got.is_cut), (3, &b"abc"[..], false));
            assert_eq!(got.are_fds_cut, are_too_many, "{sent}");
            assert_eq!(got.fds.iter().flatten().count() < sent, are_too_many, "{sent}");
            for fd in got.fds.iter().flatten() {
                assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
            }
        }
        send(&theirs, &[IoSlice::new(b"abcde")], &[], SendFlags::empty()).unwrap();
        assert!(receive(&ours, &mut bytes, RecvFlags::empty()).unwrap().is_cut);
    }
}
