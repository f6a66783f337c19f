//! Criterion benchmarks of the parts of a tick and of its setup, for people who change them. The
//! figures that the project promises are in `ratios`.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use vmstrobe_core::wire::{Header, parse};
use vmstrobe_core::{Filter, Mask, ReadPlan, Schema, Target, seq};

/// A vCPU's block, as a kernel wrote it.
const VCPU: &[u8] = include_bytes!("../../core/testdata/vcpu-x86-6.18.bin");

fn schema() -> std::sync::Arc<Schema> {
    let header = Header::parse(VCPU.first_chunk().expect("the file has a header"))
        .expect("a kernel wrote the header");
    let part = |range: std::ops::Range<u64>| &VCPU[range.start as usize..range.end as usize];
    let (id, descs) = (part(header.id_range()), part(header.desc_range()));
    parse(&header, id, descs, "kvm", Target::Vcpu).expect("a kernel wrote it").schema
}

fn set_up(c: &mut Criterion) {
    c.bench_function("wire/parse a vCPU's block", |b| b.iter(schema));
    let schema = schema();
    let filter: Filter = "vcpu: exits, halt_*, -/hist/".parse().expect("the filter is well formed");
    c.bench_function("filter/parse", |b| {
        b.iter(|| black_box("vcpu: exits, halt_*, -/hist/").parse::<Filter>())
    });
    c.bench_function("filter/compile to a plan", |b| {
        b.iter(|| ReadPlan::new(&schema, &filter.compile(&schema)))
    });
}

fn on_the_tick(c: &mut Criterion) {
    let schema = schema();
    let block = vec![7; schema.data_bytes() / 8];
    for text in ["vcpu: exits, halt_exits, halt_wait_ns", "vcpu: -/hist/", "vcpu"] {
        let filter: Filter = text.parse().expect("the filter is well formed");
        let plan = ReadPlan::new(&schema, &filter.compile(&schema));
        let span = &block[..plan.span_bytes().len() / 8];
        let mut row = vec![0; plan.row_words()];
        let name = format!("plan/keep {} words", row.len());
        c.bench_function(&name, |b| b.iter(|| plan.keep(black_box(span), black_box(&mut row))));
    }
    let all = Mask::all(&schema);
    c.bench_function("mask/iterate", |b| b.iter(|| black_box(&all).iter().sum::<usize>()));
    let (number, mut out) = (AtomicU64::new(0), [0; 16]);
    let words: [AtomicU64; 16] = std::array::from_fn(|_| AtomicU64::new(0));
    c.bench_function("seq/write 16 words", |b| {
        b.iter(|| seq::write(&number, || words.iter().for_each(|w| w.store(1, Ordering::Relaxed))))
    });
    c.bench_function("seq/read 16 words", |b| {
        b.iter(|| {
            seq::read(&number, 1, || {
                for (out, word) in out.iter_mut().zip(black_box(&words)) {
                    *out = word.load(Ordering::Relaxed);
                }
            })
        })
    });
}

criterion_group!(parts, set_up, on_the_tick);
criterion_main!(parts);
