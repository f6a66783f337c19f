//! The time in which QEMU answers a filtered query of 4 vCPUs, compared with our tick on the same
//! QEMU.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use vmstrobe::host::Reaper;
use vmstrobe::kvm::AttachedKvm;
use vmstrobe_core::{Filter, Registry, RowState};
use vmstrobe_sampler::{Fanout, HealthWriter, Roster, Sampler, Tick};
use vmstrobe_tests::qemu::{Config, Qemu, version};

use crate::pairs::{Effort, median, ns, ns_each};
use crate::rig::THREE;
use crate::{Goal, Line};

const VCPUS: u32 = 4;

pub(crate) fn query(name: &str, effort: Effort) -> Result<Line, Box<dyn Error>> {
    let (major, minor) = version()?;
    if (major, minor) < (8, 1) {
        let text = format!("QEMU {major}.{minor} keeps no stats fds open: 8.1 or later is needed");
        return Err(text.into());
    }
    vmstrobe_tests::require::kvm()?;
    let config = Config { vcpus: VCPUS, paused: true, ..Config::default() };
    let mut qemu = Qemu::try_start(&config)?;
    let borrowed = AttachedKvm::new(Reaper::new()?)?;
    borrowed.attach(qemu.pid())?;
    let registry = Registry::default();
    registry.add(Arc::new(borrowed));
    let filter: Filter = THREE.parse()?;
    let sources = Roster::new(registry, vec![filter]).open()?;
    let (mut sampler, control) = Sampler::new(sources, HealthWriter::default(), Fanout::Inline)?;
    assert_eq!(sampler.tick(), Tick::Published);
    let good = control.latest().load().objects().filter(|v| v.state() == RowState::Good).count();
    assert_eq!(good, VCPUS as usize);

    let names = ["exits", "halt_exits", "halt_wait_ns"];
    let request = json!({
        "target": "vcpu",
        "providers": [{"provider": "kvm", "names": names}],
    });
    let mut peer = || {
        // The median of some: QEMU's main loop has other things to do now and then.
        let one = |_| {
            let start = Instant::now();
            let reply = qemu.execute("query-stats", request.clone());
            let elapsed = ns(start.elapsed());
            assert_eq!(reply.as_array().map(Vec::len), Some(VCPUS as usize));
            elapsed
        };
        median((0..15).map(one).collect())
    };
    let medians = effort.pairs(
        101,
        || ns_each(1000, || assert_eq!(sampler.tick(), Tick::Published)),
        &mut peer,
    );
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: 1.0 / medians.ratio,
        goal: Goal::SpeedupAtLeast(300.0),
        unit: "ns",
    })
}
