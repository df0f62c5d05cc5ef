//! Every file that the compiler reads is in the build stage of the Dockerfile. `chart.py` runs hadolint on it.

use std::{env, fs, time::SystemTime};

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/");
const IGNORE: &str = include_str!("../../.dockerignore");

/// Returns the files of this repository that the compiler read for the library: sources, and files that macros include.
fn read_by_the_compiler() -> Vec<String> {
    let this_test = env::current_exe().expect("a test is a file");
    let directory = this_test.parent().expect("a file is in a directory");
    let entries = fs::read_dir(directory).expect("the directory can be listed");
    // Cargo keeps a list of dependencies (`.d`) for each crate; the newest one of the library counts.
    let lists = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_list = name.starts_with("lightfi_exporter-") && name.ends_with(".d");
        let changed = fs::metadata(&path).ok()?.modified().ok()?;
        let text = is_list.then(|| fs::read_to_string(&path).ok()).flatten()?;
        text.contains("src/lib.rs").then_some((changed, text))
    });
    let newest = lists.max_by_key(|(changed, _): &(SystemTime, String)| *changed);
    let (_, newest) = newest.expect("there is a list for the library");
    // At its end, the list names each file as a target without dependencies.
    let files = newest.lines().filter_map(|line| line.strip_suffix(':'));
    // Files that a macro includes have absolute paths.
    files
        .map(|file| file.strip_prefix(ROOT).unwrap_or(file))
        .filter(|file| !file.starts_with('/') && !file.starts_with("target/"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_build_stage_contains_every_file_that_the_compiler_reads() {
    let (build, _) = DOCKERFILE.split_once("\nFROM gcr.io").expect("two stages");
    let copied: Vec<_> = build
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.split(' ').rev().skip(1)) // the last word is the destination
        .collect();
    let kept: Vec<_> = IGNORE
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    let files = read_by_the_compiler();
    for file in ["src/lib.rs", "src/web/status.html"] {
        assert!(
            files.iter().any(|read| read == file),
            "no {file}: {files:?}"
        );
    }
    for file in files {
        let top = file.split('/').next().unwrap_or_default();
        assert!(copied.contains(&top), "the Dockerfile does not copy {file}");
        assert!(kept.contains(&top), ".dockerignore excludes {file}");
    }
}
