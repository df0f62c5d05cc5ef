//! When a collection starts. Pure: takes `now`, never waits. Called by the collector.
//!
//! In interval mode the time is divided into cells of one interval, so that starts do not drift. Each start after the first
//! is jittered within the first tenth of its cell, so that many exporters do not send requests at once. In scrape mode a
//! collection starts when a scrape comes, at most once per interval.

use std::time::{Duration, Instant};

use crate::config::Mode;

/// The interval divided by this is the range of the jitter. The collection ends within the rest of its cell.
const JITTER_DIVISOR: u32 = 10;

/// The time that one collection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionWindow {
    /// When it has ended at the latest.
    pub deadline: Instant,
    /// The time over which its requests are spread.
    pub spread: Duration,
}

/// The starts of the collections under one configuration.
#[derive(Debug)]
pub struct Schedule {
    mode: Mode,
    interval: Duration,
    last_start: Option<Instant>,
    /// The start of the next cell, and the jittered start of the collection in it.
    next: Option<(Instant, Instant)>,
}

impl Schedule {
    /// Returns the schedule of a configuration that has not collected yet.
    pub fn new(mode: Mode, interval: Duration) -> Self {
        Self {
            mode,
            interval,
            last_start: None,
            next: None,
        }
    }

    /// Returns when the next collection starts automatically, while none is running; `None` if only a scrape starts one.
    pub fn next_start(&self, now: Instant) -> Option<Instant> {
        match self.mode {
            Mode::Scrape => None,
            Mode::Interval => Some(self.next.map_or(now, |(_, start)| start)),
        }
    }

    /// Returns whether a scrape at `now` must start a collection, while none is running.
    pub fn is_due(&self, now: Instant) -> bool {
        match (self.mode, self.last_start) {
            (_, None) => true,
            (Mode::Interval, Some(_)) => false,
            (Mode::Scrape, Some(last)) => now.saturating_duration_since(last) >= self.interval,
        }
    }

    /// Returns until when, in scrape mode, the last collection makes another one needless.
    pub fn fresh_until(&self) -> Option<Instant> {
        self.last_start.map(|last| last + self.interval)
    }

    /// Starts a collection. `jitter` is between 0 and 1, for the start after it.
    pub fn start_collection(&mut self, now: Instant, jitter: f64) -> CollectionWindow {
        let jitter_range = self.interval / JITTER_DIVISOR;
        let planned = self.next.filter(|(_, start)| now >= *start);
        // After an early start, or on a machine that was suspended, the rest of the cell may be too short: a new cell begins.
        let in_time = planned.filter(|(_, start)| now - *start <= jitter_range);
        let next_cell = in_time.map_or(now, |(cell, _)| cell) + self.interval;
        self.next = Some((next_cell, next_cell + jitter_range.mul_f64(jitter)));
        self.last_start = Some(now);
        // Requests are spread only if no scrape and no user waits for them: not at the first start, after a reload or a
        // recovered token, and in scrape mode.
        let spread = match (self.mode, planned) {
            (Mode::Interval, Some(_)) => self.interval / 2,
            _ => Duration::ZERO,
        };
        let deadline = (now + self.interval - jitter_range).min(next_cell);
        CollectionWindow { deadline, spread }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn interval_mode_starts_at_once_and_then_once_in_each_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Interval, MINUTE);
        assert_eq!(schedule.next_start(start), Some(start));
        let first = schedule.start_collection(start, 0.5);
        assert_eq!(first.spread, Duration::ZERO);
        assert_eq!(first.deadline, start + Duration::from_secs(54));
        assert_eq!(
            schedule.next_start(start),
            Some(start + Duration::from_secs(63))
        );
        assert_eq!(
            schedule
                .start_collection(start + Duration::from_secs(64), 0.0)
                .spread,
            MINUTE / 2
        );
        assert_eq!(schedule.next_start(start), Some(start + 2 * MINUTE));
    }

    #[test]
    fn missed_starts_are_not_made_up_for() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Interval, MINUTE);
        schedule.start_collection(start, 0.0);
        schedule.start_collection(start + 10 * MINUTE + MINUTE / 2, 0.0);
        assert_eq!(
            schedule.next_start(start),
            Some(start + 11 * MINUTE + MINUTE / 2)
        );
    }

    #[test]
    fn scrape_mode_starts_on_a_scrape_and_at_most_once_per_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Scrape, MINUTE);
        assert_eq!(schedule.next_start(start), None);
        assert!(schedule.is_due(start));
        assert_eq!(schedule.fresh_until(), None);
        assert_eq!(schedule.start_collection(start, 0.0).spread, Duration::ZERO);
        assert_eq!(schedule.fresh_until(), Some(start + MINUTE));
        assert!(!schedule.is_due(start + MINUTE - Duration::from_nanos(1)));
        assert!(schedule.is_due(start + MINUTE));
        assert_eq!(
            schedule.start_collection(start + MINUTE, 0.0).spread,
            Duration::ZERO
        );
    }

    proptest! {
        #[test]
        fn a_collection_starts_after_the_deadline_of_the_one_before_and_starts_do_not_drift(
            interval_ms in 100_u64..120_000,
            steps in proptest::collection::vec((0.0_f64..1.0, 0.0_f64..0.05), 1..200),
        ) {
            let interval = Duration::from_millis(interval_ms);
            let mut schedule = Schedule::new(Mode::Interval, interval);
            let origin = Instant::now();
            let mut now = origin;
            let mut ended = None;
            for (count, (jitter, late)) in steps.into_iter().enumerate() {
                let next = schedule.next_start(now).expect("interval mode always has a next start");
                prop_assert!(ended.is_none_or(|ended| next >= ended), "a start before the last deadline");
                now = next + interval.mul_f64(late * 0.1);
                ended = Some(schedule.start_collection(now, jitter).deadline);
                let ideal = origin + interval * u32::try_from(count).expect("few steps");
                prop_assert!(now >= ideal && now <= ideal + interval.mul_f64(0.11), "starts have drifted");
            }
        }
    }
}
