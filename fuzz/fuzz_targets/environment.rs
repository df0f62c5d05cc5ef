//! Reads any environment, one variable per line: it is accepted, or refused with an error that names the variable or the file
//! and shows no secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::config::{Flags, Purpose, load_text, to_yaml};

const NAME: &str = "fuzzed.yaml";
const FILE: &str = "oauth:\n  client_id: id\n  refresh_token: token\nsensors: [A]\n";
const SECRET: [&str; 2] = [
    "LIGHTFI_OAUTH__CLIENT_SECRET",
    "LIGHTFI_OAUTH__REFRESH_TOKEN",
];
/// No word of an error message is this long.
const LONG_WORD: usize = 20;

fuzz_target!(|text: &str| {
    let variables: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let loaded = load_text(
        NAME,
        FILE,
        &Flags::default(),
        variables.iter().cloned(),
        Purpose::Serve,
    );
    let shown = match loaded {
        Ok(loaded) => loaded.warnings.join("\n") + &to_yaml(&loaded.config),
        Err(errors) => {
            let words = errors.to_string();
            assert!(
                words.contains(NAME) || words.contains("LIGHTFI_"),
                "{words}"
            );
            words
        }
    };
    for (_, secret) in variables
        .iter()
        .filter(|(key, _)| SECRET.contains(&key.as_str()))
    {
        let words = secret.split(|c: char| !c.is_ascii_alphanumeric());
        for word in words.filter(|word| word.len() >= LONG_WORD) {
            // A text that also occurs elsewhere is not a secret.
            if text.matches(word).count() == 1 {
                assert!(!shown.contains(word), "{shown}");
            }
        }
    }
});
