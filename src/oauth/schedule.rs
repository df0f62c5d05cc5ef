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

/// The state of one token source.
pub(super) struct RefreshSchedule {
    /// A token is renewed this long before its end.
    margin: Duration,
    current: Option<CurrentToken>,
    /// The last failure since the last success.
    failure: Option<Failure>,
    /// Credentials refused since the last success.
    refused: Vec<Credentials>,
}

struct CurrentToken {
    token: Arc<AccessToken>,
    /// Zero after the API has rejected the token.
    renew_at: Duration,
    /// From here on a newer token is preferred; without one, this is still used.
    prefer_newer_at: Duration,
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
    /// Ask again after a refresh.
    Refresh,
    /// No token can be had now, for this reason.
    Fail(TokenError),
}

impl RefreshSchedule {
    /// Creates a schedule without a token; the first request is due at once.
    pub(super) fn new(margin: Duration) -> Self {
        Self {
            margin,
            current: None,
            failure: None,
            refused: Vec::new(),
        }
    }

    /// Returns the answer to a caller that needs a token now. A token other than `rejected` is preferred.
    pub(super) fn on_demand(&self, now: Duration, rejected: Option<&Arc<AccessToken>>) -> OnDemand {
        let is_rejected = |token| rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, token));
        match (&self.current, &self.failure) {
            (Some(current), _) if now < current.prefer_newer_at && !is_rejected(&current.token) => {
                OnDemand::Use(current.token.clone())
            }
            _ if now >= self.next_refresh_at() => OnDemand::Refresh,
            (Some(current), _) if now < current.expires_at => OnDemand::Use(current.token.clone()),
            (_, Some(failure)) => OnDemand::Fail(failure.error.clone()),
            // A token is due for renewal before it expires, so this does not occur.
            (_, None) => OnDemand::Refresh,
        }
    }

    /// Returns when the next request is due, if nothing changes before. It stays due until its result is known.
    pub(super) fn next_refresh_at(&self) -> Duration {
        let renew_at = self.current.as_ref().map(|current| current.renew_at);
        let retry_at = self.failure.as_ref().map(|failure| failure.retry_at);
        renew_at.max(retry_at).unwrap_or_default()
    }

    /// A token was received `now`.
    pub(super) fn succeeded(&mut self, now: Duration, token: AccessToken, lifetime: Duration) {
        let expires_at = now + lifetime;
        self.current = Some(CurrentToken {
            token: Arc::new(token),
            renew_at: expires_at - self.margin.min(lifetime / 2),
            prefer_newer_at: expires_at - SERVER_RESOLUTION.min(lifetime / 2),
            expires_at,
        });
        self.failure = None;
        self.refused.clear();
    }

    /// No token was received. Returns whether this failure is of another kind than the last one. `random` is in 0..1.
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
                now.saturating_add(backoff.max(retry_after.unwrap_or_default()))
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

    /// The API does not accept this token: it is renewed at once. A newer one is kept.
    pub(super) fn mark_rejected(&mut self, rejected: &Arc<AccessToken>) {
        if let Some(current) = &mut self.current
            && Arc::ptr_eq(&current.token, rejected)
        {
            current.renew_at = Duration::ZERO;
        }
    }

    /// Remembers credentials that the server has refused.
    pub(super) fn mark_refused(&mut self, refused: &Credentials) {
        if !self.refused.contains(refused) {
            self.refused.push(refused.clone());
        }
    }

    /// Returns the first credentials that were not refused.
    pub(super) fn first_not_refused<'a>(
        &self,
        found: &'a [Credentials],
    ) -> Option<&'a Credentials> {
        found
            .iter()
            .find(|credentials| !self.refused.contains(credentials))
    }

    /// Returns whether other credentials would end the failure.
    pub(super) fn needs_credentials(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| !matches!(failure.error, TokenError::Unavailable { .. }))
    }

    /// These credentials are there now. If the server has not refused them yet, the next request is due at once.
    pub(super) fn credentials_found(&mut self, found: &[Credentials]) {
        if self.needs_credentials()
            && self.first_not_refused(found).is_some()
            && let Some(failure) = &mut self.failure
        {
            failure.retry_at = Duration::ZERO;
        }
    }

    /// Returns whether there is a token that has not expired and was not rejected.
    pub(super) fn has_valid_token(&self, now: Duration) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| now < current.expires_at && current.renew_at > Duration::ZERO)
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
