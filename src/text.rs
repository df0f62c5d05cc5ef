//! Values from their text. The layers of the configuration hold texts, so that `00123` stays what was written; the type
//! of a field says how its text is read, with `#[serde(deserialize_with = "text::parse")]`.
//!
//! Used by `config`, `catalog` and `duration`. An error completes a sentence that begins with the value.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
use tracing::Level;
use url::Url;

/// A value that is read from a text.
pub(crate) trait FromText: Sized {
    /// Reads a text without spaces around it.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// Reads a text as a value.
pub(crate) fn parse<'de, D: Deserializer<'de>, T: FromText>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::from_text(text.trim()).map_err(D::Error::custom)
}

/// Reads a text as a value that may be absent.
pub(crate) fn parse_option<'de, D: Deserializer<'de>, T: FromText>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let value = text.map(|text| T::from_text(text.trim())).transpose();
    value.map_err(D::Error::custom)
}

/// Reads a text for which empty means absent.
pub(crate) fn non_empty<'de, D: Deserializer<'de>, T: From<String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(T::from))
}

/// Reads a map without the entries that have no value.
pub(crate) fn set_entries<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    let entries = BTreeMap::<String, Option<T>>::deserialize(deserializer)?;
    let set = entries.into_iter();
    Ok(set.filter_map(|(key, value)| Some((key, value?))).collect())
}

/// Writes a value in small letters.
pub(crate) fn lowercase<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string().to_ascii_lowercase())
}

impl FromText for bool {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        }
    }
}

/// Digits only, without a leading zero: YAML 1.1 and 1.2 disagree on what `010` is.
impl FromText for usize {
    fn from_text(text: &str) -> Result<Self, String> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let number = Self::from_str(text).ok().filter(|_| is_plain);
        number.ok_or_else(|| "is not a whole number".to_owned())
    }
}

impl FromText for f64 {
    fn from_text(text: &str) -> Result<Self, String> {
        let number = Self::from_str(text).ok();
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| "is not a number".to_owned())
    }
}

/// The five levels of the log, in small letters.
impl FromText for Level {
    fn from_text(text: &str) -> Result<Self, String> {
        let known = ["error", "warn", "info", "debug", "trace"];
        let level = Self::from_str(text).ok().filter(|_| known.contains(&text));
        level.ok_or_else(|| format!("is not one of: {}", known.join(", ")))
    }
}

impl FromText for Url {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
            .map_err(|_| "is not a URL, write for example https://host/path".to_owned())
    }
}
