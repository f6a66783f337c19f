//! The most memory that foreign bytes can make a parser hold, in the worst cases that we know.

use vmstrobe_core::wire::{self, Block, Header, MAX_DESCS, MAX_NAME_BYTES, MAX_PARSED_BYTES, Rule};
use vmstrobe_core::{ErrorKind, Names, Result, Target};
use vmstrobe_tests::rig::show;

use super::count::held_bytes_max;

const MIB: u64 = 1 << 20;

/// A fault that every descriptor of a block has: the values of its fields.
#[derive(Clone, Copy, Debug)]
struct Fault {
    flags: u32,
    exponent: i16,
    size: u16,
    bucket_size: u32,
    /// Returns the offset of descriptor `i`, in words.
    word: fn(u32) -> u32,
    name: fn(u32) -> Vec<u8>,
}

/// A fault with an unknown type, unit and base, an extreme exponent, all other flags, and a bucket
/// size without a histogram.
const ODD: Fault = Fault {
    flags: u32::MAX,
    exponent: i16::MIN,
    size: 1,
    bucket_size: u32::MAX,
    word: |i| i,
    name: |_| vec![0xff; MAX_NAME_BYTES as usize - 1],
};

/// Returns the header, the id and the descriptors of a block in which all descriptors have the
/// fault.
fn block(fault: Fault) -> (Header, Vec<u8>, Vec<u8>) {
    let name_bytes = MAX_NAME_BYTES as usize;
    let desc_bytes = 16 + MAX_NAME_BYTES;
    let desc_offset = Header::BYTES as u32;
    let header = Header {
        flags: u32::MAX,
        name_size: MAX_NAME_BYTES,
        num_desc: MAX_DESCS,
        id_offset: 0, // over the header and the descriptors
        desc_offset,
        data_offset: desc_offset + MAX_DESCS * desc_bytes,
    };
    let mut id = vec![0xff; name_bytes - 1];
    id.push(0);
    let mut descs = Vec::new();
    for i in 0..MAX_DESCS {
        descs.extend(fault.flags.to_ne_bytes());
        descs.extend(fault.exponent.to_ne_bytes());
        descs.extend(fault.size.to_ne_bytes());
        descs.extend(((fault.word)(i) * 8).to_ne_bytes());
        descs.extend(fault.bucket_size.to_ne_bytes());
        let mut name = (fault.name)(i);
        name.resize(name_bytes, 0);
        descs.extend(name);
    }
    (header, id, descs)
}

/// Parses the block and returns the result; checks that the memory held is below the limit.
#[track_caller]
fn check(what: &str, fault: Fault) -> Result<Block> {
    let (header, id, descs) = block(fault);
    let header = Header::parse(&header.to_bytes()).expect("the header is within its limits");
    let parse = || wire::parse(&header, &id, &descs, "kvm", Target::Vcpu);
    let (parsed, held_bytes) = held_bytes_max(parse);
    show(&format!("wire::parse, {what}: holds {held_bytes} of {MAX_PARSED_BYTES} bytes at most"));
    assert!(held_bytes <= MAX_PARSED_BYTES as u64, "{what}: {held_bytes} bytes");
    parsed
}

/// Checks a block as [`check`] does that is odd, but can be read.
#[track_caller]
fn check_read(what: &str, fault: Fault) -> Block {
    check(what, fault).expect("the block can be parsed")
}

