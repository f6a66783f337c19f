//! Tests of columns and their places.

use std::sync::Arc;

use vmstrobe_core::{Mask, Object, ReadPlan, StatType, Target};

use super::*;

fn layout(parts: &[&Arc<Schema>]) -> Arc<Layout> {
    let parts = parts.iter().map(|schema| {
        let object = Object { path: "a".into(), index: None, schema: Arc::clone(schema), key: 0 };
        (ReadPlan::new(schema, &Mask::all(schema)), vec![object])
    });
    Layout::new(0, parts.collect())
}

fn names(columns: &Columns) -> Vec<&str> {
    columns.iter().map(|column| &*column.name).collect()
}

fn counter(name: &str, offset: u32) -> Desc {
    Desc::counter(name, offset)
}

#[test]
fn statistics_of_several_schemas_share_a_column() {
    let vcpu = Schema::new("kvm", Target::Vcpu, vec![counter("exits", 8), counter("own", 0)]);
    let vm = Schema::new("kvm", Target::Vm, vec![counter("flushes", 0), counter("exits", 8)]);
    let other = Schema::new("xyz", Target::Vm, vec![counter("exits", 0)]);
    let layout = layout(&[&vcpu, &vm, &other]);
    let columns = Columns::of(&layout).expect("few columns");
    assert_eq!(names(&columns), ["exits", "own", "flushes", "xyz.exits"]);
    let schemas: Vec<&str> = columns.schemas().iter().map(|kept| &*kept.name).collect();
    assert_eq!(schemas, ["kvm/vcpu", "kvm/vm", "xyz/vm"]);
    let placement = columns.place(&layout).expect("they are its own columns");
    assert_eq!(placement.schemas, [0, 1, 2]);
    // (group, word in its row)
    assert_eq!(placement.columns, [vec![(0, 1), (1, 1)], vec![(0, 0)], vec![(1, 0)], vec![(2, 0)]]);
}

#[test]
fn equal_statistics_of_one_schema_have_a_column_each() {
    let hist =
        |offset| Desc { size: 2, stat_type: StatType::Log2Histogram, ..counter("h", offset) };
    let twice = Schema::new("kvm", Target::Vcpu, vec![hist(0), hist(16)]);
    let again = Schema::new("kvm", Target::Vm, vec![hist(0), hist(16), hist(32)]);
    let layout = layout(&[&twice, &again]);
    let columns = Columns::of(&layout).expect("few columns");
    let want = ["h_0", "h_1", "kvm.h_0", "kvm.h_1", "kvm.h#2_0", "kvm.h#2_1"];
    assert_eq!(names(&columns), want);
    let placement = columns.place(&layout).expect("they are its own columns");
    assert_eq!(placement.columns[3], [(0, 3), (1, 3)]);
}

#[test]
fn a_later_layout_adds_columns_at_the_end() {
    let one = Schema::new("kvm", Target::Vcpu, vec![counter("b", 0)]);
    let two = Schema::new("kvm", Target::Vcpu, vec![counter("a", 0), counter("b", 8)]);
    let (first, second) = (layout(&[&one]), layout(&[&two, &one]));
    let columns = Columns::of(&first).expect("few columns");
    assert!(columns.fit(&first) && !columns.fit(&second));
    assert!(columns.place(&second).is_none());
    let joined = columns.joined(&second).expect("few columns");
    assert_eq!(names(&joined), ["b", "a"]);
    assert!(joined.fit(&first) && joined.fit(&second));
    assert_eq!(&*joined.schemas()[1].name, "kvm/vcpu#2");
    assert_eq!(joined.joined(&first).expect("few columns"), joined);
}

#[test]
fn a_filter_makes_another_schema_and_shares_its_columns() {
    let all = Schema::new("kvm", Target::Vcpu, vec![counter("a", 0), counter("b", 8)]);
    let mut mask = Mask::none(2);
    mask.set(1);
    let some = Layout::new(0, vec![(ReadPlan::new(&all, &mask), Vec::new())]);
    let columns = Columns::of(&some).expect("few columns");
    assert_eq!(names(&columns), ["b"]);
    assert_eq!(names(&columns.joined(&layout(&[&all])).expect("few columns")), ["b", "a"]);
}

#[test]
fn too_many_columns_are_refused() {
    let wide = Desc { size: u16::MAX, ..counter("wide", 0) };
    let wide = Schema::new("xyz", Target::Vm, vec![wide]);
    assert!(matches!(Columns::of(&layout(&[&wide])), Err(Error::TooLarge { .. })));
}
