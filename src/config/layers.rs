//! The layers under the configuration: defaults < file < environment < flags, merged by figment, which also remembers
//! which layer each value came from.
//!
//! Values stay texts, lists and maps here; `read` gives them types. The keys that exist are those of `default.yaml`.

use std::borrow::Cow;

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Empty, Map, Tag, Value},
};

use exporter_toolkit::ListenAddress;

use super::{
    Flags,
    problem::{Problem, is_key_like},
    yaml::{self, Kind, Node},
};

/// What every environment variable of ours begins with.
const PREFIX: &str = "LIGHTFI_";
/// Stands between the levels of a key in the environment.
const BETWEEN_LEVELS: &str = "__";
/// Its keys are names of the vendor's, with capitals: the environment cannot tell them.
const FILE_ONLY: &str = "variables";

const DEFAULTS: &str = include_str!("default.yaml");

/// One step from the root of the configuration to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The configuration's file: its name for messages, and its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

/// The merged layers.
pub(super) struct Layers {
    /// A list at the top of the file stands empty here: [`Layers::items`] has what is in it.
    pub(super) merged: Value,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// Whether the layers are whole: where a part cannot be read at all, what it would have set is not missing.
    pub(super) is_whole: bool,
    figment: Figment,
    file: Option<(String, Node)>,
}

impl Layers {
    /// Merges what the layers say. Keys that no layer may have are `problems` (file) or `warnings` (environment).
    pub(super) fn new(
        source: Option<Source<'_>>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Self {
        let defaults = defaults();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut is_whole = true;
        let file = source.and_then(|source| match yaml::parse(source.text) {
            Ok(node) => Some((source.name.to_owned(), node)),
            Err(yaml::Invalid { line, message }) => {
                problems.push(Problem {
                    origin: source.name.to_owned(),
                    line: Some(line),
                    message,
                });
                is_whole = false;
                None
            }
        });
        let from_file = file.as_ref().map_or_else(Dict::new, |(name, node)| {
            let mut checked = Checked {
                name,
                defaults: &defaults,
                problems: &mut problems,
                is_whole: &mut is_whole,
            };
            checked.root(node)
        });
        let from_environment = of_environment(environment, &defaults, &mut problems, &mut warnings);
        let layers = [
            (Origin::Defaults, defaults),
            (Origin::File, from_file),
            (Origin::Environment, from_environment),
            (Origin::Flags, of_flags(flags)),
        ];
        let figment = layers
            .into_iter()
            .fold(Figment::new(), |figment, (origin, dict)| {
                figment.merge(Layer(origin, dict))
            });
        let merged = figment.find_value("").map_or_else(
            |_| Dict::new(),
            |value| value.into_dict().unwrap_or_default(),
        );
        Self {
            merged: Value::Dict(Tag::Default, merged),
            problems,
            warnings,
            is_whole,
            figment,
            file,
        }
    }

    /// Whether any sensor or location is listed outside the file.
    pub(super) fn names_a_target(&self) -> bool {
        let dict = self.merged.as_dict();
        ["sensors", "locations"].into_iter().any(|key| {
            let list = dict.and_then(|dict| dict.get(key)?.as_array());
            list.is_some_and(|list| !list.is_empty())
        })
    }

    /// The items of the list at `path`, which merging has left as `merged`, one by one: a building's whole tree of them
    /// would be the most that is ever held.
    pub(super) fn items<'a>(
        &'a self,
        path: &[Step],
        (tag, merged): (Tag, &'a [Value]),
    ) -> impl Iterator<Item = Cow<'a, Value>> {
        let of_file = match (path, &self.file, Origin::of(&self.figment, tag)) {
            ([Step::Key(key)], Some((_, node)), Some(Origin::File)) => list_of(node, key),
            _ => &[],
        };
        let of_file = of_file.iter().map(move |node| Cow::Owned(value(node, tag)));
        of_file.chain(merged.iter().map(Cow::Borrowed))
    }

    /// A problem with the value at `path`, which `tag` belongs to.
    pub(super) fn problem(&self, path: &[Step], tag: Option<Tag>, message: String) -> Problem {
        let (origin, line) = self.origin(path, tag);
        Problem {
            origin,
            line,
            message,
        }
    }

    /// Where a value comes from, for a sentence.
    pub(super) fn describe(&self, path: &[Step], tag: Tag) -> String {
        match self.origin(path, Some(tag)) {
            (origin, Some(line)) => format!("{origin}:{line}"),
            (origin, None) => origin,
        }
    }

    fn origin(&self, path: &[Step], tag: Option<Tag>) -> (String, Option<usize>) {
        let layer = tag.and_then(|tag| Origin::of(&self.figment, tag));
        let keys = path.iter().map_while(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        match layer {
            Some(Origin::Environment) => {
                let levels: Vec<_> = keys.take(2).collect();
                (format!("environment {}", variable(&levels)), None)
            }
            Some(Origin::Flags) => (flag(&keys.collect::<Vec<_>>()), None),
            Some(Origin::File | Origin::Defaults) | None => match &self.file {
                Some((name, node)) => {
                    let line = (layer == Some(Origin::File)).then(|| line_of(node, path));
                    (name.clone(), line.flatten())
                }
                None => ("configuration".to_owned(), None),
            },
        }
    }
}

