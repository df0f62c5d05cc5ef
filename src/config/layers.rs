//! The merged layers: built-in defaults < file < environment < flags. figment merges them, serde reads the result, and each
//! problem names the file and line, the environment variable or the flag it comes from.
//!
//! The types of `config` and the rules of `validate` decide which values are good. Called by `config::load`.

use std::collections::BTreeMap;

use figment::{
    Figment,
    error::{Actual, Kind as ErrorKind},
    providers::Serialized,
    value::{Dict, Empty, Tag, Value},
};
use serde::de::DeserializeOwned;

use super::{
    Errors, Flags, Purpose,
    document::{Kind, Node, defaults, is_named_in_defaults},
    error::{Problem, is_key_like, value_for_display},
    overrides::{Setting, environment_name, from_environment, from_flags, paths},
};

/// Reading again after each problem would take too long for a file of thousands of wrong values.
const MAX_PROBLEMS: usize = 1000;

/// The keys of section `oauth` that take a text, or under `<key>_file` the path of a file with the text.
pub(super) const CREDENTIAL_KEYS: [&str; 3] = ["client_id", "client_secret", "refresh_token"];

/// The keys of the lists of sensors and locations. They can be long, and figment copies what it merges, so it does not get
/// them.
const LISTED_KEYS: [&str; 2] = ["sensors", "locations"];

/// The merged layers, and the problems found in them.
pub(super) struct Layers {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    file_name: String,
    /// The parsed file. Lists of sensors and locations from the environment replace those of the file in it.
    document: Node,
    defaults: Value,
    /// All sections.
    merged: Value,
    /// The environment variable or flag that sets a key.
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// Merges the layers. A file that is not the YAML of a configuration is an error at once.
    pub(super) fn new(
        file_name: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Errors> {
        let mut layers = Self {
            problems: Vec::new(),
            warnings: Vec::new(),
            file_name: file_name.to_owned(),
            document: Node {
                line: 0,
                kind: Kind::Null,
            },
            defaults: defaults(),
            merged: Value::from(Dict::new()),
            origins: BTreeMap::new(),
        };
        let sections = layers.parse_file(text).map_err(|(line, message)| {
            let origin = file_name.to_owned();
            Errors::new(vec![Problem {
                origin,
                line,
                message,
            }])
        })?;
        // Otherwise the environment or a flag would hide a section of the wrong kind.
        if !layers.problems.is_empty() {
            return Err(Errors::new(layers.problems));
        }
        let mut figment = Figment::from(Serialized::defaults(&layers.defaults))
            .merge(Serialized::defaults(sections));
        let mut settings = from_environment(
            environment,
            &layers.defaults,
            &mut layers.problems,
            &mut layers.warnings,
        );
        settings.extend(from_flags(flags));
        for Setting { key, origin, node } in settings {
            if LISTED_KEYS.contains(&key.as_str()) {
                layers.replace_list(&key, node);
            } else {
                figment = figment.merge((&key, node.to_value(1)));
            }
            layers.origins.insert(key, origin);
        }
        if let Ok(merged) = figment.find_value("") {
            layers.merged = merged;
        }
        Ok(layers)
    }

    /// Parses the file and returns its sections.
    fn parse_file(&mut self, text: &str) -> Result<Dict, (Option<u32>, String)> {
        self.document = Node::parse(text)?;
        let entries = match &self.document.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            _ => {
                let message = "the file does not consist of sections such as \"oauth:\"";
                return Err((Some(self.document.line), message.to_owned()));
            }
        };
        let is_default = |key: &str, node: &Node| {
            LISTED_KEYS.contains(&key)
                || (matches!(node.kind, Kind::Null) && is_named_in_defaults(key))
        };
        let mut sections = Dict::new();
        let mut wrong = Vec::new();
        for (key, node) in entries.iter().filter(|(key, node)| !is_default(key, node)) {
            let value = node.to_value(usize::MAX);
            let default = self.defaults.find_ref(key).and_then(Value::as_dict);
            if default.is_some() && value.as_dict().is_none() {
                wrong.push((key.clone(), value.to_actual()));
            } else {
                sections.insert(key.clone(), value);
            }
        }
        for (key, found) in wrong {
            self.refuse_kind(&[&key], &found, "keys");
        }
        Ok(sections)
    }

