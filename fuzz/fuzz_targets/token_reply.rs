//! Any bytes as the token endpoint's answer: a token with a sensible life, or an error that shows little and no secret.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{
    config::Secret,
    oauth::{Redactor, parse_token_response},
};

/// What the seeds repeat, as a careless server does.
const SECRETS: [&str; 2] = ["Kq7/s3cret+of=ours", "eyJjdHkiOiJKV1QifQ.Refresh-Token_1"];
const STATUSES: [u16; 8] = [200, 204, 302, 400, 401, 403, 429, 503];
/// Two fields of two hundred characters, and the words around them.
const LONGEST_ERROR: usize = 600;
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

fuzz_target!(|body: &[u8]| {
    for status in STATUSES {
        let redactor = Redactor::default();
        for secret in SECRETS {
            redactor.register_secret(&Secret::new(secret));
        }
        match parse_token_response(status, None, body, &redactor) {
            Ok(reply) => {
                assert!(reply.lifetime > Duration::ZERO && reply.lifetime <= LONGEST_LIFE);
                assert!(reply.access_token.bearer().is_sensitive());
                let bearer = reply.access_token.bearer().to_str().expect("it is ASCII");
                let token = bearer.strip_prefix("Bearer ").expect("it is a bearer");
                assert!(!token.is_empty() && !token.contains(' '));
            }
            Err(error) => {
                let words = error.to_string();
                assert!(words.chars().count() < LONGEST_ERROR, "{words}");
                assert!(!words.contains(char::is_control), "{words:?}");
                for secret in SECRETS {
                    assert!(!words.contains(secret), "{words}");
                }
            }
        }
    }
});
