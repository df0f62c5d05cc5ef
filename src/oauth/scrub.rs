//! Text that came from a server, made safe to show: a careless one repeats what it was sent.
//!
//! `source` tells it every secret it sees; whoever shows a server's words passes them through.

use std::sync::{Mutex, MutexGuard, PoisonError};

use url::form_urlencoded;

use crate::config::Secret;

/// Enough for all secrets of one account and the last rotations of its tokens.
const REMEMBERED: usize = 64;

/// As much of a server's words as helps.
const SHOWN_CHARS: usize = 200;

/// Every secret seen lately.
#[derive(Default)]
pub(super) struct Scrubber {
    secrets: Mutex<Vec<Secret>>,
}

impl Scrubber {
    /// `secret` must not be shown from here on, neither as it is nor as a form carries it.
    pub(super) fn learn(&self, secret: &Secret) {
        let text = secret.expose();
        let encoded = form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut secrets = self.secrets();
        for form in [text, encoded.as_str()] {
            if form.is_empty() {
                continue;
            }
            secrets.retain(|known| known.expose() != form);
            secrets.push(Secret::new(form));
        }
        let surplus = secrets.len().saturating_sub(REMEMBERED);
        secrets.drain(..surplus);
    }

    /// `text` on one line, with every known secret replaced.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text: String = text
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        let secrets = self.secrets();
        let mut longest_first: Vec<&str> = secrets.iter().map(Secret::expose).collect();
        // A secret may be part of another: the longer one must go while it is whole.
        longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in longest_first {
            if text.contains(secret) {
                text = text.replace(secret, "<secret>");
            }
        }
        text
    }

    /// The same, cut to what helps.
    pub(super) fn excerpt(&self, text: &str) -> String {
        // Cut last: half a secret is not recognised.
        self.scrub(text).chars().take(SHOWN_CHARS).collect()
    }

    fn secrets(&self) -> MutexGuard<'_, Vec<Secret>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_secrets_do_not_show_however_they_are_sent_back() {
        let scrubber = Scrubber::default();
        scrubber.learn(&Secret::new("s3cret/with+signs"));
        scrubber.learn(&Secret::new("s3cret"));
        assert_eq!(
            scrubber.scrub("got s3cret/with+signs, s3cret%2Fwith%2Bsigns and s3\ncret"),
            "got <secret>, <secret> and <secret>"
        );
    }

    #[test]
    fn an_excerpt_is_one_short_line_without_half_a_secret() {
        let scrubber = Scrubber::default();
        scrubber.learn(&Secret::new("abcdefghij"));
        let text = format!("{}\r\n\u{1b}[31mabcdefghij", "é".repeat(195));
        let excerpt = scrubber.excerpt(&text);
        assert_eq!(excerpt, format!("{}[31m<", "é".repeat(195)));
    }

    #[test]
    fn old_secrets_make_room_but_one_in_use_stays() {
        let scrubber = Scrubber::default();
        let in_use = Secret::new("in-use");
        for rotation in 0..1000 {
            scrubber.learn(&in_use);
            scrubber.learn(&Secret::new(format!("token-{rotation:04}")));
        }
        assert_eq!(scrubber.scrub("in-use token-0999"), "<secret> <secret>");
        assert!(scrubber.secrets().len() <= REMEMBERED);
    }

    #[test]
    fn an_empty_secret_hides_nothing() {
        let scrubber = Scrubber::default();
        scrubber.learn(&Secret::new(""));
        assert_eq!(scrubber.scrub("text"), "text");
    }
}
