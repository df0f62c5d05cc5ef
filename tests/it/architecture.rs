//! Imports point one way: between the modules of the exporter along the line that `src/lib.rs` draws, and between the
//! files of one module without circles. The compiler checks what the crates of the workspace may use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The modules in the order of the flow of data. A module may use those before it, and the leaves.
const FLOW: [&str; 9] = [
    "config",
    "oauth",
    "api",
    "snapshot",
    "collector",
    "exposition",
    "publisher",
    "web",
    "cli",
];
/// Any module may use these, and they use no module but each other.
const LEAVES: [&str; 8] = [
    "blocking",
    "catalog",
    "clock",
    "duration",
    "http",
    "stats",
    "test_logs",
    "text",
];
/// Only `cli` may use these.
const EDGES: [&str; 1] = ["telemetry"];

#[test]
fn modules_import_only_what_comes_before_them() {
    let source = root().join("src");
    let position = |module: &str| FLOW.iter().position(|known| *known == module);
    let mut imports = 0;
    for path in rust_files(&source) {
        let inside = path.strip_prefix(&source).expect("it is in src");
        let first = inside.iter().next().expect("a path has parts");
        let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
        for import in names_after("crate::", &read(&path)) {
            let allowed = match (position(&module), position(&import)) {
                _ if import == module => continue,
                _ if LEAVES.contains(&import.as_str()) => true,
                (Some(this), Some(other)) => other < this,
                (Some(_), None) => module == "cli" && EDGES.contains(&import.as_str()),
                // `telemetry` and `http` take their section of the configuration.
                (None, _) => ["telemetry", "http"].contains(&&*module) && import == "config",
            };
            assert!(
                allowed,
                "{} must not import crate::{import}",
                inside.display()
            );
            imports += 1;
        }
    }
    assert!(
        imports > 20,
        "only {imports} imports found: this test no longer understands them"
    );
}

#[test]
fn files_of_one_module_import_each_other_without_circles() {
    let mut circles = Vec::new();
    let mut imports = 0;
    for directory in module_directories() {
        let name = directory.strip_prefix(root()).expect("it is in the root");
        let name = name.to_string_lossy().into_owned();
        let files = imports_between_files(&directory);
        imports += files.values().map(BTreeSet::len).sum::<usize>();
        if let Some(circle) = circle(files) {
            circles.push(format!("{name}: {}", circle.join(", ")));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
    assert!(
        imports > 20,
        "only {imports} imports found: this test no longer understands them"
    );
}

/// Returns, by file of a directory, the other files of the directory that it imports. `mod.rs` and `lib.rs`, which
/// declare and re-export the others, and tests are left out.
fn imports_between_files(directory: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let entries = fs::read_dir(directory).expect("a directory can be read");
    let files: BTreeMap<String, String> = entries
        .map(|entry| entry.expect("a directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.file_stem().expect("a file has a name");
            let text = read(&path);
            let code = text.split("#[cfg(test)]\nmod tests").next();
            (
                name.to_string_lossy().into_owned(),
                code.unwrap_or_default().to_owned(),
            )
        })
        .filter(|(name, _)| !["mod", "lib", "main", "tests"].contains(&&**name))
        .collect();
    let is_crate = directory.ends_with("src");
    let imports = |(name, text): (&String, &String)| {
        let mut imports = names_after("super::", text);
        if is_crate {
            imports.extend(names_after("crate::", text));
        }
        imports.retain(|import| import != name && files.contains_key(import));
        (name.clone(), imports)
    };
    files.iter().map(imports).collect()
}

/// Removes files that import nothing that is left, until none can be removed. Returns the rest.
fn circle(mut files: BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    loop {
        let names: BTreeSet<String> = files.keys().cloned().collect();
        files.retain(|_, imports| !imports.is_disjoint(&names));
        if files.len() == names.len() {
            return (!files.is_empty()).then(|| files.into_keys().collect());
        }
    }
}

/// Returns the first names of the paths that start with `prefix`, such as `a` and `b` of `crate::{a::B, b}`.
fn names_after(prefix: &str, text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        let mut paths = vec![String::new()];
        let mut depth = 0;
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => paths.push(String::new()),
                // The first names are outside of inner braces.
                c if depth <= 1 => paths.last_mut().expect("there is one").push(c),
                _ => {}
            }
            if depth == 0 && (c == '}' || !(c.is_alphanumeric() || c == '_')) {
                break;
            }
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let first = |path: String| path.trim().chars().take_while(|c| is_word(*c)).collect();
        names.extend(paths.into_iter().map(first));
    }
    names.remove("");
    names
}

fn module_directories() -> BTreeSet<PathBuf> {
    let files = [root().join("src"), root().join("crates")]
        .iter()
        .flat_map(|directory| rust_files(directory))
        .collect::<Vec<_>>();
    let parents = files.iter().filter_map(|path| path.parent());
    let exporter = root().join("src");
    parents
        .filter(|parent| *parent != exporter)
        .map(Path::to_owned)
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory can be read");
    let paths = entries.map(|entry| entry.expect("a directory can be read").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("sources are text")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
