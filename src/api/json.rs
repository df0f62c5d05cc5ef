//! Reads JSON in place: an object or array is split into the texts of its values, which are read only when asked for.
//!
//! No tree of values is built, so that a hostile body takes little more memory than its own length. What the values mean is
//! decided in `model`, the only caller.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The fields of an object, in their order.
#[derive(Default)]
pub(super) struct Object<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Returns `None` if the value is not an object.
    pub(super) fn from_json(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// Returns the last value of that key, as most JSON readers do.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        let mut fields = self.0.iter().rev();
        fields
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    fields.push((key_text(key), value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Returns the text of a key, or its JSON if that is not valid text (half of a surrogate pair), so that the other fields of
/// the object stay readable.
fn key_text(key: &RawValue) -> Cow<'_, str> {
    let json = key.get();
    match json.get(1..json.len() - 1) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => string(key).map_or(Cow::Borrowed(json), Cow::Owned),
    }
}

/// Returns the elements, or `None` if the value is not an array.
pub(super) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Returns the text, or `None` if the value is not a string.
pub(super) fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Whether the value is an object.
pub(super) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}
