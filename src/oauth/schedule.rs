//! Decides when an access token is requested and which one is given out: a pure state machine that holds the current
//! token, the last failure and the credentials that were refused.
//!
//! Times are handed in as the time since the source was created, and so are random numbers; nothing here waits, reads a
//! clock or sends a request. `source` calls it.

use std::{sync::Arc, time::Duration};

use super::{AccessToken, TokenError, credentials::Credentials};

/// Servers count whole seconds, so a token may end this long before its stated lifetime is over.
const SERVER_RESOLUTION: Duration = Duration::from_secs(1);

const MIN_BACKOFF: Duration = Duration::from_secs(1);

const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Refused credentials are tried again after this. Usually only a person can help, but servers make mistakes too.
const REFUSED_RETRY: Duration = Duration::from_secs(5 * 60);

/// More than a person tries one after the other.
const MAX_REFUSED: usize = 32;

/// The state of one token source.
pub(super) struct RefreshSchedule {
    /// A token is renewed this long before its end.
    margin: Duration,
    in_flight: bool,
    current: Option<CurrentToken>,
    /// The last failure since the last success.
    failure: Option<Failure>,
    /// Credentials refused since the last success.
    refused: Vec<Credentials>,
}

struct CurrentToken {
    token: Arc<AccessToken>,
    renew_at: Duration,
    /// From here on a newer one is preferred, and this one is used only if there is none.
    stale_at: Duration,
    expires_at: Duration,
}

struct Failure {
    error: TokenError,
    /// `Duration::MAX` where only new credentials help.
    retry_at: Duration,
    /// How many [`TokenError::Unavailable`] there were in a row.
    attempts: u32,
}

/// The answer to a caller that needs a token now.
#[derive(Debug)]
pub(super) enum OnDemand {
    /// Use this token.
    Use(Arc<AccessToken>),
    /// A request is in flight: ask again when it has ended.
    Wait,
    /// Send a request, which counts as in flight from now on, and ask again when it has ended.
    Start,
    /// No token can be had now, for this reason.
    Refuse(TokenError),
}

/// What kind of success a new token is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Success {
    First,
    Renewed,
    /// The requests before had failed.
    Recovered {
        /// There was no valid token in the meantime.
        had_no_token: bool,
    },
}

impl RefreshSchedule {
    /// Creates a schedule without a token; the first request is due at once.
    pub(super) fn new(margin: Duration) -> Self {
        Self {
            margin,
            in_flight: false,
            current: None,
            failure: None,
            refused: Vec::new(),
        }
    }

    /// Returns what a caller that needs a token does now.
    pub(super) fn on_demand(&mut self, now: Duration) -> OnDemand {
        if let Some(current) = &self.current
            && now < current.stale_at
        {
            return OnDemand::Use(current.token.clone());
        }
        if self.in_flight {
            return OnDemand::Wait;
        }
        if let Some(failure) = &self.failure
            && now < failure.retry_at
        {
            return match &self.current {
                Some(current) if now < current.expires_at => OnDemand::Use(current.token.clone()),
                _ => OnDemand::Refuse(failure.error.clone()),
            };
        }
        self.in_flight = true;
        OnDemand::Start
    }

    /// Returns when the background task sends the next request, if nothing changes before.
    pub(super) fn next_refresh_at(&self) -> Duration {
        if self.in_flight {
            return Duration::MAX;
        }
        let renew_at = self.current.as_ref().map(|current| current.renew_at);
        let retry_at = self.failure.as_ref().map(|failure| failure.retry_at);
        renew_at.max(retry_at).unwrap_or_default()
    }

    /// Returns whether the background task must send a request, which counts as in flight from now on.
    pub(super) fn start_if_due(&mut self, now: Duration) -> bool {
        let due = now >= self.next_refresh_at();
        self.in_flight |= due;
        due
    }

    /// The request in flight has ended, whatever its result.
    pub(super) fn ended(&mut self) {
        self.in_flight = false;
    }

