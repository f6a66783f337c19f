//! The format's rules, one by one, each on a block that is right but for that rule; and the real
//! blocks of a kernel. The numbers are those of kvm_binary_stats_test.c's assertions as listed in
//! the design's reference. Rules 17 to 21 are about descriptors of the operating system: they are
//! tested on real ones, by the provider that reads them.

use std::ops::Range;

use super::*;

const VCPU: &[u8] = include_bytes!("../../testdata/vcpu-x86-6.18.bin");
const VM: &[u8] = include_bytes!("../../testdata/vm-x86-6.18.bin");

/// Parses a file's bytes as a reader of a stats fd would: header, then id, then descriptors.
fn parse_file(bytes: &[u8]) -> Result<Block> {
    let header = bytes.first_chunk().ok_or_else(|| malformed("it is short"))?;
    let header = Header::parse(header)?;
    let part = |range: Range<u64>| {
        let end = (range.end as usize).min(bytes.len());
        bytes.get(range.start as usize..end).unwrap_or(&[])
    };
    parse(&header, part(header.id_range()), part(header.desc_range()), "kvm", Target::Vcpu)
}

/// A block of a counter, a time and a histogram, as [`write()`] makes it, data included.
fn block() -> Vec<u8> {
    let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
    let descs = vec![
        Desc::counter("exits", 0),
        ns(Desc::counter("wait_ns", 8)),
        Desc { stat_type: StatType::Log2Histogram, size: 4, ..ns(Desc::counter("hist", 16)) },
    ];
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let mut bytes = write("kvm-7/vcpu-0", &schema).expect("the schema is within the limits");
    bytes.resize(bytes.len() + schema.data_bytes(), 0);
    bytes
}

/// Offsets into [`block`].
const FLAGS: usize = 0;
const NAME_SIZE: usize = 4;
const NUM_DESC: usize = 8;
const ID_OFFSET: usize = 12;
const DESC_OFFSET: usize = 16;
const DATA_OFFSET: usize = 20;
const fn desc(index: usize, field: usize) -> usize {
    24 + 48 + index * 64 + field
}

fn with(changes: &[(usize, &[u8])]) -> Result<Block> {
    let mut bytes = block();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    parse_file(&bytes)
}

fn refused(changes: &[(usize, &[u8])], kind: ErrorKind) {
    let error = with(changes).map(|block| block.notes).expect_err("it breaks a hard rule");
    assert_eq!(error.kind(), kind, "{error}");
}

/// The block is kept, with just this note, and so many statistics.
fn noted(changes: &[(usize, &[u8])], note: Option<u32>, rule: Rule, kept: usize) {
    let block = with(changes).expect("the block breaks a soft rule only");
    assert_eq!(block.notes, [Note { desc: note, rule }], "{changes:?}");
    assert_eq!(block.schema.descs().len(), kept);
}

fn le(n: u32) -> [u8; 4] {
    n.to_ne_bytes()
}

#[test]
fn a_right_block_has_no_notes() {
    let block = with(&[]).expect("the block breaks no hard rule");
    assert_eq!(block.notes, []);
    assert_eq!(block.id, "kvm-7/vcpu-0");
    assert_eq!(block.schema.data_bytes(), 48);
    assert_eq!(block.schema.descs()[2].words(), 2..6);
}

