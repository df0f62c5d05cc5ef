//! Access tokens: from a refresh token to the bearer that the API takes, renewed ahead of time for years.
//!
//! The one place in which a refresh token or a client secret is seen. [`TokenSource`] is what others hold. Collecting
//! readings, and what a 401 from the API leads to, do not belong here.
//!
//! | file | holds |
//! |---|---|
//! | `source` | THE place a token is refreshed: the loop round the policy |
//! | `policy` | when to ask, pure |
//! | `request` | one token request and what its answer means |
//! | `credentials` | what a request is made with; which refresh token wins |
//! | `store` | the file that keeps rotated refresh tokens |
//! | `login` | a person's login, from the URL to the refresh token |
//! | `destination` | where the refresh token of a login goes |
//! | `atomic_file` | atomic file replacement |
//! | `token` | one access token and its lifetime |
//! | `scrub` | server's words made safe to show |

mod atomic_file;
mod credentials;
pub mod destination;
pub mod login;
mod policy;
mod request;
mod scrub;
mod source;
pub mod store;
mod token;

use std::time::Duration;

pub use request::{Reply as TokenReply, understand as decode_token_reply};
pub use scrub::Scrubber;
pub use source::{StartError, Status, TokenSource};
pub use token::AccessToken;

use crate::stats::Reason;

/// Why there is no access token, by what to do about it. Every text in it is safe to show.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Nobody has put a refresh token where it is looked for: wait for it.
    #[error("no refresh token: {0}")]
    RefreshTokenMissing(String),
    /// Nobody has put the client's credentials where they are looked for: wait for them.
    #[error("no client credentials: {0}")]
    ClientMissing(String),
    /// The refresh token is expired or revoked: a person must log in.
    #[error("the refresh token is not accepted: {0}")]
    InvalidGrant(String),
    /// Client id or secret are wrong: a person must mend them.
    #[error("the client id or secret is not accepted: {0}")]
    InvalidClient(String),
    /// Anything that may pass by itself: try again later.
    #[error("no access token: {what}")]
    Unavailable {
        /// What kind of failure.
        reason: Reason,
        /// What was seen.
        what: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl TokenError {
    /// Its label value.
    pub fn reason(&self) -> Reason {
        match self {
            Self::RefreshTokenMissing(_) | Self::InvalidGrant(_) => Reason::InvalidGrant,
            Self::ClientMissing(_) | Self::InvalidClient(_) => Reason::InvalidClient,
            Self::Unavailable { reason, .. } => *reason,
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RefreshTokenMissing(_) => {
                "put a refresh token there or run `lightfi-exporter login`"
            }
            Self::ClientMissing(_) => "put it there",
            Self::InvalidGrant(_) => {
                "run `lightfi-exporter login` or put a new refresh token in place"
            }
            Self::InvalidClient(_) => {
                "mend oauth.client_id, oauth.client_secret or oauth.client_auth"
            }
            Self::Unavailable { reason, .. } => match reason {
                Reason::ServerError | Reason::RateLimited => "only time helps",
                Reason::Timeout | Reason::Connect => {
                    "look at oauth.token_url, the network and its proxies, api.ca_file and api.timeout"
                }
                _ => "look whether oauth.token_url is right",
            },
        }
    }

    /// The same, and what a running exporter does by itself.
    pub fn advice(&self) -> String {
        let by_itself = match self {
            Self::RefreshTokenMissing(_) | Self::ClientMissing(_) => "it is taken up by itself",
            Self::InvalidGrant(_) => "a new one in a file or the token store is taken up by itself",
            Self::InvalidClient(_) => "changed files are taken up by themselves",
            Self::Unavailable { .. } => {
                "it is asked again by itself, at longest intervals of 60s unless the server wants more"
            }
        };
        format!("{}; {by_itself}", self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_a_person_can_do_and_what_happens_by_itself() {
        let unavailable = |reason| TokenError::Unavailable {
            reason,
            what: String::new(),
            retry_after: None,
        };
        for (error, remedy, by_itself) in [
            (
                TokenError::RefreshTokenMissing(String::new()),
                "run `lightfi-exporter login`",
                "taken up by itself",
            ),
            (
                TokenError::ClientMissing(String::new()),
                "put it there",
                "taken up by itself",
            ),
            (
                TokenError::InvalidGrant(String::new()),
                "run `lightfi-exporter login`",
                "a new one",
            ),
            (
                TokenError::InvalidClient(String::new()),
                "oauth.client_secret",
                "changed files",
            ),
            (unavailable(Reason::ServerError), "only time", "asked again"),
            (unavailable(Reason::RateLimited), "only time", "asked again"),
            (unavailable(Reason::Timeout), "the network", "asked again"),
            (unavailable(Reason::Connect), "the network", "asked again"),
            (
                unavailable(Reason::Malformed),
                "oauth.token_url is right",
                "asked again",
            ),
        ] {
            assert!(error.remedy().contains(remedy), "{error:?}");
            let advice = error.advice();
            assert!(advice.starts_with(error.remedy()), "{advice}");
            assert!(advice.contains(by_itself), "{advice}");
        }
    }
}