    /// A token was received `now`.
    pub(super) fn succeeded(
        &mut self,
        now: Duration,
        token: AccessToken,
        lifetime: Duration,
    ) -> Success {
        let success = match (&self.failure, &self.current) {
            (Some(_), current) => Success::Recovered {
                had_no_token: current.as_ref().is_none_or(|token| now >= token.stale_at),
            },
            (None, Some(_)) => Success::Renewed,
            (None, None) => Success::First,
        };
        let expires_at = now + lifetime;
        self.current = Some(CurrentToken {
            token: Arc::new(token),
            renew_at: expires_at - self.margin.min(lifetime / 2),
            stale_at: expires_at - SERVER_RESOLUTION.min(lifetime / 2),
            expires_at,
        });
        self.failure = None;
        self.refused.clear();
        success
    }

    /// No token was received. Returns whether the failure differs from the one before. `random` is in 0..1.
    pub(super) fn failed(&mut self, now: Duration, error: TokenError, random: f64) -> bool {
        let before = self.failure.take();
        let is_new = before
            .as_ref()
            .is_none_or(|before| !before.error.is_like(&error));
        let mut attempts = 0;
        let retry_at = match &error {
            TokenError::Unavailable { retry_after, .. } => {
                attempts = before.map_or(0, |before| before.attempts) + 1;
                let backoff = backoff(attempts).mul_f64(0.5 + 0.5 * random);
                now + backoff.max(retry_after.unwrap_or_default())
            }
            TokenError::InvalidGrant(_) | TokenError::InvalidClient(_) => now + REFUSED_RETRY,
            TokenError::RefreshTokenMissing(_) | TokenError::ClientMissing(_) => Duration::MAX,
        };
        self.failure = Some(Failure {
            error,
            retry_at,
            attempts,
        });
        is_new
    }

    /// The API does not accept this token: it is renewed at once, and used only until then. A newer one is kept.
    pub(super) fn rejected(&mut self, rejected: &Arc<AccessToken>) {
        if let Some(current) = &mut self.current
            && Arc::ptr_eq(&current.token, rejected)
        {
            current.renew_at = Duration::ZERO;
            current.stale_at = Duration::ZERO;
        }
    }

    /// Remembers credentials that the server has refused.
    pub(super) fn refuse(&mut self, refused: &[Credentials]) {
        self.refused.extend_from_slice(refused);
        let surplus = self.refused.len().saturating_sub(MAX_REFUSED);
        self.refused.drain(..surplus);
    }

    /// Returns the first credentials that were not refused.
    pub(super) fn first_untried<'a>(&self, found: &'a [Credentials]) -> Option<&'a Credentials> {
        found
            .iter()
            .find(|credentials| !self.refused.contains(credentials))
    }

    /// Whether other credentials would end the failure.
    pub(super) fn needs_credentials(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| !matches!(failure.error, TokenError::Unavailable { .. }))
    }

    /// These credentials are there now. If the server has not refused them yet, the next request is due at once.
    pub(super) fn credentials_found(&mut self, found: &[Credentials]) {
        if self.needs_credentials()
            && self.first_untried(found).is_some()
            && let Some(failure) = &mut self.failure
        {
            failure.retry_at = Duration::ZERO;
        }
    }

    /// Whether the current token has not ended.
    pub(super) fn has_valid_token(&self, now: Duration) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| now < current.expires_at)
    }

    /// Whether a request is in flight.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Returns the last failure since the last success.
    pub(super) fn last_error(&self) -> Option<&TokenError> {
        self.failure.as_ref().map(|failure| &failure.error)
    }
}

/// Doubles with each failure.
fn backoff(attempts: u32) -> Duration {
    // Six doublings exceed the maximum; more would overflow.
    let doublings = attempts.saturating_sub(1).min(6);
    (MIN_BACKOFF * 2_u32.pow(doublings)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests;