#[test]
fn real_blocks_of_a_kernel() {
    let vcpu = parse_file(VCPU).expect("a block of a kernel breaks no hard rule");
    assert_eq!((vcpu.header.name_size, vcpu.header.data_offset), (48, 2952));
    assert_eq!(vcpu.schema.descs().len(), 45);
    assert_eq!(vcpu.schema.data_bytes(), 1104);
    assert!(vcpu.id.starts_with("kvm-") && vcpu.id.ends_with("/vcpu-0"), "{}", vcpu.id);
    let blocking =
        &vcpu.schema.descs()[vcpu.schema.find("blocking").expect("Linux 5.16 and later have it")];
    assert!(blocking.is_boolean() && blocking.stat_type == StatType::Instant);
    let hist = &vcpu.schema.descs()
        [vcpu.schema.find("halt_wait_hist").expect("Linux 5.15 and later have it")];
    assert_eq!((hist.size, hist.scale, hist.unit), (32, Scale::NANO, Unit::Seconds));

    let vm = parse_file(VM).expect("a block of a kernel breaks no hard rule");
    assert_eq!(vm.schema.data_bytes(), 120);
    let offset = |name| vm.schema.descs()[vm.schema.find(name).expect("x86 has it")].offset;
    assert!(offset("max_mmu_rmap_size") > offset("max_mmu_page_hash_collisions"));
    assert_eq!((vcpu.notes, vm.notes), (vec![], vec![]));
}

#[test]
fn what_is_written_is_what_was_read() {
    for bytes in [VCPU, VM] {
        let block = parse_file(bytes).expect("a block of a kernel breaks no hard rule");
        let written = write(&block.id, &block.schema).expect("a parsed block can be written");
        assert_eq!(written, bytes[..block.header.data_offset as usize]);
    }
}

#[test]
fn rule_01_a_short_header_is_refused() {
    assert!(parse_file(&block()[..23]).is_err());
}

#[test]
fn rule_02_the_id_is_at_its_offset_and_whole() {
    let mut bytes = block();
    bytes.truncate(60);
    assert_eq!(parse_file(&bytes).map_err(|e| e.kind()).err(), Some(ErrorKind::Malformed));
    // The id is behind the data, where the selftest does not expect it.
    let mut bytes = block();
    let end = bytes.len();
    bytes.extend_from_within(24..72);
    bytes[ID_OFFSET..ID_OFFSET + 4].copy_from_slice(&le(end as u32));
    assert_eq!(parse_file(&bytes).expect("the id may be anywhere").id, "kvm-7/vcpu-0");
}

#[test]
fn rule_03_the_id_has_a_nul_and_should_start_with_kvm() {
    refused(&[(24, &[b'k'; 48])], ErrorKind::Malformed);
    noted(&[(24, b"xen")], None, Rule::IdNotKvm, 3);
}

#[test]
fn rule_04_no_descriptors_is_an_empty_schema() {
    let block = with(&[(NUM_DESC, &le(0)), (DESC_OFFSET, &le(0))])
        .expect("a block may have no descriptors");
    assert!(block.schema.descs().is_empty());
    assert_eq!(block.schema.data_bytes(), 0);
}

#[test]
fn rule_05_nothing_lies_over_the_header() {
    refused(&[(DESC_OFFSET, &le(16))], ErrorKind::Malformed);
    refused(&[(DATA_OFFSET, &le(8)), (DESC_OFFSET, &le(200))], ErrorKind::Malformed);
}

#[test]
fn rule_06_descriptors_do_not_reach_into_the_data() {
    refused(&[(DATA_OFFSET, &le(256))], ErrorKind::Malformed);
    refused(
        &[(DESC_OFFSET, &le(u32::MAX - 7)), (DATA_OFFSET, &le(u32::MAX - 7))],
        ErrorKind::Malformed,
    );
}

#[test]
fn rule_07_the_descriptor_block_is_whole() {
    let bytes = block();
    assert!(parse_file(&bytes[..desc(2, 10)]).is_err());
    refused(&[(NUM_DESC, &le(4)), (DATA_OFFSET, &le(1024))], ErrorKind::Malformed);
}

#[test]
fn rule_08_a_name_without_nul_is_left_out() {
    noted(&[(desc(1, 16), &[b'n'; 48])], Some(1), Rule::NameWithoutNul, 2);
}

#[test]
fn rule_09_an_unknown_type_is_kept() {
    noted(&[(desc(0, 0), &le(0x5))], Some(0), Rule::UnknownType, 3);
}

