//! QMP sockets for virtual machines, one for each: at a path, or in a directory, there also for
//! those that start later.
//!
//! [`Serving`] has the sockets and the search for virtual machines. What happens is an [`Event`].
//! A virtual machine that is found gets a path that follows from its name, if its user is within
//! the limits: [`MAX_SOCKETS`], and for users who are not trusted
//! [`MAX_SOCKETS_OF_UNTRUSTED_USER`] and [`MAX_SOCKETS_OF_UNTRUSTED`].
//!
//! ```no_run
//! use std::time::Duration;
//! use vmstrobe::serve::{DirectoryConfig, Event, Serving, ServingConfig};
//! use vmstrobe::{Options, Sources};
//!
//! let mut serving = Serving::new(ServingConfig::default());
//! let directory = DirectoryConfig {
//!     path: "/run/vmstrobe".into(),
//!     trusted_users: Vec::new(),
//!     sources: Sources { all: true, ..Sources::default() },
//!     options: Options::default(),
//! };
//! serving.serve_in(directory, &|| false)?;
//! loop {
//!     for event in serving.events() {
//!         if let Event::Opened(vm) = event {
//!             println!("{:?} at {}", vm.title, vm.path.display());
//!         }
//!     }
//!     std::thread::sleep(Duration::from_millis(50));
//!     serving.poll(&|| false);
//! }
//! # #[expect(unreachable_code, reason = "the loop has no end")]
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Invariant: a user who is not trusted cannot take the path or the socket of another user's
//! virtual machine, nor fill a log: what repeats has one event.

mod accounts;
mod socket_files;
mod directory;
mod quota;
mod event;
mod vm_sockets;
mod directory_server;
mod serving;

pub use accounts::{Account, group_id};
pub use directory::DirectoryRefusal;
pub use directory_server::DirectoryConfig;
pub use event::{Event, Owner, ServedVm};
pub use quota::{
    LimitReached, MAX_SOCKETS, MAX_SOCKETS_OF_UNTRUSTED, MAX_SOCKETS_OF_UNTRUSTED_USER,
};
pub use serving::Serving;
pub use socket_files::SocketFiles;
pub use vm_sockets::ServingConfig;
