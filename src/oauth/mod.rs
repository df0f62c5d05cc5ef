//! Access tokens: exchanges a refresh token for the access token that the API accepts, and renews it ahead of time.
//!
//! The only module that uses the text of a refresh token or a client secret. Other modules use [`TokenSource`]. Collecting
//! readings does not belong here, nor does repeating an API request after a 401: `api/client` does that, with
//! [`TokenSource::replace`].
//!
//! | file | contains |
//! |---|---|
//! | `source` | the only place that refreshes: the I/O around the schedule |
//! | `schedule` | when to refresh; pure |
//! | `request` | one token request and the meaning of its reply |
//! | `credentials` | the credentials of a request; which refresh token takes precedence |
//! | `store` | the token store: the file that keeps the rotated refresh token |
//! | `login` | a login in the browser, from the URL to the refresh token |
//! | `destination` | where the refresh token of a login is written |
//! | `atomic_file` | atomic file replacement |
//! | `token` | an access token and its lifetime |
//! | `redact` | removes secrets from a server's text |

mod atomic_file;
mod credentials;
pub mod destination;
pub mod login;
mod redact;
mod request;
mod schedule;
mod source;
pub mod store;
#[cfg(test)]
mod test_fixtures;
mod token;

use std::{
    mem::discriminant,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use redact::Redactor;
pub use request::{TokenResponse, parse_token_response};
pub use source::{TokenSource, TokenStatus, TokenStoreError};
pub use token::AccessToken;

use crate::stats::Reason;

/// Why there is no access token; each variant needs another reaction. Its text contains no secret.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Neither configuration nor token store holds a readable refresh token.
    #[error("no refresh token: {0}")]
    RefreshTokenMissing(String),
    /// The client id or secret cannot be read.
    #[error("no client credentials: {0}")]
    ClientMissing(String),
    /// The refresh token is expired or revoked: a new login is needed.
    #[error("the refresh token is not accepted: {0}")]
    InvalidGrant(String),
    /// The server does not accept the client: wrong id or secret, or a client that may not use this grant type.
    #[error("the client id or secret is not accepted: {0}")]
    InvalidClient(String),
    /// Anything else, where a retry may help.
    #[error("no access token: {what}")]
    Unavailable {
        /// The kind of failure.
        reason: Reason,
        /// What happened.
        what: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
}

impl TokenError {
    /// Returns the value for the label `reason`.
    pub fn reason(&self) -> Reason {
        match self {
            Self::RefreshTokenMissing(_) | Self::InvalidGrant(_) => Reason::InvalidGrant,
            Self::ClientMissing(_) | Self::InvalidClient(_) => Reason::InvalidClient,
            Self::Unavailable { reason, .. } => *reason,
        }
    }

    /// Returns what an operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RefreshTokenMissing(_) | Self::InvalidGrant(_) => {
                "run `lightfi-exporter login` or set a new refresh token"
            }
            Self::ClientMissing(_) => {
                "make sure that the file exists, is readable and is not empty"
            }
            Self::InvalidClient(_) => {
                "check oauth.client_id, oauth.client_secret and oauth.client_auth"
            }
            Self::Unavailable { reason, .. } => match reason {
                Reason::ServerError | Reason::RateLimited => "retry later",
                Reason::Timeout | Reason::Connect => {
                    "check oauth.token_url, the network and its proxies, api.ca_file and api.timeout"
                }
                Reason::Unauthorized | Reason::Forbidden => {
                    "check oauth.token_url, oauth.client_id, oauth.client_secret and oauth.client_auth"
                }
                _ => "check oauth.token_url",
            },
        }
    }

    /// Returns the remedy and what a running exporter does without it.
    pub fn advice(&self) -> String {
        let automatic = match self {
            Self::Unavailable { .. } => "the exporter retries automatically",
            _ => "changes of configuration need a reload, changed files are read automatically",
        };
        format!("{}; {automatic}", self.remedy())
    }

    fn unavailable(reason: Reason, what: String) -> Self {
        Self::Unavailable {
            reason,
            what,
            retry_after: None,
        }
    }

    /// Returns whether both are the same kind of failure, whatever their text.
    fn is_like(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.reason() == other.reason()
    }
}

/// Locks a mutex whose data is whole even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_to_do() {
        let unavailable = |reason| TokenError::unavailable(reason, String::new());
        let text = String::new;
        let login = "lightfi-exporter login";
        for (error, remedy) in [
            (TokenError::RefreshTokenMissing(text()), login),
            (TokenError::InvalidGrant(text()), login),
            (TokenError::ClientMissing(text()), "is readable"),
            (TokenError::InvalidClient(text()), "oauth.client_secret"),
            (unavailable(Reason::ServerError), "retry later"),
            (unavailable(Reason::Timeout), "the network"),
            (unavailable(Reason::Malformed), "check oauth.token_url"),
        ] {
            let advice = error.advice();
            assert!(advice.contains(remedy), "{advice}");
            assert!(advice.ends_with("automatically"), "{advice}");
        }
    }
}