#[test]
fn rule_10_an_unknown_unit_is_kept() {
    noted(&[(desc(0, 0), &le(0x50))], Some(0), Rule::UnknownUnit, 3);
}

#[test]
fn rule_11_an_unknown_base_is_kept() {
    noted(&[(desc(0, 0), &le(0x200))], Some(0), Rule::UnknownBase, 3);
}

#[test]
fn rule_12_an_unusual_exponent_is_kept() {
    noted(&[(desc(0, 4), &(-1_i16).to_ne_bytes())], Some(0), Rule::UnusualExponent, 3);
    noted(&[(desc(1, 4), &1_i16.to_ne_bytes())], Some(1), Rule::UnusualExponent, 3);
    let boolean: &[(usize, &[u8])] = &[(desc(0, 0), &le(0x40)), (desc(0, 4), &[1, 0])];
    noted(boolean, Some(0), Rule::UnusualExponent, 3);
}

#[test]
fn rule_13_a_statistic_of_size_0_is_left_out() {
    noted(&[(desc(1, 6), &[0, 0])], Some(1), Rule::SizeZero, 2);
}

#[test]
fn rule_14_bucket_sizes_belong_to_linear_histograms() {
    noted(&[(desc(0, 12), &le(9))], Some(0), Rule::BucketSizeSet, 3);
    noted(&[(desc(2, 0), &le(0x3))], Some(2), Rule::BucketSizeZero, 2);
    let linear = with(&[(desc(2, 0), &le(0x23)), (desc(2, 12), &le(9))])
        .expect("the block breaks no hard rule");
    assert_eq!(linear.notes, []);
}

#[test]
fn rule_15_the_data_does_not_reach_into_the_descriptors() {
    // Data at 24, descriptors behind it: fits with the id elsewhere, and one word less does not.
    let bytes = |desc_offset: u32| {
        let old = block();
        let mut bytes = old[..24].to_vec();
        bytes.resize(desc_offset as usize, 0);
        bytes.extend(&old[72..72 + 3 * 64]);
        let id = bytes.len() as u32;
        bytes.extend(&old[24..72]);
        bytes[ID_OFFSET..ID_OFFSET + 4].copy_from_slice(&le(id));
        bytes[DESC_OFFSET..DESC_OFFSET + 4].copy_from_slice(&le(desc_offset));
        bytes[DATA_OFFSET..DATA_OFFSET + 4].copy_from_slice(&le(24));
        bytes
    };
    assert_eq!(parse_file(&bytes(72)).expect("48 bytes fit").notes, []);
    assert!(parse_file(&bytes(64)).is_err());
}

#[test]
fn rule_16_data_smaller_than_a_word_a_descriptor_is_kept() {
    let same: &[(usize, &[u8])] =
        &[(desc(1, 8), &le(0)), (desc(2, 8), &le(0)), (desc(2, 6), &[1, 0])];
    let block = with(same).expect("the block breaks soft rules only");
    let rules: Vec<Rule> = block.notes.iter().map(|note| note.rule).collect();
    assert_eq!(rules, [Rule::DataTooSmall, Rule::StatsOverlap]);
    assert_eq!(block.schema.data_bytes(), 8);
}

#[test]
fn header_flags_of_a_newer_kernel_are_kept() {
    noted(&[(FLAGS, &le(1))], None, Rule::HeaderFlags, 3);
}

#[test]
fn descriptor_flags_of_a_newer_kernel_are_kept_and_written_back() {
    noted(&[(desc(0, 0), &le(0xabc0_1000))], Some(0), Rule::UnknownFlags, 3);
    let block = with(&[(desc(0, 0), &le(0xabcd_efff))]).expect("the block breaks soft rules only");
    let again =
        parse_file(&write(&block.id, &block.schema).expect("a parsed block can be written"));
    assert_eq!(again.expect("a written block can be parsed").schema, block.schema);
}

