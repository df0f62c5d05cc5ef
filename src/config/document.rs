//! The YAML file as a tree. serde-saphyr reads it and finds its errors; the tree keeps the source text of each scalar
//! (`00123` stays `00123`) and the line of each key and value.
//!
//! The meaning of a text is decided by the type of its field, in `text`. Anchors, aliases, tags, duplicate keys and
//! several documents are refused. No error here quotes a value. Called by `layer`.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Error, MergeKeyPolicy, NonFiniteFloatPolicy, Options, Spanned, Tagged, budget::BudgetBreach,
};

/// Deeper nesting than any configuration needs.
const MAX_DEPTH: usize = 16;

const TAG_ADVICE: &str = "YAML tags are not supported, quote a text that begins with \"!\"";
const ANCHOR_ADVICE: &str = "YAML anchors are not supported, quote a text that begins with \"&\"";
const ALIAS_ADVICE: &str = "YAML aliases are not supported, quote a text that begins with \"*\"";
const KEY_ADVICE: &str = "a key is a list, a map or nothing, a text is expected";

/// A file that has been read.
pub(super) struct Document<'a> {
    source: &'a str,
    pub(super) root: Node<'a>,
}

/// A value and its line, counted from 1.
pub(super) struct Node<'a> {
    pub(super) line: u32,
    pub(super) kind: Kind<'a>,
}

/// What a value is.
pub(super) enum Kind<'a> {
    /// Nothing, `null` or `~`.
    Null,
    Text(Cow<'a, str>),
    /// A plain scalar that YAML takes for a number or a boolean: where its text is in the source.
    Plain(Range<u32>),
    List(Vec<Node<'a>>),
    /// Keys are unique texts, in the order of the file.
    Map(Vec<(Node<'a>, Node<'a>)>),
}

impl Kind<'_> {
    /// The word for a value of the wrong kind.
    pub(super) fn for_display(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) | Self::Plain(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "keys",
        }
    }
}

/// Why a text is not the YAML of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl<'a> Document<'a> {
    /// Reads one document. `is_known_key` tells which keys may be named in an error.
    pub(super) fn parse(
        text: &'a str,
        is_known_key: impl Fn(&str) -> bool,
    ) -> Result<Self, Invalid> {
        let source = text.strip_prefix('\u{feff}').unwrap_or(text);
        match serde_saphyr::from_str_with_options(source, options()) {
            Ok(root) => Ok(Self { source, root }),
            Err(error) => Err(Invalid {
                line: error.location().map(|location| location.line() as usize),
                message: describe(&error, is_known_key),
            }),
        }
    }

    /// The text of a scalar; `None` for a list, a map or nothing.
    pub(super) fn text<'n>(&'n self, node: &'n Node<'a>) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => Some(text),
            Kind::Plain(range) => self.source.get(range.start as usize..range.end as usize),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The value under `key`, with the line of the key; a list is indexed by number.
    pub(super) fn child<'n>(
        &'n self,
        node: &'n Node<'a>,
        key: &str,
    ) -> Option<(u32, &'n Node<'a>)> {
        match &node.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(at, _)| self.text(at) == Some(key))
                .map(|(at, value)| (at.line, value)),
            Kind::List(items) => {
                let item = items.get(key.parse::<usize>().ok()?)?;
                Some((item.line, item))
            }
            Kind::Null | Kind::Text(_) | Kind::Plain(_) => None,
        }
    }
}

/// A list of 100,000 sensors passes; the size of the file is limited by `load`.
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
        // A snippet would show secrets.
        with_snippet: false,
    }
}

/// Says what is wrong in words that hold nothing of the file but a known key.
fn describe(error: &Error, is_known_key: impl Fn(&str) -> bool) -> String {
    let advice = match error {
        // The parser's own words name at most a character.
        Error::ExternalMessage { msg, .. } => return format!("not valid YAML: {msg}"),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) if is_known_key(key) => return format!("key \"{key}\" is given twice"),
            _ => "a key is given twice",
        },
        Error::Message { msg, .. } if msg == TAG_ADVICE => TAG_ADVICE,
        Error::Message { msg, .. } if msg == KEY_ADVICE => KEY_ADVICE,
        Error::UnsupportedTag { .. } => TAG_ADVICE,
        Error::UnknownAnchor { .. } => ALIAS_ADVICE,
        Error::MultipleDocuments { .. } => "a second YAML document begins here, one is expected",
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Anchors { .. } => ANCHOR_ADVICE,
            BudgetBreach::Aliases { .. } => ALIAS_ADVICE,
            _ => return format!("nested more than {MAX_DEPTH} levels deep"),
        },
        _ => "not valid YAML",
    };
    advice.to_owned()
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value: Tagged(kind, tag),
            referenced: place,
            ..
        } = Spanned::deserialize(deserializer)?;
        if tag.is_some() {
            return Err(D::Error::custom(TAG_ADVICE));
        }
        let span = place.span();
        let kind = match (kind, span.byte_offset(), span.byte_len()) {
            (Kind::Plain(_), Some(start), Some(length)) => {
                Kind::Plain(start as u32..(start + length) as u32)
            }
            (kind, ..) => kind,
        };
        let line = place.line() as u32;
        Ok(Self { line, kind })
    }
}

impl<'de> Deserialize<'de> for Kind<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl KindVisitor {
    /// Takes a number or a boolean: [`Node`] knows where its text is.
    fn plain<'a, E>() -> Result<Kind<'a>, E> {
        Ok(Kind::Plain(0..0))
    }
}

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Self::plain()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Self::plain()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Self::plain()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Self::plain()
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Kind::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Kind::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Node<'de>, Node<'de>>()? {
            if !matches!(key.kind, Kind::Text(_) | Kind::Plain(_)) {
                return Err(A::Error::custom(KEY_ADVICE));
            }
            map.push((key, value));
        }
        // There may be a hundred thousand maps.
        map.shrink_to_fit();
        Ok(Kind::Map(map))
    }
}
