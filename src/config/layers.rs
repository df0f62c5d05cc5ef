//! The merged layers: built-in defaults < file < environment < flags. figment merges them and remembers the layer of each
//! value, serde reads the result, and each problem names the file and line, the variable or the flag it comes from.
//!
//! What one layer says is known to `layer`, what values must be to the types of `config` and to `validate`. Called by
//! `config::load`.

use std::collections::HashMap;

use figment::{
    Figment, Metadata, Profile, Provider,
    error::{Actual, Kind as ErrorKind},
    value::{Dict, Empty, Map, Tag, Value},
};
use serde::de::DeserializeOwned;

use super::{
    Errors, Flags, Purpose,
    document::{Document, Kind, Node},
    error::{Problem, is_key_like, value_for_display},
    layer::{
        Source, below, defaults, from_environment, from_file, from_flags, is_list_key, paths,
        to_value, variable,
    },
};

/// Reading again after each problem would take too long for a file of thousands of wrong values.
const MAX_PROBLEMS: usize = 1000;

/// The keys of section `oauth` that take a text, or under `<key>_file` the path of a file with the text.
pub(super) const CREDENTIAL_KEYS: [&str; 3] = ["client_id", "client_secret", "refresh_token"];

/// The merged layers, and the problems found in them.
pub(super) struct Layers<'a> {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    defaults: Value,
    /// Lists at the top of the file are empty here; [`Layers::item`] reads them from the document.
    merged: Value,
    figment: Figment,
    file: Option<(&'a str, Document<'a>)>,
}

/// An entry of `sensors` or `locations`: an object with an id, or the id alone.
pub(super) trait ListItem: DeserializeOwned {
    fn id(&self) -> &str;
    /// Checks the rest of the object, which is at `path`.
    fn validate(&self, layers: &mut Layers<'_>, path: &[&str]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Defaults,
    File,
    Environment,
    Flags,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Defaults, Self::File, Self::Environment, Self::Flags];

    fn name(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flags => "flags",
        }
    }
}

/// One layer as figment takes it.
struct Layer(Origin, Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.1.clone()))
    }
}

impl<'a> Layers<'a> {
    /// Merges the layers. A file that is not the YAML of a configuration is an error at once.
    pub(super) fn new(
        source: Option<Source<'a>>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Errors> {
        let defaults = defaults();
        let mut layers = Self {
            problems: Vec::new(),
            warnings: Vec::new(),
            defaults: Value::from(defaults.clone()),
            merged: Value::from(Dict::new()),
            figment: Figment::from(Layer(Origin::Defaults, defaults)),
            file: None,
        };
        if let Some(source) = source {
            let (document, dict) = from_file(source, &layers.defaults).map_err(Errors::new)?;
            layers.file = Some((source.name, document));
            layers.merge(Origin::File, dict);
        }
        let dict = from_environment(
            environment,
            &layers.defaults,
            &mut layers.problems,
            &mut layers.warnings,
        );
        layers.merge(Origin::Environment, dict);
        layers.merge(Origin::Flags, from_flags(flags));
        if let Ok(merged) = layers.figment.find_value("") {
            layers.merged = merged;
        }
        Ok(layers)
    }

    fn merge(&mut self, origin: Origin, dict: Dict) {
        self.figment = std::mem::take(&mut self.figment).merge(Layer(origin, dict));
    }

    /// Whether the environment lists any sensor or location; those of the file are not in `merged`.
    pub(super) fn environment_lists_targets(&self) -> bool {
        ["sensors", "locations"].iter().any(|key| {
            let list = self.merged.find_ref(key).and_then(Value::as_array);
            list.is_some_and(|list| !list.is_empty())
        })
    }

