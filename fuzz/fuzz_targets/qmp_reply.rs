//! The answers of a QEMU, or of a process that listens in its place: they are refused, or their
//! objects are within the limits and fit their schemas.
//!
//! The input is a byte that selects the request, and then the bytes from the other side of the
//! connection. The tests check that real answers are understood correctly; here they are damaged.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use vmstrobe_core::wire::{MAX_DATA_BYTES, MAX_DESCS, MAX_NAME_BYTES};
use vmstrobe_core::{Object, Target, WORD_BYTES};
use vmstrobe::qmp::{Qmp, QmpShare};

fuzz_target!(|data: &[u8]| {
    let Some((&share, answers)) = data.split_first() else { return };
    let share = if share & 1 == 0 { QmpShare::All } else { QmpShare::BesideKvm };
    let Ok(found) = Qmp::replay(answers, share) else { return };
    let mut keys = HashSet::new();
    for (object, words) in &found {
        assert!(keys.insert(object.key), "a key is given once");
        assert_eq!(words.len() * WORD_BYTES, object.schema.data_bytes(), "a row fits its schema");
        check(object, share);
    }
    let again = Qmp::replay(answers, share).expect("as the first time");
    assert_eq!(found, again, "the same bytes say the same");
});

fn check(object: &Object, share: QmpShare) {
    let schema = &object.schema;
    assert!(schema.descs().len() <= MAX_DESCS as usize && schema.data_bytes() <= MAX_DATA_BYTES);
    assert!(schema.descs().iter().all(|desc| desc.name.len() < MAX_NAME_BYTES as usize));
    assert!(!object.path.is_empty());
    let is_fast = schema.provider() == "kvm" && *schema.target() == Target::Vcpu;
    assert!(!is_fast || matches!(share, QmpShare::All), "those are read in a faster way");
    for (a, b) in schema.descs().iter().zip(schema.descs().iter().skip(1)) {
        assert!(a.words().end <= b.words().start, "each has words of its own");
    }
}
