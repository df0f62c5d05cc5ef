//! Reads any bytes as the token store. They are refused with an error that quotes none of them, or survive being written
//! again.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::oauth::store::TokenStore;

/// No word of an error message is this long.
const LONG_WORD: usize = 14;

fuzz_target!(|contents: &[u8]| {
    let directory = tempfile::Builder::new()
        .prefix("store-")
        .rand_bytes(8)
        .tempdir()
        .expect("a temporary directory");
    let path = directory.path().join("token.json");
    fs::write(&path, contents).expect("the file can be written");
    let error = match TokenStore::open(&path) {
        Ok(store) => {
            let read = || store.read().expect("it is valid").expect("it exists");
            let token = read();
            assert!(!token.refresh_token.expose().trim().is_empty());
            store.write(&token).expect("it can be replaced");
            assert_eq!(read(), token);
            return;
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(fs::read(&path).expect("it still exists"), contents);
    for word in contents.split(|byte| !byte.is_ascii_alphanumeric()) {
        let word = str::from_utf8(word).expect("it is ASCII");
        // A number may be the version.
        if word.len() >= LONG_WORD && !word.bytes().all(|byte| byte.is_ascii_digit()) {
            assert!(!error.contains(word), "{error}");
        }
    }
});
