//! Counters that change: the values of the BPF reader lie between those of a pread before and one
//! after.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vmstrobe::bpf::Bpf;
use vmstrobe::kvm::OwnKvm;
use vmstrobe_core::{Object, Provider, StatType, Target};
use vmstrobe_guest::DemoGuest;
use vmstrobe_tests::require::{require_bpf, require_kvm};
use vmstrobe_tests::rig::show;

use crate::{PLANS, Reader, Wanted, crowd, objects_of, plan, required};

const GUESTS: usize = 4;
const VCPUS: u32 = 8;
/// The least number of words to compare.
const WORDS_MIN: u64 = 20_000_000;
/// The least number of these that have changed between the two preads.
const MOVED_MIN: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(120);

/// Rows that are read by both methods.
struct Pair {
    what: String,
    by_pread: Reader,
    in_kernel: Reader,
    /// For each word of a row: whether it only grows, and the name of its statistic.
    words: Vec<(bool, String)>,
    before: Vec<u64>,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    words: u64,
    /// The number of words for which the two preads differ.
    moved: u64,
    /// The number of words that may also shrink and equalled neither pread, by the name of the
    /// statistic.
    instant: BTreeMap<String, u64>,
}

impl Pair {
    fn open([ours, theirs]: [&OwnKvm; 2], rows: &[Object], name: &str, wanted: Wanted) -> Pair {
        let theirs_rows: Vec<Object> = objects_of(theirs, rows[0].schema.target())
            .into_iter()
            .filter(|object| rows.iter().any(|row| row.path == object.path))
            .collect();
        let plan = &plan(&rows[0].schema, wanted);
        let mut words = Vec::new();
        for column in plan.columns() {
            let desc = &plan.schema().descs()[column.desc];
            let grows = !matches!(desc.stat_type, StatType::Instant | StatType::Unknown(_));
            words.extend(column.words.clone().map(|_| (grows, desc.name.to_string())));
        }
        Pair {
            what: format!("{name} of {} {}", rows.len(), plan.schema().target().name()),
            by_pread: Reader::open(theirs, &theirs_rows, plan),
            in_kernel: Reader::open(ours, rows, plan),
            words,
            before: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Reads by pread, by the BPF reader, and by pread again.
    fn bracket(&mut self) {
        self.before.clear();
        self.before.extend_from_slice(self.by_pread.read_all());
        let seen = self.in_kernel.read_all();
        let after = self.by_pread.read_all();
        let words = self.words.iter().cycle();
        for (at, (((before, seen), after), (grows, name))) in
            self.before.iter().zip(seen).zip(after).zip(words).enumerate()
        {
            self.seen.moved += u64::from(before != after);
            if *grows {
                let row = at / self.words.len();
                let is_between = (before..=after).contains(&seen);
                assert!(is_between, "{name} of row {row}: {before}, {seen}, {after}");
            } else if seen != before && seen != after {
                *self.seen.instant.entry(name.clone()).or_default() += 1;
            }
        }
        self.seen.words += self.before.len() as u64;
        assert!(self.in_kernel.is_bulk() && !self.by_pread.is_bulk(), "{}", self.what);
    }
}

/// Makes readers of all rows in one call by plans of each kind, and of single rows, whose preads
/// are closest together.
fn pairs(both: [&OwnKvm; 2]) -> Vec<Pair> {
    let vcpus = objects_of(both[0], &Target::Vcpu);
    let vm = objects_of(both[0], &Target::Vm);
    let of = |rows: &[Object], at: usize| {
        let (name, wanted) = PLANS[at];
        Pair::open(both, rows, name, wanted)
    };
    let mut pairs: Vec<Pair> = (0..PLANS.len()).map(|at| of(&vcpus, at)).collect();
    // The first vCPU of each guest, whose load changes fastest.
    let single = vcpus.chunks(VCPUS as usize).map(|guest| of(&guest[..1], 0));
    pairs.extend(single);
    pairs.push(of(&vm, 0));
    pairs
}

#[test]
fn twenty_million_words_lie_between_two_preads() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let guests: Result<Vec<DemoGuest>, _> = (0..GUESTS).map(|_| DemoGuest::new(VCPUS)).collect();
    let mut guests = guests.expect("KVM can make guests");
    let [ours, theirs] = [required(), Bpf::off()].map(|bpf| crowd(&guests, bpf));
    let mut pairs = pairs([&ours, &theirs]);
    guests.iter_mut().for_each(|guest| guest.start().expect("KVM runs the guest"));
    let begun = Instant::now();
    let sum = |pairs: &[Pair], of: fn(&Seen) -> u64| pairs.iter().map(|pair| of(&pair.seen)).sum();
    let (mut words, mut moved): (u64, u64) = (0, 0);
    while words < WORDS_MIN || moved < MOVED_MIN {
        assert!(begun.elapsed() < LIMIT, "{words} words, {moved} moved");
        pairs.iter_mut().for_each(Pair::bracket);
        (words, moved) = (sum(&pairs, |seen| seen.words), sum(&pairs, |seen| seen.moved));
    }
    guests.iter_mut().for_each(|guest| guest.stop().expect("the sampler's thread does not panic"));
    assert_eq!(ours.warnings().len() + theirs.warnings().len(), 0);
    for Pair { what, seen, .. } in &pairs {
        let Seen { words, moved, instant } = seen;
        show(&format!(
            "{what}: {words} words, {moved} moved, outside of instant ones: {instant:?}"
        ));
    }
    show(&format!(
        "{words} words, {moved} moved meanwhile, none outside, in {:?}",
        begun.elapsed()
    ));
}
