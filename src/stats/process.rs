//! `process_*`: what the process takes of time, memory and descriptors.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Registry,
    process_collector::ProcessCollector,
    proto::{Counter, MetricFamily},
};

/// It is looked up this often at most: each look costs more than a scrape of a small building.
pub const SAMPLED_EVERY: Duration = Duration::from_secs(1);

const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// The families, and when they were looked up.
pub(super) struct Process {
    registry: Registry,
    sampled: Mutex<Option<(Instant, Vec<MetricFamily>)>>,
}

impl Process {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        super::register(&registry, ProcessCollector::for_self());
        Self {
            registry,
            sampled: Mutex::new(None),
        }
    }

    /// As they are now, or were less than [`SAMPLED_EVERY`] ago.
    pub(super) fn sample(&self) -> Vec<MetricFamily> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        match &*sampled {
            Some((at, families)) if at.elapsed() < SAMPLED_EVERY => families.clone(),
            _ => {
                let families = self.look_up();
                *sampled = Some((Instant::now(), families.clone()));
                families
            }
        }
    }

    fn look_up(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        let cpu = families
            .iter_mut()
            .find(|family| family.name() == CPU_SECONDS);
        if let (Some(cpu), Some(seconds)) = (cpu, cpu_seconds()) {
            for sample in cpu.mut_metric() {
                let mut counter = Counter::default();
                counter.set_value(seconds);
                sample.set_counter(counter);
            }
        }
        families
    }
}

/// The library counts whole seconds of CPU, which hides an exporter that uses a hundredth of one.
fn cpu_seconds() -> Option<f64> {
    let stat = procfs::process::Process::myself()
        .and_then(|process| process.stat())
        .ok()?;
    Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}
