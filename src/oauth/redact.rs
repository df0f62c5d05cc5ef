//! Removes known secrets from text that came from a server, because a server may repeat what it was sent.
//!
//! `source` and `login` register every secret they use; whoever shows a server's text passes it through here.

use std::sync::Mutex;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use url::form_urlencoded;

use super::lock;
use crate::config::Secret;

/// Enough for all secrets of one account and the last rotations of its tokens.
const MAX_SECRETS: usize = 32;

/// The length of an excerpt in characters.
const EXCERPT_CHARS: usize = 200;

/// Shorter pieces of base64 occur in ordinary words.
const MIN_BASE64: usize = 8;

/// Shorter secrets occur in ordinary names, and are looked for only in other texts.
const MIN_IN_NAMES: usize = 8;

const REPLACEMENT: &str = "<secret>";

/// Knows the most recent secrets and replaces them in texts.
#[derive(Default)]
pub struct Redactor {
    /// The most recently registered last.
    secrets: Mutex<Vec<Forms>>,
}

/// The texts that reveal a secret: the secret itself, form-encoded, and in base64.
type Forms = Vec<Secret>;

impl Redactor {
    /// Hides `secret` from here on, also where it is form-encoded or in base64.
    pub fn register_secret(&self, secret: &Secret) {
        if secret.expose().is_empty() {
            return;
        }
        let mut secrets = lock(&self.secrets);
        let known = secrets.iter().position(|forms| forms[0] == *secret);
        let forms = known.map_or_else(|| forms(secret), |index| secrets.remove(index));
        secrets.push(forms);
        let surplus = secrets.len().saturating_sub(MAX_SECRETS);
        secrets.drain(..surplus);
    }

    /// Returns `text` on one line with every known secret replaced.
    pub fn redact(&self, text: &str) -> String {
        // First, because a control character may stand inside a secret.
        let printable: String = text.chars().filter(|c| !c.is_control()).collect();
        self.replace_secrets(printable, 1)
    }

    /// Returns the beginning of the redacted text.
    pub fn excerpt(&self, text: &str) -> String {
        // Cut last, because half a secret is not recognised.
        self.redact(text).chars().take(EXCERPT_CHARS).collect()
    }

    /// Returns `error` and `error_description` of an OAuth error (RFC 6749, 5.2), redacted and shortened.
    pub(super) fn error_text(&self, error: &str, description: Option<&str>) -> String {
        let error = self.excerpt(error);
        match description {
            Some(description) if !description.is_empty() => {
                format!("{error} ({})", self.excerpt(description))
            }
            _ => error,
        }
    }

    /// Returns a name or an id from a server unchanged but for the secrets in it.
    pub fn redact_name(&self, name: String) -> String {
        self.replace_secrets(name, MIN_IN_NAMES)
    }

    fn replace_secrets(&self, mut text: String, min_length: usize) -> String {
        let secrets = lock(&self.secrets);
        let mut candidates: Vec<&str> = secrets
            .iter()
            .flatten()
            .map(Secret::expose)
            .filter(|form| (min_length..=text.len()).contains(&form.len()))
            .collect();
        // A secret may be part of a longer one, which is recognised only while it is whole.
        candidates.sort_by_key(|form| std::cmp::Reverse(form.len()));
        for form in candidates {
            if text.contains(form) {
                text = text.replace(form, REPLACEMENT);
            }
        }
        text
    }
}

fn forms(secret: &Secret) -> Forms {
    let bytes = secret.expose().as_bytes();
    let form_encoded: String = form_urlencoded::byte_serialize(bytes).collect();
    let mut forms = vec![secret.clone(), Secret::new(form_encoded)];
    // The base64 of a longer text that contains the secret, such as `Basic` credentials. Three bytes make four
    // characters, so there are three positions to start at. Characters that also depend on a byte outside the secret are
    // left out.
    for (bytes_before, shared_chars) in [(0, 0), (1, 2), (2, 3)] {
        let text = [&[0; 2][..bytes_before], bytes].concat();
        let whole_chars = text.len() * 8 / 6;
        for alphabet in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let encoded = alphabet.encode(&text);
            let form = encoded.get(shared_chars..whole_chars).unwrap_or_default();
            if form.len() >= MIN_BASE64 {
                forms.push(Secret::new(form));
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let redactor = Redactor::default();
        for secret in secrets {
            redactor.register_secret(&Secret::new(*secret));
        }
        redactor
    }

    #[test]
    fn known_secrets_are_replaced_as_they_are_and_form_encoded() {
        let redactor = redactor(&["s3cret/with+signs", "s3cret", ""]);
        assert_eq!(
            redactor.redact("got s3cret/with+signs, s3cret%2Fwith%2Bsigns and s3\ncret"),
            "got <secret>, <secret> and <secret>"
        );
        assert_eq!(redactor.redact("100% of a%20b+c"), "100% of a%20b+c");
    }

    #[test]
    fn secrets_inside_base64_are_replaced_at_any_position() {
        let secret = "s3cret?>with~signs";
        let redactor = redactor(&[secret, "ab"]);
        for before in ["", "i", "id", "id:"] {
            for after in ["", "!", "!!"] {
                let text = format!("{before}{secret}{after}");
                for alphabet in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
                    let redacted = redactor.redact(&format!("got {}==", alphabet.encode(&text)));
                    assert!(redacted.contains(REPLACEMENT), "{text}: {redacted}");
                    assert!(redacted.len() < 30, "{text}: {redacted}");
                }
            }
        }
        assert_eq!(redactor.redact("YWI"), "YWI", "too short to be recognised");
    }

    #[test]
    fn a_name_is_unchanged_unless_it_contains_a_long_secret() {
        let redactor = redactor(&["a+long/secret", "short"]);
        let redact = |name: &str| redactor.redact_name(name.to_owned());
        for name in ["Boardroom", "a short\nand narrow corridor", "a long secret"] {
            assert_eq!(redact(name), name);
        }
        assert_eq!(redact("a+long/secret"), "<secret>");
        assert_eq!(redact("my a%2Blong%2Fsecret"), "my <secret>");
    }

    #[test]
    fn an_excerpt_is_one_short_line_without_half_a_secret() {
        let text = format!("{}\r\n\u{1b}[31mabcdefghij", "é".repeat(195));
        let excerpt = redactor(&["abcdefghij"]).excerpt(&text);
        assert_eq!(excerpt, format!("{}[31m<", "é".repeat(195)));
    }

    #[test]
    fn the_oldest_secrets_are_forgotten_but_not_one_in_use() {
        let redactor = Redactor::default();
        for rotation in 0..1000 {
            redactor.register_secret(&Secret::new("in-use"));
            redactor.register_secret(&Secret::new(format!("token-{rotation:04}")));
        }
        assert_eq!(redactor.redact("in-use token-0999"), "<secret> <secret>");
        assert_eq!(redactor.redact("token-0000"), "token-0000");
    }
}
