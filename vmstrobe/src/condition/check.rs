//! A condition that follows the samples.
//!
//! Invariant: a sample costs time for the objects that have the compared statistics, and no more; a
//! comparison of which no object has a value is false.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Snapshot, Unit, quantile};

use super::history::History;
use super::resolve::Term;
use super::syntax::{Among, Expr, Kind, Operator};

/// A checked condition, which is given every sample.
#[derive(Clone, Debug)]
pub struct Check {
    expr: Expr<Watch>,
    generation: Option<u64>,
}

/// A comparison that a sample satisfies.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The place of the comparison in the condition's text.
    pub place: Range<usize>,
    /// The object that is furthest beyond the bound; `None` for a sum.
    pub path: Option<Arc<str>>,
    /// The value of that object, or the sum: in seconds, bytes or plain numbers, per second for a
    /// rate. For a quantile, the bound of its bucket that is nearer to the condition's bound.
    pub value: f64,
    /// The unit of the value.
    pub unit: Unit,
    /// True if the value is per second.
    pub is_rate: bool,
    /// The number of objects that satisfy it.
    pub objects: usize,
}

impl Check {
    pub(super) fn new(expr: Expr<Term>) -> Self {
        Self { expr: expr.map(Watch::new), generation: None }
    }

    /// Takes the next sample. Returns the comparisons that it satisfies, if the condition as a
    /// whole holds.
    pub fn sample(&mut self, sample: &Snapshot) -> Option<Vec<Hit>> {
        let generation = sample.layout().generation();
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.expr.for_each(&mut |watch| watch.enrol(sample));
        }
        self.expr.for_each(&mut |watch| watch.take(sample));
        self.expr.hits()
    }
}

impl<C> Expr<C> {
    fn map<D>(self, to: impl Fn(C) -> D + Copy) -> Expr<D> {
        let all = |parts: Vec<Self>| parts.into_iter().map(|part| part.map(to)).collect();
        match self {
            Self::One(one) => Expr::One(to(one)),
            Self::And(parts) => Expr::And(all(parts)),
            Self::Or(parts) => Expr::Or(all(parts)),
        }
    }

    fn for_each(&mut self, act: &mut impl FnMut(&mut C)) {
        match self {
            Self::One(one) => act(one),
            Self::And(parts) | Self::Or(parts) => {
                for part in parts {
                    part.for_each(act);
                }
            }
        }
    }
}

impl Expr<Watch> {
    fn hits(&self) -> Option<Vec<Hit>> {
        match self {
            Self::One(watch) => watch.hit().map(|hit| vec![hit]),
            Self::And(parts) => {
                let all: Option<Vec<_>> = parts.iter().map(Self::hits).collect();
                all.map(|all| all.concat())
            }
            Self::Or(parts) => {
                let some: Vec<_> = parts.iter().filter_map(Self::hits).flatten().collect();
                (!some.is_empty()).then_some(some)
            }
        }
    }
}

/// An object that has the statistic.
#[derive(Clone, Debug)]
struct Member {
    path: Arc<str>,
    key: u64,
    /// The object's row in the layout.
    row: usize,
    /// The words of the statistic in the row.
    words: Range<usize>,
}

/// One comparison, with the values that it needs.
#[derive(Clone, Debug)]
struct Watch {
    term: Term,
    members: Vec<Member>,
    history: History,
}

impl Watch {
    fn new(term: Term) -> Self {
        let is_now = matches!(term.kind, Kind::Value);
        let history = History::new(if is_now { 0 } else { term.stretch_ns }, term.width());
        Self { term, members: Vec::new(), history }
    }

    /// Finds the objects of a new layout that have the statistic.
    fn enrol(&mut self, sample: &Snapshot) {
        let former = std::mem::take(&mut self.members);
        for group in sample.layout().groups() {
            let Some(column) = group.plan.column(&self.term.desc.name) else { continue };
            let members = (group.first_row..).zip(&group.objects).map(|(row, object)| Member {
                path: Arc::from(&*object.path),
                key: object.key,
                row,
                words: column.words.clone(),
            });
            self.members.extend(members);
        }
        let place = |member: &Member| {
            former.iter().position(|old| old.key == member.key && old.path == member.path)
        };
        let places: Vec<_> = self.members.iter().map(place).collect();
        self.history.rearrange(&places);
    }

    fn take(&mut self, sample: &Snapshot) {
        let mut rows = sample.objects().enumerate();
        let words = self.members.iter().map(|member| {
            let (_, view) = rows.find(|(row, _)| *row == member.row)?;
            view.words().get(member.words.clone())
        });
        self.history.push(sample.window().middle_ns(), words);
    }

