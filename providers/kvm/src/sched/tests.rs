//! The statistics of a thread, and what is said of a method that does not read threads.

use std::sync::Arc;

use vmstrobe_core::{ErrorKind, RowState};
use vmstrobe_guest::KnownGuest;
use vmstrobe_testing::{has_kvm, open_all, states};

use super::*;
use crate::NewVcpu;
use crate::tests::Never;

fn said(sched: &Sched) -> Vec<String> {
    sched.warnings().iter().map(Error::to_string).collect()
}

#[test]
fn the_schema_is_in_the_kernels_words() {
    let schema = sched_schema();
    assert_eq!((schema.provider(), schema.target()), ("sched", &Target::Vcpu));
    let descs: Vec<_> = schema.descs().iter().map(|d| (&*d.name, d.stat_type, d.unit)).collect();
    assert_eq!(
        descs,
        [
            ("run_delay", StatType::Cumulative, Unit::Seconds),
            ("run_time", StatType::Cumulative, Unit::Seconds),
            ("timeslices", StatType::Cumulative, Unit::None),
            ("thread_id", StatType::Instant, Unit::None),
        ]
    );
    let exponents: Vec<_> = schema.descs().iter().map(|desc| desc.scale.exponent).collect();
    assert_eq!(exponents, [-9, -9, 0, 0]);
    assert_eq!(schema.data_bytes(), WORDS * WORD_BYTES);
    assert!(schema.descs().iter().all(Desc::has_qapi_value));
}

/// If threads are refused and not required, /proc is read, and a warning says why.
#[test]
fn what_is_refused_is_said_for_as_long_as_it_is_so() {
    if !has_kvm() || schedstat::check().is_err() {
        return;
    }
    let guest = KnownGuest::new().unwrap();
    guest.run(1, 1).unwrap();
    let never: Arc<dyn BulkOpener> = Arc::new(Never(None));
    let kvm = OwnKvm::with_bulk("x", guest.vm().fd(), never).unwrap();
    kvm.add_vcpu(NewVcpu::here(0, guest.vcpu().fd())).unwrap();
    let sched = Arc::new(kvm).sched().unwrap();
    let refusal = || Error::new(ErrorKind::Unsupported, "so it is");
    let error = sched.do_without(NoThreads::Required(refusal())).unwrap_err();
    assert_eq!(error.to_string(), "so it is");

    assert_eq!(said(&sched).len(), 0);
    assert!(!sched.do_without(NoThreads::Unwanted).unwrap());
    assert_eq!(said(&sched).len(), 0);
    assert!(!sched.do_without(NoThreads::Refused(refusal())).unwrap());
    let want = "threads of vCPUs are not read by the BPF reader: so it is";
    assert_eq!(said(&sched), [want]);
    assert_eq!(said(&sched), [want]);
    let objects = sched.objects().unwrap();
    assert_eq!(states(&mut *open_all(&sched, &objects).remove(0), &objects[0]), [RowState::Good]);
}
