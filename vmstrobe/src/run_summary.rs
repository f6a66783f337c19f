//! The summary of a run: the quality and the cost of its sampling.
//!
//! Invariant: the figures come from the sampler's health and cover all ticks.

use std::collections::HashSet;

use vmstrobe_core::{Layout, Target};
use vmstrobe_sampler::TimeQuantiles;

use crate::error::Result;
use crate::read_status::ReadStatus;
use crate::session::Session;

/// The summary of a run of a [`Session`].
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// let mut session = vmstrobe::attach(4711)?.sample("vcpu: exits", 1000.0)?;
/// let began = Instant::now();
/// while began.elapsed() < Duration::from_secs(1) {
///     session.recv(Duration::from_millis(50));
/// }
/// let summary = session.summary(1000.0, began.elapsed().as_secs_f64())?;
/// println!("{} ticks, {} missed", summary.ticks, summary.missed_ticks);
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunSummary {
    /// The names of the targets that were sampled, without the sampler's own.
    pub sampled: Vec<String>,
    /// The number of vCPUs that were sampled.
    pub vcpus: usize,
    /// The number of samples per second that was asked for.
    pub rate_hz: f64,
    /// The length of the run, in s.
    pub seconds: f64,
    /// The time at which the first sample was read, in ns since 1970.
    pub begin_wall_ns: u64,
    /// The method by which objects of KVM were read; `None` if there were none.
    pub read: Option<ReadStatus>,
    /// The number of threads that read.
    pub threads: usize,
    /// The number of ticks that were sampled.
    pub ticks: u64,
    /// The number of ticks that were not sampled because their time had passed.
    pub missed_ticks: u64,
    /// The number of ticks that were not sampled because readers held all buffers.
    pub starved_ticks: u64,
    /// The number of samples that came faster than they were received.
    pub lost_samples: u64,
    /// The number of failed readings, each of one object.
    pub unread_rows: u64,
    /// The time from a tick's deadline to its begin.
    pub lateness: TimeQuantiles,
    /// The time that a tick took.
    pub tick_cost: TimeQuantiles,
}

impl Session {
    /// Ends the sampling and returns its summary. `rate_hz` is the rate that was asked for, and
    /// `seconds` the length of the run.
    ///
    /// # Errors
    /// As [`Session::stop`].
    pub fn summary(&mut self, rate_hz: f64, seconds: f64) -> Result<RunSummary> {
        let lost_samples = self.lost_samples();
        self.stop()?;
        let read = self.read_status();
        let begin_wall_ns = self.first().window().begin_wall_ns();
        let newest = self.control().latest().load_full();
        let (sampled, vcpus) = (targets(newest.layout()), vcpus(newest.layout()));
        let sampler = self.stop()?;
        let (health, threads) = (sampler.health(), sampler.threads());
        let counts = health.counts();
        Ok(RunSummary {
            sampled,
            vcpus,
            rate_hz,
            seconds,
            begin_wall_ns,
            read,
            threads,
            ticks: counts.ticks,
            missed_ticks: counts.missed_ticks,
            starved_ticks: counts.starved_ticks,
            lost_samples,
            unread_rows: counts.unread_rows,
            lateness: health.lateness(),
            tick_cost: health.tick_cost(),
        })
    }
}

/// Returns the names of the targets, each once, without the sampler's own.
fn targets(layout: &Layout) -> Vec<String> {
    let mut names = Vec::new();
    for group in layout.groups().iter().filter(|group| !group.objects.is_empty()) {
        let name = group.plan.schema().target().name();
        if name != vmstrobe_sampler::TARGET && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Returns the number of vCPUs. Several providers may have statistics of one.
fn vcpus(layout: &Layout) -> usize {
    let groups = layout.groups().iter();
    let of_vcpus = groups.filter(|group| *group.plan.schema().target() == Target::Vcpu);
    let paths = of_vcpus.flat_map(|group| &group.objects).map(|object| &object.path);
    paths.collect::<HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmstrobe_core::{Desc, Filter, Mask, Object, ReadPlan, Schema};
    use vmstrobe_table::{TableSchema, TableWriter};

    use super::*;
    use crate::attachment::Attachment;
    use crate::parts::Bpf;
    use crate::sources::{Options, Sources};

    #[test]
    fn an_object_of_several_providers_is_one_vcpu() {
        let part = |provider: &str, target: &str, paths: &[&str]| {
            let target = Target::from_name(target);
            let schema = Schema::new(provider, target, vec![Desc::counter("n", 0)]);
            let object = |path: &&str| {
                let (path, schema) = ((*path).into(), Arc::clone(&schema));
                Object { path, index: None, schema, key: 0 }
            };
            let objects = paths.iter().map(object).collect();
            (ReadPlan::new(&schema, &Mask::all(&schema)), objects)
        };
        let layout = Layout::new(
            0,
            vec![
                part("kvm", "vcpu", &["/a", "/b"]),
                part("sched", "vcpu", &["/a", "/b"]),
                part("xyz", "queue", &["/q"]),
                part("cryptodev", "cryptodev", &[]),
                part(vmstrobe_sampler::PROVIDER, vmstrobe_sampler::TARGET, &["/sampler"]),
            ],
        );
        assert_eq!((targets(&layout), vcpus(&layout)), (vec!["vcpu".into(), "queue".into()], 2));
    }

    #[test]
    fn the_summary_is_of_all_ticks() {
        let table = TableWriter::new("summary").expect("there is memory");
        // Other tests have tables in this process, too.
        let target = Target::from_name("summed-up");
        let mut schema = TableSchema::new(target.clone());
        schema.counter("requests");
        let _object = table.add("/q", &schema).expect("there is room");
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let attachment = Attachment::open(&Sources::pid(std::process::id()), &options);
        let attachment = attachment.expect("this process has a table");
        let timing = vmstrobe_sampler::Timing::hz(1000.0).expect("the rate is in bounds");
        let session = attachment.start(vec![Filter::all(target)], timing);
        let mut session = session.expect("the table can be read");
        session.recv(std::time::Duration::from_secs(10)).expect("samples come");
        let summary = session.summary(1000.0, 0.5).expect("the sampler does not fail");
        assert_eq!((&summary.sampled[..], summary.vcpus), (&["summed-up".to_owned()][..], 0));
        assert!(summary.ticks >= 2 && summary.begin_wall_ns > 0, "{summary:?}");
        assert_eq!((summary.read.as_ref(), summary.threads), (None, 1));
        assert_eq!(summary.lateness.count + 1, summary.ticks, "the first tick has no deadline");
    }
}
