//! Any bytes as an answer of the API: decoded or refused, in bounds, and no refusal shows a value.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::api::{Item, Malformed, decode_base_location, decode_openapi, decode_sensor};

/// As many sensors and child locations as a reply may hold.
const MOST_FOUND: usize = 100_000;
/// Twelve keys of forty characters, and the words around them.
const LONGEST_REFUSAL: usize = 1000;

fuzz_target!(|body: &[u8]| {
    match decode_sensor(body) {
        Ok(reply) => check_items(&reply.items),
        Err(malformed) => check_refusal(&malformed),
    }
    match decode_base_location(body) {
        Ok(reply) => {
            let found = || reply.sensors.iter().chain(&reply.children);
            assert!(found().count() <= MOST_FOUND);
            let children: HashSet<_> = reply.children.iter().map(|it| it.id.as_str()).collect();
            for found in found() {
                assert!(!found.id.is_empty());
                assert!(
                    found
                        .parent
                        .as_deref()
                        .is_none_or(|id| children.contains(id))
                );
                check_items(found.items.as_deref().unwrap_or_default());
            }
        }
        Err(malformed) => check_refusal(&malformed),
    }
    if let Err(malformed) = decode_openapi(body) {
        check_refusal(&malformed);
    }
});

fn check_items(items: &[Item]) {
    for item in items {
        if let Item::Reading { time, value, .. } = item {
            assert!(!time.is_nan() && !value.is_nan(), "JSON has no such number");
        }
    }
}

fn check_refusal(malformed: &Malformed) {
    let words = malformed.to_string();
    assert!(
        !words.is_empty() && words.chars().count() < LONGEST_REFUSAL,
        "{words}"
    );
}