    /// Reads everything but the lists of sensors and locations; `None` if a problem leaves nothing to check.
    pub(super) fn read<T: DeserializeOwned>(&mut self, purpose: Purpose) -> Option<T> {
        let mut value = self.merged.clone();
        let defaults = self.defaults.clone();
        if let Value::Dict(_, sections) = &mut value
            && let Some(Value::Dict(_, oauth)) = sections.get_mut("oauth")
        {
            self.join_credentials(oauth, purpose);
        }
        self.read_value(&mut value, &[], Some(&defaults))
    }

    /// Turns the keys `<key>` and `<key>_file` into the two forms of a [`Credential`](super::Credential).
    fn join_credentials(&mut self, oauth: &mut Dict, purpose: Purpose) {
        let has_store = oauth.get("token_store").is_some_and(is_set);
        for key in CREDENTIAL_KEYS {
            let file_key = format!("{key}_file");
            let [inline_path, file_path] = [["oauth", key], ["oauth", &file_key]];
            let inline = oauth.remove(key).filter(is_set);
            let file = oauth.remove(&file_key).filter(is_set);
            let credential = match (inline, file) {
                (Some(_), Some(_)) => {
                    let other = self.describe_origin(&file_path);
                    let message = format!("and oauth.{file_key} ({other}) are both set, keep one");
                    self.refuse(&inline_path, &message);
                    None
                }
                (Some(value), None) => self.credential(&inline_path, value, "inline"),
                (None, Some(value)) => self.credential(&file_path, value, "file"),
                (None, None) => {
                    let is_needed =
                        key != "refresh_token" || (!has_store && purpose != Purpose::Login);
                    if is_needed {
                        self.report(&["oauth"], missing_credential(key));
                    }
                    None
                }
            };
            let empty = Value::Empty(Tag::Default, Empty::None);
            // The other rules are checked even where the id, which must be there, is missing.
            let value = credential.unwrap_or(match key {
                "client_id" => Value::from(Dict::from([("inline".to_owned(), Value::from(""))])),
                _ => empty,
            });
            oauth.insert(key.to_owned(), value);
        }
    }

    fn credential(&mut self, path: &[&str], value: Value, form: &str) -> Option<Value> {
        match &value {
            Value::String(_, text) if text.is_empty() => {
                let advice = "is empty, set it or leave the key out";
                self.refuse(path, advice);
                None
            }
            Value::String(..) => Some(Value::from(Dict::from([(form.to_owned(), value)]))),
            other => {
                let found = kind_for_display(&other.to_actual());
                self.report(
                    path,
                    format!("{}: found {found} instead of one value", name(path)),
                );
                None
            }
        }
    }

