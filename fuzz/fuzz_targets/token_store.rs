//! Any bytes as the token store's file: refused in words that show nothing of it, or read, and kept as it is read.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::oauth::store::Store;

/// No word of ours is so long.
const LONG_WORD: usize = 14;

fuzz_target!(|contents: &[u8]| {
    let directory = tempfile::Builder::new()
        .prefix("store-")
        .rand_bytes(8)
        .tempdir()
        .expect("there is a place for it");
    let path = directory.path().join("token.json");
    fs::write(&path, contents).expect("it can be written");
    let error = match Store::open(&path) {
        Ok(store) => {
            let read = || store.read().expect("it was read").expect("it is there");
            let record = read();
            assert!(!record.refresh_token.expose().trim().is_empty());
            store.write(&record).expect("it was ours");
            let again = read();
            assert!(again.refresh_token == record.refresh_token);
            assert_eq!(again.seed, record.seed);
            assert_eq!(again.obtained_at, record.obtained_at);
            return;
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(fs::read(&path).expect("it is there"), contents);
    for word in contents.split(|byte| !byte.is_ascii_alphanumeric()) {
        let word = str::from_utf8(word).expect("it is ASCII");
        // A number may be the version's.
        if word.len() >= LONG_WORD && !word.bytes().all(|byte| byte.is_ascii_digit()) {
            assert!(!error.contains(word), "{error}");
        }
    }
});
