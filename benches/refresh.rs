//! Runs refreshes one after the other: `refresh SENSORS TIMES` prints the CPU time of each stage, for `make bench`. The
//! `stage_*` functions exist so that valgrind can distinguish the stages.
#![allow(clippy::print_stdout, reason = "it prints its results")]
#![allow(unreachable_pub, reason = "a program, not a library")]

mod corpus;

use std::{env, hint::black_box, sync::Arc, time::Duration};

use corpus::{Answers, Refreshes};
use lightfi_exporter::{exposition::gzip::Part, snapshot::Snapshot};
use nix::time::{ClockId, clock_gettime};

#[inline(never)]
fn stage_decode(refreshes: &mut Refreshes) -> Answers {
    black_box(refreshes.decode())
}

#[inline(never)]
fn stage_build(refreshes: &mut Refreshes, answers: Answers) -> Arc<Snapshot> {
    black_box(refreshes.build(answers))
}

#[inline(never)]
fn stage_render(refreshes: &Refreshes, snapshot: &Arc<Snapshot>) -> Vec<String> {
    black_box(rendered(refreshes, snapshot))
}

#[inline(never)]
fn stage_gzip(chunks: &[String]) {
    black_box(compressed(chunks));
}

// Closures are not in the `stage_*` functions themselves, where valgrind would count them as stages.

fn rendered(refreshes: &Refreshes, snapshot: &Arc<Snapshot>) -> Vec<String> {
    let mut chunks = Vec::new();
    refreshes.render(snapshot, |chunk| chunks.push(chunk.to_owned()));
    chunks
}

fn compressed(chunks: &[String]) -> Part {
    Part::first(|push| chunks.iter().for_each(|chunk| push(chunk)))
}

fn main() {
    // Cargo adds `--bench` when it runs this itself.
    let mut numbers = env::args().skip(1).filter_map(|text| text.parse().ok());
    let sensors = numbers.next().unwrap_or(1000);
    let times = numbers.next().unwrap_or(10);
    let mut refreshes = Refreshes::of(sensors);
    // The first refresh creates what later ones reuse.
    let mut snapshot = refresh(&mut refreshes).0;
    for _ in 0..times {
        let (next, took) = refresh(&mut refreshes);
        // As in the exporter, the previous snapshot is freed when the next one exists.
        snapshot = next;
        let [decode, build, render, gzip] = took;
        println!(r#"{{"decode": {decode}, "build": {build}, "render": {render}, "gzip": {gzip}}}"#);
    }
    black_box(snapshot);
}

/// Returns the snapshot and the CPU seconds of each stage.
fn refresh(refreshes: &mut Refreshes) -> (Arc<Snapshot>, [f64; 4]) {
    let start = cpu_seconds();
    let answers = stage_decode(refreshes);
    let decoded = cpu_seconds();
    let snapshot = stage_build(refreshes, answers);
    let built = cpu_seconds();
    let chunks = stage_render(refreshes, &snapshot);
    let rendered = cpu_seconds();
    stage_gzip(&chunks);
    let gzip = cpu_seconds() - rendered;
    let took = [decoded - start, built - decoded, rendered - built, gzip];
    (snapshot, took)
}

/// Returns the CPU time of this thread, which does all the work.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let time = time.expect("every Linux has this clock");
    Duration::from(time).as_secs_f64()
}
