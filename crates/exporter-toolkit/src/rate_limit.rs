//! The rate limit of requests: a token bucket.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::RateLimit;

/// A token bucket, full at first.
pub(crate) struct RateLimiter {
    pub(crate) limit: RateLimit,
    /// When the bucket will be full again. Each admitted request moves this one interval on.
    full_at: Mutex<Instant>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Self {
        let full_at = Mutex::new(now);
        Self { limit, full_at }
    }

    /// Returns whether one more request is admitted at `now`.
    pub(crate) fn admit(&self, now: Instant) -> bool {
        let RateLimit { interval, burst } = self.limit;
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + interval;
        let capacity = interval.checked_mul(burst).unwrap_or(Duration::MAX);
        let admitted = next - now <= capacity;
        if admitted {
            *full_at = next;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(interval: Duration, burst: u32, at: &[u64]) -> Vec<bool> {
        let start = Instant::now();
        let limiter = RateLimiter::new(RateLimit { interval, burst }, start);
        at.iter()
            .map(|millis| limiter.admit(start + Duration::from_millis(*millis)))
            .collect()
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_one_request_per_interval() {
        let times = [0, 0, 0, 999, 1000, 1000, 1999, 2000, 60_000, 60_000, 60_000];
        assert_eq!(
            admitted(Duration::from_secs(1), 2, &times),
            [
                true, true, false, false, true, false, false, true, true, true, false
            ]
        );
    }

    #[test]
    fn a_burst_of_zero_admits_nothing_and_long_intervals_do_not_overflow() {
        let millisecond = Duration::from_millis(1);
        assert_eq!(admitted(millisecond, 0, &[0, 5000]), [false, false]);
        let longest = Duration::from_nanos(i64::MAX as u64);
        assert_eq!(admitted(longest, u32::MAX, &[0, 0]), [true, true]);
        assert_eq!(admitted(longest, 1, &[0, 0]), [true, false]);
    }
}
