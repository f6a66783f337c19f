//! The process behind a QMP socket that does not answer: whether it is stopped, or serves another
//! client.
//!
//! A QEMU takes one client a socket and leaves the next one in the queue: that client is not
//! greeted, just as by a QEMU that is stopped or hangs. The state of the process tells these apart;
//! but the process that a socket names may be another one, which made it listen and handed it over.
//!
//! Invariant: nothing here waits for the process longer than [`Host`] does, nor claims what its
//! state does not tell.

use std::path::Path;

use vmstrobe_host::{Care, Host, KvmLink, Status};

use super::ask::GREETING_LIMIT;

/// The process that made a socket listen, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pid: u32,
    comm: String,
    /// The letter of its state.
    state: char,
    /// Whether it is known to be the QEMU that answers. Else it may be one that has handed the
    /// socket over, as libvirt does.
    has_vm: bool,
}

impl Peer {
    /// Looks at the process of that number; `None` if there is none, or it cannot be seen.
    pub(super) fn of(pid: Option<u32>, host: &Host) -> Option<Self> {
        let pid = pid?;
        let state = host.broker().run(move || Status::of(pid))?.state;
        let seen = host.look(pid, Care { makers: false, ..Care::FULL });
        let has_vm = seen.is_ok_and(|seen| {
            !seen.is_reader && seen.kvm.iter().any(|seen| seen.link == KvmLink::Vm)
        });
        Some(Self { pid, comm: host.comm(pid), state, has_vm })
    }

    /// Says why it does not answer, if it is a QEMU that is stopped; `None` if it is not.
    fn stopped(&self) -> Option<String> {
        let Self { pid, state, .. } = self;
        match state {
            _ if !self.has_vm => None,
            'T' => Some(format!(
                "its process, pid {pid}, is stopped (state T): let it go on (kill -CONT {pid})"
            )),
            't' => Some(format!(
                "its process, pid {pid}, is stopped by a debugger (state t): let it go on there"
            )),
            'Z' | 'X' => Some(format!("its process, pid {pid}, is ending (state {state})")),
            _ => None,
        }
    }

    /// Says what is known of it, if it may be another process than QEMU.
    fn listener(&self) -> String {
        let Self { pid, comm, state, .. } = self;
        format!("the process that made the socket listen, pid {pid} ({comm}), is in state {state}")
    }
}

/// Says why nobody is greeted at that socket.
pub(super) fn no_greeting(path: &Path, peer: Option<&Peer>) -> String {
    let what =
        format!("QEMU sends no QMP greeting at {} within {GREETING_LIMIT:?}", path.display());
    let another = "another client has the socket (QEMU serves one at a time: give it a second \
                   -qmp socket)";
    if let Some(stopped) = peer.and_then(Peer::stopped) {
        return format!("{what}: {stopped}");
    }
    match peer {
        Some(Peer { pid, state, has_vm: true, .. }) => format!(
            "{what}: {another}, or QEMU hangs (its process, pid {pid}, is not stopped but in state \
             {state})"
        ),
        Some(peer) => format!(
            "{what}: {another}, or QEMU hangs ({}; QEMU itself may be stopped)",
            peer.listener()
        ),
        None => format!("{what}: {another}, or QEMU is stopped or hangs"),
    }
}

/// Says why a QEMU does not answer a command in time.
pub(super) fn no_answer(peer: Option<&Peer>) -> String {
    peer.and_then(Peer::stopped).unwrap_or_else(|| match peer {
        Some(Peer { pid, state, has_vm: true, .. }) => {
            format!("it is too busy to be asked, or hangs (pid {pid}, state {state})")
        }
        Some(peer) => format!("it is stopped, or too busy to be asked ({})", peer.listener()),
        None => "it is stopped, or too busy to be asked".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(state: char, has_vm: bool) -> Peer {
        Peer { pid: 7, comm: "virtqemud".to_owned(), state, has_vm }
    }

    #[test]
    fn one_who_is_not_greeted_learns_whether_qemu_is_stopped() {
        let said = |peer: Option<Peer>| no_greeting(Path::new("/x/qmp"), peer.as_ref());
        let another = "another client has the socket";
        for (state, words) in [('T', "kill -CONT 7"), ('t', "a debugger"), ('Z', "is ending")] {
            let text = said(Some(peer(state, true)));
            assert!(text.contains(words) && !text.contains(another), "{text}");
            assert!(no_answer(Some(&peer(state, true))).contains(words), "{state}");
        }
        for state in ['S', 'R', 'D'] {
            let text = said(Some(peer(state, true)));
            let hangs =
                format!("or QEMU hangs (its process, pid 7, is not stopped but in state {state})");
            assert!(text.contains(another) && text.ends_with(&hangs), "{text}");
            assert!(
                no_answer(Some(&peer(state, true))).ends_with(&format!("(pid 7, state {state})"))
            );
        }
        let text = said(None);
        assert!(text.contains(another) && text.ends_with("or QEMU is stopped or hangs"), "{text}");
        assert!(no_answer(None).starts_with("it is stopped, or "));
    }

    #[test]
    fn one_that_handed_the_socket_over_is_not_said_to_be_qemu() {
        for state in ['S', 'T', 'Z'] {
            let peer = peer(state, false);
            let listener = format!(
                "the process that made the socket listen, pid 7 (virtqemud), is in state {state}"
            );
            let text = no_greeting(Path::new("/x/qmp"), Some(&peer));
            assert!(text.contains("another client has the socket"), "{text}");
            assert!(text.ends_with(&format!("({listener}; QEMU itself may be stopped)")), "{text}");
            let text = no_answer(Some(&peer));
            assert_eq!(text, format!("it is stopped, or too busy to be asked ({listener})"));
        }
    }

    #[test]
    fn a_process_without_a_vm_is_not_qemu() {
        let host = Host::default();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let sleeper = Peer::of(Some(child.id()), &host);
        child.kill().unwrap();
        child.wait().unwrap();
        let sleeper = sleeper.unwrap();
        assert!(!sleeper.has_vm && sleeper.pid == child.id(), "{sleeper:?}");
        assert_eq!([Peer::of(Some(u32::MAX), &host), Peer::of(None, &host)], [None, None]);
    }
}
