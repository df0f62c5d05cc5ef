//! What can be wrong with a configuration, as sentences for the person who wrote it.

use std::fmt;

/// Everything that is wrong with a configuration: at least one problem, displayed one per line. Each names the layer
/// (file and line, variable or flag) and the key; none quotes a value of section `oauth` or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// `lightfi-exporter.yaml`, `environment LIGHTFI_…` or `--flag`.
    pub(super) origin: String,
    /// In the file, where it is known.
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl Errors {
    /// Puts the problems into the order of the file, then of the other layers.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self(problems)
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.origin)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

/// More of a value than this tells nobody anything.
const LONGEST_SHOWN: usize = 60;

/// Whether a key can be shown: a word that nobody would mistake for a secret put in a key's place, as in
/// `client_secret:hunter2` (no space after the colon). Keys of `oauth` have no digits, most secrets have.
pub(super) fn is_key_like(key: &str, in_oauth: bool) -> bool {
    (1..=LONGEST_SHOWN).contains(&key.len())
        && key.bytes().all(|byte| {
            byte.is_ascii_alphabetic()
                || matches!(byte, b'_' | b'-' | b'.')
                || (byte.is_ascii_digit() && !in_oauth)
        })
}

/// A value in quotes; what may be a URL with a password stays hidden.
pub(super) fn value_for_display(value: &str) -> String {
    if value.contains('@') || value.contains("://") {
        return "the value".to_owned();
    }
    let mut shown: String = value.chars().take(LONGEST_SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
