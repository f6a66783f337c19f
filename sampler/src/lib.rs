//! The tick: read every source on time, publish an immutable snapshot, never allocate, lock or
//! wait.
//!
//! A [`Roster`] opens what a filter wants of a registry's providers as a [`SourceSet`], and a
//! [`Sampler`] reads it at the rate of a [`Timing`]. [`Latest`] gives the newest snapshot, a
//! [`Subscriber`] every one. [`Control`] changes a running sampler from outside; [`Health`] tells
//! how well it does. Without a loop, a [`Catalog`] lists the objects and an [`OnDemandReader`]
//! reads them when asked.
//!
//! It knows the model and no provider: they meet as `dyn Source`.

#![forbid(unsafe_code)]

mod sync;

mod clock;
mod source_set;
mod roster;
mod fanout;
mod pool;
mod publish;
mod subscribe;
mod control;
mod health;
mod ticker;
mod sampler;
mod catalog;

pub use catalog::{Catalog, OnDemandReader, Wanted};
pub use control::{Control, MAX_SUBSCRIBERS};
pub use fanout::Fanout;
pub use health::{Counts, Health, HealthWriter, PROVIDER, TARGET, TimeQuantiles};
pub use publish::Latest;
pub use roster::{ErrorDedup, LOOK_PAUSE_MAX, Roster, Watch, look_pause};
pub use sampler::{Running, Sampler, Tick};
pub use source_set::{MAX_OBJECTS, SourceSet};
pub use subscribe::{MAX_QUEUE_SAMPLES, Subscriber};
pub use ticker::{MAX_RATE_HZ, MIN_RATE_HZ, Timing};
