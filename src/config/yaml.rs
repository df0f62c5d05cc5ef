//! YAML as the text that was written: scalars keep their source text, and every value its line.
//!
//! A typed YAML reader would turn `client_id: 00123` into a number before anyone could say that it is text, so this
//! one stops at the parser's events. What a text means is decided in `read`. Anchors, aliases, tags and several
//! documents are refused: a configuration has no use for them. No error here quotes a value.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle};

use super::problem::is_key_like;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nothing, `null` or `~`.
    Null,
    /// Any other scalar, quoted or plain.
    Text(String),
    List(Vec<Node>),
    /// Keys are unique; in the file's order.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Why a text is not a configuration's YAML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Deeper nesting than any configuration has; keeps recursion over a [`Node`] shallow.
const DEEPEST: usize = 16;

/// Reads one document; an empty one is [`Kind::Null`].
pub(crate) fn parse(text: &str) -> Result<Node, Invalid> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    // As events they get the same advice as any alias; as errors they would be "unknown anchors".
    options.emit_unresolved_aliases = true;
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| Invalid {
            line: error.marker().line(),
            message: format!("not valid YAML: {error}", error = error.kind()),
        })?;
        builder
            .take(event, span.start.line())
            .map_err(|message| Invalid {
                line: span.start.line(),
                message,
            })?;
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        kind: Kind::Null,
    }))
}

/// A list or map whose end has not come yet.
enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// Keys seen, with their lines.
        seen: HashMap<String, usize>,
        pending: Option<Key>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<(usize, Open)>,
    root: Option<Node>,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        if let Some(tag) = event.tag()
            && !tag.is_yaml_core_schema_tag("str")
        {
            return Err("YAML tags are not supported, quote a text that begins with \"!\"".into());
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second YAML document begins here, one is expected".into());
                }
                Ok(())
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                Err("YAML aliases are not supported, quote a text that begins with \"*\"".into())
            }
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                Err("YAML anchors are not supported, quote a text that begins with \"&\"".into())
            }
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                self.scalar(text.into_owned(), plain, line)
            }
            Event::SequenceStart(..) => self.begin(line, Open::List(Vec::new())),
            Event::MappingStart(..) => self.begin(
                line,
                Open::Map {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    pending: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((line, open)) = self.open.pop() {
                    let kind = match open {
                        Open::List(items) => Kind::List(items),
                        // There may be a hundred thousand.
                        Open::Map { mut entries, .. } => {
                            entries.shrink_to_fit();
                            Kind::Map(entries)
                        }
                    };
                    self.place(Node { line, kind });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, open: Open) -> Result<(), String> {
        if let Some((_, Open::Map { pending: None, .. })) = self.open.last() {
            return Err("a key is a list or map, a text is expected".into());
        }
        if self.open.len() >= DEEPEST {
            return Err(format!("nested more than {DEEPEST} levels deep"));
        }
        self.open.push((line, open));
        Ok(())
    }

    fn scalar(&mut self, text: String, plain: bool, line: usize) -> Result<(), String> {
        let in_oauth = matches!(
            self.open.first(),
            Some((_, Open::Map { pending: Some(key), .. })) if key.text == "oauth"
        );
        // Below a key of `oauth` every text may be a secret that was put in the wrong place.
        let hidden = in_oauth && self.open.len() > 2;
        if let Some((_, Open::Map { pending, seen, .. })) = self.open.last_mut()
            && pending.is_none()
        {
            if let Some(first) = seen.insert(text.clone(), line) {
                let key = if is_key_like(&text, in_oauth) && !hidden {
                    format!("key \"{text}\"")
                } else {
                    "a key".to_owned()
                };
                return Err(format!("{key} is given twice, first on line {first}"));
            }
            *pending = Some(Key { text, line });
            return Ok(());
        }
        let null = plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
        let kind = if null { Kind::Null } else { Kind::Text(text) };
        self.place(Node { line, kind });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((_, Open::List(items))) => items.push(node),
            Some((
                _,
                Open::Map {
                    entries, pending, ..
                },
            )) => {
                if let Some(key) = pending.take() {
                    entries.push((key, node));
                }
            }
        }
    }
}