#[test]
fn a_parsed_block_holds_no_more_than_its_limit() {
    let numbered =
        |i: u32| [vec![0xff; 251], i.to_ne_bytes().map(|byte| byte | 1).to_vec()].concat();
    let all = MAX_DESCS as usize;
    let odd = check_read("names of 255 bytes that are no UTF-8, every soft rule broken", ODD);
    assert_eq!(odd.schema.descs().len(), all);
    assert!(odd.schema.descs().iter().all(|desc| desc.name.len() == 3 * 255));
    assert!(odd.notes.len() > 5 * all, "{} notes", odd.notes.len());

    let shared = check_read("and all share one word", Fault { word: |_| 0, ..ODD });
    let has = |rule| shared.notes.iter().any(|note| note.rule == rule);
    assert!(has(Rule::StatsOverlap) && has(Rule::NameTwice) && has(Rule::IdOverlaps));

    check_read("and names are alike but for their end", Fault { name: numbered, ..ODD });
    check_read("and they lie in reverse", Fault { word: |i| MAX_DESCS - 1 - i, ..ODD });
    // Known unit and base, so that the exponent is unusual; seconds do not take a positive one.
    let unusual = Fault { flags: !0xfff | 0x02f, exponent: i16::MAX, ..ODD };
    check_read("and the exponents are unusual", unusual);
    let wide = Fault { size: 32, ..ODD };
    check_read("and each claims 32 words", Fault { word: |i| 32 * (i % 64), ..wide });

    let endless = Fault { name: |_| vec![0xff; MAX_NAME_BYTES as usize], ..ODD };
    let left_out = check_read("no name has an end", endless);
    assert_eq!((left_out.schema.descs().len(), left_out.notes.len() >= all), (0, true));
    let sizeless = check_read("no statistic has a size", Fault { size: 0, ..ODD });
    assert!(sizeless.schema.descs().is_empty());
    let vast = check("and each claims 65535 words", Fault { size: u16::MAX, ..ODD });
    assert_eq!(vast.map_err(|error| error.kind()).err(), Some(ErrorKind::TooLarge));
}

#[test]
fn a_header_over_a_limit_is_refused_without_allocation() {
    let (good, ..) = block(ODD);
    for bad in [
        Header { num_desc: MAX_DESCS + 1, ..good },
        Header { num_desc: u32::MAX, ..good },
        Header { name_size: MAX_NAME_BYTES + 1, ..good },
        Header { name_size: u32::MAX, ..good },
    ] {
        let (parsed, held_bytes) = held_bytes_max(|| Header::parse(&bad.to_bytes()));
        assert_eq!(parsed.map_err(|error| error.kind()).err(), Some(ErrorKind::TooLarge));
        assert!(held_bytes < 4096, "{held_bytes} bytes to refuse {bad:?}");
    }
}

/// Lists at the limits of `Names::parse`: 16 KiB, 1024 names, 64 patterns.
#[test]
fn a_list_of_names_holds_little() {
    let repeated = |pattern: &str, count| vec![pattern; count].join(",");
    // 64 patterns of 255 bytes with a comma each are 16 KiB.
    let filled = |piece: &str, open: &str, close: &str| {
        let room = (253 - open.len() - close.len()) / piece.len();
        repeated(&format!("/{open}{}{close}/", piece.repeat(room)), 64)
    };
    let numbered: Vec<String> = (0..1024).map(|i| format!("{i:014x}")).collect();
    for (what, list) in [
        ("1024 names", numbered.join(",")),
        ("one name of 16 KiB", "x".repeat(16 * 1024)),
        ("64 globs", repeated(&"*a?".repeat(84), 64)),
        ("globs of letters outside ASCII", repeated(&format!("{}*", "ß".repeat(120)), 64)),
        ("alternatives", filled("a|", "", "b")),
        ("classes", filled(r"\W", "", "")),
        ("classes of ranges", filled("a-bc-d", "[", "]")),
        ("letters of either case", filled("a", "(?i)", "")),
        ("groups", filled("()", "", "")),
        ("nested groups", repeated(&format!("/{}a{}/", "(".repeat(30), ")".repeat(30)), 64)),
        ("a repeated letter", repeated("/x{150}/", 64)),
        ("nested repeats", repeated("/((a{9}){9}){9}/", 64)),
        ("repeats of nothing", repeated("/((){1000}){1000}/", 64)),
        ("optional repeats", repeated("/(a?){1000}/", 64)),
        ("one repeat over the limit", "/(((\\w{1000}){1000}){1000}){1000}/".to_owned()),
    ] {
        let (outcome, held_bytes) = held_bytes_max(|| {
            let names = Names::parse(&list)?;
            // The first search sets up what later ones use again.
            let name = "a".repeat(255);
            Ok::<_, vmstrobe_core::Error>((names.wants(&name), names))
        });
        let end = if outcome.is_ok() { "taken" } else { "refused" };
        show(&format!("Names::parse, {what}: {end}, holds {held_bytes} bytes at most"));
        assert!(held_bytes < 4 * MIB, "{what}: {held_bytes} bytes");
    }
}
