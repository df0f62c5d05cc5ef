//! Reads any bytes as a reply of the token endpoint: the result is a token with a plausible lifetime,
//! or a short error without a secret.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{
    config::Secret,
    oauth::{Redactor, parse_token_response},
};

/// The seeds contain these, like the replies of a server that repeats what it was sent.
const SECRETS: [&str; 2] = ["Kq7/s3cret+of=ours", "eyJjdHkiOiJKV1QifQ.Refresh-Token_1"];
const STATUSES: [u16; 8] = [200, 204, 302, 400, 401, 403, 429, 503];
/// Two fields of two hundred characters, and the text around them.
const MAX_ERROR_CHARS: usize = 600;
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

fuzz_target!(|body: &[u8]| {
    for status in STATUSES {
        let redactor = Redactor::default();
        for secret in SECRETS {
            redactor.register_secret(&Secret::new(secret));
        }
        match parse_token_response(status, None, body, &redactor) {
            Ok(reply) => {
                assert!(reply.lifetime > Duration::ZERO && reply.lifetime <= MAX_LIFETIME);
                assert!(reply.access_token.bearer().is_sensitive());
                let header = reply.access_token.bearer();
                let bearer = header.to_str().expect("it is ASCII");
                let token = bearer.strip_prefix("Bearer ").expect("it is a bearer");
                assert!(!token.is_empty() && !token.contains(' '));
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.chars().count() < MAX_ERROR_CHARS, "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
                for secret in SECRETS {
                    assert!(!text.contains(secret), "{text}");
                }
            }
        }
    }
});
