//! Any bytes as `Accept` and `Accept-Encoding`: headers sent one by one mean what they mean in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::exposition::negotiate::{encoding, format};

fuzz_target!(|headers: Vec<Vec<u8>>| {
    let apart = || headers.iter().map(Vec::as_slice);
    let joined = headers.join(&b","[..]);
    let (format_apart, encoding_apart) = (format(apart()), encoding(apart()));
    // A quote that is not closed would swallow what follows in the same line.
    if !joined.contains(&b'"') {
        assert_eq!(format([&joined[..]]), format_apart);
        assert_eq!(encoding([&joined[..]]), encoding_apart);
    }
});
