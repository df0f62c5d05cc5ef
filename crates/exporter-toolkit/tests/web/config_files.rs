//! Each file in `config-files` is accepted with the warnings, or refused with the errors, that its comments say.

use std::{fs, path::PathBuf};

use exporter_toolkit::WebConfig;

/// The secret in all files.
const SECRET: &str = "HUNTER2";

/// Returns the files whose name begins with `prefix`, with the lines after the mark `# {mark}: `.
fn files(prefix: &str, mark: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir("tests/config-files").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with(prefix) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let marked = text.lines().filter_map(|line| line.strip_prefix(mark));
        files.push((path.clone(), marked.collect::<Vec<_>>().join("\n")));
    }
    files.sort();
    assert!(
        !files.is_empty(),
        "there is no {prefix}* in tests/config-files"
    );
    files
}

#[test]
fn bad_files_are_refused_with_these_messages() {
    let mut differences = String::new();
    for (path, expected) in files("bad-", "# error: ") {
        let found = match WebConfig::load(Some(&path)) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(!found.contains(SECRET), "{found}");
        if found != expected {
            differences += &format!("{}:\n{found}\n\n", path.display());
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn good_files_are_accepted_with_these_warnings() {
    for (path, expected) in files("good-", "# warning: ") {
        let config = WebConfig::load(Some(&path)).unwrap();
        assert_eq!(config.warnings().join("\n"), expected, "{}", path.display());
    }
}
