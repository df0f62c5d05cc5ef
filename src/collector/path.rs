//! The path of a sensor as a label shows it: the names of the locations around it, from the top down. Called by
//! `discovery`.

use std::sync::Arc;

/// Separates two names. A name from the configuration may contain it.
const SEPARATOR: &str = " / ";
/// Real paths need a quarter of this. Of a longer path the end is kept, because it says the most.
const MAX_CHARS: usize = 256;

/// No, one or several names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LocationPath {
    /// The label's text, cut at its start if it is too long.
    pub(super) text: Arc<str>,
    /// The number of names, including those that were cut off.
    pub(super) depth: usize,
}

impl From<Option<&str>> for LocationPath {
    fn from(name: Option<&str>) -> Self {
        match name {
            None | Some("") => Self::default(),
            Some(name) => Self {
                text: name.into(),
                depth: name.split(SEPARATOR).count(),
            },
        }
    }
}

impl LocationPath {
    /// Returns `self` with the names of `below` after its own.
    pub(super) fn join(&self, below: &Self) -> Self {
        match (self.depth, below.depth) {
            (0, _) => below.clone(),
            (_, 0) => self.clone(),
            (above, more) => Self {
                text: cut([&self.text, SEPARATOR, &below.text].concat()),
                depth: above + more,
            },
        }
    }
}

fn cut(text: String) -> Arc<str> {
    let excess = text.chars().count().saturating_sub(MAX_CHARS);
    if excess == 0 {
        return text.into();
    }
    let kept = text.chars().skip(excess + 1);
    std::iter::once('…').chain(kept).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> LocationPath {
        let names = names.iter().map(|name| LocationPath::from(Some(*name)));
        names.fold(LocationPath::default(), |above, name| above.join(&name))
    }

    #[test]
    fn names_are_joined_and_empty_ones_left_out() {
        for (names, text, depth) in [
            (&[][..], "", 0),
            (&["", ""], "", 0),
            (&["HQ", "", "Floor 3"], "HQ / Floor 3", 2),
            (&["HQ / Floor 3", "Lab"], "HQ / Floor 3 / Lab", 3),
        ] {
            let path = path(names);
            assert_eq!((&*path.text, path.depth), (text, depth));
        }
        assert_eq!(LocationPath::from(None), LocationPath::default());
    }

    #[test]
    fn a_long_path_keeps_its_end_and_counts_all_names() {
        for (length, is_whole) in [(251, true), (252, false), (10_000, false)] {
            let path = path(&["é / é", &"é".repeat(length), "ab"][usize::from(is_whole)..]);
            let start = if is_whole { "é" } else { "…" };
            assert!(path.text.starts_with(start), "{length}: {path:?}");
            assert!(path.text.ends_with("é / ab"), "{path:?}");
            assert_eq!(path.text.chars().count(), 256, "{length}");
            assert_eq!(path.depth, if is_whole { 2 } else { 4 });
        }
    }
}