/// Which layer a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Defaults,
    File,
    Environment,
    Flags,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Defaults, Self::File, Self::Environment, Self::Flags];

    fn of(figment: &Figment, tag: Tag) -> Option<Self> {
        let metadata = figment.get_metadata(tag)?;
        Self::ALL.into_iter().find(|o| o.name() == metadata.name)
    }

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
        Ok(Map::from([(Profile::Default, self.1.clone())]))
    }
}

/// `LIGHTFI_COLLECT__INTERVAL`
fn variable(levels: &[&str]) -> String {
    format!(
        "{PREFIX}{}",
        levels.join(BETWEEN_LEVELS).to_ascii_uppercase()
    )
}

/// `--web.max-requests`
fn flag(keys: &[&str]) -> String {
    match keys {
        // The Prometheus exporters' own name for it.
        ["web", "config_file"] => "--web.config.file".to_owned(),
        keys => format!("--{}", keys.join(".").replace('_', "-")),
    }
}

/// The line of the deepest part of `path` that stands in the file.
fn line_of(root: &Node, path: &[Step]) -> Option<usize> {
    let mut node = root;
    let mut line = None;
    for step in path {
        match (step, &node.kind) {
            (Step::Key(wanted), Kind::Map(entries)) => {
                let Some((key, child)) = entries.iter().find(|(key, _)| key.text == *wanted) else {
                    break;
                };
                line = Some(key.line);
                node = child;
            }
            (Step::Index(index), Kind::List(items)) => {
                let Some(child) = items.get(*index) else {
                    break;
                };
                line = Some(child.line);
                node = child;
            }
            _ => break,
        }
    }
    line
}

/// The list at the top of the file under `key`.
fn list_of<'a>(root: &'a Node, key: &str) -> &'a [Node] {
    let Kind::Map(entries) = &root.kind else {
        return &[];
    };
    let node = entries.iter().find(|(at, _)| at.text == key);
    match node.map(|(_, node)| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

fn defaults() -> Dict {
    let node = yaml::parse(DEFAULTS).expect("the embedded default.yaml is valid, says a test");
    match value(&node, Tag::Default) {
        Value::Dict(_, dict) => dict,
        _ => Dict::new(),
    }
}

fn value(node: &Node, tag: Tag) -> Value {
    match &node.kind {
        Kind::Null => Value::Empty(tag, Empty::None),
        Kind::Text(text) => Value::String(tag, text.clone()),
        Kind::List(items) => Value::Array(tag, items.iter().map(|item| value(item, tag)).collect()),
        Kind::Map(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(key, node)| (key.text.clone(), value(node, tag)));
            Value::Dict(tag, entries.collect())
        }
    }
}

/// The file's two upper levels, held against the defaults: what is left out or null there keeps the default.
struct Checked<'a> {
    name: &'a str,
    defaults: &'a Dict,
    problems: &'a mut Vec<Problem>,
    is_whole: &'a mut bool,
}

