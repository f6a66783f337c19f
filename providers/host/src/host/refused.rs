//! Why the helper could not do something.

use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind};

use super::Host;
use super::helper::Helper;
use crate::refusal::{self, Step};
use crate::status::Status;

impl Host {
    /// Returns the rights by which processes are looked at: the helper's, which were those of the
    /// thread that started it.
    pub fn rights(&self) -> Option<Status> {
        let helper = self.state().helper.as_ref().map(Helper::pid);
        let helper = helper?.as_raw_nonzero().get().cast_unsigned();
        self.broker().run(move || Status::of(helper))
    }

    /// Makes the error for a process of which the helper could not do that.
    pub fn refused(&self, pid: u32, step: Step, errno: Errno) -> Error {
        let ours = self.rights();
        match errno {
            Errno::NOENT | Errno::SRCH => self.broker().run(move || refusal::not_found(pid, ours)),
            Errno::ACCESS | Errno::PERM | Errno::NOSYS => {
                self.broker().run(move || refusal::of_process(pid, step, errno, ours))
            }
            _ => {
                let text = match step {
                    Step::Look => format!("cannot see the descriptors of pid {pid}"),
                    Step::Hold | Step::Borrow => {
                        format!("cannot borrow a descriptor from pid {pid}")
                    }
                };
                Error::caused(ErrorKind::Io, text, errno)
            }
        }
    }
}
