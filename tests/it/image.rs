//! The build stage of the Dockerfile has every manifest of the workspace, and every file that the compiler reads. `chart.py` runs hadolint on it.

use std::{env, fs, path::PathBuf, process::Command, time::SystemTime};

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

/// Returns the sources and destinations that the build stage copies.
fn copied() -> impl Iterator<Item = (&'static str, &'static str)> {
    let (build, _) = DOCKERFILE.split_once("\nFROM gcr.io").expect("two stages");
    let copies = build.lines().filter_map(|line| line.strip_prefix("COPY "));
    copies.flat_map(|line| {
        let (sources, destination) = line.rsplit_once(' ').expect("sources and a destination");
        sources.split(' ').map(move |source| (source, destination))
    })
}

fn kept() -> Vec<&'static str> {
    let lines = IGNORE.lines();
    lines.filter_map(|line| line.strip_prefix('!')).collect()
}

/// The first build in the image has only the manifests and empty sources.
#[test]
fn the_build_stage_has_every_manifest_of_the_workspace() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    for (source, destination) in copied().filter(|(source, _)| source.contains('.')) {
        let top = source.split('/').next().unwrap_or_default();
        let is_kept = kept().iter().any(|kept| [top, source].contains(kept));
        assert!(is_kept, ".dockerignore excludes {source}");
        let target = directory.path().join(destination);
        fs::create_dir_all(&target).expect("the directory is created");
        let sources = ["src/lib.rs", "src/main.rs"].map(|name| target.join(name));
        let is_made = |path: &&PathBuf| {
            let path = path.strip_prefix(directory.path());
            path.is_ok_and(|path| DOCKERFILE.contains(&*path.to_string_lossy()))
        };
        for path in sources.iter().filter(is_made) {
            fs::create_dir_all(target.join("src")).expect("the directory is created");
            fs::write(path, "").expect("the source is written");
        }
        let name = source.rsplit('/').next().unwrap_or_default();
        fs::copy(format!("{ROOT}{source}"), target.join(name)).expect("the file is copied");
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--no-deps",
            "--format-version=1",
        ])
        .current_dir(&directory)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn the_build_stage_contains_every_file_that_the_compiler_reads() {
    let copied: Vec<_> = copied().map(|(source, _)| source).collect();
    let kept = kept();
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