#[test]
fn a_name_size_of_0_or_too_large_is_refused() {
    refused(&[(NAME_SIZE, &le(0))], ErrorKind::Malformed);
    refused(&[(NAME_SIZE, &le(MAX_NAME_BYTES + 8))], ErrorKind::TooLarge);
    refused(&[(NAME_SIZE, &le(u32::MAX))], ErrorKind::TooLarge);
}

#[test]
fn too_many_descriptors_or_too_much_data_is_refused() {
    refused(&[(NUM_DESC, &le(MAX_DESCS + 1))], ErrorKind::TooLarge);
    refused(&[(NUM_DESC, &le(u32::MAX))], ErrorKind::TooLarge);
    refused(&[(desc(0, 8), &le(u32::MAX - 7))], ErrorKind::TooLarge);
    refused(&[(desc(0, 8), &le(MAX_DATA_BYTES as u32))], ErrorKind::TooLarge);
}

/// Two claim half of what is allowed each, at one place: shown or summed they are more than it.
#[test]
fn words_that_many_statistics_share_count_each_time() {
    let size = u16::MAX.to_ne_bytes();
    let two: &[(usize, &[u8])] = &[(desc(0, 6), &size), (desc(1, 6), &size), (desc(1, 8), &le(0))];
    refused(two, ErrorKind::TooLarge);
    assert!(with(&two[..1]).is_ok());
}

#[test]
fn an_id_over_another_part_is_noted() {
    let mut bytes = block();
    let end = bytes.len() as u32;
    bytes.resize(bytes.len() + 48, 0);
    bytes[ID_OFFSET..ID_OFFSET + 4].copy_from_slice(&le(end - 8));
    bytes[end as usize - 8..end as usize].copy_from_slice(b"kvm-8\0\0\0");
    let notes = parse_file(&bytes).expect("the block breaks a soft rule only").notes;
    assert_eq!(notes, [Note { desc: None, rule: Rule::IdOverlaps }]);
}

#[test]
fn an_unaligned_offset_is_left_out_and_unaligned_data_refused() {
    noted(&[(desc(2, 8), &le(20))], Some(2), Rule::OffsetUnaligned, 2);
    refused(&[(DATA_OFFSET, &le(72 + 3 * 64 + 4))], ErrorKind::Malformed);
}

#[test]
fn overlapping_statistics_and_duplicate_names_are_kept() {
    noted(&[(desc(1, 8), &le(16))], None, Rule::StatsOverlap, 3);
    noted(&[(desc(1, 16), b"exits\0")], None, Rule::NameTwice, 3);
}

#[test]
fn data_need_not_be_in_the_order_of_the_descriptors() {
    let block =
        with(&[(desc(0, 8), &le(8)), (desc(1, 8), &le(0))]).expect("the block breaks no hard rule");
    assert_eq!(block.notes, []);
    assert_eq!(block.schema.data_bytes(), 48);
}

#[test]
fn words_that_nobody_describes_do_no_harm() {
    let block = with(&[(desc(2, 8), &le(64))]).expect("the block breaks no hard rule");
    assert_eq!((block.notes, block.schema.data_bytes()), (vec![], 96));
}

#[test]
fn a_name_that_is_no_text_is_shown_all_the_same() {
    let block = with(&[(desc(0, 16), &[0xff, b'x', 0])]).expect("the block breaks no hard rule");
    assert_eq!(&*block.schema.descs()[0].name, "\u{fffd}x");
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let long = "n".repeat(MAX_NAME_BYTES as usize);
    for (id, name) in [("kvm", &*long), (&*long, "n"), ("kvm", "a\0b"), ("k\0", "n")] {
        let schema = Schema::new("xyz", Target::Vm, vec![Desc::counter(name, 0)]);
        assert!(write(id, &schema).is_err(), "{id} {name}");
    }
}