    fn replace_list(&mut self, key: &str, node: Node) {
        let mut entries = match std::mem::replace(&mut self.document.kind, Kind::Null) {
            Kind::Map(entries) => entries,
            _ => Vec::new(),
        };
        entries.retain(|(name, _)| name != key);
        entries.push((key.to_owned(), node));
        self.document.kind = Kind::Map(entries);
    }

    /// Returns whether any sensor or location is listed.
    pub(super) fn lists_anything(&self) -> bool {
        LISTED_KEYS
            .iter()
            .any(|key| self.list_length(key).is_ok_and(|length| length > 0))
    }

    /// Returns the length of a list of the document, or the kind of value that it has instead.
    fn list_length(&self, key: &str) -> Result<usize, Actual> {
        match self.document.child(key) {
            None
            | Some(Node {
                kind: Kind::Null, ..
            }) => Ok(0),
            Some(Node {
                kind: Kind::List(items),
                ..
            }) => Ok(items.len()),
            Some(other) => Err(other.to_value(0).to_actual()),
        }
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
        let has_store = oauth
            .get("token_store")
            .is_some_and(|store| store.as_str().is_some());
        for key in CREDENTIAL_KEYS {
            let file_key = format!("{key}_file");
            let mut forms = Vec::new();
            let mut is_missing = true;
            for (form_key, form) in [(key, "inline"), (&file_key, "file")] {
                let path = ["oauth", form_key];
                match oauth.remove(form_key) {
                    None | Some(Value::Empty(..)) => continue,
                    Some(Value::String(_, text)) if text.is_empty() => {
                        self.refuse(&path, "is empty, set it or leave the key out");
                    }
                    Some(Value::String(_, text)) => {
                        forms.push(Dict::from([(form.to_owned(), text.into())]))
                    }
                    Some(other) => self.refuse_kind(&path, &other.to_actual(), "one value"),
                }
                is_missing = false;
            }
            if forms.len() > 1 {
                let (other, line) = self.origin(&["oauth", &file_key]);
                let other = line.map_or(other.clone(), |line| format!("{other}:{line}"));
                let message = format!("and oauth.{file_key} ({other}) are both set, keep one");
                self.refuse(&["oauth", key], &message);
            }
            let is_needed = key != "refresh_token" || (!has_store && purpose != Purpose::Login);
            if is_missing && is_needed {
                self.report(&["oauth"], &missing_credential(key));
            }
            let value = match forms.pop() {
                Some(form) => Value::from(form),
                // A placeholder: the missing id is reported above, and the other rules can still be checked.
                None if key == "client_id" => {
                    Value::from(Dict::from([("inline".to_owned(), "".into())]))
                }
                None => Value::Empty(Tag::Default, Empty::None),
            };
            oauth.insert(key.to_owned(), value);
        }
    }

    /// Reads a list of sensors or locations, each with its index in the list.
    pub(super) fn read_list<T: DeserializeOwned>(&mut self, key: &str) -> Vec<(usize, T)> {
        let length = self.list_length(key).unwrap_or_else(|found| {
            self.refuse_kind(&[key], &found, "a list");
            0
        });
        let mut items = Vec::with_capacity(length);
        for index in 0..length {
            let position = index.to_string();
            let list = self.document.child(key);
            let Some(node) = list.and_then(|list| list.child(&position)) else {
                continue;
            };
            // A label must have a value, the other keys need none.
            let mut value = node.to_value(1);
            if matches!(value, Value::String(..)) {
                value = Value::from(Dict::from([("id".to_owned(), value)]));
            }
            if let Some(item) = self.read_value::<T>(&mut value, &[key, &position], None) {
                items.push((index, item));
            }
        }
        items
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
        loop {
            let (below, kind) = match misplaced_list(value, path) {
                Some(list) => (
                    list[path.len()..].to_vec(),
                    ErrorKind::InvalidType(Actual::Seq, "keys or one value".to_owned()),
                ),
                None => match value.deserialize() {
                    Ok(read) => return Some(read),
                    Err(error) => (error.path, error.kind),
                },
            };
            let found = self.problems.len() - before;
            if matches!(kind, ErrorKind::MissingField(_)) && found > 0 {
                return None;
            }
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            let text = value_at(value, &below)
                .and_then(Value::as_str)
                .unwrap_or_default();
            self.report_error(&[path, &below].concat(), text, &kind);
            if found == MAX_PROBLEMS || !replace(value, &below, defaults) {
                return None;
            }
        }
    }

