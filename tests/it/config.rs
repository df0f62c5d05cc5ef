//! Configurations as people write them: each `tests/config/bad-*.yaml` is refused with exactly the messages that its
//! leading `# error:` lines hold, each `good-*.yaml` is accepted with exactly the warnings of its `# warning:` lines.

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

use lightfi_exporter::config::{self, Flags, Loaded, Purpose};

use crate::demo;

fn load(path: &Path) -> Result<Loaded, config::Errors> {
    let flags = Flags {
        config_file: Some(path.to_owned()),
        ..Flags::default()
    };
    config::load(&flags, iter::empty(), Purpose::Serve)
}

/// Paths are relative to the crate, as messages show them.
fn files(prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("tests/config")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(prefix)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {prefix}* in tests/config");
    files
}

/// What the leading comment lines that begin with `mark` say.
fn marked(path: &Path, mark: &str) -> Vec<String> {
    let text = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .take_while(|line| line.starts_with('#'))
        .filter_map(|line| line.strip_prefix(mark))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_custom_metric_must_not_take_the_name_of_another() {
    for family in demo::FAMILIES {
        let Some(name) = family.strip_prefix("lightfi_") else {
            continue;
        };
        let text = format!(
            "oauth: {{client_id: a, client_secret: b, refresh_token: c}}\n\
             sensors: [A]\n\
             metrics: {{variables: {{Anything: {{name: {name}}}}}}}\n"
        );
        let loaded = config::load_text(
            "a test",
            &text,
            &Flags::default(),
            iter::empty(),
            Purpose::Serve,
        );
        let errors = loaded.expect_err(family).to_string();
        assert!(errors.contains(name), "{family}: {errors}");
    }
}

#[test]
fn each_bad_file_is_refused_with_its_exact_message() {
    let mut wrong = String::new();
    for path in files("bad-") {
        let found = match load(&path) {
            Ok(_) => "accepted".to_owned(),
            Err(errors) => errors.to_string(),
        };
        if found != marked(&path, "# error: ").join("\n") {
            wrong.push_str(&format!("{}:\n{found}\n\n", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn each_good_file_is_accepted_and_its_shown_form_too() {
    for path in files("good-") {
        let Loaded { config, warnings } = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(warnings, marked(&path, "# warning: "), "{}", path.display());
        let shown = config::to_yaml(&config);
        let again = config::load_text(
            "shown",
            &shown,
            &Flags::default(),
            iter::empty(),
            Purpose::Serve,
        )
        .unwrap_or_else(|errors| panic!("{}: {errors}\n{shown}", path.display()));
        assert_eq!(config::to_yaml(&again.config), shown);
        assert!(!shown.contains("HUNTER2") && !format!("{config:?}").contains("HUNTER2"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let errors = load(Path::new("tests/config/absent.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        errors.starts_with("tests/config/absent.yaml: cannot be read: "),
        "{errors}"
    );
}
