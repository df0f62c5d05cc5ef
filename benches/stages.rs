//! Benchmarks of decode, build, render and gzip, separately: `cargo bench --bench stages`.
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod corpus;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use corpus::Refreshes;
use lightfi_exporter::exposition::gzip::Compressor;

fn stages(criterion: &mut Criterion) {
    for sensors in [100, 1000, 10_000] {
        let mut refreshes = Refreshes::of(sensors);
        let answers = refreshes.decode();
        let snapshot = refreshes.build(answers);
        let mut text = Vec::new();
        refreshes.render(&snapshot, |chunk| text.push(chunk.to_owned()));
        let mut group = criterion.benchmark_group("refresh");
        group.sample_size(10);
        group.throughput(Throughput::Elements(sensors as u64));
        let id = |stage| BenchmarkId::new(stage, sensors);
        group.bench_function(id("decode"), |bencher| {
            bencher.iter(|| black_box(refreshes.decode()));
        });
        let refreshes = std::cell::RefCell::new(refreshes);
        group.bench_function(id("build"), |bencher| {
            bencher.iter_batched(
                || refreshes.borrow_mut().decode(),
                |answers| black_box(refreshes.borrow_mut().build(answers)),
                BatchSize::PerIteration,
            );
        });
        let refreshes = refreshes.into_inner();
        group.bench_function(id("render"), |bencher| {
            bencher.iter(|| {
                refreshes.render(&snapshot, |chunk| {
                    black_box(chunk);
                })
            });
        });
        group.bench_function(id("gzip"), |bencher| {
            bencher.iter(|| {
                let mut member = Compressor::default();
                text.iter().for_each(|chunk| member.push(chunk));
                black_box(member.finish())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