    fn hit(&self) -> Option<Hit> {
        let term = &self.term;
        let is_beyond = |value: &Span| term.operator.holds(value, term.bound);
        let hit = |path, value: Span, objects| {
            let (place, value) = (term.place.clone(), term.operator.nearest(&value));
            let (unit, is_rate) = (term.unit(), term.kind == Kind::Rate);
            Some(Hit { place, path, value, unit, is_rate, objects })
        };
        if term.among == Among::Sum {
            let sum = self.sum().filter(is_beyond)?;
            return hit(None, sum, self.members.len());
        }
        let (mut satisfied, mut known, mut amounts) = (0, 0, Vec::new());
        let mut extreme: Option<(&Member, Span)> = None;
        for (object, member) in self.members.iter().enumerate() {
            let amounts = self.amounts(object, &mut amounts);
            let Some(value) = amounts.and_then(|amounts| self.span(amounts)) else { continue };
            known += 1;
            if !is_beyond(&value) {
                continue;
            }
            satisfied += 1;
            let is_further = |(_, other): &(_, Span)| term.operator.is_further(&value, other);
            if extreme.as_ref().is_none_or(is_further) {
                extreme = Some((member, value));
            }
        }
        let needed = match term.among {
            Among::All => known,
            Among::Share(share) => (share * known as f64).ceil() as usize,
            Among::Any | Among::Sum => 1,
        };
        let (member, value) = extreme.filter(|_| satisfied >= needed)?;
        hit(Some(Arc::clone(&member.path)), value, satisfied)
    }

    /// Returns what is summed: the words of the object, or how much they grew over the stretch.
    fn amounts<'a>(&self, object: usize, buffer: &'a mut Vec<u64>) -> Option<&'a [u64]> {
        let (old, new) = self.history.ends();
        let now = new.get(object, self.term.width())?;
        buffer.clear();
        if self.term.kind == Kind::Value {
            buffer.extend_from_slice(now);
            return Some(buffer);
        }
        for (now, before) in now.iter().zip(old?.get(object, self.term.width())?) {
            buffer.push(now.checked_sub(*before)?);
        }
        Some(buffer)
    }

    fn sum(&self) -> Option<Span> {
        let (mut sum, mut buffer) = (vec![0_u64; self.term.width()], Vec::new());
        let mut is_any = false;
        for object in 0..self.members.len() {
            let Some(amounts) = self.amounts(object, &mut buffer) else { continue };
            is_any = true;
            for (sum, amount) in sum.iter_mut().zip(amounts) {
                *sum = sum.saturating_add(*amount);
            }
        }
        is_any.then(|| self.span(&sum))?
    }

    /// Returns the value that is compared, or the bucket in which it lies.
    fn span(&self, amounts: &[u64]) -> Option<Span> {
        let Term { desc, factor, .. } = &self.term;
        let count = vmstrobe_core::total(amounts) as f64;
        let point = |value: f64| Some(Span { low: value * factor, high: value * factor });
        let q = match self.term.kind {
            Kind::Value | Kind::Delta => return point(count),
            Kind::Rate => {
                let (old, new) = self.history.ends();
                return point(count / ((new.at_ns - old?.at_ns) as f64 * 1e-9));
            }
            Kind::Max => 1.0,
            Kind::Quantile(q) => q,
        };
        let bucket = quantile(desc, amounts, q)?.bucket;
        let high = bucket.end.map_or(f64::INFINITY, |end| (end - 1) as f64);
        Some(Span { low: bucket.low as f64 * factor, high: high * factor })
    }
}

impl Term {
    /// Returns the number of words of the statistic.
    fn width(&self) -> usize {
        usize::from(self.desc.size)
    }

    /// Returns the unit of the value that is compared: the buckets of a histogram hold counts.
    fn unit(&self) -> Unit {
        let is_count = matches!(self.kind, Kind::Rate | Kind::Delta);
        let is_counted = is_count && self.desc.stat_type.is_histogram();
        if is_counted { Unit::None } else { self.desc.unit }
    }
}

/// The bounds of a value: equal, unless it is only known by its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    low: f64,
    high: f64,
}

impl Operator {
    /// Returns whether every value between the bounds satisfies the comparison.
    fn holds(self, value: &Span, bound: f64) -> bool {
        match self {
            Self::More => value.low > bound,
            Self::AtLeast => value.low >= bound,
            Self::Less => value.high < bound,
            Self::AtMost => value.high <= bound,
        }
    }

