//! The Dockerfile: that what the compiler reads is in the image that it builds in. `chart.py` has hadolint read it.

use std::{env, fs, time::SystemTime};

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/");
const IGNORE: &str = include_str!("../../.dockerignore");

/// What rustc says it has read of this repository for the library, sources and what macros read.
fn read_by_the_compiler() -> Vec<String> {
    let here = env::current_exe().expect("a test is a file");
    let beside = fs::read_dir(here.parent().expect("in a folder")).expect("it can be listed");
    let of_the_library = beside.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let ours = name.starts_with("lightfi_exporter-") && name.ends_with(".d");
        let changed = fs::metadata(&path).ok()?.modified().ok()?;
        let text = ours.then(|| fs::read_to_string(&path).ok()).flatten()?;
        text.contains("src/lib.rs").then_some((changed, text))
    });
    let (_, newest) = of_the_library
        .max_by_key(|(changed, _): &(SystemTime, String)| *changed)
        .expect("cargo keeps what each crate depends on beside it");
    // Each file once more as a target without needs, for make.
    let files = newest.lines().filter_map(|line| line.strip_suffix(':'));
    // A macro names what it reads from the root of the file system on.
    files
        .map(|file| file.strip_prefix(ROOT).unwrap_or(file))
        .filter(|file| !file.starts_with('/') && !file.starts_with("target/"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_build_stage_holds_every_file_that_the_compiler_reads() {
    let (build, _) = DOCKERFILE.split_once("\nFROM gcr.io").expect("two stages");
    let copied: Vec<_> = build
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.split(' ').rev().skip(1)) // the last word is where they go
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
        assert!(copied.contains(&top), "the Dockerfile copies no {file}");
        assert!(kept.contains(&top), ".dockerignore holds back {file}");
    }
}
