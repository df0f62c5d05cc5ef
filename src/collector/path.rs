//! Where a sensor stands: the names of the locations around it from the top down, as a label shows them.

use std::sync::Arc;

/// Between two names; a name may itself hold it.
const SEPARATOR: &str = " / ";
/// What people call places takes a quarter of it. Of a longer path the end is kept, which tells most.
const MAX_CHARS: usize = 256;

/// `below`, as it is seen from `above`; either may be empty.
pub(super) fn join(above: &Arc<str>, below: &Arc<str>) -> Arc<str> {
    if above.is_empty() {
        return below.clone();
    }
    if below.is_empty() {
        return above.clone();
    }
    let whole = [above, SEPARATOR, below].concat();
    // The character before the last that stay, if there is one.
    match whole.char_indices().rev().nth(MAX_CHARS - 1) {
        Some((at, _)) if at > 0 => {
            let kept = whole[at..].chars().skip(1);
            std::iter::once('…').chain(kept).collect::<String>().into()
        }
        _ => whole.into(),
    }
}

/// How many names there are.
pub(super) fn depth(path: &str) -> usize {
    match path {
        "" => 0,
        path => path.split(SEPARATOR).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_and_none_are_left_out() {
        let path = |names: &[&str]| {
            let names = names.iter().map(|name| Arc::from(*name));
            names.fold(Arc::from(""), |above, name| join(&above, &name))
        };
        for (names, expected, deep) in [
            (&[][..], "", 0),
            (&["", ""], "", 0),
            (&["HQ", "", "Floor 3"], "HQ / Floor 3", 2),
            (&["HQ / Floor 3", "Lab"], "HQ / Floor 3 / Lab", 3),
        ] {
            assert_eq!(&*path(names), expected);
            assert_eq!(depth(expected), deep, "{expected}");
        }
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        for (above, whole) in [(251, true), (252, false), (10_000, false)] {
            let path = join(&"é".repeat(above).into(), &"ab".into());
            assert_eq!(path.chars().count(), 256.min(above + 5), "{above}");
            assert_eq!(!path.starts_with('…'), whole, "{above}");
            assert!(path.ends_with("é / ab"), "{path}");
        }
    }
}
