//! When a token is asked for: a pure state machine. Times are handed in as the time since the process's start, and so is
//! chance; nothing here waits, reads a clock or sends. The loop round it is `source`, its only caller.

use std::time::Duration;

/// From the end of one request to the start of the next, so that a server sees at most one a second.
const SPACING: Duration = Duration::from_secs(1);

/// First wait after a failure that time may heal; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after a failure that time may heal.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);

/// Between two requests with credentials that were refused: only a person can help, but servers err too.
const REFUSED_AGAIN: Duration = Duration::from_secs(5 * 60);

/// The state.
pub(super) struct Policy {
    margin: Duration,
    life: Option<Life>,
    in_flight: bool,
    last_ended: Option<Duration>,
    trouble: Trouble,
}

/// Of the token in hand.
#[derive(Debug, Clone, Copy)]
struct Life {
    renew_at: Duration,
    end: Duration,
}

/// What stands between us and the next request, apart from the spacing.
enum Trouble {
    None,
    Backoff {
        failures: u32,
        until: Duration,
        /// The server named the time itself, so new credentials do not shorten it.
        ordered: bool,
    },
    Refused {
        until: Duration,
    },
    Missing,
}

/// Answer to a caller that needs a token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// The token in hand is alive.
    Use,
    /// A request is under way: wait for its end.
    Join,
    /// Send a request; it is counted as under way from here on.
    Start,
    /// Ask again at this time, at most [`SPACING`] away.
    Later(Duration),
    /// There is none to be had now: the last error stands.
    Refuse,
}

/// Answer to the background loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Send a request; it is counted as under way from here on.
    Start,
    /// Nothing before this time, nor before anything else happens.
    At(Duration),
    /// Nothing before something else happens.
    Idle,
}

/// Why a request gave no token, by what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// Time may heal it; the server may have said how much.
    Transient {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// These credentials are refused and no others are known.
    Refused,
    /// These credentials are refused, but there are others.
    OthersKnown,
    /// There is nothing to ask with; no request was sent.
    Missing,
}

impl Policy {
    /// No token yet; the first request may go at once.
    pub(super) fn new(margin: Duration) -> Self {
        Self {
            margin,
            life: None,
            in_flight: false,
            last_ended: None,
            trouble: Trouble::None,
        }
    }

    /// Whether the token in hand is alive.
    pub(super) fn usable(&self, now: Duration) -> bool {
        self.life.is_some_and(|life| now < life.end)
    }

    /// Whether a request is under way.
    pub(super) fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether requests fail or cannot be made.
    pub(super) fn troubled(&self) -> bool {
        !matches!(self.trouble, Trouble::None)
    }

    /// A caller needs a token.
    pub(super) fn demand(&mut self, now: Duration) -> Demand {
        if self.usable(now) {
            return Demand::Use;
        }
        if self.in_flight {
            return Demand::Join;
        }
        if self.barred_until().is_none_or(|until| now < until) {
            return Demand::Refuse;
        }
        let spaced = self.spaced();
        if now < spaced {
            return Demand::Later(spaced);
        }
        self.in_flight = true;
        Demand::Start
    }

    /// The background loop looks for work.
    pub(super) fn renewal(&mut self, now: Duration) -> Renewal {
        if self.in_flight {
            return Renewal::Idle;
        }
        let Some(barred_until) = self.barred_until() else {
            return Renewal::Idle;
        };
        let wanted = self.life.map_or(Duration::ZERO, |life| life.renew_at);
        let at = wanted.max(barred_until).max(self.spaced());
        if now < at {
            return Renewal::At(at);
        }
        self.in_flight = true;
        Renewal::Start
    }

    /// The request under way brought a token that lives so long from `now`.
    pub(super) fn succeeded(&mut self, now: Duration, lifetime: Duration) {
        let end = now + lifetime;
        self.life = Some(Life {
            renew_at: end - self.margin.min(lifetime / 2),
            end,
        });
        self.in_flight = false;
        self.last_ended = Some(now);
        self.trouble = Trouble::None;
    }

    /// The request under way brought none; `chance` is in 0..1.
    pub(super) fn failed(&mut self, now: Duration, setback: Setback, chance: f64) {
        self.in_flight = false;
        if setback != Setback::Missing {
            self.last_ended = Some(now);
        }
        self.trouble = match setback {
            Setback::Transient { retry_after } => {
                let failures = match self.trouble {
                    Trouble::Backoff { failures, .. } => failures.saturating_add(1),
                    _ => 1,
                };
                let backoff = backoff(failures).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
                Trouble::Backoff {
                    failures,
                    until: now + backoff.max(retry_after.unwrap_or_default()),
                    ordered: retry_after.is_some(),
                }
            }
            Setback::Refused => Trouble::Refused {
                until: now + REFUSED_AGAIN,
            },
            Setback::OthersKnown => Trouble::None,
            Setback::Missing => Trouble::Missing,
        };
    }

    /// The API does not take the token in hand.
    pub(super) fn rejected(&mut self) {
        self.life = None;
    }

    /// There are credentials that were not asked with yet.
    pub(super) fn credentials_changed(&mut self) {
        if !matches!(self.trouble, Trouble::Backoff { ordered: true, .. }) {
            self.trouble = Trouble::None;
        }
    }

    /// The request under way was given up without an answer.
    pub(super) fn abandoned(&mut self, now: Duration) {
        self.in_flight = false;
        self.last_ended = Some(now);
    }

    /// `None`: until the credentials change.
    fn barred_until(&self) -> Option<Duration> {
        match self.trouble {
            Trouble::None => Some(Duration::ZERO),
            Trouble::Backoff { until, .. } | Trouble::Refused { until } => Some(until),
            Trouble::Missing => None,
        }
    }

    fn spaced(&self) -> Duration {
        self.last_ended
            .map_or(Duration::ZERO, |ended| ended + SPACING)
    }
}

fn backoff(failures: u32) -> Duration {
    // Six doublings pass the longest wait; more would overflow.
    let doublings = failures.saturating_sub(1).min(6);
    (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LONGEST)
}
