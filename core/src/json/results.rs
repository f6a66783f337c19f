//! QAPI's `StatsResult`: the statistics of a snapshot's objects, as `query-stats` returns them.
//!
//! Everything but the values is the same from one reading to the next, so the text around them is
//! prepared once for a layout.
//!
//! Invariant: a statistic that QEMU knows has the text that QEMU's `query-stats` gives it. The list
//! has the requested [`Order`]. An object whose row has no values is left out. Statistics that QAPI
//! has no word for are included, except in [`Order::Qemu`], because QEMU drops them.

use super::writer::text as json_text;
use crate::{Column, Filter, Group, Layout, Object, ObjectView, Order, Schema, Snapshot, Target};

/// The text of the results of one layout, prepared for any snapshot of that layout.
///
/// ```
/// use vmstrobe_core::json::Results;
/// use vmstrobe_core::{Desc, Layout, Mask, Object, Order, ReadPlan, RowState};
/// use vmstrobe_core::{Schema, Snapshot, Target};
///
/// let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
/// let plan = ReadPlan::new(&schema, &Mask::all(&schema));
/// let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 0 };
/// let layout = Layout::new(0, vec![(plan, vec![object])]);
/// let mut snapshot = Snapshot::new(&layout);
/// let (words, states) = snapshot.begin(1);
/// words.fill(7);
/// states.fill(RowState::Good);
///
/// let results = Results::new(&layout, Order::Schema);
/// let stats = r#"[{"name": "exits", "value": 7}]"#;
/// assert_eq!(
///     results.text(&snapshot),
///     format!(r#"[{{"provider": "kvm", "stats": {stats}, "qom-path": "/vm/a/vcpu[0]"}}]"#)
/// );
/// ```
#[derive(Debug)]
pub struct Results {
    order: Order,
    /// The text behind the values of each object, one object after another.
    endings: Box<[u8]>,
    objects: Box<[Ending]>,
    parts: Box<[Part]>,
}

/// The results of one filter: in `query-stats`, of one entry of `providers`.
#[derive(Debug)]
struct Part {
    /// One entry for each group of the layout; `None` if the filter selects nothing of the group.
    frames: Box<[Option<Frame>]>,
    /// Whether results name their object. As in QEMU, that of a single VM does not.
    with_path: bool,
}

/// The text before each value of a group's objects, in one allocation: touching one more cache line
/// or page costs as much as writing a value.
#[derive(Debug)]
struct Frame {
    text: Box<[u8]>,
    /// The values, in the order in which they are written.
    values: Box<[Place]>,
    /// The bytes of an ending to skip: without values, there is no brace to close.
    unused_ending: u32,
}

/// The position of a value in an object's row and in the frame's text.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The end of the part of the frame's text that precedes the value.
    text_end: u32,
    /// The value's first word in the object's row.
    first_word: u32,
    words: u16,
    is_boolean: bool,
}

/// The end of the result of an object whose path is not written.
const ALONE: &[u8] = b"}]}";

/// The text of one object's result without its values.
#[derive(Clone, Copy, Debug)]
struct ObjectText<'a> {
    frame: &'a Frame,
    ending: &'a [u8],
}

/// The group of an object, and the range of its text in [`Results::endings`].
#[derive(Clone, Copy, Debug)]
struct Ending {
    group: u32,
    start: u32,
    end: u32,
}

impl Results {
    /// Prepares the results of everything in the layout. As in QEMU, the result of a single VM has
    /// no `qom-path`.
    pub fn new(layout: &Layout, order: Order) -> Self {
        let part = Part::new(layout, order, |group| Some(group.plan.columns().iter().collect()));
        Self::of_parts(layout, order, [part])
    }

    /// Prepares the results of each filter, one after the other. The layout has everything that any
    /// of them selects.
    #[doc(hidden)] // For vmstrobe-server: only a request over QMP has several filters.
    pub fn of_filters(layout: &Layout, order: Order, filters: &[Filter]) -> Self {
        let part = |filter: &Filter| {
            Part::new(layout, order, |group| {
                let mask = filter.compile(group.plan.schema());
                let columns = group.plan.columns().iter();
                (!mask.is_empty()).then(|| columns.filter(|c| mask.contains(c.desc)).collect())
            })
        };
        let parts = filters.iter().map(part);
        match order {
            Order::Schema => Self::of_parts(layout, order, parts),
            Order::Qemu => Self::of_parts(layout, order, parts.rev()),
        }
    }

