//! Any text as the configuration: refused in words that name the file, or taken, and then it can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::config::{Flags, Purpose, load_text, to_yaml};

const NAME: &str = "fuzzed.yaml";

fuzz_target!(|text: &str| {
    let nothing = std::iter::empty;
    match load_text(NAME, text, &Flags::default(), nothing(), Purpose::Serve) {
        Ok(loaded) => {
            // What `/config` shows would be taken for the same configuration, but for its secrets.
            let shown = to_yaml(&loaded.config);
            let again = load_text(NAME, &shown, &Flags::default(), nothing(), Purpose::Serve);
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
            assert_eq!(to_yaml(&again.config), shown);
        }
        Err(errors) => assert!(errors.to_string().contains(NAME), "{errors}"),
    }
});
