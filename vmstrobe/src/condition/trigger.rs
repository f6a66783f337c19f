//! A trigger: a condition that must last for some time, and after which there is a pause.
//!
//! Invariant: times are those of the samples, so that a recording triggers as its VM did. A gap in
//! the samples that is longer than the condition must last is no proof that it lasted.

use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Schema, Snapshot};

use super::{Check, Condition, Hit};
use crate::error::Result;

/// The rules by which a condition triggers.
#[derive(Clone, Debug)]
pub struct TriggerRule {
    /// The condition.
    pub condition: Condition,
    /// The time for which it must hold in every sample; zero for one sample.
    pub hold_for: Duration,
    /// The time after a trigger in which there is no other.
    pub hold_off: Duration,
    /// The most triggers; `None` for any number.
    pub triggers_max: Option<u64>,
}

/// A condition that triggered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Triggered {
    /// The number of this trigger, from 1 on.
    pub number: u64,
    /// The time of the first sample in which the condition has held since, in ns of
    /// `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// The time of the sample that triggered, in ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The comparisons that the latter satisfies.
    pub hits: Vec<Hit>,
}

/// A condition that follows the samples and triggers.
#[derive(Clone, Debug)]
pub struct Trigger {
    rule: TriggerRule,
    check: Check,
    since_ns: Option<u64>,
    /// The tick and the time of the last sample.
    last: Option<(u64, u64)>,
    triggered_ns: Option<u64>,
    number: u64,
}

impl Trigger {
    /// Checks the condition of a rule against the statistics that there are.
    ///
    /// # Errors
    /// As [`Condition::check`].
    pub fn new(rule: TriggerRule, schemas: &[Arc<Schema>]) -> Result<Self> {
        let check = rule.condition.check(schemas)?;
        Ok(Self { rule, check, since_ns: None, last: None, triggered_ns: None, number: 0 })
    }

    /// Returns the rule.
    pub fn rule(&self) -> &TriggerRule {
        &self.rule
    }

    /// Takes the next sample. Returns a trigger if the condition has held for long enough, and the
    /// last trigger is long enough ago.
    pub fn sample(&mut self, sample: &Snapshot) -> Option<Triggered> {
        let at_ns = sample.window().middle_ns();
        let last = self.last.replace((sample.tick(), at_ns));
        let has_gap = last.is_some_and(|(tick, last_ns)| {
            sample.tick() != tick + 1 && since(at_ns, last_ns) > self.rule.hold_for
        });
        if has_gap {
            self.since_ns = None;
        }
        let Some(hits) = self.check.sample(sample) else {
            self.since_ns = None;
            return None;
        };
        let since_ns = *self.since_ns.get_or_insert(at_ns);
        let has_lasted = since(at_ns, since_ns) >= self.rule.hold_for;
        let is_ready = self.triggered_ns.is_none_or(|ns| since(at_ns, ns) >= self.rule.hold_off);
        let is_left = self.rule.triggers_max.is_none_or(|most| self.number < most);
        if !(has_lasted && is_ready && is_left) {
            return None;
        }
        self.number += 1;
        self.triggered_ns = Some(at_ns);
        Some(Triggered { number: self.number, since_ns, at_ns, hits })
    }
}

fn since(later_ns: u64, earlier_ns: u64) -> Duration {
    Duration::from_nanos(later_ns.saturating_sub(earlier_ns))
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, RowState, StatType, Target, Window};

    use super::*;

    const MS: u64 = 1_000_000;

    /// A VM with one level, sampled at given times.
    struct Vm {
        schema: Arc<Schema>,
        layout: Arc<Layout>,
    }

    impl Vm {
        fn new() -> Self {
            let level = Desc { stat_type: StatType::Instant, ..Desc::counter("level", 0) };
            let schema = Schema::new("kvm", Target::Vm, vec![level]);
            let plan = ReadPlan::new(&schema, &Mask::all(&schema));
            let object = Object { path: "/vm".into(), index: None, schema: schema.clone(), key: 0 };
            Self { layout: Layout::new(0, vec![(plan, vec![object])]), schema }
        }

        fn trigger(&self, hold_for_ms: u64, hold_off_ms: u64, most: Option<u64>) -> Trigger {
            let rule = TriggerRule {
                condition: "level > 5".parse().expect("it is a condition"),
                hold_for: Duration::from_millis(hold_for_ms),
                hold_off: Duration::from_millis(hold_off_ms),
                triggers_max: most,
            };
            Trigger::new(rule, &[Arc::clone(&self.schema)]).expect("there is a level")
        }

        /// A sample of every ms, at the tick of that number.
        fn sample(&self, ms: u64, level: u64) -> Snapshot {
            let mut sample = Snapshot::new(&self.layout);
            let (words, states) = sample.begin(ms);
            words[0] = level;
            states[0] = RowState::Good;
            sample.stamp(Window { begin_ns: ms * MS, end_ns: ms * MS, wall_offset_ns: 0 });
            sample
        }
    }

    fn times(vm: &Vm, trigger: &mut Trigger, levels: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let triggered = levels.iter().filter_map(|&(ms, level)| {
            trigger.sample(&vm.sample(ms, level)).map(|it| (it.since_ns / MS, it.at_ns / MS))
        });
        triggered.collect()
    }

    #[test]
    fn it_must_last_and_then_rests() {
        let vm = Vm::new();
        let mut trigger = vm.trigger(3, 10, None);
        let levels: Vec<_> = (0..30).map(|ms| (ms, if ms == 4 { 0 } else { 9 })).collect();
        assert_eq!(times(&vm, &mut trigger, &levels), [(0, 3), (5, 13), (5, 23)]);
    }

    #[test]
    fn one_sample_is_enough_if_it_need_not_last() {
        let vm = Vm::new();
        let mut trigger = vm.trigger(0, 0, Some(2));
        let levels = [(0, 0), (1, 9), (2, 0), (3, 9), (4, 9)];
        assert_eq!(times(&vm, &mut trigger, &levels), [(1, 1), (3, 3)]);
        assert_eq!(trigger.number, 2);
    }

    #[test]
    fn a_gap_is_no_proof() {
        let vm = Vm::new();
        let mut trigger = vm.trigger(5, 0, Some(1));
        // Two ticks are missing, which is shorter than it must last; then twenty.
        let levels = [(0, 9), (3, 9), (4, 9), (24, 9), (25, 9), (28, 9), (29, 9)];
        assert_eq!(times(&vm, &mut trigger, &levels), [(24, 29)]);
    }
}
