//! Tests of which words an audit compares, and when. `source::tests` has those of its outcome.

use vmstrobe_core::{Desc, Mask, Schema, Target};

use super::*;

/// One of each type, of which the instant ones lie between the others.
fn schema() -> Arc<Schema> {
    let desc = |name: &str, word: u32, size, stat_type| Desc {
        size,
        stat_type,
        ..Desc::counter(name, word * WORD_BYTES as u32)
    };
    let descs = vec![
        desc("cumulative", 1, 1, StatType::Cumulative),
        desc("instant", 2, 1, StatType::Instant),
        desc("log2", 3, 2, StatType::Log2Histogram),
        desc("peak", 7, 1, StatType::Peak),
        desc("other instant", 8, 1, StatType::Instant),
        desc("linear", 9, 2, StatType::LinearHistogram),
    ];
    Schema::new("kvm", Target::Vcpu, descs)
}

/// Of each word that is compared, the statistic, where it is in the span, and where in the row.
fn words(wanted: &[usize], shape: Shape) -> Vec<(String, usize, usize)> {
    let schema = schema();
    let mut mask = Mask::none(schema.descs().len());
    wanted.iter().for_each(|at| mask.set(*at));
    let plan = ReadPlan::new(&schema, &mask);
    let audit = Audit::new(&plan, shape, Box::default());
    let word = |word: &Word| {
        let name = &schema.descs()[plan.columns()[word.column].desc].name;
        (name.to_string(), word.span, word.data)
    };
    audit.words.iter().map(word).collect()
}

#[test]
fn what_only_grows_is_compared_where_it_is() {
    let all = [0, 1, 2, 3, 4, 5];
    let of = |words: &[(&str, usize, usize)]| -> Vec<(String, usize, usize)> {
        words.iter().map(|(name, span, row)| ((*name).to_owned(), *span, *row)).collect()
    };
    // The span begins with the first, at word 1; a row has no word of the hole behind the third.
    let rows = [
        ("cumulative", 0, 0),
        ("log2", 2, 2),
        ("log2", 3, 3),
        ("peak", 6, 4),
        ("linear", 8, 6),
        ("linear", 9, 7),
    ];
    assert_eq!(words(&all, Shape::Row), of(&rows));
    assert_eq!(words(&all, Shape::Span), of(&rows.map(|(name, span, _)| (name, span, span))));
    assert_eq!(words(&[3, 4], Shape::Row), of(&[("peak", 0, 0)]));
    assert_eq!(words(&[1, 5], Shape::Row), of(&[("linear", 7, 1), ("linear", 8, 2)]));
    assert_eq!(words(&[1, 4], Shape::Row), []);
}

#[test]
fn one_is_due_at_first_and_a_second_after_the_last() {
    let schema = schema();
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let mut audit = Audit::new(&plan, Shape::Row, Box::default());
    assert!(audit.is_due(0));
    audit.advance(5);
    let due = [0, 5, PERIOD_NS + 4, PERIOD_NS + 5, u64::MAX].map(|now_ns| audit.is_due(now_ns));
    assert_eq!(due, [false, false, false, true, true]);
    // Nobody to compare with is no error.
    assert!(audit.rows() == 0 && !audit.begin());
    audit.advance(u64::MAX);
    assert!(audit.is_due(u64::MAX));
}
