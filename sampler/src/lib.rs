//! The tick: read every source on time, publish an immutable snapshot, never allocate, lock or
//! wait.
//!
//! A [`Roster`] opens the objects that its filters select as a [`SourceSet`], and a [`Sampler`]
//! reads them at the rate of a [`Timing`]. [`Latest`] has the newest snapshot, and a [`Subscriber`]
//! receives each one. [`Control`] changes a running sampler, and [`Health`] has the sampler's own
//! statistics. Without a loop, a [`Catalog`] lists the objects and an [`OnDemandReader`] reads them
//! when it is asked to.
//!
//! This crate depends on the model (vmstrobe-core) and on no provider: they meet as `dyn Provider`
//! and `dyn Source`.
//!
//! # A complete program
//!
//! It samples a counter of its own 1000 times a second.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use std::time::Duration;
//!
//! use vmstrobe_core::{Desc, Object, Provider, ReadPlan, Registry, Result};
//! use vmstrobe_core::{RowState, Rows, Schema, Source, Target};
//! use vmstrobe_sampler::{Fanout, HealthWriter, Roster, Sampler, Timing};
//!
//! /// The provider `web`: one object with one statistic.
//! #[derive(Debug)]
//! struct Web {
//!     schema: Arc<Schema>,
//!     served: Arc<AtomicU64>,
//! }
//!
//! impl Provider for Web {
//!     fn name(&self) -> &str {
//!         "web"
//!     }
//!
//!     fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
//!         Ok(vec![Arc::clone(&self.schema)])
//!     }
//!
//!     fn objects(&self) -> Result<Vec<Object>> {
//!         let schema = Arc::clone(&self.schema);
//!         Ok(vec![Object { path: "/web".into(), index: None, schema, key: 0 }])
//!     }
//!
//!     fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
//!         let open = |_| -> Box<dyn Source> { Box::new(Served(Arc::clone(&self.served))) };
//!         Ok(objects.iter().map(open).collect())
//!     }
//! }
//!
//! /// The counter of one object.
//! struct Served(Arc<AtomicU64>);
//!
//! impl Source for Served {
//!     fn rows(&self) -> usize {
//!         1
//!     }
//!
//!     fn read(&mut self, rows: Rows<'_>) {
//!         rows.fill(|_, words| {
//!             words[0] = self.0.load(Relaxed);
//!             RowState::Good
//!         });
//!     }
//! }
//!
//! fn main() -> Result<()> {
//!     let served = Arc::new(AtomicU64::new(0));
//!     let descs = vec![Desc::counter("served", 0)];
//!     let schema = Schema::new("web", Target::from_name("server"), descs);
//!     let registry = Registry::default();
//!     registry.add(Arc::new(Web { schema, served: Arc::clone(&served) }));
//!
//!     let mut roster = Roster::new(registry, vec!["server: served".parse()?]);
//!     let health_writer = HealthWriter::default();
//!     let (sampler, control) = Sampler::new(roster.open()?, health_writer, Fanout::Auto)?;
//!     let samples = control.subscribe(100)?;
//!     let running = sampler.start(Timing::hz(1000.0)?)?;
//!     for _ in 0..3 {
//!         served.fetch_add(1, Relaxed);
//!         let sample = samples.recv_timeout(Duration::from_secs(10)).expect("the sampler runs");
//!         for (object, served) in sample.stat("served") {
//!             println!("{} {:?}", object.object().path, served.number());
//!         }
//!     }
//!     running.stop()?;
//!     Ok(())
//! }
//! ```

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
pub use clock::now_ns;
pub use control::{Control, MAX_SUBSCRIBERS};
pub use fanout::Fanout;
pub use health::{Counts, Health, HealthWriter, PROVIDER, TARGET, TimeQuantiles};
pub use publish::{Latest, Publisher};
pub use roster::{ErrorDedup, LOOK_PAUSE_MAX, Roster, Watch, look_pause};
pub use sampler::{Running, Sampler, Tick};
pub use source_set::{MAX_OBJECTS, SourceSet};
pub use subscribe::{MAX_QUEUE_SAMPLES, Subscriber};
pub use ticker::{MAX_RATE_HZ, MIN_RATE_HZ, Timing};