impl Checked<'_> {
    fn root(&mut self, root: &Node) -> Dict {
        let mut dict = Dict::new();
        let entries = match &root.kind {
            Kind::Null => return dict,
            Kind::Map(entries) => entries,
            Kind::Text(_) | Kind::List(_) => {
                *self.is_whole = false;
                let found = kind_for_display(&value(root, Tag::Default));
                self.refuse(
                    root.line,
                    format!("found {found} instead of sections such as \"oauth:\""),
                );
                return dict;
            }
        };
        for (key, node) in entries {
            let checked = match (self.defaults.get(&key.text), &node.kind) {
                (None, _) => {
                    self.refuse(key.line, unknown_key("", &key.text, self.known("")));
                    continue;
                }
                (Some(_), Kind::Null) => continue,
                (Some(Value::Dict(..)), Kind::Map(entries)) => {
                    Value::Dict(Tag::Default, self.section(&key.text, entries))
                }
                (Some(Value::Dict(..)), _) => {
                    *self.is_whole = false;
                    let found = kind_for_display(&value(node, Tag::Default));
                    self.refuse(
                        key.line,
                        format!("{}: found {found} instead of keys", key.text),
                    );
                    continue;
                }
                // figment merges no lists, the last layer's stands; but it copies what it holds: see `Layers::items`.
                (Some(_), Kind::List(_)) => Value::Array(Tag::Default, Vec::new()),
                (Some(_), _) => value(node, Tag::Default),
            };
            dict.insert(key.text.clone(), checked);
        }
        dict
    }

    fn section(&mut self, section: &str, entries: &[(yaml::Key, Node)]) -> Dict {
        let mut dict = Dict::new();
        for (key, node) in entries {
            let known = self
                .defaults
                .get(section)
                .and_then(Value::as_dict)
                .is_some_and(|known| known.contains_key(&key.text));
            if !known {
                self.refuse(
                    key.line,
                    unknown_key(section, &key.text, self.known(section)),
                );
            } else if !matches!(node.kind, Kind::Null) {
                dict.insert(key.text.clone(), value(node, Tag::Default));
            }
        }
        dict
    }

    /// Known keys, those of `section` first: a key that is right but for its section is found too.
    fn known(&self, section: &str) -> Vec<String> {
        let mut known = known_paths(self.defaults);
        known.sort_by_key(|path| container(path) != section);
        known
    }

    fn refuse(&mut self, line: usize, message: String) {
        self.problems.push(Problem {
            origin: self.name.to_owned(),
            line: Some(line),
            message,
        });
    }
}

/// `api`, `api.url`, …
fn known_paths(defaults: &Dict) -> Vec<String> {
    let mut paths = Vec::new();
    for (section, value) in defaults {
        paths.push(section.clone());
        if let Some(keys) = value.as_dict() {
            paths.extend(keys.keys().map(|key| format!("{section}.{key}")));
        }
    }
    paths
}

fn container(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(container, _)| container)
}

fn leaf(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, leaf)| leaf)
}

/// Names a key that does not exist, and the nearest of `known`: the same key in another place, else the one in the
/// same place that is spelled most like it.
pub(super) fn unknown_key(place: &str, key: &str, known: Vec<String>) -> String {
    let path = |key: &str| match place {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    let named = if is_key_like(key, place == "oauth") {
        format!("unknown key \"{}\"", path(key))
    } else if place.is_empty() {
        "unknown key".to_owned()
    } else {
        format!("unknown key under \"{place}\"")
    };
    let elsewhere = known.iter().find(|path| leaf(path) == key);
    let nearest = elsewhere.or_else(|| {
        known
            .iter()
            .filter(|path| container(path) == place)
            .max_by(|a, b| likeness(leaf(a), key).total_cmp(&likeness(leaf(b), key)))
    });
    match nearest {
        Some(nearest) => format!("{named}, did you mean \"{nearest}\""),
        None => named,
    }
}

fn likeness(known: &str, key: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(known, &key.to_ascii_lowercase())
}

/// The word for a value of the wrong kind.
pub(super) fn kind_for_display(value: &Value) -> &'static str {
    match value {
        Value::Array(..) => "a list",
        Value::Dict(..) => "keys",
        Value::Empty(..) => "nothing",
        _ => "text",
    }
}

