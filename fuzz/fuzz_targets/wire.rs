//! A block of statistics of any bytes: it is refused, or everything that we do with a block can be
//! done with it.
//!
//! The input is the file that a reader sees: the header, then the parts at the offsets that it
//! gives; a part beyond the end is shorter or empty. A block that parses is checked against the
//! promises of `Schema`, read by two plans, shown, and written again.
//!
//! It does not read real fds: the providers' own tests do.

#![no_main]

use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmstrobe_core::hmp::InfoStats;
use vmstrobe_core::wire::{self, Block, Header, Note, Rule};
use vmstrobe_core::{
    Column, ErrorKind, Layout, Mask, Object, Order, ReadPlan, Result, RowState, Schema, Snapshot,
    Target, Value, WORD_BYTES, bucket, quantile,
};

/// The most bytes of a text that are looked at: all of an ordinary block's. A histogram of 65,535
/// buckets would only take time.
const PAGE_BYTES: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some(Ok(block)) = read(input) else { return };
    is_sound(&block);
    says_what_the_file_says(&block, input);
    comes_back_as_it_was_written(&block);
    let schema = &block.schema;
    let mut some = Mask::none(schema.descs().len());
    // The last bytes' bits: data lies there, which says nothing else.
    let bits = input.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for (index, _) in bits.take(some.len()).enumerate().filter(|&(_, bit)| bit) {
        some.set(index);
    }
    let data = part(input, u64::from(block.header.data_offset)..u64::MAX);
    for mask in [Mask::all(schema), some] {
        let plan = ReadPlan::new(schema, &mask);
        keeps_what_is_wanted(&plan, &mask);
        can_be_shown(&plan, data);
    }
});

/// Parses a file; `None` if it has no whole header.
fn read(file: &[u8]) -> Option<Result<Block>> {
    let header = match Header::parse(file.first_chunk()?) {
        Ok(header) => header,
        Err(error) => return Some(Err(error)),
    };
    assert_eq!(header.to_bytes(), file[..Header::BYTES]);
    assert!((1..=wire::MAX_NAME_BYTES).contains(&header.name_size));
    assert!(header.num_desc <= wire::MAX_DESCS);
    let (id, descs) = (part(file, header.id_range()), part(file, header.desc_range()));
    Some(wire::parse(&header, id, descs, "kvm", Target::Vcpu))
}

/// Returns the part of the range that the file has.
fn part(file: &[u8], range: Range<u64>) -> &[u8] {
    let at = |offset: u64| file.len().min(offset as usize);
    &file[at(range.start)..at(range.end)]
}

fn is_sound(block: &Block) {
    let schema = &block.schema;
    assert!(schema.data_bytes() <= wire::MAX_DATA_BYTES);
    for desc in schema.descs() {
        let end = desc.offset as usize + usize::from(desc.size) * WORD_BYTES;
        assert!(desc.size > 0 && (desc.offset as usize).is_multiple_of(WORD_BYTES), "{desc:?}");
        assert!(end <= schema.data_bytes(), "{desc:?}");
        assert!(!desc.name.contains('\0'), "{desc:?}");
    }
    let names: usize = schema.descs().iter().map(|desc| desc.name.len()).sum();
    let parsed = names + size_of_val(schema.descs()) + size_of_val(&*block.notes);
    assert!(parsed <= wire::MAX_PARSED_BYTES);
    assert!(block.notes.iter().all(|note| !note.to_string().is_empty()));
}

/// Checks that the statistics are those of the file, one by one, but for those that a note leaves
/// out.
fn says_what_the_file_says(block: &Block, file: &[u8]) {
    let header = &block.header;
    assert!(header.id_range().end <= file.len() as u64, "there is no such id");
    let descs = part(file, header.desc_range()).chunks_exact(16 + header.name_size as usize);
    assert_eq!(descs.len(), header.num_desc as usize);
    let mut left_out = block.notes.iter().filter(|note| leaves_out(note)).peekable();
    let mut kept = block.schema.descs().iter();
    for (index, bytes) in (0..).zip(descs) {
        if left_out.next_if(|note| note.desc == Some(index)).is_some() {
            continue;
        }
        let desc = kept.next().expect("a statistic that no note leaves out is kept");
        let flags = desc.stat_type.bits() | desc.unit.bits() | desc.scale.base.bits();
        assert_eq!((flags | desc.other_flags).to_ne_bytes(), bytes[..4], "{desc:?}");
        assert_eq!(desc.scale.exponent.to_ne_bytes(), bytes[4..6], "{desc:?}");
        assert_eq!(desc.size.to_ne_bytes(), bytes[6..8], "{desc:?}");
        assert_eq!(desc.offset.to_ne_bytes(), bytes[8..12], "{desc:?}");
        assert_eq!(desc.bucket_size.to_ne_bytes(), bytes[12..16], "{desc:?}");
        let name = bytes[16..].split(|&byte| byte == 0).next().unwrap_or_default();
        assert_eq!(*desc.name, *String::from_utf8_lossy(name));
    }
    assert!(kept.next().is_none() && left_out.next().is_none());
}