    /// Reads the list under `key`; ids must be valid and unique.
    pub(super) fn read_list<T: ListItem>(&mut self, key: &str) -> Vec<T> {
        let length = match self.merged.find_ref(key) {
            Some(Value::Array(_, items)) => self.file_list(key).map_or(items.len(), <[_]>::len),
            Some(value) => {
                let found = kind_for_display(&value.to_actual());
                self.report(&[key], format!("{key}: found {found} instead of a list"));
                0
            }
            None => 0,
        };
        let mut items = Vec::with_capacity(length);
        for index in 0..length {
            let position = index.to_string();
            let path = [key, &position];
            let mut value = self.item(key, index);
            let id_path = match value {
                Value::String(tag, _) => {
                    value = Value::Dict(tag, Dict::from([("id".to_owned(), value)]));
                    &path[..]
                }
                _ => &[key, &position, "id"],
            };
            let Some(item) = self.read_value::<T>(&mut value, &path, None) else {
                continue;
            };
            if !is_id(item.id()) {
                let advice = "is not an id, use letters, digits, \".\", \"_\" and \"-\"";
                self.refuse(id_path, advice);
            }
            item.validate(self, &path);
            items.push((index, item));
        }
        self.refuse_duplicates(
            &[key],
            items.iter().map(|(index, item)| (*index, item.id())),
        );
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// Refuses what is listed twice under `path`.
    pub(super) fn refuse_duplicates<'t>(
        &mut self,
        path: &[&str],
        items: impl Iterator<Item = (usize, &'t str)>,
    ) {
        let mut seen = HashMap::new();
        for (index, text) in items {
            if let Some(first) = seen.insert(text, index) {
                let first = name(&[path, &[&first.to_string()]].concat());
                let index = index.to_string();
                let path = [path, &[&index]].concat();
                let shown = value_for_display(text);
                let message = format!("{}: {shown} is listed twice, first as {first}", name(&path));
                self.report(&path, message);
            }
        }
    }

    /// The list under `key` in the file, if the file's list is the one that counts.
    fn file_list(&self, key: &str) -> Option<&[Node<'a>]> {
        let (_, document) = self.file.as_ref()?;
        let is_from_file = self.layer_of(&[key]) == Origin::File;
        match &document
            .child(&document.root, key)
            .filter(|_| is_from_file)?
            .1
            .kind
        {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    fn item(&self, key: &str, index: usize) -> Value {
        let in_file = self.file_list(key).and_then(|items| items.get(index));
        if let (Some(item), Some((_, document))) = (in_file, &self.file) {
            // `labels` below may not be null, the other keys may.
            return to_value(document, item, 1);
        }
        let items = self.merged.find_ref(key).and_then(Value::as_array);
        let item = items.and_then(|items| items.get(index).cloned());
        item.unwrap_or(Value::Empty(Tag::Default, Empty::None))
    }

    /// Reads a value with serde. A part of it that is unknown or of the wrong kind is reported and replaced by its
    /// default, and the rest is read again: one run finds all problems.
    fn read_value<T: DeserializeOwned>(
        &mut self,
        value: &mut Value,
        path: &[&str],
        defaults: Option<&Value>,
    ) -> Option<T> {
        let before = self.problems.len();
        for below in misplaced_lists(value, &[]) {
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            let path = [path, &below].concat();
            self.report(
                &path,
                format!("{}: found a list instead of one value", name(&path)),
            );
            if !replace(value, &below, defaults) {
                return None;
            }
        }
        loop {
            let error = match value.deserialize() {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let is_first = self.problems.len() == before;
            if matches!(error.kind, ErrorKind::MissingField(_)) && !is_first {
                return None;
            }
            let below: Vec<&str> = error.path.iter().map(String::as_str).collect();
            self.report_error(&[path, &below].concat(), &error.kind);
            let may_go_on = self.problems.len() - before < MAX_PROBLEMS;
            if !may_go_on || !replace(value, &below, defaults) {
                return None;
            }
        }
    }

    fn report_error(&mut self, path: &[&str], kind: &ErrorKind) {
        let place = name(path);
        match kind {
            ErrorKind::Message(message) => self.refuse(path, message),
            ErrorKind::UnknownVariant(_, known) => {
                self.refuse(path, &format!("is not one of: {}", known.join(", ")));
            }
            ErrorKind::UnknownField(_, known) => {
                let message = self.unknown_key(path, known);
                self.report(path, message);
            }
            ErrorKind::MissingField(field) => {
                self.report(path, format!("{place}.{field} is missing"));
            }
            ErrorKind::InvalidType(found, expected) => {
                let found = kind_for_display(found);
                let expected = match expected.as_str() {
                    "a string" | "path string" | "enum" => "one value",
                    "a map" => "keys",
                    "a sequence" => "a list",
                    expected => expected,
                };
                self.report(
                    path,
                    format!("{place}: found {found} instead of {expected}"),
                );
            }
            _ => self.refuse(path, "has the wrong kind of value"),
        }
    }

    /// Names an unknown key and the nearest known one: the same key in another section, or the most similar key here.
    fn unknown_key(&self, path: &[&str], known: &[&str]) -> String {
        let (key, place) = path.split_last().unwrap_or((&"", &[]));
        let named = match (is_key_like(key, place.first() == Some(&"oauth")), place) {
            (true, _) => format!("unknown key \"{}\"", name(path)),
            (false, []) => "unknown key".to_owned(),
            (false, place) => format!("unknown key under \"{}\"", name(place)),
        };
        let elsewhere = paths(&self.defaults)
            .into_iter()
            .find(|known| place.len() <= 1 && known.rsplit('.').next() == Some(key));
        let key = key.to_ascii_lowercase();
        let similarity = |known: &str| strsim::normalized_damerau_levenshtein(known, &key);
        let here = known
            .iter()
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let nearest = elsewhere.or_else(|| Some(name(&[place, &[*here?]].concat())));
        let advice = nearest.map(|nearest| format!(", did you mean \"{nearest}\""));
        named + &advice.unwrap_or_default()
    }

    /// Reports the value at `path` unless the condition holds; see [`Layers::refuse`].
    pub(super) fn require(&mut self, condition: bool, path: &[&str], message: &str) {
        if !condition {
            self.refuse(path, message);
        }
    }

    /// Reports a key that a user chose; `message` completes a sentence that begins with it.
    pub(super) fn refuse_name(&mut self, path: &[&str], key: &str, message: &str) {
        let message = format!("{}: {} {message}", name(path), value_for_display(key));
        self.report(&[path, &[key]].concat(), message);
    }

    /// Reports a value that may not be what it is; `message` completes a sentence that begins with the value.
    pub(super) fn refuse(&mut self, path: &[&str], message: &str) {
        let is_hidden = path.first() == Some(&"oauth") || path.last() == Some(&"url");
        let text = self
            .text(path)
            .filter(|text| !is_hidden && !text.is_empty());
        let sentence = match text {
            Some(text) => format!("{}: {} {message}", name(path), value_for_display(text)),
            None => format!("{} {message}", name(path)),
        };
        self.report(path, sentence);
    }

    /// Reports a problem with the value at `path`.
    pub(super) fn report(&mut self, path: &[&str], message: String) {
        let (origin, line) = self.origin(path);
        self.problems.push(Problem {
            origin,
            line,
            message,
        });
    }

    /// Says where a value is set, for a sentence.
    pub(super) fn describe_origin(&self, path: &[&str]) -> String {
        match self.origin(path) {
            (origin, Some(line)) => format!("{origin}:{line}"),
            (origin, None) => origin,
        }
    }

    fn origin(&self, path: &[&str]) -> (String, Option<usize>) {
        let origin = self.layer_of(path);
        match (origin, &self.file) {
            (Origin::Environment, _) => {
                let levels = &path[..path.len().min(2)];
                let is_list = levels.first().is_some_and(|key| is_list_key(key));
                let levels = if is_list { &levels[..1] } else { levels };
                (format!("environment {}", variable(&levels.join("."))), None)
            }
            (Origin::Flags, _) => (flag(path), None),
            (Origin::File, Some((name, document))) => ((*name).to_owned(), line_of(document, path)),
            (_, Some((name, _))) => ((*name).to_owned(), None),
            (_, None) => ("configuration".to_owned(), None),
        }
    }

    /// The layer of the deepest part of `path` that is set.
    fn layer_of(&self, path: &[&str]) -> Origin {
        let mut tag = Tag::Default;
        let mut value = Some(&self.merged);
        for key in path {
            value = value.and_then(|value| below(value, key));
            tag = value.map_or(tag, Value::tag);
        }
        let metadata = self.figment.get_metadata(tag);
        let layer = metadata.and_then(|metadata| {
            Origin::ALL
                .into_iter()
                .find(|origin| origin.name() == metadata.name)
        });
        layer.unwrap_or(Origin::Defaults)
    }

    /// The text of the value at `path`.
    fn text(&self, path: &[&str]) -> Option<&str> {
        if let (Origin::File, Some((_, document))) = (self.layer_of(path), &self.file) {
            let mut node = &document.root;
            for key in path {
                node = document.child(node, key)?.1;
            }
            return document.text(node);
        }
        let mut value = &self.merged;
        for key in path {
            value = below(value, key)?;
        }
        value.as_str()
    }
}

/// Puts the default in the place of the value at `path`, or takes the value away; `false` if it must stay.
fn replace(value: &mut Value, path: &[&str], defaults: Option<&Value>) -> bool {
    let (Value::Dict(_, dict), Some((key, rest))) = (value, path.split_first()) else {
        return false;
    };
    let default = defaults.and_then(|defaults| below(defaults, key));
    let Some(child) = dict.get_mut(*key) else {
        return false;
    };
    if !rest.is_empty() && replace(child, rest, default) {
        return true;
    }
    match default {
        Some(default) if child == default => false,
        Some(default) => {
            *child = default.clone();
            true
        }
        None => dict.remove(*key).is_some(),
    }
}

/// Finds lists where none belongs: serde would read such a list as a struct, one field after the other.
fn misplaced_lists(value: &Value, path: &[&str]) -> Vec<Vec<String>> {
    match value {
        Value::Array(..)
            if !matches!(path, ["web", "listen_address"] | ["sensors" | "locations"]) =>
        {
            vec![path.iter().map(|key| (*key).to_owned()).collect()]
        }
        Value::Dict(_, dict) => dict
            .iter()
            .flat_map(|(key, value)| misplaced_lists(value, &[path, &[key]].concat()))
            .collect(),
        _ => Vec::new(),
    }
}

/// Writes a path as `sensors[1].name`; a key that does not look like one is not shown as it is. Below a key of `oauth`
/// everything may be a secret.
pub(super) fn name(path: &[&str]) -> String {
    let in_oauth = path.first() == Some(&"oauth");
    let shown = if in_oauth { 2 } else { path.len() };
    let mut name = String::new();
    for (depth, key) in path.iter().enumerate().take(shown) {
        let is_index = depth > 0
            && matches!(path[depth - 1], "sensors" | "locations" | "listen_address")
            && key.bytes().all(|byte| byte.is_ascii_digit());
        if is_index {
            name.push_str(&format!("[{key}]"));
            continue;
        }
        if depth > 0 {
            name.push('.');
        }
        if is_key_like(key, in_oauth) {
            name.push_str(key);
        } else if in_oauth {
            name.push('…');
        } else {
            name.push_str(&value_for_display(key));
        }
    }
    name
}

/// The line of the deepest part of `path` that is in the file.
fn line_of(document: &Document<'_>, path: &[&str]) -> Option<usize> {
    let mut node = &document.root;
    let mut line = None;
    for key in path {
        let Some((at, child)) = document.child(node, key) else {
            break;
        };
        line = Some(at as usize);
        node = child;
    }
    line
}

/// `--web.max-requests`
fn flag(path: &[&str]) -> String {
    match path[..path.len().min(2)] {
        // The name that the Prometheus exporters use.
        ["web", "config_file"] => "--web.config.file".to_owned(),
        ref keys => format!("--{}", keys.join(".").replace('_', "-")),
    }
}

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Empty(..))
}

fn missing_credential(key: &str) -> String {
    if key == "refresh_token" {
        return "oauth.refresh_token (or oauth.refresh_token_file, or oauth.token_store) is missing: get one with \
                `lightfi-exporter login`"
            .to_owned();
    }
    let variable = variable(&format!("oauth.{key}"));
    format!(
        "oauth.{key} (or oauth.{key}_file) is missing: set what LightFi support gave you, in the file or as {variable}"
    )
}

fn is_id(text: &str) -> bool {
    let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(is_id_byte) && !matches!(text, "." | "..")
}

/// The word for a value of the wrong kind.
fn kind_for_display(found: &Actual) -> &'static str {
    match found {
        Actual::Seq => "a list",
        Actual::Map => "keys",
        Actual::Option | Actual::Unit => "nothing",
        _ => "text",
    }
}
