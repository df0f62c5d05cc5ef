//! The rate limit of requests (`rate_limit`): a token bucket.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config_file::{RateLimitSection, given};

/// The longest duration of Go: about 292 years.
const MAX_DURATION: Duration = Duration::from_nanos(i64::MAX as u64);

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// One request per interval, and up to `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateLimit {
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

/// A token bucket, full at first.
pub(crate) struct RateLimiter {
    pub(crate) limit: RateLimit,
    /// When the bucket will be full again. Each admitted request moves this one interval on.
    full_at: Mutex<Instant>,
}

impl RateLimit {
    /// Returns `None` if the section sets no limit.
    pub(crate) fn new(section: &RateLimitSection) -> Result<Option<Self>, String> {
        let interval = parse_duration(given(section.interval.as_ref()).unwrap_or("0"));
        let interval = interval.ok_or(
            "rate_limit.interval: invalid value, expected a duration such as 100ms or 1s, or 0 for no limit",
        )?;
        let burst = given(section.burst.as_ref()).unwrap_or("0").parse();
        let burst =
            burst.map_err(|_| "rate_limit.burst: invalid value, expected a whole number")?;
        Ok((!interval.is_zero()).then_some(Self { interval, burst }))
    }
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

/// Reads a duration as Go writes it: numbers, each with a unit, such as `1h30m`, or a bare 0.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut seconds = 0.0;
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * size;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (duration <= MAX_DURATION).then_some(duration)
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
        assert_eq!(admitted(MAX_DURATION, u32::MAX, &[0, 0]), [true, true]);
        assert_eq!(admitted(MAX_DURATION, 1, &[0, 0]), [true, false]);
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1000),
            ("1.5s", 1500),
            ("1h1m1s1ms", 3_661_001),
            ("+100ms", 100),
            (".5s", 500),
            ("2000us", 2),
            ("2000µs", 2),
        ] {
            let expected = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1.2.3s",
            "1s1",
            "1e9h",
            "99999999999h",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
