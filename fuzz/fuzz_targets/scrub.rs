//! Secrets of any kind, written in any of the ways that servers repeat what they were sent: none can be read in what is
//! shown.
#![no_main]

use arbitrary::Arbitrary;
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{config::Secret, oauth::Redactor};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// A shorter one may stand in any word.
const SHORTEST_SECRET: usize = 8;
const MOST_SECRETS: usize = 4;

#[derive(Arbitrary, Debug)]
struct Fuzzed<'a> {
    secrets: Vec<&'a str>,
    text: Vec<Piece<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Text(&'a str),
    Secret(u8, Written<'a>),
}

#[derive(Arbitrary, Debug)]
enum Written<'a> {
    AsIs,
    /// With something that does not show after each character.
    Spread(Invisible),
    Form,
    /// Each byte is encoded or not, in capitals or not, by two bits of these.
    Percent(&'a [u8]),
    /// Within a longer text.
    Base64(&'a [u8], &'a [u8], bool),
}

#[derive(Arbitrary, Debug)]
enum Invisible {
    Newline,
    Escape,
    EncodedNul,
}

fuzz_target!(|fuzzed: Fuzzed| {
    let secrets: Vec<&str> = fuzzed.secrets.iter().copied().filter(is_tellable).collect();
    let secrets = &secrets[..secrets.len().min(MOST_SECRETS)];
    let redactor = Redactor::default();
    for secret in secrets {
        redactor.register_secret(&Secret::new(*secret));
    }
    let text: String = fuzzed
        .text
        .iter()
        .map(|piece| write(piece, secrets))
        .collect();
    let shown = redactor.redact(&text);
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(redactor.excerpt(&text).chars().count() <= 200);
    for read in readings(&shown) {
        for secret in secrets {
            assert!(
                !read.contains(secret),
                "{secret:?} in {read:?} of {shown:?} of {text:?}"
            );
        }
    }
});

/// Such as can be told from what stands in the place of a secret, or of what cannot be read.
fn is_tellable(secret: &&str) -> bool {
    secret.chars().count() >= SHORTEST_SECRET
        && !secret.contains(|c: char| c.is_control() || matches!(c, '<' | '>' | '\u{fffd}'))
}

fn write(piece: &Piece, secrets: &[&str]) -> String {
    let (at, written) = match piece {
        Piece::Text(text) => return (*text).to_owned(),
        Piece::Secret(at, written) => (at, written),
    };
    let Some(secret) = secrets.get(usize::from(*at) % secrets.len().max(1)) else {
        return String::new();
    };
    match written {
        Written::AsIs => (*secret).to_owned(),
        Written::Spread(invisible) => {
            let invisible = match invisible {
                Invisible::Newline => "\n",
                Invisible::Escape => "\u{1b}",
                Invisible::EncodedNul => "%00",
            };
            let spread = |character: char| match invisible {
                // A percent sign in a text that is decoded is written as its code.
                "%00" if matches!(character, '%' | '+') => format!("%{:02X}%00", character as u32),
                _ => format!("{character}{invisible}"),
            };
            secret.chars().map(spread).collect()
        }
        Written::Form => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        Written::Percent(choices) => {
            let mut choices = choices.iter().copied().cycle();
            let bytes = secret.bytes().flat_map(|byte| {
                let choice = choices.next().unwrap_or_default();
                let must = matches!(byte, b'%' | b'+');
                match (must || choice & 1 == 1, choice & 2 == 2) {
                    (true, true) => format!("%{byte:02X}").into_bytes(),
                    (true, false) => format!("%{byte:02x}").into_bytes(),
                    (false, true) if byte == b' ' => vec![b'+'],
                    (false, _) => vec![byte],
                }
            });
            // Half a character as it is and half encoded is no text.
            String::from_utf8(bytes.collect()).unwrap_or_default()
        }
        Written::Base64(before, after, url_safe) => {
            alphabet(*url_safe).encode([before, secret.as_bytes(), after].concat())
        }
    }
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

/// What somebody who knows the usual encodings reads in a text.
fn readings(shown: &str) -> Vec<String> {
    let spaced = shown.replace('+', " ");
    let decoded = [shown, &spaced].map(|text| {
        let decoded = percent_decode_str(text).decode_utf8_lossy().into_owned();
        decoded.replace(char::is_control, "")
    });
    let mut readings = vec![shown.to_owned(), spaced];
    readings.extend(decoded);
    let in_base64: Vec<_> = readings
        .iter()
        .flat_map(|text| [false, true].map(|url_safe| base64_in(text, url_safe)))
        .flatten()
        .collect();
    readings.extend(in_base64);
    readings
}

/// Each run of base64 from each of its first four characters on.
fn base64_in(text: &str, url_safe: bool) -> impl Iterator<Item = String> {
    let others = if url_safe { ['-', '_'] } else { ['+', '/'] };
    let runs = text.split(move |c: char| !c.is_ascii_alphanumeric() && !others.contains(&c));
    runs.flat_map(move |run| {
        (0..4.min(run.len())).map(move |from| {
            let run = &run[from..];
            // A single character of four is none of a byte.
            let whole = if run.len() % 4 == 1 {
                run.len() - 1
            } else {
                run.len()
            };
            let bytes = alphabet(url_safe)
                .decode(&run[..whole])
                .expect("it is base64");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}