    fn report_error(&mut self, path: &[&str], text: &str, kind: &ErrorKind) {
        match kind {
            ErrorKind::Message(message) => self.refuse_text(path, text, message),
            ErrorKind::UnknownVariant(_, known) => {
                let message = format!("is not one of: {}", known.join(", "));
                self.refuse_text(path, text, &message);
            }
            ErrorKind::UnknownField(_, known) => {
                let message = self.unknown_key(path, known);
                self.report(path, &message);
            }
            ErrorKind::MissingField(field) => {
                self.report(
                    path,
                    &format!("{}.{field} is missing", path_for_display(path)),
                );
            }
            ErrorKind::InvalidType(found, expected) => {
                let expected = match expected.as_str() {
                    "a string" | "path string" | "enum" => "one value",
                    "a map" => "keys",
                    "a sequence" => "a list",
                    expected => expected,
                };
                self.refuse_kind(path, found, expected);
            }
            _ => self.refuse_text(path, text, "has the wrong kind of value"),
        }
    }

    /// Names an unknown key and the nearest known one: the same key in another section, or the most similar key here.
    fn unknown_key(&self, path: &[&str], known: &[&str]) -> String {
        let (key, parent) = path.split_last().unwrap_or((&"", &[]));
        let is_section_key = parent.len() <= 1;
        let elsewhere = paths(&self.defaults)
            .into_iter()
            .find(|path| is_section_key && path.rsplit('.').next() == Some(key));
        let lower = key.to_ascii_lowercase();
        let similarity = |known: &str| strsim::normalized_damerau_levenshtein(known, &lower);
        let here = known
            .iter()
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
            .map(|nearest| path_for_display(&[parent, &[*nearest]].concat()));
        let nearest = elsewhere.or(here).unwrap_or_default();
        format!(
            "unknown key \"{}\", did you mean \"{nearest}\"",
            path_for_display(path)
        )
    }

    /// Reports a value of a section; `message` completes a sentence that begins with the value.
    pub(super) fn refuse(&mut self, path: &[&str], message: &str) {
        let text = value_at(&self.merged, path).and_then(Value::as_str);
        let text = text.unwrap_or_default().to_owned();
        self.refuse_text(path, &text, message);
    }

    /// Reports a text; `message` completes a sentence that begins with the text.
    pub(super) fn refuse_text(&mut self, path: &[&str], text: &str, message: &str) {
        let is_secret = path.first() == Some(&"oauth") || path.last() == Some(&"url");
        let sentence = if is_secret || text.is_empty() {
            format!("{} {message}", path_for_display(path))
        } else {
            format!(
                "{}: {} {message}",
                path_for_display(path),
                value_for_display(text)
            )
        };
        self.report(path, &sentence);
    }

    fn refuse_kind(&mut self, path: &[&str], found: &Actual, expected: &str) {
        let found = kind_for_display(found);
        let message = format!(
            "{}: found {found} instead of {expected}",
            path_for_display(path)
        );
        self.report(path, &message);
    }

    /// Reports a problem with the value at `path`.
    pub(super) fn report(&mut self, path: &[&str], message: &str) {
        let (origin, line) = self.origin(path);
        let message = message.to_owned();
        self.problems.push(Problem {
            origin,
            line,
            message,
        });
    }

