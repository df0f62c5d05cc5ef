//! The path of a sensor as a label shows it: the names of the locations around it, from the top down. Called by
//! `discovery` and `registry`.

use std::sync::Arc;

/// Separates two names. A name from the configuration may contain it.
const SEPARATOR: &str = " / ";
/// Real paths need a quarter of this. Of a longer path the end is kept, because it says the most.
const MAX_CHARS: usize = 256;

/// Returns the path `above` with the names of `below` after its own. Either may be empty.
pub(super) fn join(above: &str, below: &str) -> String {
    if above.is_empty() || below.is_empty() {
        return [above, below].concat();
    }
    [above, SEPARATOR, below].concat()
}

/// Returns the path as a label shows it.
pub(super) fn label(path: &Arc<str>) -> Arc<str> {
    let excess = path.chars().count().saturating_sub(MAX_CHARS);
    if excess == 0 {
        return path.clone();
    }
    let kept = path.chars().skip(excess + 1);
    std::iter::once('…').chain(kept).collect::<String>().into()
}

/// Returns the number of names in a path.
pub(super) fn name_count(path: &str) -> usize {
    match path {
        "" => 0,
        path => path.split(SEPARATOR).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_and_empty_ones_left_out() {
        for (names, expected, names_in_it) in [
            (&[][..], "", 0),
            (&["", ""], "", 0),
            (&["HQ", "", "Floor 3"], "HQ / Floor 3", 2),
            (&["HQ / Floor 3", "Lab"], "HQ / Floor 3 / Lab", 3),
        ] {
            let path = names
                .iter()
                .fold(String::new(), |above, name| join(&above, name));
            assert_eq!((&*path, name_count(&path)), (expected, names_in_it));
        }
    }

    #[test]
    fn a_label_keeps_the_end_of_a_long_path() {
        for (length, is_whole) in [(251, true), (252, false), (10_000, false)] {
            let path = label(&join(&"é".repeat(length), "ab").into());
            assert_eq!(path.starts_with('é'), is_whole, "{length}: {path}");
            assert!(path.ends_with("é / ab"), "{path}");
            assert_eq!(path.chars().count(), 256, "{length}");
        }
    }
}
