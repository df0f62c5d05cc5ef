//! The keys that environment variables and flags set.
//!
//! Called by `layers`, which merges them over the file.

use std::collections::BTreeMap;

use exporter_toolkit::ListenAddress;
use figment::value::Value;

use super::{
    Flags,
    document::{Kind, Node},
    error::Problem,
};

/// The prefix of all environment variables of the exporter.
const ENVIRONMENT_PREFIX: &str = "LIGHTFI_";
/// Separates the levels of a key in the name of an environment variable.
const LEVEL_SEPARATOR: &str = "__";
/// The section that only the file can set: its keys are names of the API, whose case matters, and environment names are
/// compared without case.
const FILE_ONLY: &str = "metrics.variables";
/// A name that differs in more letters belongs to other software.
const MAX_EDITS: usize = 3;

/// One key that is set outside of the file.
pub(super) struct Setting {
    /// `web.max_requests`
    pub(super) key: String,
    /// `environment LIGHTFI_…` or `--flag`
    pub(super) origin: String,
    pub(super) node: Node,
}

/// Reads the variables of the exporter. An unknown name is a warning: Kubernetes sets such names for a Service.
pub(super) fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
    defaults: &Value,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Vec<Setting> {
    let mut variables: Vec<(String, String)> = environment
        .filter(|(name, text)| name.starts_with(ENVIRONMENT_PREFIX) && !text.is_empty())
        .collect();
    variables.sort();
    let known: BTreeMap<String, String> = paths(defaults)
        .into_iter()
        .filter(|path| path != FILE_ONLY)
        .map(|path| (environment_name(&path), path))
        .collect();
    let mut settings = Vec::new();
    let mut unknown = Vec::new();
    for (name, text) in variables {
        let Some(key) = known.get(&name.to_ascii_uppercase()) else {
            match unknown_name(&name, &known) {
                Some(warning) => warnings.push(warning),
                None => unknown.push(name),
            }
            continue;
        };
        let key = key.clone();
        let origin = format!("environment {name}");
        let node = match defaults.find_ref(&key) {
            Some(Value::Array(..)) => list(&text),
            _ => Ok(text_node(text)),
        };
        match node {
            Ok(node) => settings.push(Setting { key, origin, node }),
            Err(message) => problems.push(Problem {
                origin,
                line: None,
                message,
            }),
        }
    }
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        warnings.push(format!("environment: unknown names are ignored: {names}"));
    }
    settings
}

pub(super) fn from_flags(flags: &Flags) -> Vec<Setting> {
    let web = &flags.web;
    let config_file = web.config_file.as_ref();
    let config_file = config_file.map(|path| path.to_string_lossy().into_owned());
    let max_requests = web.max_requests.map(|requests| requests.to_string());
    let enable_lifecycle = flags.enable_lifecycle.then(|| "true".to_owned());
    let addresses = web.listen_address.iter().map(ToString::to_string);
    let addresses: Vec<Node> = addresses.map(text_node).collect();
    let addresses = (!addresses.is_empty()).then(|| node(Kind::List(addresses)));
    [
        ("web.listen_address", addresses),
        (
            "web.telemetry_path",
            web.telemetry_path.clone().map(text_node),
        ),
        ("web.config_file", config_file.map(text_node)),
        ("web.max_requests", max_requests.map(text_node)),
        ("web.enable_lifecycle", enable_lifecycle.map(text_node)),
        ("log.level", flags.log_level.clone().map(text_node)),
        ("log.format", flags.log_format.clone().map(text_node)),
    ]
    .into_iter()
    .filter_map(|(key, node)| {
        let flag = match key {
            // The name that the Prometheus exporters use.
            "web.config_file" => "web.config.file".to_owned(),
            _ => key.replace('_', "-"),
        };
        Some(Setting {
            key: key.to_owned(),
            origin: format!("--{flag}"),
            node: node?,
        })
    })
    .collect()
}

/// Returns all known keys: `api.url`, …, `sensors`, …
pub(super) fn paths(defaults: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for (section, value) in defaults.as_dict().into_iter().flatten() {
        match value.as_dict() {
            Some(keys) => paths.extend(keys.keys().map(|key| format!("{section}.{key}"))),
            None => paths.push(section.clone()),
        }
    }
    paths
}

/// Returns the environment variable of a key: `LIGHTFI_COLLECT__INTERVAL`.
pub(super) fn environment_name(path: &str) -> String {
    let levels = path.replace('.', LEVEL_SEPARATOR);
    format!("{ENVIRONMENT_PREFIX}{}", levels.to_ascii_uppercase())
}

/// Returns the warning about an unknown name that is likely meant for the exporter.
fn unknown_name(name: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with(&environment_name(FILE_ONLY)) {
        return Some(format!(
            "environment {name} is ignored: {FILE_ONLY} can be set in the file only"
        ));
    }
    let distance = |known: &String| strsim::damerau_levenshtein(known, &upper);
    let nearest = known.keys().min_by_key(|known| distance(known))?;
    (distance(nearest) <= MAX_EDITS)
        .then(|| format!("environment {name} is ignored: unknown name, did you mean {nearest}"))
}

/// Reads a list of the environment: `a, b` or `[a, {id: b}]`.
fn list(text: &str) -> Result<Node, String> {
    let text = text.trim();
    let items = text.split(',').map(str::trim);
    let mut items = items.filter(|item| !item.is_empty()).peekable();
    // `[::1]:10420` begins like a list in brackets.
    let is_address = |item: &&str| item.parse::<ListenAddress>().is_ok();
    if text.starts_with('[') && !items.peek().is_some_and(is_address) {
        let list = Node::parse(text).map_err(|(_, message)| message)?;
        return match list.kind {
            Kind::List(_) => Ok(list),
            _ => Err("not a list, write a,b or [a, b]".to_owned()),
        };
    }
    let items = items.map(|item| text_node(item.to_owned()));
    Ok(node(Kind::List(items.collect())))
}

fn text_node(text: String) -> Node {
    node(Kind::Text(text))
}

fn node(kind: Kind) -> Node {
    Node { line: 0, kind }
}
