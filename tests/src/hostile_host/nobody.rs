//! A process that becomes another user.

use std::io;

use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The user id, and the group id.
pub const NOBODY: u32 = 65534;

/// Makes this process, which has one thread, that of [`NOBODY`], as if it had always been.
///
/// # Errors
///
/// If it may not.
pub fn become_nobody() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Its files in /proc would else stay root's.
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}
