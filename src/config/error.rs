//! The errors of a configuration, as sentences for the person who wrote it.

use std::fmt;

/// Everything that is wrong with a configuration: at least one problem, displayed one per line. Each names the layer
/// (file and line, variable or flag) and the key; none quotes a value of section `oauth` or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(String);

pub(super) struct Problem {
    /// `lightfi-exporter.yaml`, `environment LIGHTFI_…` or `--flag`.
    pub(super) origin: String,
    /// In the file, where it is known.
    pub(super) line: Option<u32>,
    pub(super) message: String,
}

impl Errors {
    /// Puts the problems into the order of the file, then of the other layers.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line.unwrap_or(u32::MAX));
        let messages: Vec<_> = problems.iter().map(Problem::to_text).collect();
        Self(messages.join("\n"))
    }
}

impl Problem {
    fn to_text(&self) -> String {
        let Self {
            origin, message, ..
        } = self;
        match self.line {
            Some(line) => format!("{origin}:{line}: {message}"),
            None => format!("{origin}: {message}"),
        }
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A longer key (in bytes) is hidden, a longer value (in characters) is cut.
const MAX_SHOWN: usize = 60;

/// Returns whether a key can be shown: it does not look like a secret in the place of a key, as in
/// `client_secret:hunter2` (no space after the colon). Keys of `oauth` have no digits, most secrets have.
pub(super) fn is_key_like(key: &str, in_oauth: bool) -> bool {
    let is_key_byte = |byte: u8| {
        byte.is_ascii_alphabetic() || b"_-.".contains(&byte) || (byte.is_ascii_digit() && !in_oauth)
    };
    (1..=MAX_SHOWN).contains(&key.len()) && key.bytes().all(is_key_byte)
}

/// Returns a value in quotes. A text that may be a URL with a password is not shown.
pub(super) fn value_for_display(value: &str) -> String {
    if value.contains('@') || value.contains("://") {
        return "the value".to_owned();
    }
    let mut shown: String = value.chars().take(MAX_SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
