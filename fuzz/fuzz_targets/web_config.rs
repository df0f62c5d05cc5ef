//! Reads any text as the web configuration: it is accepted, or refused with an error that names the file.
#![no_main]

use std::path::Path;

use exporter_toolkit::check_text;
use libfuzzer_sys::fuzz_target;

const NAME: &str = "fuzzed.yml";

fuzz_target!(|text: &str| {
    if let Err(errors) = check_text(Path::new(NAME), text) {
        assert!(errors.to_string().contains(NAME), "{errors}");
    }
});
