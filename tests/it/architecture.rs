//! Imports point one way: along the line that `src/lib.rs` draws.

use std::{fs, path::Path};

/// In the order of the data's way. A module may use those before it, and the leaves.
const LINE: [&str; 10] = [
    "config",
    "http",
    "oauth",
    "api",
    "snapshot",
    "collector",
    "exposition",
    "publisher",
    "web",
    "cli",
];
const LEAVES: [&str; 5] = ["aside", "catalog", "clock", "heard", "stats"];
/// Started by `cli` alone, and using none of them.
const EDGES: [&str; 2] = ["telemetry", "shutdown"];

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            let text = fs::read_to_string(&path).expect("sources are text");
            found.push((path.display().to_string(), text));
        }
    }
}

/// The first words after `crate::`, braces taken apart.
fn imports(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => modules.push(std::mem::take(&mut word)),
                    c if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            modules.push(word);
        } else {
            modules.push(rest.to_owned());
        }
    }
    let first = |text: String| {
        text.trim()
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .map(str::to_owned)
    };
    modules
        .into_iter()
        .filter_map(first)
        .filter(|module| !module.is_empty())
        .collect()
}

#[test]
fn imports_point_along_the_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let place = |module: &str| LINE.iter().position(|known| *known == module);
    let mut checked = 0;
    for (path, text) in found {
        let inside = Path::new(&path)
            .strip_prefix(&root)
            .expect("it is in src")
            .to_owned();
        let module = inside
            .components()
            .next()
            .expect("a path has parts")
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        let module = module.trim_end_matches(".rs");
        for import in imports(&text).iter().filter(|import| *import != module) {
            let allowed = match (place(module), place(import)) {
                _ if LEAVES.contains(&import.as_str()) => !LEAVES.contains(&module),
                (Some(mine), Some(theirs)) => theirs < mine,
                (Some(_), None) => module == "cli" && EDGES.contains(&import.as_str()),
                // `telemetry` is told in the configuration's words.
                (None, _) => module == "telemetry" && import == "config",
            };
            assert!(
                allowed,
                "{path} imports crate::{import}, which does not stand before {module}"
            );
            checked += 1;
        }
    }
    assert!(
        checked > 20,
        "only {checked} imports were seen: this test no longer reads them"
    );
}
