//! Redacts any text that holds secrets in the forms that the redactor knows, and checks that the result shows none of them.
#![no_main]

use arbitrary::Arbitrary;
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{config::Secret, oauth::Redactor};
use url::form_urlencoded;

/// Shorter secrets occur in ordinary words.
const MIN_SECRET_CHARS: usize = 8;
const MAX_SECRETS: usize = 4;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    secrets: Vec<&'a str>,
    text: Vec<Piece<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Text(&'a str),
    Secret(u8, Form<'a>),
}

#[derive(Arbitrary, Debug)]
enum Form<'a> {
    Literal,
    /// With a control character after each character.
    Interleaved,
    UrlEncoded,
    /// Inside a longer text.
    Base64(&'a [u8], &'a [u8], bool),
}

fuzz_target!(|input: Input| {
    let secrets: Vec<&str> = input.secrets.iter().copied().filter(is_usable).collect();
    let secrets = &secrets[..secrets.len().min(MAX_SECRETS)];
    let redactor = Redactor::default();
    for secret in secrets {
        redactor.register_secret(&Secret::new(*secret));
    }
    let pieces = input.text.iter().map(|piece| write(piece, secrets));
    let text: String = pieces.collect();
    let redacted = redactor.redact(&text);
    assert!(!redacted.contains(char::is_control), "{redacted:?}");
    assert!(redactor.excerpt(&text).chars().count() <= 200);
    let decoded = [false, true].map(|url_safe| base64_in(&redacted, url_safe));
    for secret in secrets {
        let readable = [(*secret).to_owned(), form_encoded(secret)];
        let found = readable.iter().any(|form| redacted.contains(form))
            || decoded.iter().flatten().any(|text| text.contains(secret));
        assert!(!found, "{secret:?} in {redacted:?} of {text:?}");
    }
});

/// Whether a secret differs from its replacement and from text that cannot be decoded.
fn is_usable(secret: &&str) -> bool {
    secret.chars().count() >= MIN_SECRET_CHARS
        && !secret.contains(|c: char| c.is_control() || matches!(c, '<' | '>' | '\u{fffd}'))
}

fn write(piece: &Piece, secrets: &[&str]) -> String {
    let (index, form) = match piece {
        Piece::Text(text) => return (*text).to_owned(),
        Piece::Secret(index, form) => (index, form),
    };
    let Some(secret) = secrets.get(usize::from(*index) % secrets.len().max(1)) else {
        return String::new();
    };
    match form {
        Form::Literal => (*secret).to_owned(),
        Form::Interleaved => secret.chars().flat_map(|c| [c, '\n']).collect(),
        Form::UrlEncoded => form_encoded(secret),
        Form::Base64(before, after, url_safe) => {
            alphabet(*url_safe).encode([before, secret.as_bytes(), after].concat())
        }
    }
}

fn form_encoded(secret: &str) -> String {
    form_urlencoded::byte_serialize(secret.as_bytes()).collect()
}

fn alphabet(url_safe: bool) -> GeneralPurpose {
    let alphabet = if url_safe {
        &base64::alphabet::URL_SAFE
    } else {
        &base64::alphabet::STANDARD
    };
    let lenient = NO_PAD.with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, lenient)
}

/// Decodes each run of base64 from each of its first four characters on.
fn base64_in(text: &str, url_safe: bool) -> Vec<String> {
    let others = if url_safe { ['-', '_'] } else { ['+', '/'] };
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric() && !others.contains(&c));
    let decode = |run: &str, from: usize| {
        let run = &run[from..];
        // One character of four does not make a byte.
        let length = run.len() - usize::from(run.len() % 4 == 1);
        let bytes = alphabet(url_safe).decode(&run[..length]);
        String::from_utf8_lossy(&bytes.expect("it is base64")).into_owned()
    };
    runs.flat_map(|run| (0..4.min(run.len())).map(move |from| decode(run, from)))
        .collect()
}