    /// Returns the end of a span that decides.
    fn nearest(self, value: &Span) -> f64 {
        match self {
            Self::More | Self::AtLeast => value.low,
            Self::Less | Self::AtMost => value.high,
        }
    }

    /// Returns whether a value is further beyond the bound than another.
    fn is_further(self, value: &Span, other: &Span) -> bool {
        let (value, other) = (self.nearest(value), self.nearest(other));
        match self {
            Self::More | Self::AtLeast => value > other,
            Self::Less | Self::AtMost => value < other,
        }
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{
        Base, Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, StatType, Target,
        Window,
    };

    use super::super::Condition;
    use super::*;

    fn schema() -> Arc<Schema> {
        let ns = Scale { base: Base::Ten, exponent: -9 };
        let wait = Desc { size: 32, ..Desc::counter("wait_hist", 16) };
        let wait = Desc { stat_type: StatType::Log2Histogram, unit: Unit::Seconds, ..wait };
        let level = Desc { stat_type: StatType::Instant, ..Desc::counter("level", 8) };
        let descs = vec![Desc::counter("exits", 0), level, Desc { scale: ns, ..wait }];
        Schema::new("kvm", Target::Vcpu, descs)
    }

    /// Samples 1 ms apart of some vCPUs.
    struct Vm {
        layout: Arc<Layout>,
        schema: Arc<Schema>,
        words: Vec<[u64; 34]>,
        at_ns: u64,
    }

    impl Vm {
        fn new(vcpus: usize) -> Self {
            let schema = schema();
            let layout = Self::layout(&schema, 0, 0..vcpus);
            Self { layout, schema, words: vec![[0; 34]; vcpus], at_ns: 1_000_000_000 }
        }

        fn layout(schema: &Arc<Schema>, generation: u64, vcpus: Range<usize>) -> Arc<Layout> {
            let object = |vcpu: usize| Object {
                path: format!("/vcpu[{vcpu}]").into(),
                index: Some(vcpu as u32),
                schema: Arc::clone(schema),
                key: vcpu as u64,
            };
            let plan = ReadPlan::new(schema, &Mask::all(schema));
            Layout::new(generation, vec![(plan, vcpus.map(object).collect())])
        }

        fn check(&self, text: &str) -> Check {
            let condition: Condition = text.parse().expect(text);
            condition.check(&[Arc::clone(&self.schema)]).expect(text)
        }

        fn sample(&mut self, grow: &[u64]) -> Snapshot {
            self.sample_after(1_000_000, grow)
        }

        /// Lets `exits` grow, and takes a sample.
        fn sample_after(&mut self, time_ns: u64, grow: &[u64]) -> Snapshot {
            self.at_ns += time_ns;
            for (words, grow) in self.words.iter_mut().zip(grow) {
                words[0] += grow;
            }
            let mut sample = Snapshot::new(&self.layout);
            let (words, states) = sample.begin(1);
            words.copy_from_slice(self.words.concat().as_slice());
            states.fill(RowState::Good);
            let (begin_ns, end_ns) = (self.at_ns - 10, self.at_ns + 10);
            sample.stamp(Window { begin_ns, end_ns, wall_offset_ns: 0 });
            sample
        }
    }

    #[test]
    fn a_rate_is_over_its_stretch() {
        let mut vm = Vm::new(2);
        let mut check = vm.check("exits.rate > 50k");
        // 40 a ms is 40k/s: nothing, whatever one sample alone says.
        for _ in 0..50 {
            assert_eq!(check.sample(&vm.sample(&[40, 40])), None);
        }
        assert_eq!(check.sample(&vm.sample_after(10_000, &[40, 40])), None);
        assert_eq!(check.sample(&vm.sample_after(1_990_000, &[40, 40])), None);
        let mut hits = None;
        for _ in 0..10 {
            hits = check.sample(&vm.sample(&[40, 60]));
        }
        let hits = hits.expect("vCPU 1 exceeds it");
        assert_eq!(hits.len(), 1);
        assert_eq!((hits[0].path.as_deref(), hits[0].objects), (Some("/vcpu[1]"), 1));
        assert!((hits[0].value - 60e3).abs() < 1e3, "{hits:?}");
        assert_eq!(hits[0].place, 0.."exits.rate > 50k".len());
        assert_eq!((hits[0].unit, hits[0].is_rate), (Unit::None, true));
    }

    #[test]
    fn objects_are_any_all_a_share_or_their_sum() {
        let mut vm = Vm::new(4);
        let texts =
            ["any", "all", "sum", "50%", "51%"].map(|who| format!("{who} exits.delta > 500"));
        let mut checks = texts.map(|text| vm.check(&text));
        let mut holds = |vm: &mut Vm, grow: &[u64]| {
            let mut last = [false; 5];
            for _ in 0..11 {
                let sample = vm.sample(grow);
                last = [0, 1, 2, 3, 4].map(|at| checks[at].sample(&sample).is_some());
            }
            last
        };
        assert_eq!(holds(&mut vm, &[10, 10, 10, 10]), [false; 5]);
        assert_eq!(holds(&mut vm, &[20, 20, 20, 20]), [false, false, true, false, false]);
        assert_eq!(holds(&mut vm, &[60, 10, 10, 10]), [true, false, true, false, false]);
        assert_eq!(holds(&mut vm, &[60, 60, 10, 10]), [true, false, true, true, false]);
        assert_eq!(holds(&mut vm, &[60, 60, 60, 60]), [true; 5]);
    }

    #[test]
    fn a_quantile_counts_if_its_whole_bucket_does() {
        let mut vm = Vm::new(1);
        let mut more = vm.check("wait.p99 > 2ms");
        let mut less = vm.check("wait.max < 2ms");
        let sample = vm.sample(&[0]);
        assert_eq!((more.sample(&sample), less.sample(&sample)), (None, None));
        // Bucket 21 is 1.05 to 2.1 ms, bucket 22 is 2.1 to 4.2 ms.
        vm.words[0][2 + 21] += 1;
        let sample = vm.sample_after(20_000_000, &[0]);
        assert_eq!((more.sample(&sample), less.sample(&sample)), (None, None));
        vm.words[0][2 + 22] += 1;
        let sample = vm.sample_after(20_000_000, &[0]);
        let hit = more.sample(&sample).expect("only the larger one is in the stretch");
        assert!((hit[0].value - 2.097_152e-3).abs() < 1e-9, "{hit:?}");
        assert_eq!((hit[0].unit, hit[0].is_rate), (Unit::Seconds, false));
        vm.words[0][2 + 3] += 1;
        let sample = vm.sample_after(20_000_000, &[0]);
        less.sample(&sample);
        let sample = vm.sample_after(20_000_000, &[0]);
        assert_eq!(less.sample(&sample), None, "nothing was counted");
    }

    #[test]
    fn comparisons_are_joined() {
        let mut vm = Vm::new(1);
        let mut check = vm.check("level > 5 and (exits.value > 100 or level >= 7)");
        let mut places = |vm: &mut Vm, level| {
            vm.words[0][1] = level;
            let hits = check.sample(&vm.sample(&[0])).unwrap_or_default();
            hits.iter().map(|hit| hit.place.start).collect::<Vec<_>>()
        };
        assert!(places(&mut vm, 5).is_empty() && places(&mut vm, 6).is_empty());
        assert_eq!(places(&mut vm, 7), [0, 36]);
        vm.words[0][0] = 101;
        assert_eq!(places(&mut vm, 6), [0, 15]);
    }

    #[test]
    fn a_reset_and_a_new_object_satisfy_nothing() {
        let mut vm = Vm::new(2);
        let mut check = vm.check("exits.delta > 500");
        vm.words[0][0] = 1 << 40;
        for _ in 0..20 {
            assert_eq!(check.sample(&vm.sample(&[1, 1])), None);
        }
        vm.words[0][0] = 0;
        for _ in 0..20 {
            assert_eq!(check.sample(&vm.sample(&[1, 1])), None);
        }
        // vCPU 2 comes with a count of its past, in front of the others.
        vm.layout = Vm::layout(&vm.schema, 1, 1..3);
        vm.words = vec![vm.words[1], [1 << 40; 34]];
        for _ in 0..20 {
            assert_eq!(check.sample(&vm.sample(&[1, 1])), None);
        }
        vm.sample(&[0, 400]);
        assert!(check.sample(&vm.sample(&[0, 400])).is_some());
    }

    #[test]
    fn a_row_without_values_satisfies_nothing() {
        let mut vm = Vm::new(1);
        let mut check = vm.check("all level < 5");
        assert!(check.sample(&vm.sample(&[0])).is_some());
        let mut sample = vm.sample(&[0]);
        sample.begin(2).1.fill(RowState::Torn);
        assert_eq!(check.sample(&sample), None);
    }
}
