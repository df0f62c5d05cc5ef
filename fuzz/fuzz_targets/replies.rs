//! Decodes any bytes as a reply of the API: the result is within the limits, and no error shows a value.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::api::{Item, Malformed, decode_base_location, decode_openapi, decode_sensor};

/// The limits of `api::model`.
const MAX_ENTRIES: usize = 100_000;
const MAX_NAME_CHARS: usize = 128;
const MAX_ID_BYTES: usize = 128;
/// Twelve keys of forty characters, and the words around them.
const MAX_ERROR_CHARS: usize = 1000;

fuzz_target!(|body: &[u8]| {
    match decode_sensor(body, &|text| text) {
        Ok(reply) => {
            check_name(reply.name.as_deref());
            check_items(&reply.items);
        }
        Err(malformed) => check_error(&malformed),
    }
    match decode_base_location(body, &|text| text) {
        Ok(reply) => {
            let entries = || reply.sensors.iter().chain(&reply.children);
            assert!(entries().count() <= MAX_ENTRIES);
            let children: HashSet<_> = reply.children.iter().map(|child| &*child.id).collect();
            for entry in entries() {
                assert!((1..=MAX_ID_BYTES).contains(&entry.id.len()));
                check_name(entry.name.as_deref());
                let parent = entry.parent.as_deref();
                assert!(parent.is_none_or(|id| children.contains(id)));
                check_items(entry.items.as_deref().unwrap_or_default());
            }
        }
        Err(malformed) => check_error(&malformed),
    }
    if let Err(malformed) = decode_openapi(body) {
        check_error(&malformed);
    }
});

fn check_name(name: Option<&str>) {
    assert!(name.is_none_or(|name| name.chars().count() <= MAX_NAME_CHARS));
}

fn check_items(items: &[Item]) {
    for item in items {
        if let Item::Reading {
            var_name,
            time,
            value,
        } = item
        {
            assert!((1..=MAX_ID_BYTES).contains(&var_name.len()));
            assert!(!time.is_nan() && !value.is_nan(), "JSON has no such number");
        }
    }
}

fn check_error(malformed: &Malformed) {
    let message = malformed.to_string();
    assert!(
        !message.is_empty() && message.chars().count() < MAX_ERROR_CHARS,
        "{message}"
    );
}
