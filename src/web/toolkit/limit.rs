//! How many requests are let in: a token bucket. Pure: `now` is handed in.

use std::time::{Duration, Instant};

use super::file::RateLimit;

/// Begins full.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    /// When it will be full: each request let in moves it one interval on, so that nothing has to be counted up.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        Self {
            limit,
            full_at: now,
        }
    }

    /// Whether one more may come in now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.limit.interval;
        let room = self
            .limit
            .interval
            .checked_mul(self.limit.burst)
            .unwrap_or(Duration::MAX);
        let admitted = full_at - now <= room;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(interval: Duration, burst: u32, at: &[u64]) -> Vec<bool> {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit { interval, burst }, start);
        at.iter()
            .map(|millis| bucket.admit(start + Duration::from_millis(*millis)))
            .collect()
    }

    #[test]
    fn a_burst_comes_in_at_once_and_one_more_each_interval() {
        let second = Duration::from_secs(1);
        assert_eq!(
            admitted(
                second,
                2,
                &[0, 0, 0, 999, 1000, 1000, 1999, 2000, 60_000, 60_000, 60_000]
            ),
            [
                true, true, false, false, true, false, false, true, true, true, false
            ]
        );
    }

    #[test]
    fn a_burst_of_none_lets_nobody_in_and_long_intervals_do_not_overflow() {
        assert_eq!(
            admitted(Duration::from_millis(1), 0, &[0, 5000]),
            [false, false]
        );
        let ages = Duration::from_nanos(i64::MAX as u64);
        assert_eq!(admitted(ages, u32::MAX, &[0, 0]), [true, true]);
        assert_eq!(admitted(ages, 1, &[0, 0]), [true, false]);
    }
}
