//! Decides when the next request may be sent: the rate limit, and the pause that a 429 or a `Retry-After` asks for.
//!
//! Pure: takes the time as an argument and does not wait. What a response asks for is read in `http`; the waiting is done
//! in `client`, the only caller.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The first pause after a 429 that does not say for how long. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause that the API did not ask for.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The longest time between two requests; keeps the arithmetic within what an `Instant` can hold.
const MAX_SPACING_SECONDS: f64 = 86_400.0;

/// The rate limiter of one API. Survives reloads as long as the API stays the same.
#[derive(Clone, Default)]
pub struct SharedRateLimiter(Arc<Mutex<RateLimiter>>);

impl SharedRateLimiter {
    pub(super) fn lock(&self) -> MutexGuard<'_, RateLimiter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the rate limit and of the pause.
#[derive(Debug, Default)]
pub(super) struct RateLimiter {
    spacing: Duration,
    next_slot: Option<Instant>,
    paused_until: Option<Instant>,
    /// The number of 429s in a row without a usable `Retry-After`.
    refusals: u32,
}

/// The answer to one request that wants to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Send it at this time, unless a pause has begun by then.
    SendAt(Instant),
    /// All requests are paused; ask again at this time.
    PausedUntil(Instant),
}

impl RateLimiter {
    /// Changes the rate from `now` on; 0 requests per second is no limit.
    pub(super) fn set_rate(&mut self, requests_per_second: f64, now: Instant) {
        self.spacing = match requests_per_second > 0.0 {
            true => Duration::from_secs_f64((1.0 / requests_per_second).min(MAX_SPACING_SECONDS)),
            false => Duration::ZERO,
        };
        // The requests that held later slots were given up by the reload.
        self.next_slot = self.next_slot.map(|slot| slot.min(now + self.spacing));
    }

    /// Takes the next slot, unless requests are paused.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.paused_until(now) {
            return Admission::PausedUntil(until);
        }
        let slot = self.next_slot.map_or(now, |slot| slot.max(now));
        self.next_slot = Some(slot + self.spacing);
        Admission::SendAt(slot)
    }

    /// Returns the end of the current pause.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Resets the backoff after a response that is no 429.
    pub(super) fn not_refused(&mut self) {
        self.refusals = 0;
    }

    /// Pauses all requests. `retry_after` is `None` if the response did not say for how long, or not in a usable form;
    /// `jitter` is between 0 and 1. A shorter pause does not end a longer one.
    pub(super) fn pause(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        let pause = retry_after.unwrap_or_else(|| {
            let backoff = FIRST_BACKOFF * (1 << self.refusals.min(6));
            self.refusals = self.refusals.saturating_add(1);
            backoff.min(MAX_BACKOFF).mul_f64(1.0 + jitter / 2.0)
        });
        self.paused_until = self.paused_until.max(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission::*, *};

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(requests_per_second: f64) -> RateLimiter {
        let mut limiter = RateLimiter::default();
        limiter.set_rate(requests_per_second, Instant::now());
        limiter
    }

    #[test]
    fn requests_are_spaced_by_the_rate() {
        let start = Instant::now();
        let mut limiter = limiter(4.0);
        assert_eq!(limiter.admit(start), SendAt(start));
        assert_eq!(limiter.admit(start), SendAt(start + SECOND / 4));
        assert_eq!(limiter.admit(start), SendAt(start + SECOND / 2));
        let later = start + 10 * SECOND;
        assert_eq!(limiter.admit(later), SendAt(later));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let start = Instant::now();
        let mut limiter = limiter(0.0);
        assert!((0..1000).all(|_| limiter.admit(start) == SendAt(start)));
    }

    #[test]
    fn a_pause_stops_all_requests_and_a_shorter_one_does_not_end_it() {
        let start = Instant::now();
        let mut limiter = limiter(0.0);
        limiter.pause(start, Some(10 * SECOND), 0.0);
        limiter.pause(start, Some(SECOND), 0.0);
        let end = start + 10 * SECOND;
        assert_eq!(limiter.admit(end - SECOND), PausedUntil(end));
        assert_eq!(limiter.admit(end), SendAt(end));
    }

    #[test]
    fn pauses_without_a_retry_after_grow_until_a_response_is_no_429() {
        let mut limiter = limiter(0.0);
        let mut pauses = Vec::new();
        let mut now = Instant::now();
        for _ in 0..8 {
            limiter.pause(now, None, 0.0);
            let until = limiter.paused_until(now).unwrap_or(now);
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        limiter.not_refused();
        limiter.pause(now, None, 1.0);
        assert_eq!(limiter.paused_until(now), Some(now + SECOND * 3 / 2));
    }

    #[test]
    fn a_new_rate_holds_at_once_and_ends_no_pause() {
        let now = Instant::now();
        let mut limiter = limiter(1.0);
        for slot in 0..4 {
            assert_eq!(limiter.admit(now), SendAt(now + SECOND * slot));
        }
        limiter.set_rate(4.0, now);
        assert_eq!(limiter.admit(now), SendAt(now + SECOND / 4));
        limiter.pause(now, Some(60 * SECOND), 0.0);
        limiter.set_rate(0.0, now);
        assert_eq!(limiter.admit(now), PausedUntil(now + 60 * SECOND));
    }
}
