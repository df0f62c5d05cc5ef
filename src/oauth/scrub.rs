//! Text that came from a server, made safe to show: a careless one repeats what it was sent.
//!
//! `source` tells it every secret it sees; whoever shows a server's words passes them through.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use crate::config::Secret;

/// Enough for all secrets of one account and the last rotations of its tokens.
const REMEMBERED: usize = 32;

/// As much of a server's words as helps.
const SHOWN_CHARS: usize = 200;

/// A shorter piece of base64 may stand in any word.
const SHORTEST_BASE64: usize = 8;

/// Nobody encodes the encoded so often without wanting to hide something.
const DEEPEST: usize = 8;

/// A shorter secret is looked for in errors, but not in names: it may stand in any.
const SHORTEST_IN_NAMES: usize = 8;

/// Stands in the place of a secret.
const HIDDEN: &str = "<secret>";

/// Every secret seen lately.
pub struct Scrubber {
    secrets: Mutex<Vec<Known>>,
    /// Bytes of the shortest that is looked for in names.
    shortest: AtomicUsize,
}

impl Default for Scrubber {
    fn default() -> Self {
        Self {
            secrets: Mutex::default(),
            shortest: AtomicUsize::new(usize::MAX),
        }
    }
}

struct Known {
    secret: Secret,
    /// As it stands in forms and in base64.
    encoded: Vec<Secret>,
}

impl Known {
    /// All texts that give it away.
    fn forms(&self) -> impl Iterator<Item = &str> {
        let secrets = [&self.secret].into_iter().chain(&self.encoded);
        secrets.map(Secret::expose)
    }
}

