//! When a collection starts. Pure: takes `now`, does not wait.
//!
//! Interval mode keeps to a grid of one interval, so that nothing drifts; each start after the first is jittered
//! within the first tenth of its cell, so that many exporters do not ask at once. Scrape mode starts when asked, at
//! most once per interval.

use std::time::{Duration, Instant};

use crate::config::Mode;

/// Share of the interval within which a start is jittered. A collection ends within the rest of its cell.
const JITTER_SHARE: u32 = 10;

/// What one collection must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// By then it has ended.
    pub deadline: Instant,
    /// Over how long its requests are spread.
    pub spread: Duration,
}

/// The state of one generation's collections.
#[derive(Debug)]
pub struct Schedule {
    mode: Mode,
    interval: Duration,
    /// The first start, or the last one that was out of turn: origin of the grid.
    origin: Option<Instant>,
    last_start: Option<Instant>,
    /// The next cell's jittered start.
    next: Option<Instant>,
}

impl Schedule {
    /// Of a generation that has not collected yet.
    pub fn new(mode: Mode, interval: Duration) -> Self {
        Self {
            mode,
            interval,
            origin: None,
            last_start: None,
            next: None,
        }
    }

    /// When to start by itself, while no collection runs; `None`: only when asked.
    pub fn next_start(&self, now: Instant) -> Option<Instant> {
        match self.mode {
            Mode::Scrape => None,
            Mode::Interval => Some(self.next.unwrap_or(now)),
        }
    }

    /// Whether a scrape that comes now, while no collection runs, must start one.
    pub fn is_due(&self, now: Instant) -> bool {
        match (self.mode, self.last_start) {
            (Mode::Interval, last) => last.is_none(),
            (Mode::Scrape, None) => true,
            (Mode::Scrape, Some(last)) => now.saturating_duration_since(last) >= self.interval,
        }
    }

    /// In scrape mode: until when what was collected last needs no other collection.
    pub fn fresh_until(&self) -> Option<Instant> {
        self.last_start.map(|last| last + self.interval)
    }

    /// A collection starts. `jitter` is 0 to 1, for the start after it.
    pub fn started(&mut self, now: Instant, jitter: f64) -> Course {
        let tenth = self.interval / JITTER_SHARE;
        let in_turn = self.next.is_some_and(|next| now >= next);
        // A machine that slept, or a start out of turn: the grid begins anew, as the rest of this cell may be too short.
        let keeps_grid = self.next.is_some_and(|next| in_turn && now - next <= tenth);
        let origin = self.origin.filter(|_| keeps_grid).unwrap_or(now);
        let cells =
            now.saturating_duration_since(origin).as_nanos() / self.interval.as_nanos().max(1);
        let cell = origin
            + self
                .interval
                .saturating_mul(u32::try_from(cells).unwrap_or(u32::MAX).saturating_add(1));
        self.next = Some(cell + tenth.mul_f64(jitter));
        self.origin = Some(origin);
        self.last_start = Some(now);
        // Everything is asked for at once where somebody waits.
        let spread = if self.mode == Mode::Interval && in_turn {
            self.interval / 2
        } else {
            Duration::ZERO
        };
        let deadline = (now + self.interval - tenth).min(cell);
        Course { deadline, spread }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn interval_mode_starts_at_once_and_then_keeps_the_grid() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Interval, MINUTE);
        assert_eq!(schedule.next_start(start), Some(start));
        let first = schedule.started(start, 0.5);
        assert_eq!(first.spread, Duration::ZERO);
        assert_eq!(first.deadline, start + Duration::from_secs(54));
        assert_eq!(
            schedule.next_start(start),
            Some(start + Duration::from_secs(63))
        );
        assert_eq!(
            schedule
                .started(start + Duration::from_secs(64), 0.0)
                .spread,
            MINUTE / 2
        );
        assert_eq!(schedule.next_start(start), Some(start + 2 * MINUTE));
    }

    #[test]
    fn time_slept_through_is_not_made_up_for() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Interval, MINUTE);
        schedule.started(start, 0.0);
        schedule.started(start + 10 * MINUTE + MINUTE / 2, 0.0);
        assert_eq!(
            schedule.next_start(start),
            Some(start + 11 * MINUTE + MINUTE / 2)
        );
    }

    #[test]
    fn scrape_mode_waits_to_be_asked_and_asks_at_most_once_per_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Mode::Scrape, MINUTE);
        assert_eq!(schedule.next_start(start), None);
        assert!(schedule.is_due(start));
        assert_eq!(schedule.fresh_until(), None);
        assert_eq!(schedule.started(start, 0.0).spread, Duration::ZERO);
        assert_eq!(schedule.fresh_until(), Some(start + MINUTE));
        assert!(!schedule.is_due(start + MINUTE - Duration::from_nanos(1)));
        assert!(schedule.is_due(start + MINUTE));
        assert_eq!(schedule.started(start + MINUTE, 0.0).spread, Duration::ZERO);
    }

    proptest! {
        /// Thousands of lives of an exporter, in virtual time.
        #[test]
        fn starts_never_meet_the_end_of_the_collection_before(
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
                ended = Some(schedule.started(now, jitter).deadline);
                let ideal = origin + interval * u32::try_from(count).expect("few steps");
                prop_assert!(now >= ideal && now <= ideal + interval.mul_f64(0.11), "the grid has drifted");
            }
        }

        #[test]
        fn any_sequence_of_scrapes_starts_at_most_one_collection_per_interval(
            gaps in proptest::collection::vec(0_u64..40_000, 1..300),
        ) {
            let mut schedule = Schedule::new(Mode::Scrape, MINUTE);
            let mut now = Instant::now();
            let mut last: Option<Instant> = None;
            for gap in gaps {
                now += Duration::from_millis(gap);
                let due = schedule.is_due(now);
                prop_assert_eq!(due, last.is_none_or(|last| now - last >= MINUTE));
                if due {
                    schedule.started(now, 0.0);
                    last = Some(now);
                }
            }
        }
    }
}
