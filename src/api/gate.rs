//! When the next request may be sent: the rate limit and the pause that a 429 or a `Retry-After` asks for. Pure: takes
//! `now`, does not wait.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// However long the API asks us to wait, one hour later it is asked again.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// First pause after a 429 that does not say for how long; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause that nobody asked for.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// One API's gate, which outlasts the clients that reloads make for the same API.
#[derive(Clone, Default)]
pub struct Pace(Arc<Mutex<Gate>>);

impl Pace {
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that nothing has gone through.
#[derive(Debug, Default)]
pub(super) struct Gate {
    spacing: Duration,
    next: Option<Instant>,
    paused_until: Option<Instant>,
    /// 429s in a row without a usable `Retry-After`.
    strikes: u32,
}

/// What the gate says to one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Send it now.
    Now,
    /// Send it then, unless a pause has begun meanwhile.
    At(Instant),
    /// All requests pause; ask again then.
    Paused(Instant),
}

impl Gate {
    /// From `now` on; 0 requests per second = no limit.
    pub(super) fn set_rate(&mut self, requests_per_second: f64, now: Instant) {
        let spacing = if requests_per_second > 0.0 {
            1.0 / requests_per_second
        } else {
            0.0
        };
        self.spacing = Duration::try_from_secs_f64(spacing).unwrap_or(Duration::MAX);
        // Those that stood in line have left it.
        let soonest = self.after(now);
        self.next = self.next.map(|next| next.min(soonest));
    }

    fn after(&self, at: Instant) -> Instant {
        at.checked_add(self.spacing).unwrap_or(at + MAX_PAUSE)
    }

    /// Takes the next place in the line, unless there is a pause.
    pub(super) fn ask(&mut self, now: Instant) -> Pass {
        if let Some(until) = self.paused(now) {
            return Pass::Paused(until);
        }
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(self.after(at));
        if at > now { Pass::At(at) } else { Pass::Now }
    }

    /// The end of the pause that holds now.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// An answer came that was no 429.
    pub(super) fn answered(&mut self) {
        self.strikes = 0;
    }

    /// An answer asks for a pause: `retry_after` as it was said, or `None` where it was missing or nonsense.
    /// `jitter` is 0 to 1. A shorter pause never ends a longer one.
    pub(super) fn pause(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        let pause = retry_after.unwrap_or_else(|| {
            let backoff = FIRST_BACKOFF
                .saturating_mul(1 << self.strikes.min(6))
                .min(MAX_BACKOFF);
            self.strikes = self.strikes.saturating_add(1);
            backoff.mul_f64(1.0 + jitter / 2.0)
        });
        let until = now + pause.min(MAX_PAUSE);
        self.paused_until = Some(self.paused_until.map_or(until, |held| held.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(requests_per_second: f64) -> Gate {
        let mut gate = Gate::default();
        gate.set_rate(requests_per_second, Instant::now());
        gate
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn requests_are_spaced_by_the_rate() {
        let start = Instant::now();
        let mut gate = gate(4.0);
        assert_eq!(gate.ask(start), Pass::Now);
        assert_eq!(gate.ask(start), Pass::At(start + SECOND / 4));
        assert_eq!(gate.ask(start), Pass::At(start + SECOND / 2));
        assert_eq!(gate.ask(start + 10 * SECOND), Pass::Now);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let start = Instant::now();
        let mut gate = gate(0.0);
        assert!((0..1000).all(|_| gate.ask(start) == Pass::Now));
    }

    #[test]
    fn a_pause_holds_everyone_and_a_shorter_one_does_not_end_it() {
        let start = Instant::now();
        let mut gate = gate(0.0);
        gate.pause(start, Some(10 * SECOND), 0.0);
        gate.pause(start, Some(SECOND), 0.0);
        assert_eq!(
            gate.ask(start + 9 * SECOND),
            Pass::Paused(start + 10 * SECOND)
        );
        assert_eq!(gate.ask(start + 10 * SECOND), Pass::Now);
    }

    #[test]
    fn nobody_pauses_us_for_more_than_an_hour() {
        let start = Instant::now();
        let mut gate = gate(0.0);
        gate.pause(start, Some(Duration::from_secs(u64::MAX)), 0.0);
        assert_eq!(gate.paused(start), Some(start + MAX_PAUSE));
    }

    #[test]
    fn refusals_without_a_time_back_off_further_each_until_an_answer_comes() {
        let start = Instant::now();
        let mut gate = gate(0.0);
        let mut pauses = Vec::new();
        let mut now = start;
        for _ in 0..8 {
            gate.pause(now, None, 0.0);
            let until = gate.paused(now).unwrap_or(now);
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        gate.answered();
        gate.pause(now, None, 1.0);
        assert_eq!(gate.paused(now), Some(now + SECOND * 3 / 2));
    }

    #[test]
    fn another_rate_begins_at_once_and_ends_no_pause() {
        let now = Instant::now();
        let mut gate = gate(1.0);
        assert_eq!(gate.ask(now), Pass::Now);
        for place in 1..4 {
            assert_eq!(gate.ask(now), Pass::At(now + SECOND * place));
        }
        gate.set_rate(4.0, now);
        assert_eq!(gate.ask(now), Pass::At(now + SECOND / 4));
        gate.pause(now, Some(60 * SECOND), 0.0);
        gate.set_rate(0.0, now);
        assert_eq!(gate.ask(now), Pass::Paused(now + 60 * SECOND));
    }
}
