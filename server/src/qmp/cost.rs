//! The cost of a query, which is known before its sources are opened.
//!
//! Invariant: no figure is too small. Leases for these figures are taken before the query is
//! opened, so a refused query costs nothing.

use std::sync::Arc;

use vmstrobe_core::{Desc, Filter, Mask, Object, RowState, Schema, WORD_BYTES};
use vmstrobe_sampler::{Catalog, Wanted};

use super::refusal::Refusal;

/// The most bytes that one query takes, even if it is the only one.
pub(super) const MAX_QUERY_BYTES: usize = 32 << 20;
/// The most bytes of a reply.
pub(super) const MAX_REPLY_BYTES: usize = 64 << 20;

/// The bytes that a source keeps for a row, besides its words.
const SOURCE_ROW_BYTES: usize = 128;
/// The bytes that a layout and the results keep for an object, besides its path.
const OBJECT_BYTES: usize = size_of::<Object>() + size_of::<RowState>() + 64;
/// The bytes that a plan keeps for a statistic.
const COLUMN_BYTES: usize = 64;
/// The bytes that the results keep for a statistic besides its name, and that a reply has around a
/// name and a value.
const VALUE_BYTES: usize = 48;
/// The bytes of a word as text, with a separator: 2^64 has 20 digits.
const WORD_TEXT_BYTES: usize = 22;
/// The bytes that a source and its group take, whatever it reads.
const GROUP_BYTES: usize = 4096;

/// The cost of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// The number of sources to open.
    pub(super) sources: usize,
    /// The bytes of memory that the open query takes.
    pub(super) bytes: usize,
    /// The most bytes of a reply.
    pub(super) reply_bytes: usize,
    /// The number of words to read.
    pub(super) words: usize,
}

impl Cost {
    /// Returns the cost of reading `filter` and writing the results of each of its `parts`.
    pub(super) fn of(filter: &Filter, parts: &[Filter], catalog: &Catalog) -> Self {
        let wanted = catalog.wanted(filter);
        let mut cost = Self { sources: wanted.len(), ..Self::default() };
        for group in &wanted {
            cost.add_group(group);
        }
        let objects = ObjectsOf::all(&wanted);
        for part in parts {
            for objects in &objects {
                cost.add_part(&part.compile(objects.schema), objects);
            }
        }
        cost
    }

    /// # Errors
    /// GenericError if the cost exceeds the limit of one query.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.reply_bytes > MAX_REPLY_BYTES {
            let text =
                format!("the reply would have more than {MAX_REPLY_BYTES} bytes: ask for less");
            return Err(Refusal::generic(text));
        }
        if self.bytes > MAX_QUERY_BYTES {
            let text = format!(
                "the query needs more than {MAX_QUERY_BYTES} bytes of memory: ask for less"
            );
            return Err(Refusal::generic(text));
        }
        Ok(())
    }

    fn add_group(&mut self, group: &Wanted<'_>) {
        let descs = group.mask.iter().map(|at| &group.schema.descs()[at]);
        let words: usize = descs.map(|desc| usize::from(desc.size)).sum();
        let rows = group.objects.len();
        let row_bytes = words * WORD_BYTES + OBJECT_BYTES + SOURCE_ROW_BYTES;
        let paths = group.objects.iter().map(|object| object.path.len() + json_bytes(&object.path));
        self.words += rows * words;
        self.bytes += rows * row_bytes + paths.sum::<usize>();
        self.bytes += group.mask.count() * COLUMN_BYTES + GROUP_BYTES;
    }

    fn add_part(&mut self, mask: &Mask, objects: &ObjectsOf<'_>) {
        if mask.is_empty() {
            return;
        }
        let descs = || mask.iter().map(|at| &objects.schema.descs()[at]);
        let name = |desc: &Desc| json_bytes(&desc.name) + VALUE_BYTES;
        let provider = json_bytes(objects.schema.provider()) + VALUE_BYTES;
        let frame = descs().map(name).sum::<usize>() + provider;
        let values = descs().map(|desc| usize::from(desc.size) * WORD_TEXT_BYTES).sum::<usize>();
        let result = frame + values + VALUE_BYTES;
        self.bytes += objects.groups * frame;
        let replies = objects.count.saturating_mul(result).saturating_add(objects.path_bytes);
        self.reply_bytes = self.reply_bytes.saturating_add(replies);
    }
}

/// The objects of one schema, of all providers.
struct ObjectsOf<'a> {
    schema: &'a Arc<Schema>,
    groups: usize,
    count: usize,
    path_bytes: usize,
}

impl<'a> ObjectsOf<'a> {
    fn all(wanted: &[Wanted<'a>]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for group in wanted {
            let known = all.iter().position(|known| Arc::ptr_eq(known.schema, group.schema));
            let at = known.unwrap_or_else(|| {
                all.push(Self { schema: group.schema, groups: 0, count: 0, path_bytes: 0 });
                all.len() - 1
            });
            all[at].groups += 1;
            all[at].count += group.objects.len();
            all[at].path_bytes += group.objects.iter().map(|o| json_bytes(&o.path)).sum::<usize>();
        }
        all
    }
}

/// Returns the length of a string as JSON text in ASCII, without quotes; never too small.
pub(super) fn json_bytes(text: &str) -> usize {
    let bytes = |c: char| match c {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        c => 6 * c.len_utf16(),
    };
    text.chars().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::refusal::Class;
    use vmstrobe_core::json;

    #[test]
    fn a_string_is_as_long_as_it_is_written() {
        for text in ["", "exits", "a\"b\\c", "\u{1}\n\u{7f}", "é€\u{1F600}"] {
            assert!(json_bytes(text) + 2 >= json::text(&text).len(), "{text:?}");
        }
        assert_eq!(json_bytes("/vm/a/vcpu[0]"), 13);
    }

    #[test]
    fn what_is_too_much_is_refused_by_the_name_of_the_limit() {
        let refused = |cost: Cost| cost.check().unwrap_err();
        let reply = refused(Cost { reply_bytes: MAX_REPLY_BYTES + 1, ..Cost::default() });
        assert!(reply.desc.contains(&MAX_REPLY_BYTES.to_string()), "{}", reply.desc);
        let bytes = refused(Cost { bytes: MAX_QUERY_BYTES + 1, ..Cost::default() });
        assert!(bytes.desc.contains(&MAX_QUERY_BYTES.to_string()), "{}", bytes.desc);
        assert_eq!((reply.class, bytes.class), (Class::GenericError, Class::GenericError));
        let most = Cost { bytes: MAX_QUERY_BYTES, reply_bytes: MAX_REPLY_BYTES, ..Cost::default() };
        assert_eq!(most.check(), Ok(()));
    }
}