    fn of_parts(layout: &Layout, order: Order, parts: impl IntoIterator<Item = Part>) -> Self {
        let (mut endings, mut objects) = (String::new(), Vec::new());
        for (at, group) in layout.groups().iter().enumerate() {
            for object in &group.objects {
                let start = offset(&endings);
                endings += &ending(object);
                objects.push(Ending { group: at as u32, start, end: offset(&endings) });
            }
        }
        let endings = endings.into_bytes().into();
        Self { order, endings, objects: objects.into(), parts: parts.into_iter().collect() }
    }

    /// Returns the list of the results of all objects that have values.
    ///
    /// The snapshot is one of the layout that the results were prepared for.
    pub fn text(&self, snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        self.write(&mut out, snapshot, |view| view.state().has_values());
        String::from_utf8(out).expect("JSON is written in ASCII")
    }

    /// Appends the list of the results of the objects that `is_shown` accepts; an object without
    /// values must not be accepted.
    #[doc(hidden)] // For vmstrobe-server, which counts the objects that it leaves out.
    #[inline]
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        snapshot: &Snapshot,
        mut is_shown: impl FnMut(ObjectView<'_>) -> bool,
    ) {
        let mut separator = &b""[..];
        out.push(b'[');
        for part in &self.parts {
            for (view, result) in self.objects_of(part, snapshot) {
                if is_shown(view) {
                    out.extend_from_slice(std::mem::replace(&mut separator, b", "));
                    result.write(out, view, self.order);
                }
            }
        }
        out.push(b']');
    }

    /// Returns the objects of a part, in the order in which they are written, each with its text.
    #[inline]
    fn objects_of<'a>(
        &'a self,
        part: &'a Part,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = (ObjectView<'a>, ObjectText<'a>)> {
        let (mut views, mut endings) = (snapshot.objects(), self.objects.iter());
        std::iter::from_fn(move || {
            loop {
                let (view, ending) = match self.order {
                    Order::Schema => (views.next()?, endings.next()?),
                    Order::Qemu => (views.next_back()?, endings.next_back()?),
                };
                if let Some(frame) = &part.frames[ending.group as usize] {
                    let ending = &self.endings[ending.start as usize..ending.end as usize];
                    let ending = if part.with_path { ending } else { ALONE };
                    return Some((view, ObjectText { frame, ending }));
                }
            }
        })
    }
}

impl ObjectText<'_> {
    /// Appends the result of an object that has values.
    #[inline]
    fn write(self, out: &mut Vec<u8>, view: ObjectView<'_>, order: Order) {
        let Frame { text, values, unused_ending } = self.frame;
        let (mut at, row) = (0, view.words());
        if values.is_empty() {
            out.extend_from_slice(text);
        }
        for place in values {
            let end = place.text_end as usize;
            out.extend_from_slice(&text[at..end]);
            at = end;
            let first = place.first_word as usize;
            place.write(out, &row[first..first + usize::from(place.words)], order);
        }
        out.extend_from_slice(&self.ending[*unused_ending as usize..]);
    }
}

impl Part {
    fn new<'l>(
        layout: &'l Layout,
        order: Order,
        columns: impl Fn(&'l Group) -> Option<Vec<&'l Column>>,
    ) -> Self {
        let (mut rows, mut is_of_vms) = (0, true);
        let frame = |group: &'l Group| {
            let columns = columns(group)?;
            rows += group.objects.len();
            is_of_vms &= *group.plan.schema().target() == Target::Vm;
            Some(Frame::new(group.plan.schema(), columns, order))
        };
        let frames = layout.groups().iter().map(frame).collect();
        Self { frames, with_path: rows > 1 || !is_of_vms }
    }
}

