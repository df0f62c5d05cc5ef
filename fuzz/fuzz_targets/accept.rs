//! Reads any text as `Accept` and `Accept-Encoding`: headers that are sent one by one mean the same as in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::exposition::negotiate::{encoding, format};

fuzz_target!(|headers: Vec<String>| {
    let separate = || headers.iter().map(String::as_str);
    let joined = headers.join(",");
    let (separate_format, separate_encoding) = (format(separate()), encoding(separate()));
    // In one line, an unclosed quote would swallow the headers after it.
    if !joined.contains('"') {
        assert_eq!(format([joined.as_str()]), separate_format);
        assert_eq!(encoding([joined.as_str()]), separate_encoding);
    }
});