    /// Returns where a value is set, and its line in the file.
    fn origin(&self, path: &[&str]) -> (String, Option<u32>) {
        let lengths = [1, 2].iter().filter_map(|length| path.get(..*length));
        let mut keys = lengths.map(|keys| keys.join("."));
        if let Some(origin) = keys.find_map(|key| self.origins.get(&key)) {
            return (origin.clone(), None);
        }
        let mut node = &self.document;
        let mut line = None;
        for key in path {
            let Some(child) = node.child(key) else {
                break;
            };
            line = Some(child.line);
            node = child;
        }
        (self.file_name.clone(), line)
    }
}

/// Returns the value at `path`; a list is indexed by number.
fn value_at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Dict(_, dict) => dict.get(*key),
        Value::Array(_, items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Puts the default in the place of the value at `path`, or takes the value away; `false` if it must stay.
fn replace(value: &mut Value, path: &[&str], defaults: Option<&Value>) -> bool {
    let (Value::Dict(_, dict), Some((key, rest))) = (value, path.split_first()) else {
        return false;
    };
    let default = defaults.and_then(|defaults| value_at(defaults, &[key]));
    let Some(child) = dict.get_mut(*key) else {
        return false;
    };
    if !rest.is_empty() && replace(child, rest, default) {
        return true;
    }
    match default {
        // The default is wrong too, or the value should be a whole section: another attempt would find the same error, or hide
        // real ones.
        Some(default)
            if child == default || default.as_dict().is_some_and(|keys| !keys.is_empty()) =>
        {
            false
        }
        Some(default) => {
            *child = default.clone();
            true
        }
        None => dict.remove(*key).is_some(),
    }
}

/// Finds a list where none belongs: serde would read it as a struct, one field after the other. Returns its path.
fn misplaced_list(value: &Value, path: &[&str]) -> Option<Vec<String>> {
    match value {
        Value::Array(..) if takes_list(path) => None,
        Value::Array(..) => Some(path.iter().map(|key| (*key).to_owned()).collect()),
        Value::Dict(_, dict) => dict
            .iter()
            .find_map(|(key, value)| misplaced_list(value, &[path, &[key]].concat())),
        _ => None,
    }
}

/// Returns whether a list belongs at this path. A new key with a list must be added here.
fn takes_list(path: &[&str]) -> bool {
    matches!(path, ["web", "listen_address"] | ["sensors" | "locations"])
}

/// Writes a path as `sensors[1].name`. What does not look like a key is hidden, as is all that is below a key of `oauth`.
pub(super) fn path_for_display(path: &[&str]) -> String {
    let in_oauth = path.first() == Some(&"oauth");
    let shown = if in_oauth { 2 } else { path.len() };
    let mut name = String::new();
    for (depth, key) in path.iter().enumerate().take(shown) {
        let is_index = key.bytes().all(|byte| byte.is_ascii_digit());
        let key = if is_key_like(key, in_oauth) {
            key
        } else {
            "…"
        };
        if depth == 0 {
            name.push_str(key);
        } else if is_index && takes_list(&path[..depth]) {
            name.push_str(&format!("[{key}]"));
        } else {
            name.push_str(&format!(".{key}"));
        }
    }
    name
}

fn missing_credential(key: &str) -> String {
    if key == "refresh_token" {
        return "oauth.refresh_token (or oauth.refresh_token_file, or oauth.token_store) is missing: get one with \
                `lightfi-exporter login`"
            .to_owned();
    }
    let variable = environment_name(&format!("oauth.{key}"));
    format!(
        "oauth.{key} (or oauth.{key}_file) is missing: set what LightFi support gave you, in the file or as {variable}"
    )
}

/// Returns the word for a value of the wrong kind.
fn kind_for_display(found: &Actual) -> &'static str {
    match found {
        Actual::Seq => "a list",
        Actual::Map => "keys",
        Actual::Option | Actual::Unit => "nothing",
        _ => "text",
    }
}
