//! A test, under the loom model checker, of the order on which a source relies when objects go. It
//! compiles `gone_epoch.rs` itself, with loom's atomics in the place of std's. `ci/loom.sh` runs
//! it; an ordinary build has nothing of it.

#![cfg(loom)]

use loom::sync::atomic::AtomicBool;
use loom::thread;

use crate::gone_epoch::GoneEpoch;
use crate::sync::{Arc, Ordering};

mod sync {
    //! Stands in for `providers/host/src/sync.rs`.
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/gone_epoch.rs"]
mod gone_epoch;

/// A source that is opened while an object goes sees the flag at once or, at the latest when the
/// setter is done, the moved number.
#[test]
fn loom_gone_epoch_is_never_missed_for_good() {
    loom::model(|| {
        let gone_epoch = GoneEpoch::default();
        let gone = Arc::new(AtomicBool::new(false));
        let setter = {
            let (gone_epoch, gone) = (gone_epoch.clone(), Arc::clone(&gone));
            thread::spawn(move || {
                gone.store(true, Ordering::Relaxed);
                gone_epoch.note();
            })
        };
        let source = {
            let (gone_epoch, gone) = (gone_epoch.clone(), Arc::clone(&gone));
            thread::spawn(move || {
                let opened_at = gone_epoch.count();
                (opened_at, gone.load(Ordering::Relaxed))
            })
        };
        let (opened_at, seen) = source.join().expect("a source does not panic");
        setter.join().expect("the setter does not panic");
        assert!(seen || opened_at != gone_epoch.count(), "missed for good");
    });
}