fn of_environment(
    environment: impl Iterator<Item = (String, String)>,
    defaults: &Dict,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Dict {
    let mut ours: Vec<(String, String)> = environment
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    ours.sort();
    let known: Vec<String> = known_paths(defaults)
        .iter()
        .filter(|path| leaf(path) != FILE_ONLY)
        .filter(|path| !matches!(defaults.get(*path), Some(Value::Dict(..))))
        .map(|path| variable(&path.split('.').collect::<Vec<_>>()))
        .collect();
    let mut dict = Dict::new();
    let mut foreign = Vec::new();
    for (name, text) in ours {
        let lower = name[PREFIX.len()..].to_ascii_lowercase();
        let levels: Vec<&str> = lower.split(BETWEEN_LEVELS).collect();
        let default = match levels[..] {
            [key] => defaults
                .get(key)
                .filter(|default| default.as_dict().is_none()),
            [section, key] if key != FILE_ONLY => defaults
                .get(section)
                .and_then(|section| section.as_dict()?.get(key)),
            _ => None,
        };
        let Some(default) = default else {
            if levels.get(1) == Some(&FILE_ONLY) {
                warnings.push(format!(
                    "environment {name} is ignored: metrics.variables can be set in the file only"
                ));
                continue;
            }
            let nearest = known
                .iter()
                .map(|known| {
                    (
                        strsim::damerau_levenshtein(known, &name.to_ascii_uppercase()),
                        known,
                    )
                })
                .min();
            match nearest {
                Some((edits, nearest)) if edits <= MOST_EDITS => warnings.push(format!(
                    "environment {name} is ignored: unknown name, did you mean {nearest}"
                )),
                _ => foreign.push(name),
            }
            continue;
        };
        let value = match default {
            Value::Array(..) => match list(&text) {
                Ok(value) => value,
                Err(message) => {
                    problems.push(Problem {
                        origin: format!("environment {name}"),
                        line: None,
                        message,
                    });
                    continue;
                }
            },
            _ => Value::String(Tag::Default, text),
        };
        match levels[..] {
            [section, key] => {
                let section = dict
                    .entry(section.to_owned())
                    .or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
                if let Value::Dict(_, section) = section {
                    section.insert(key.to_owned(), value);
                }
            }
            _ => {
                dict.insert(lower.clone(), value);
            }
        }
    }
    if !foreign.is_empty() {
        // Kubernetes injects such names for every Service whose name begins like ours: one line for all of them.
        warnings.push(format!(
            "environment: unknown names are ignored: {}",
            foreign.join(", ")
        ));
    }
    dict
}

/// Beyond this many edits a name is somebody else's, not a misspelled one of ours.
const MOST_EDITS: usize = 3;

/// `a, b` or `[a, {id: b}]`
fn list(text: &str) -> Result<Value, String> {
    // `[::1]:10420` begins like a list, and is none.
    let first = text.split(',').next().unwrap_or_default().trim();
    if first.starts_with('[') && first.parse::<ListenAddress>().is_err() {
        return match yaml::parse(text.trim()) {
            Ok(node) if matches!(node.kind, Kind::List(_)) => Ok(value(&node, Tag::Default)),
            Ok(_) => Err("not a list, write a,b or [a, b]".to_owned()),
            Err(yaml::Invalid { message, .. }) => Err(message),
        };
    }
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    Ok(Value::Array(
        Tag::Default,
        items
            .map(|item| Value::String(Tag::Default, item.to_owned()))
            .collect(),
    ))
}

fn of_flags(flags: &Flags) -> Dict {
    let text = |text: &str| Value::String(Tag::Default, text.to_owned());
    let mut web = Dict::new();
    let mut log = Dict::new();
    if !flags.listen_address.is_empty() {
        let addresses = flags.listen_address.iter().map(|address| text(address));
        web.insert(
            "listen_address".to_owned(),
            Value::Array(Tag::Default, addresses.collect()),
        );
    }
    if let Some(path) = &flags.telemetry_path {
        web.insert("telemetry_path".to_owned(), text(path));
    }
    if let Some(path) = &flags.web_config_file {
        web.insert("config_file".to_owned(), text(&path.to_string_lossy()));
    }
    if let Some(requests) = flags.max_requests {
        web.insert("max_requests".to_owned(), text(&requests.to_string()));
    }
    if flags.enable_lifecycle {
        web.insert("enable_lifecycle".to_owned(), text("true"));
    }
    if let Some(level) = &flags.log_level {
        log.insert("level".to_owned(), text(level));
    }
    if let Some(format) = &flags.log_format {
        log.insert("format".to_owned(), text(format));
    }
    Dict::from([
        ("web".to_owned(), Value::Dict(Tag::Default, web)),
        ("log".to_owned(), Value::Dict(Tag::Default, log)),
    ])
}
