//! The keys of a web configuration file, as they are written. What their values mean is decided in `settings`.

use std::{collections::BTreeMap, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor, value},
    forward_to_deserialize_any,
};
use serde_saphyr::Error;

use crate::error::{ConfigError, Problems};

/// An unknown key is compared with a known one up to this many typing errors.
const MAX_TYPING_ERRORS: usize = 3;
/// A longer key is not shown: it may be a secret in the wrong place.
const MAX_KEY_BYTES: usize = 60;

/// A web configuration file.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "the keys of a web configuration")]
pub(super) struct ConfigFile {
    pub(super) tls_server_config: Option<TlsSection>,
    pub(super) http_server_config: Option<HttpSection>,
    pub(super) basic_auth_users: Option<BTreeMap<String, Option<String>>>,
    pub(super) rate_limit: Option<RateLimitSection>,
}

/// The section `tls_server_config`.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "the keys of tls_server_config")]
pub(super) struct TlsSection {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_auth_type: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) curve_preferences: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
}

/// The section `http_server_config`.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "the keys of http_server_config")]
pub(super) struct HttpSection {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<BTreeMap<String, Option<String>>>,
}

/// The section `rate_limit`.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "the keys of rate_limit")]
pub(super) struct RateLimitSection {
    pub(super) interval: Option<String>,
    pub(super) burst: Option<String>,
}

/// Reads the YAML of the file `path`. All unknown keys are reported, but only the first error of another kind.
pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
        // The option stands for an empty file.
        Option::<ConfigFile>::deserialize(serde_ignored::Deserializer::new(yaml, &mut ignored))
    });
    let mut problems = Problems::new(path);
    for key in unknown {
        // A "?" stands for each `Option` on the way.
        let keys: Vec<_> = key.split('.').filter(|key| *key != "?").collect();
        report_unknown_key(&mut problems, &keys.join("."));
    }
    match parsed {
        Ok(file) => problems.or(file.unwrap_or_default()),
        Err(error) => {
            let line = error.location().map(|location| location.line());
            let key = track.path().to_string();
            let key = if key != "." && is_shown(&key) {
                key
            } else {
                String::new()
            };
            problems.add_at(line, key, yaml_problem(&error));
            problems.or(ConfigFile::default())
        }
    }
}

/// Describes a YAML error without the value that caused it.
fn yaml_problem(error: &Error) -> String {
    let expected = match error.without_snippet() {
        Error::Unexpected { expected, .. } | Error::InvalidScalar { ty: expected, .. } => *expected,
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            expected.as_str()
        }
        Error::ExternalMessage { msg, .. } => return format!("yaml: invalid YAML: {msg}"),
        Error::DuplicateMappingKey { .. } => return "yaml: a key is given twice".to_owned(),
        Error::MultipleDocuments { .. } => {
            return "yaml: a second document begins, expected one".to_owned();
        }
        _ => return "yaml: invalid YAML or an unexpected kind of value".to_owned(),
    };
    let expected = match expected {
        "mapping start" => "keys with values",
        "sequence start" => "a list",
        "string scalar" => "a text",
        expected => expected,
    };
    format!("yaml: invalid value, expected {expected}")
}

/// Reports the key at `path`, such as `tls_server_config.cert_fil`, and the known key that it may stand for.
fn report_unknown_key(problems: &mut Problems<'_>, path: &str) {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let known = known_keys(section);
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .filter(|(errors, _)| *errors <= MAX_TYPING_ERRORS)
        .min();
    let advice = match nearest {
        Some((_, nearest)) => format!("did you mean {nearest:?}?"),
        None => format!("expected one of {}", known.join(", ")),
    };
    let shown = if is_shown(path) { path } else { section };
    problems.add(shown, format!("yaml: unknown key, {advice}"));
}

/// Returns whether a key cannot be mistaken for a secret that was put in its place, as in `dave:hunter2`.
fn is_shown(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn known_keys(section: &str) -> &'static [&'static str] {
    match section {
        "tls_server_config" => fields_of::<TlsSection>(),
        "http_server_config" => fields_of::<HttpSection>(),
        "rate_limit" => fields_of::<RateLimitSection>(),
        _ => fields_of::<ConfigFile>(),
    }
}

/// Returns the names of the fields of a struct with a derived `Deserialize`.
fn fields_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(value::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // The error says that there is no value, which is not needed.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}
