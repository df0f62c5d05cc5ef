//! Where a sensor stands: the names of the locations around it from the top down, as a label shows them.

use std::sync::Arc;

/// Between two names; a name may itself hold it.
const SEPARATOR: &str = " / ";
/// What people call places takes a quarter of it. Of a longer path the end is kept, which tells most.
const MAX_CHARS: usize = 256;

/// None, one or several names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Path {
    /// Cut to its end where it is long.
    pub(super) text: Arc<str>,
    /// How many names there are, those that were cut off included.
    pub(super) depth: usize,
}

impl From<Option<&str>> for Path {
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

impl Path {
    /// `below`, as it is seen from here.
    pub(super) fn join(&self, below: &Self) -> Self {
        match (self.depth, below.depth) {
            (0, _) => below.clone(),
            (_, 0) => self.clone(),
            (here, more) => Self {
                text: cut([&self.text, SEPARATOR, &below.text].concat()),
                depth: here + more,
            },
        }
    }
}

fn cut(whole: String) -> Arc<str> {
    // Where the last characters that may stay begin.
    match whole.char_indices().rev().nth(MAX_CHARS - 1) {
        Some((at, _)) if at > 0 => {
            let kept = whole[at..].chars().skip(1);
            std::iter::once('…').chain(kept).collect::<String>().into()
        }
        _ => whole.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> Path {
        let names = names.iter().map(|name| Path::from(Some(*name)));
        names.fold(Path::default(), |above, name| above.join(&name))
    }

    #[test]
    fn names_are_joined_and_none_are_left_out() {
        for (names, text, depth) in [
            (&[][..], "", 0),
            (&["", ""], "", 0),
            (&["HQ", "", "Floor 3"], "HQ / Floor 3", 2),
            (&["HQ / Floor 3", "Lab"], "HQ / Floor 3 / Lab", 3),
        ] {
            let path = path(names);
            assert_eq!((&*path.text, path.depth), (text, depth));
        }
        assert_eq!(Path::from(None), Path::default());
    }

    #[test]
    fn a_long_path_keeps_its_end_and_counts_all_names() {
        for (above, whole) in [(251, true), (252, false), (10_000, false)] {
            let path = path(&["é / é", &"é".repeat(above), "ab"][usize::from(whole)..]);
            let begins = if whole { "é" } else { "…" };
            assert!(path.text.starts_with(begins), "{above}: {path:?}");
            assert!(path.text.ends_with("é / ab"), "{path:?}");
            assert_eq!(path.text.chars().count(), 256, "{above}");
            assert_eq!(path.depth, if whole { 2 } else { 4 });
        }
    }
}
