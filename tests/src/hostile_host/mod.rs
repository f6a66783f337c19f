//! Attacks by another user of the host on root's `vmstrobe`: file systems that do not answer,
//! processes that cannot be examined, and great numbers of descriptors, processes and VMs.
//!
//! [`fuse`] mounts a file system whose server, [`server`], leaves some requests unanswered;
//! [`protocol`] has the layout of its messages. [`attacks`] is the program `attacker`, which
//! becomes [`nobody`].

pub mod protocol;
pub mod server;
pub mod fuse;

pub mod nobody;
pub mod attacks;