fn leaves_out(note: &Note) -> bool {
    use Rule::{BucketSizeZero, NameWithoutNul, OffsetUnaligned, SizeZero};
    matches!(note.rule, NameWithoutNul | SizeZero | OffsetUnaligned | BucketSizeZero)
}

fn comes_back_as_it_was_written(block: &Block) {
    let names = block.schema.descs().iter().map(|desc| &*desc.name);
    let longest = names.chain([&*block.id]).map(str::len).max().unwrap_or(0);
    // A name that was not UTF-8 may have grown over the limit.
    let fits = longest < wire::MAX_NAME_BYTES as usize;
    match wire::write(&block.id, &block.schema) {
        Ok(bytes) => {
            let again = read(&bytes)
                .expect("the file has a header")
                .expect("a written block can be parsed");
            assert!(fits && again.id == block.id && again.schema == block.schema);
        }
        Err(error) => assert!(!fits && error.kind() == ErrorKind::TooLarge, "{error}"),
    }
}

/// Checks on data whose word `i` is `i` that each column has its descriptor's words.
fn keeps_what_is_wanted(plan: &ReadPlan, mask: &Mask) {
    let (schema, span) = (plan.schema(), plan.span_bytes());
    assert!(span.start.is_multiple_of(WORD_BYTES) && span.end <= schema.data_bytes());
    let words = span.start / WORD_BYTES..span.end / WORD_BYTES;
    let fetched: Vec<u64> = words.map(|word| word as u64).collect();
    let mut row = vec![u64::MAX; plan.row_words()];
    plan.keep(&fetched, &mut row);
    assert!(!row.contains(&u64::MAX), "a word of the row that nobody filled");
    assert!(!plan.row_is_span() || row == fetched);
    assert!(plan.columns().iter().map(|column| column.desc).eq(mask.iter()));
    for column in plan.columns() {
        let words = schema.descs()[column.desc].words().map(|word| word as u64);
        assert!(row[column.words.clone()].iter().copied().eq(words), "{column:?}");
    }
}

/// Checks that a snapshot of the data, padded with zeros, has values and a text.
fn can_be_shown(plan: &Arc<ReadPlan>, data: &[u8]) {
    let span = plan.span_bytes();
    let mut fetched = vec![0; span.len() / WORD_BYTES];
    let present = part(data, span.start as u64..span.end as u64);
    for (word, bytes) in fetched.iter_mut().zip(present.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    let schema: Arc<Schema> = Arc::clone(plan.schema());
    let object = Object { path: "/vm/fuzz/vcpu[0]".into(), index: Some(0), schema, key: 0 };
    let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(plan), vec![object])]));
    let (row, states) = snapshot.begin(1);
    plan.keep(&fetched, row);
    states[0] = RowState::Good;
    snapshot.objects().flat_map(|view| view.stats()).for_each(has_a_meaning);
    let is_in_qapi = |column: &Column| plan.schema().descs()[column.desc].has_qapi_value();
    let in_qapi = plan.columns().iter().filter(|column| is_in_qapi(column)).count();
    for (order, lines) in [(Order::Schema, plan.columns().len()), (Order::Qemu, in_qapi)] {
        let mut page = Page { bytes: 0 };
        let text = InfoStats { snapshot: &snapshot, with_provider: true, with_path: true, order };
        let whole = write!(page, "{text}").is_ok();
        assert_eq!(page.bytes == 0, lines == 0);
        assert!(whole || page.bytes > PAGE_BYTES);
    }
}

/// A writer that takes the first bytes of a text, and refuses the rest.
struct Page {
    bytes: usize,
}

impl fmt::Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes += text.len();
        if self.bytes > PAGE_BYTES { Err(fmt::Error) } else { Ok(()) }
    }
}

fn has_a_meaning(value: Value<'_>) {
    let (desc, words) = (value.desc(), value.words());
    assert_eq!(words.len(), usize::from(desc.size));
    assert_eq!(value.boolean().is_some(), desc.is_boolean());
    assert_eq!(value.number().is_some(), !desc.is_boolean() && words.len() == 1);
    assert!(value.in_units().is_none() || value.number().is_some());
    assert!(value.unit_text().is_ascii());
    let histogram = desc.stat_type.is_histogram();
    assert_eq!(value.buckets().is_some(), histogram && !desc.is_boolean());

    assert_eq!(bucket(desc, words.len()), None);
    // Up to where log2 buckets pass 64 bits: beyond, all are alike.
    for index in 0..words.len().min(70) {
        let Some(here) = bucket(desc, index) else {
            assert!(!histogram);
            return;
        };
        assert!(here.end.is_none_or(|end| here.low < end), "{desc:?} {index}");
        match bucket(desc, index + 1) {
            Some(next) => assert!(here.end.is_none_or(|end| end == next.low), "{desc:?} {index}"),
            None => assert_eq!(here.end, None, "{desc:?}"),
        }
    }
    let lows = [0.0, 0.5, 0.999, 1.0].map(|q| quantile(desc, words, q).map(|q| q.bucket.low));
    assert!(lows.is_sorted(), "{desc:?} {lows:?}");
    assert_eq!(lows[0].is_some(), words.iter().any(|&word| word != 0));
    assert!(quantile(desc, words, f64::NAN).is_none_or(|quantile| quantile.count > 0));
}
