//! Reads any text as the configuration: it is refused with an error that names the file, or accepted and can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::config::{Flags, Purpose, load_text, to_yaml};

const NAME: &str = "fuzzed.yaml";

fuzz_target!(|text: &str| {
    let nothing = std::iter::empty;
    match load_text(NAME, text, &Flags::default(), nothing(), Purpose::Serve) {
        Ok(loaded) => {
            // `/config` shows a configuration that is the same except for its secrets.
            let shown = to_yaml(&loaded.config);
            let again = load_text(NAME, &shown, &Flags::default(), nothing(), Purpose::Serve);
            let again = again.unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
            assert_eq!(to_yaml(&again.config), shown);
        }
        Err(errors) => assert!(errors.to_string().contains(NAME), "{errors}"),
    }
});