impl Scrubber {
    /// `secret` must not be shown from here on, neither as it is nor as a form, a URL or a header carries it.
    pub fn learn(&self, secret: &Secret) {
        let text = secret.expose();
        if text.is_empty() {
            return;
        }
        let mut secrets = self.secrets();
        let known = secrets
            .iter()
            .position(|known| known.secret.expose() == text);
        let known = match known {
            Some(at) => secrets.remove(at),
            None => Known {
                secret: secret.clone(),
                encoded: encoded(text.as_bytes()),
            },
        };
        secrets.push(known);
        let surplus = secrets.len().saturating_sub(REMEMBERED);
        secrets.drain(..surplus);
        let lengths = secrets.iter().flat_map(Known::forms).map(str::len);
        let shortest = lengths.filter(|length| *length >= SHORTEST_IN_NAMES).min();
        self.shortest
            .store(shortest.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// A name, an id or the like as it is, unless a secret shows in it. Most are shorter than any secret.
    pub fn conceal(&self, text: String) -> String {
        if text.len() < self.shortest.load(Ordering::Relaxed) {
            return text;
        }
        let scrubbed = self.scrub_of(&text, SHORTEST_IN_NAMES);
        if scrubbed.contains(HIDDEN) {
            scrubbed
        } else {
            text
        }
    }

    /// `text` on one line, with every known secret replaced.
    pub fn scrub(&self, text: &str) -> String {
        self.scrub_of(text, 1)
    }

    /// The same with those of `shortest` bytes and more.
    fn scrub_of(&self, text: &str, shortest: usize) -> String {
        let mut text = self.hide(&printable(text), shortest);
        // There are more ways to write the same than forms have: where one hides a secret, what it says is shown, and that
        // may be read in these ways again.
        for _ in 0..DEEPEST {
            let hidden = readings(&text).into_iter().find_map(|reading| {
                let hidden = self.hide(&reading, shortest);
                (hidden != reading).then_some(hidden)
            });
            let Some(hidden) = hidden else {
                return text;
            };
            text = hidden;
        }
        HIDDEN.to_owned()
    }

    /// The same, cut to what helps.
    pub fn excerpt(&self, text: &str) -> String {
        // Cut last: half a secret is not recognised.
        self.scrub(text).chars().take(SHOWN_CHARS).collect()
    }

    fn hide(&self, text: &str, shortest: usize) -> String {
        let mut text = text.to_owned();
        let secrets = self.secrets();
        let forms = secrets.iter().flat_map(Known::forms);
        let mut longest_first: Vec<&str> = forms
            .filter(|form| (shortest..=text.len()).contains(&form.len()))
            .collect();
        // A secret may be part of another: the longer one must go while it is whole.
        longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in longest_first {
            if text.contains(secret) {
                text = text.replace(secret, HIDDEN);
            }
        }
        text
    }

    fn secrets(&self) -> MutexGuard<'_, Vec<Known>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a text that is encoded as in forms or URLs may say, other than itself.
fn readings(text: &str) -> Vec<String> {
    let spaced = text.replace('+', " ");
    let decode = |text: &str| printable(&percent_decode_str(text).decode_utf8_lossy());
    let mut readings = vec![decode(text), decode(&spaced), spaced];
    readings.retain(|reading| reading != text);
    readings
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

fn encoded(secret: &[u8]) -> Vec<Secret> {
    let form: String = form_urlencoded::byte_serialize(secret).collect();
    let mut encoded = inside_base64(secret);
    encoded.push(Secret::new(form));
    encoded
}

/// What base64 of any text holds where `secret` is in that text, as `Basic` credentials hold a client secret: three bytes
/// make four characters, so there are three ways to begin. Characters that also depend on a neighbour are left out.
fn inside_base64(secret: &[u8]) -> Vec<Secret> {
    let mut pieces = Vec::new();
    for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
        let text = [&[0; 2][..before], secret].concat();
        let whole = text.len() * 8 / 6;
        for alphabet in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let encoded = alphabet.encode(&text);
            if let Some(piece) = encoded.get(shared..whole)
                && piece.len() >= SHORTEST_BASE64
            {
                pieces.push(Secret::new(piece));
            }
        }
    }
    pieces
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
    fn a_name_stays_as_it_is_unless_a_secret_shows_in_it() {
        let scrubber = Scrubber::default();
        let conceal = |text: &str| scrubber.conceal(text.to_owned());
        assert_eq!(conceal("any\nname"), "any\nname");
        scrubber.learn(&Secret::new("a+long/secret"));
        assert_eq!(conceal("a+long/secret"), HIDDEN, "known alone");
        scrubber.learn(&Secret::new("short"));
        for name in ["Boardroom", "a short\nand narrow corridor", "a long secret"] {
            assert_eq!(conceal(name), name);
        }
        assert_eq!(conceal("a+long/secret"), HIDDEN);
        for name in [
            "my a+long/secret",
            "my a%2Blong%2Fsecret",
            "my a+lo\nng/secret",
        ] {
            assert_eq!(conceal(name), "my <secret>");
        }
    }

    #[test]
    fn percent_encoding_hides_no_secret_however_it_is_written() {
        let scrubber = Scrubber::default();
        scrubber.learn(&Secret::new("a+b/c d~e%f"));
        for text in [
            "a%2Bb%2Fc+d%7Ee%25f",
            "a%2bb/c%20d~e%25f",
            "%61%2Bb%2fc%20d%7ee%25%66",
        ] {
            assert_eq!(scrubber.scrub(text), "<secret>", "{text}");
        }
        assert_eq!(scrubber.scrub("100% of a%20b+c"), "100% of a%20b+c");
        assert_eq!(scrubber.scrub("%1b[31ma%2Bb/c d~e%25f"), "[31m<secret>");
    }

    #[test]
    fn what_one_secret_is_decoded_for_hides_no_other() {
        let scrubber = Scrubber::default();
        scrubber.learn(&Secret::new("other~secret"));
        scrubber.learn(&Secret::new("a b%41c"));
        for text in [
            "%6Fther~secret a+b%2541c",
            "%6Fther~secret a+b%252541c",
            "a+b%252541c %256Fther~secret",
        ] {
            assert_eq!(
                scrubber.scrub(text).matches("<secret>").count(),
                2,
                "{text}"
            );
        }
        let deep = (0..20).map(|more| format!("%{}6Fther~secret ", "25".repeat(more)));
        assert_eq!(scrubber.scrub(&deep.collect::<String>()), "<secret>");
    }

    #[test]
    fn base64_hides_no_secret_wherever_it_stands_in_it() {
        let scrubber = Scrubber::default();
        let secret = "s3cret?>with~signs";
        scrubber.learn(&Secret::new(secret));
        for before in ["", "i", "id", "id:"] {
            for after in ["", "!", "!!"] {
                let text = format!("{before}{secret}{after}");
                for alphabet in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
                    let encoded = alphabet.encode(&text);
                    let shown = scrubber.scrub(&format!("got {encoded}=="));
                    assert!(shown.contains("<secret>"), "{text}: {shown}");
                    assert!(shown.len() < 30, "{text}: {shown}");
                }
            }
        }
        scrubber.learn(&Secret::new("ab"));
        assert_eq!(scrubber.scrub("YWI"), "YWI", "too short to be told");
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
