//! What each layer of the configuration says, as values of figment: the built-in defaults, the file, the environment and
//! the flags.
//!
//! All layers hold texts, lists and maps; the types of `config` say what a text must be. Called by `layers`, which merges
//! them.

use std::collections::BTreeMap;

use exporter_toolkit::ListenAddress;
use figment::value::{Dict, Empty, Tag, Value};

use super::{
    Flags,
    document::{Document, Kind, Node},
    error::Problem,
};

/// The prefix of all environment variables of the exporter.
const PREFIX: &str = "LIGHTFI_";
/// Separates the levels of a key in the name of an environment variable.
const LEVEL_SEPARATOR: &str = "__";
/// Its keys are names of the API with capital letters, which the environment cannot express.
const FILE_ONLY: &str = "metrics.variables";
/// A name that differs in more letters belongs to other software.
const MAX_EDITS: usize = 3;

const DEFAULTS: &str = include_str!("default.yaml");

/// The text of the file, and its name for messages.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

pub(super) fn defaults() -> Dict {
    let document = Document::parse(DEFAULTS, |_| true);
    let document = document.expect("the embedded default.yaml is valid, says a test");
    let defaults = to_value(&document, &document.root, 0);
    defaults.into_dict().unwrap_or_default()
}

/// Reads the file. A list at the top is left empty in the layer, because figment copies what it holds.
pub(super) fn from_file<'a>(
    source: Source<'a>,
    defaults: &Value,
) -> Result<(Document<'a>, Dict), Vec<Problem>> {
    let problem = |line, message| Problem {
        origin: source.name.to_owned(),
        line,
        message,
    };
    let document = Document::parse(source.text, is_known_key)
        .map_err(|invalid| vec![problem(invalid.line, invalid.message)])?;
    let entries = match &document.root.kind {
        Kind::Null => &[],
        Kind::Map(entries) => entries.as_slice(),
        kind => {
            let found = kind.for_display();
            let message = format!("found {found} instead of sections such as \"oauth:\"");
            return Err(vec![problem(Some(document.root.line as usize), message)]);
        }
    };
    let mut dict = Dict::new();
    let mut problems = Vec::new();
    for (key_node, node) in entries {
        let key = document.text(key_node).unwrap_or_default();
        let is_section = matches!(below(defaults, key), Some(Value::Dict(..)));
        let value = match &node.kind {
            Kind::Null if is_known_key(key) => continue,
            Kind::List(_) if is_list_key(key) => Value::from(Vec::<Value>::new()),
            Kind::List(_) | Kind::Text(_) | Kind::Plain(_) if is_section => {
                let message = format!("{key}: found {} instead of keys", node.kind.for_display());
                problems.push(problem(Some(key_node.line as usize), message));
                continue;
            }
            _ => to_value(&document, node, usize::MAX),
        };
        dict.insert(key.to_owned(), value);
    }
    if problems.is_empty() {
        Ok((document, dict))
    } else {
        Err(problems)
    }
}

/// Turns variables into a layer. An unknown name is a warning: Kubernetes sets such names for a Service.
pub(super) fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
    defaults: &Value,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Dict {
    let mut variables: Vec<(String, String)> = environment
        .filter(|(name, text)| name.starts_with(PREFIX) && !text.is_empty())
        .collect();
    variables.sort();
    let known: BTreeMap<String, String> = paths(defaults)
        .into_iter()
        .filter(|path| path != FILE_ONLY)
        .filter(|path| !matches!(defaults.find_ref(path), Some(Value::Dict(..))))
        .map(|path| (variable(&path), path))
        .collect();
    let mut dict = Dict::new();
    let mut foreign = Vec::new();
    for (name, text) in variables {
        let Some(path) = known.get(&name.to_ascii_uppercase()) else {
            match unknown_variable(&name, &known) {
                Some(warning) => warnings.push(warning),
                None => foreign.push(name),
            }
            continue;
        };
        let value = match defaults.find_ref(path) {
            Some(Value::Array(..)) => list(&text),
            _ => Ok(Value::from(text)),
        };
        match value {
            Ok(value) => insert(&mut dict, path, value),
            Err(message) => problems.push(Problem {
                origin: format!("environment {name}"),
                line: None,
                message,
            }),
        }
    }
    if !foreign.is_empty() {
        let names = foreign.join(", ");
        warnings.push(format!("environment: unknown names are ignored: {names}"));
    }
    dict
}