impl Frame {
    fn new(schema: &Schema, mut columns: Vec<&Column>, order: Order) -> Self {
        let mut text = format!(r#"{{"provider": {}, "stats": ["#, json_text(&schema.provider()));
        if order == Order::Qemu {
            columns.retain(|column| schema.descs()[column.desc].has_qapi_value());
            columns.reverse();
        }
        let values = columns.iter().enumerate().map(|(at, column)| {
            let desc = &schema.descs()[column.desc];
            text += if at == 0 { "" } else { "}, " };
            text += &format!(r#"{{"name": {}, "value": "#, json_text(&&*desc.name));
            Place {
                text_end: offset(&text),
                first_word: column.words.start as u32,
                words: desc.size,
                is_boolean: desc.is_boolean(),
            }
        });
        let values: Box<[Place]> = values.collect();
        let unused_ending = u32::from(values.is_empty());
        Self { text: text.into_bytes().into(), values, unused_ending }
    }
}

impl Place {
    /// Appends the value as QAPI `StatsValue`.
    #[inline]
    fn write(self, out: &mut Vec<u8>, words: &[u64], order: Order) {
        match words {
            _ if self.is_boolean => {
                let is_true = words.first().is_some_and(|&word| word != 0);
                out.extend_from_slice(if is_true { b"true" } else { b"false" });
            }
            [number] => write_number(out, *number),
            _ => write_list(out, words, order),
        }
    }
}

fn write_list(out: &mut Vec<u8>, words: &[u64], order: Order) {
    out.push(b'[');
    for at in 0..words.len() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        match order {
            Order::Schema => write_number(out, words[at]),
            Order::Qemu => write_number(out, words[words.len() - 1 - at]),
        }
    }
    out.push(b']');
}

#[inline]
fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn ending(object: &Object) -> String {
    format!(r#"}}], "qom-path": {}}}"#, json_text(&&*object.path))
}

/// Returns the length of a text. 65,536 objects with paths of 1 KiB are far from 4 GiB.
fn offset(text: &str) -> u32 {
    u32::try_from(text.len()).expect("limits on objects, names and paths keep a text below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::descs;
    use crate::{Mask, ReadPlan, RowState};
    use std::sync::Arc;

    /// Returns the results of the last of some objects; the others could not be read.
    fn result(target: Target, objects: u32, order: Order) -> String {
        let schema = Schema::new("kvm", target, descs());
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = |at| Object {
            path: format!("/vm/é\u{1}\"{at}").into(),
            index: Some(at),
            schema: Arc::clone(&schema),
            key: at.into(),
        };
        let objects = (0..objects).map(object).collect();
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), objects)]));
        let (words, states) = snapshot.begin(1);
        let last = words.len() - plan.row_words();
        plan.keep(&[u64::MAX, 1, 2, 3, 5, 6], &mut words[last..]);
        *states.last_mut().unwrap() = RowState::Good;
        Results::new(snapshot.layout(), order).text(&snapshot)
    }

    #[test]
    fn results_are_spelt_as_qemu_does() {
        let stats = concat!(
            r#"[{"provider": "kvm", "stats": ["#,
            r#"{"name": "exits", "value": 18446744073709551615}, "#,
            r#"{"name": "wait_hist", "value": [1, 2, 3]}, "#,
            r#"{"name": "blocking", "value": true}, "#,
            r#"{"name": "one", "value": 6}, "#,
            r#"{"name": "newer", "value": 18446744073709551615}]"#,
        );
        let path = |at| format!(r#", "qom-path": "/vm/\u00E9\u0001\"{at}""#);
        let want = |path: &str| format!("{stats}{path}}}]");
        assert_eq!(result(Target::Vcpu, 1, Order::Schema), want(&path(0)));
        assert_eq!(result(Target::Vm, 2, Order::Schema), want(&path(1)));
        assert_eq!(result(Target::Vm, 1, Order::Schema), want(""));
    }

    #[test]
    fn in_qemus_order_all_is_reversed_and_the_unknown_dropped() {
        let want = concat!(
            r#"[{"provider": "kvm", "stats": [{"name": "one", "value": 6}, "#,
            r#"{"name": "blocking", "value": true}, "#,
            r#"{"name": "wait_hist", "value": [3, 2, 1]}, "#,
            r#"{"name": "exits", "value": 18446744073709551615}]}]"#,
        );
        assert_eq!(result(Target::Vm, 1, Order::Qemu), want);
    }

    #[test]
    fn an_object_may_have_no_statistics() {
        let schema = Schema::new("cryptodev", Target::Cryptodev, Vec::new());
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = Object { path: "/objects/c".into(), index: None, schema, key: 0 };
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(plan, vec![object])]));
        snapshot.begin(1).1.fill(RowState::Good);
        let want = r#"[{"provider": "cryptodev", "stats": [], "qom-path": "/objects/c"}]"#;
        for order in [Order::Schema, Order::Qemu] {
            assert_eq!(Results::new(snapshot.layout(), order).text(&snapshot), want);
        }
    }
}
