//! The YAML of a configuration as a tree. serde-saphyr reads it and finds its errors; the tree keeps the source text of
//! each value (`00123` stays `00123`) and its line.
//!
//! The type and the serde attribute of a field decide what its text means, see `text`. Anchors, aliases, tags, duplicate
//! keys and several documents are refused. No error here quotes a value. The built-in defaults are here too. Called by
//! `layers` and `overrides`.

use std::{fmt, ops::Range};

use figment::value::{Dict, Empty, Tag, Value};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_saphyr::{
    Error, MergeKeyPolicy, NonFiniteFloatPolicy, Options, Spanned, Tagged, budget::BudgetBreach,
};

/// Deeper nesting than any configuration needs.
const MAX_DEPTH: usize = 16;

const NOT_SUPPORTED: &str =
    "YAML tags, anchors and aliases are not supported, quote a text that begins with !, & or *";

/// The file with all defaults.
const DEFAULTS: &str = include_str!("default.yaml");

/// A value of a YAML document.
#[derive(Debug)]
pub(super) struct Node {
    /// Counted from 1; a value that has a key has the line of its key.
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `null` or `~`.
    Null,
    Text(String),
    /// A number or a boolean while the document is parsed, by the place of its text; [`Node::parse`] then makes it a `Text`.
    Plain(Range<u32>),
    List(Vec<Node>),
    /// Keys are unique, in the order of the file.
    Map(Vec<(String, Node)>),
}

/// Returns the built-in defaults.
pub(super) fn defaults() -> Value {
    let root = Node::parse(DEFAULTS).expect("the unit tests read the embedded default.yaml");
    root.to_value(0)
}

/// Returns whether the key may be named in an error, and left out if it has no value: it is a word with a colon in
/// `default.yaml`. Its comments name the keys of sensors, locations and variables.
pub(super) fn is_named_in_defaults(key: &str) -> bool {
    let mut words = DEFAULTS.split_whitespace();
    words.any(|word| word.strip_suffix(':') == Some(key))
}

impl Node {
    /// Reads one document. An error has a line where it is known.
    pub(super) fn parse(text: &str) -> Result<Self, (Option<u32>, String)> {
        let source = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut root: Self =
            serde_saphyr::from_str_with_options(source, options()).map_err(|error| {
                let line = error.location().map(|location| location.line() as u32);
                (line, describe(&error))
            })?;
        root.restore_texts(source);
        Ok(root)
    }

    fn restore_texts(&mut self, source: &str) {
        match &mut self.kind {
            Kind::Plain(Range { start, end }) => {
                let text = source.get(*start as usize..*end as usize);
                self.kind = Kind::Text(text.unwrap_or_default().to_owned());
            }
            Kind::List(items) => items.iter_mut().for_each(|item| item.restore_texts(source)),
            Kind::Map(entries) => entries
                .iter_mut()
                .for_each(|(_, value)| value.restore_texts(source)),
            Kind::Null | Kind::Text(_) => {}
        }
    }

    /// Returns the value under a key of a map or an index of a list.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            Kind::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Returns the node as a value of figment: texts, lists and maps. In the upper `levels_without_nulls` levels of maps, a
    /// known key without a value is left out, so that its default stays; below them it becomes an empty value.
    pub(super) fn to_value(&self, levels_without_nulls: usize) -> Value {
        match &self.kind {
            // `Plain` does not occur: `parse` has replaced it.
            Kind::Null | Kind::Plain(_) => Value::Empty(Tag::Default, Empty::None),
            Kind::Text(text) => Value::from(text.as_str()),
            Kind::List(items) => {
                let items = items.iter().map(|item| item.to_value(levels_without_nulls));
                Value::from(items.collect::<Vec<_>>())
            }
            Kind::Map(entries) => {
                let mut dict = Dict::new();
                for (key, node) in entries {
                    if levels_without_nulls == 0
                        || !matches!(node.kind, Kind::Null)
                        || !is_named_in_defaults(key)
                    {
                        dict.insert(
                            key.clone(),
                            node.to_value(levels_without_nulls.saturating_sub(1)),
                        );
                    }
                }
                Value::from(dict)
            }
        }
    }
}

/// The default limits of the library would refuse a file of more than about 22,700 sensors. `load` limits the size of the
/// file.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_depth: MAX_DEPTH,
            max_anchors: 0,
            max_aliases: 0,
        },
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        // A snippet would show secrets.
        with_snippet: false,
    }
}

/// Describes an error in words that hold nothing of the file but a known key.
fn describe(error: &Error) -> String {
    match error {
        // The parser's own words name at most a character.
        Error::ExternalMessage { msg, .. } => format!("not valid YAML: {msg}"),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) if is_named_in_defaults(key) => format!("key \"{key}\" is given twice"),
            _ => "a key is given twice".to_owned(),
        },
        Error::MultipleDocuments { .. } => "a second YAML document begins here".to_owned(),
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => format!("nested more than {MAX_DEPTH} levels deep"),
            _ => NOT_SUPPORTED.to_owned(),
        },
        Error::UnsupportedTag { .. } | Error::UnknownAnchor { .. } => NOT_SUPPORTED.to_owned(),
        Error::Message { msg, .. } if msg == NOT_SUPPORTED => NOT_SUPPORTED.to_owned(),
        _ => "invalid YAML, or a key is not a string".to_owned(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tagged<Kind>>::deserialize(deserializer)?;
        let Tagged(mut kind, None) = spanned.value else {
            return Err(D::Error::custom(NOT_SUPPORTED));
        };
        let place = spanned.referenced;
        if let Kind::Plain(range) = &mut kind {
            let start = place.span().byte_offset().unwrap_or_default() as u32;
            let length = place.span().byte_len().unwrap_or_default() as u32;
            *range = start..start + length;
        }
        let line = place.line() as u32;
        Ok(Self { line, kind })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Plain(0..0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Plain(0..0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Plain(0..0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Plain(0..0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Kind, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Kind::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some((key, mut value)) = entries.next_entry::<Spanned<String>, Node>()? {
            value.line = key.referenced.line() as u32;
            map.push((key.value, value));
        }
        // There may be a hundred thousand maps.
        map.shrink_to_fit();
        Ok(Kind::Map(map))
    }
}