pub(super) fn from_flags(flags: &Flags) -> Dict {
    let mut dict = Dict::new();
    let web = &flags.web;
    let path = web.config_file.as_ref();
    for (key, text) in [
        ("web.telemetry_path", web.telemetry_path.clone()),
        (
            "web.config_file",
            path.map(|path| path.to_string_lossy().into_owned()),
        ),
        (
            "web.max_requests",
            web.max_requests.map(|requests| requests.to_string()),
        ),
        (
            "web.enable_lifecycle",
            flags.enable_lifecycle.then(|| "true".to_owned()),
        ),
        ("log.level", flags.log_level.clone()),
        ("log.format", flags.log_format.clone()),
    ] {
        if let Some(text) = text {
            insert(&mut dict, key, Value::from(text));
        }
    }
    if !web.listen_address.is_empty() {
        let addresses = web.listen_address.iter().map(ToString::to_string);
        let addresses: Vec<_> = addresses.collect();
        insert(&mut dict, "web.listen_address", Value::from(addresses));
    }
    dict
}

/// Turns a node into a value of figment. Known keys without a value are left out down to `depth` levels.
pub(super) fn to_value(document: &Document<'_>, node: &Node<'_>, depth: usize) -> Value {
    match &node.kind {
        Kind::Null => Value::Empty(Tag::Default, Empty::None),
        Kind::Text(_) | Kind::Plain(_) => Value::from(document.text(node).unwrap_or_default()),
        Kind::List(items) => {
            let items = items.iter().map(|item| to_value(document, item, depth));
            Value::from(items.collect::<Vec<_>>())
        }
        Kind::Map(entries) => {
            let mut dict = Dict::new();
            for (key, node) in entries {
                let key = document.text(key).unwrap_or_default();
                if depth == 0 || !matches!(node.kind, Kind::Null) || !is_known_key(key) {
                    let value = to_value(document, node, depth.saturating_sub(1));
                    dict.insert(key.to_owned(), value);
                }
            }
            Value::from(dict)
        }
    }
}

/// Sets the value at `path`, which has one or two levels.
fn insert(dict: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            dict.insert(path.to_owned(), value);
        }
        Some((section, key)) => {
            let section = dict
                .entry(section.to_owned())
                .or_insert_with(|| Dict::new().into());
            if let Value::Dict(_, section) = section {
                section.insert(key.to_owned(), value);
            }
        }
    }
}

/// All known keys of the first two levels: `api`, `api.url`, …
pub(super) fn paths(defaults: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for (section, value) in defaults.as_dict().into_iter().flatten() {
        paths.push(section.clone());
        let keys = value.as_dict().into_iter().flatten();
        paths.extend(keys.map(|(key, _)| format!("{section}.{key}")));
    }
    paths
}

/// Whether `default.yaml` names the key, in its comments too.
fn is_known_key(key: &str) -> bool {
    let mut words = DEFAULTS.split_whitespace();
    words.any(|word| word.strip_suffix(':') == Some(key))
}

pub(super) fn is_list_key(key: &str) -> bool {
    matches!(key, "sensors" | "locations")
}

/// `LIGHTFI_COLLECT__INTERVAL`
pub(super) fn variable(path: &str) -> String {
    let levels = path.replace('.', LEVEL_SEPARATOR);
    format!("{PREFIX}{}", levels.to_ascii_uppercase())
}

/// The warning about a name that is likely meant for the exporter.
fn unknown_variable(name: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let file_only = variable(FILE_ONLY);
    if upper == file_only || upper.starts_with(&format!("{file_only}{LEVEL_SEPARATOR}")) {
        let message =
            format!("environment {name} is ignored: {FILE_ONLY} can be set in the file only");
        return Some(message);
    }
    let distance = |known: &String| strsim::damerau_levenshtein(known, &upper);
    let nearest = known.keys().min_by_key(|known| distance(known))?;
    (distance(nearest) <= MAX_EDITS)
        .then(|| format!("environment {name} is ignored: unknown name, did you mean {nearest}"))
}

/// Reads a list of the environment: `a, b` or `[a, {id: b}]`.
fn list(text: &str) -> Result<Value, String> {
    let first = text.split(',').next().unwrap_or_default().trim();
    // `[::1]:10420` begins like a list in brackets.
    if first.starts_with('[') && first.parse::<ListenAddress>().is_err() {
        let document = Document::parse(text.trim(), is_known_key).map_err(|error| error.message)?;
        return match document.root.kind {
            Kind::List(_) => Ok(to_value(&document, &document.root, 1)),
            _ => Err("not a list, write a,b or [a, b]".to_owned()),
        };
    }
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    Ok(Value::from(items.map(Value::from).collect::<Vec<_>>()))
}

/// The value under a key of a map or an index of a list.
pub(super) fn below<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Dict(_, dict) => dict.get(key),
        Value::Array(_, items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}
