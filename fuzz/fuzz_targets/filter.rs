//! A filter of any text: it is refused, or it compiles within bounded time and space and selects
//! the statistics that it names.
//!
//! The input is text (what is no UTF-8 is replaced), read as a filter and as a list of names. What
//! parses is asked about the statistics of a real vCPU and about the words of the input itself.
//! The oracle knows lists without regular expressions, and works without them.

#![no_main]

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vmstrobe_core::wire::{self, Header};
use vmstrobe_core::{Desc, Filter, Names, Object, Schema, Target};

/// The limits of the product, as documented: below them a plain list is accepted.
const LIST_BYTES: usize = 16 * 1024;
const NAMES: usize = 1024;

/// The most words of an input that become names.
const WORDS: usize = 32;

static VCPU: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let file = include_bytes!("../../core/testdata/vcpu-x86-6.18.bin");
    let header = Header::parse(file.first_chunk().expect("the file has a header"));
    let header = header.expect("a kernel wrote it");
    let part = |range: std::ops::Range<u64>| &file[range.start as usize..range.end as usize];
    let (id, descs) = (part(header.id_range()), part(header.desc_range()));
    wire::parse(&header, id, descs, "kvm", Target::Vcpu).expect("a kernel wrote it").schema
});

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let words: Vec<&str> = text.split([',', ':', ' ', '/']).take(WORDS).collect();
    let known = VCPU.descs().iter().step_by(4).map(|desc| &*desc.name);
    list_is_as_typed(&text, &known.chain([&*text]).chain(words.clone()).collect::<Vec<&str>>());
    let filter = text.parse::<Filter>();
    let (target, list) = match text.split_once(':') {
        Some((target, list)) => (target.trim(), Some(list)),
        None => (text.trim(), None),
    };
    let names = list.map(Names::parse);
    let Ok(filter) = filter else {
        // Nothing else can be wrong with it.
        assert!(target.is_empty() || names.is_some_and(|names| names.is_err()));
        return;
    };
    let names = names.map(|names| names.expect("the filter's list has parsed"));
    assert_eq!(filter.target.name(), target);
    let own = words.iter().zip(0..).map(|(word, i)| Desc::counter(word, 8 * i)).collect();
    for schema in [Arc::clone(&VCPU), Schema::new("fuzz", Target::from_name(target), own)] {
        compiles_to_what_it_wants(&filter, names.as_ref(), &schema);
    }
});

fn compiles_to_what_it_wants(filter: &Filter, names: Option<&Names>, schema: &Arc<Schema>) {
    let asked = filter.target == *schema.target();
    let mask = filter.compile(schema);
    assert_eq!(mask.len(), schema.descs().len());
    for (index, desc) in schema.descs().iter().enumerate() {
        let wanted = asked && names.is_none_or(|names| names.wants(&desc.name));
        assert_eq!(mask.contains(index), wanted, "{}", desc.name);
    }
    let object =
        Object { path: "/vm/a/vcpu[1]".into(), index: Some(1), schema: Arc::clone(schema), key: 0 };
    assert_eq!(filter.wants(&object), asked);
}

/// Checks that the list selects exactly the names that its items match, and reports the items that
/// match none.
fn list_is_as_typed(list: &str, asked: &[&str]) {
    let items: Vec<&str> = list.split(',').map(str::trim).filter(|i| !i.is_empty()).collect();
    let parsed = Names::parse(list);
    let plain = !list.contains(['*', '?', '/']);
    let small = list.len() <= LIST_BYTES && items.len() <= NAMES;
    let excludes_nothing =
        |item: &&str| item.strip_prefix('-').is_some_and(|i| i.trim().is_empty());
    let sound = !items.is_empty() && !items.iter().any(excludes_nothing);
    assert!(!plain || parsed.is_ok() == (small && sound));
    let Ok(names) = parsed else { return };
    let unmatched = names.unmatched(asked);
    if list.contains('/') {
        // What a regular expression finds, only it can say; that it comes to an end shows here.
        asked.iter().for_each(|name| _ = black_box(names.wants(name)));
        return;
    }
    let (excludes, includes): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| item.starts_with('-'));
    let excludes: Vec<&str> = excludes.iter().map(|item| item[1..].trim_start()).collect();
    for name in asked {
        let included = includes.is_empty() || includes.iter().any(|item| is_glob_of(item, name));
        let excluded = excludes.iter().any(|item| is_glob_of(item, name));
        assert_eq!(names.wants(name), included && !excluded, "{list:?} and {name:?}");
    }
    let lost = |item: &&str| !asked.iter().any(|name| is_glob_of(item, name));
    assert!(unmatched.into_iter().eq(includes.into_iter().chain(excludes).filter(lost)));
}

/// Returns true if `*` and `?` of the pattern can stand for parts of the name, so that they are
/// equal.
fn is_glob_of(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // The lengths of the name's beginnings that the pattern so far can become.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for c in pattern.chars() {
        if c == '*' {
            let first = fits.iter().position(|&fits| fits).unwrap_or(fits.len());
            fits[first..].fill(true);
        } else {
            for at in (1..fits.len()).rev() {
                fits[at] = fits[at - 1] && (c == '?' || c == name[at - 1]);
            }
            fits[0] = false;
        }
    }
    fits[name.len()]
}
