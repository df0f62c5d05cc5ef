//! The rules that a configuration must keep beyond the types of its fields: ranges and contradictions, one function per
//! section. All problems are reported in one run.
//!
//! The names of metrics and labels have their rules in `names`. Called by `config::load`.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use exporter_toolkit::ListenAddress;
use url::{Host, Url};

use super::{
    Api, Collect, Config, Metrics, Oauth, Sensor, Web,
    layers::{Layers, path_for_display},
    names,
};
use crate::{
    catalog::{self, Override},
    duration,
};

/// A shorter interval would mean requests to the API without a pause.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// A longer interval is a typing error.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// With less, a token could expire during a collection that uses it.
const MIN_EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// More connections to one host are a typing error.
const MAX_CONCURRENCY: usize = 1024;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The other routes of the server (`web/mod.rs`), which the telemetry path must not take. A new route must be added here.
const ROUTES: &[&str] = &[
    "/",
    "/-/healthy",
    "/healthz",
    "/-/ready",
    "/readyz",
    "/-/reload",
    "/config",
];

impl Config {
    /// Reports all that is wrong with the sections. Sensors and locations are not in `self` yet: see `validate_ids`.
    pub(super) fn validate(&self, layers: &mut Layers) {
        self.api.validate(layers);
        self.oauth.validate(layers);
        self.collect.validate(layers);
        self.metrics.validate(layers);
        self.web.validate(layers);
    }
}

impl Api {
    fn validate(&self, layers: &mut Layers) {
        validate_url(layers, &["api", "url"], &self.url, self.allow_insecure);
        if self.url.query().is_some() {
            layers.refuse(&["api", "url"], "carries a query, leave out what follows ?");
        }
        if self.timeout.is_zero() {
            layers.refuse(&["api", "timeout"], "must be longer than 0");
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.max_concurrency) {
            let message = format!("must be from 1 to {MAX_CONCURRENCY}");
            layers.refuse(&["api", "max_concurrency"], &message);
        }
        if self.requests_per_second < 0.0 {
            let message = "must not be negative, 0 means no limit";
            layers.refuse(&["api", "requests_per_second"], message);
        }
        if self.max_response_bytes == 0 {
            layers.refuse(&["api", "max_response_bytes"], "must be at least 1");
        }
        let message = match self.ca_file.as_ref().map(fs::read) {
            Some(Err(error)) => format!("cannot be read: {error}"),
            Some(Ok(bytes)) if !String::from_utf8_lossy(&bytes).contains(PEM_BEGIN) => {
                "holds no certificate in PEM form".to_owned()
            }
            _ => return,
        };
        layers.refuse(&["api", "ca_file"], &message);
    }
}

impl Oauth {
    fn validate(&self, layers: &mut Layers) {
        let insecure = self.allow_insecure;
        validate_url(layers, &["oauth", "token_url"], &self.token_url, insecure);
        let path = ["oauth", "authorize_url"];
        validate_url(layers, &path, &self.authorize_url, insecure);
        if self.token_store.as_deref() == Some(Path::new("")) {
            let message = "is empty, name a file or leave the key out";
            layers.refuse(&["oauth", "token_store"], message);
        }
        if self.expiry_margin < MIN_EXPIRY_MARGIN {
            let message = format!("must be at least {}", duration::format(MIN_EXPIRY_MARGIN));
            layers.refuse(&["oauth", "expiry_margin"], &message);
        }
    }
}

impl Collect {
    fn validate(&self, layers: &mut Layers) {
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            let [min, max] = [MIN_INTERVAL, MAX_INTERVAL].map(duration::format);
            layers.refuse(
                &["collect", "interval"],
                &format!("must be from {min} to {max}"),
            );
        }
        if self.max_series == 0 {
            layers.refuse(&["collect", "max_series"], "must be at least 1");
        }
    }
}

/// Reports ids of the list under `key` that are not valid or not unique. Each id comes with its index in the list.
pub(super) fn validate_ids(layers: &mut Layers, key: &str, ids: &[(usize, &str)]) {
    for (index, id) in ids {
        if !is_id(id) {
            let advice = "is not an id, use letters, digits, \".\", \"_\" and \"-\"";
            layers.refuse_text(&[key, &index.to_string()], id, advice);
        }
    }
    refuse_duplicates(layers, &[key], ids);
}

fn is_id(text: &str) -> bool {
    let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(is_id_byte) && !matches!(text, "." | "..")
}

fn refuse_duplicates(layers: &mut Layers, path: &[&str], items: &[(usize, &str)]) {
    let mut seen = HashMap::new();
    for (index, text) in items {
        if let Some(first) = seen.insert(*text, *index) {
            let first = path_for_display(&[path, &[&first.to_string()]].concat());
            let message = format!("is listed twice, first as {first}");
            layers.refuse_text(&[path, &[&index.to_string()]].concat(), text, &message);
        }
    }
}

pub(super) fn validate_labels(layers: &mut Layers, sensors: &[(usize, Sensor)]) {
    for (index, sensor) in sensors {
        for label in sensor.labels.keys() {
            if let Err(message) = names::check_label(label) {
                let path = ["sensors", &index.to_string(), "labels", label];
                layers.refuse_text(&path, label, &message);
            }
        }
    }
}

impl Metrics {
    fn validate(&self, layers: &mut Layers) {
        let mut by_variable = HashMap::new();
        let mut by_metric = HashMap::new();
        for (var_name, over) in &self.variables {
            let path = ["metrics", "variables", var_name];
            if let Some(first) = by_variable.insert(catalog::canonical(var_name), var_name) {
                let message =
                    format!("and {first} are two names of the same variable; remove one of them");
                layers.refuse(&path, &message);
            }
            validate_override(over, var_name, layers);
            let Some(metric) = &over.name else {
                continue;
            };
            if let Some(first) = by_metric.insert(metric, var_name) {
                let first = path_for_display(&["metrics", "variables", first]);
                let message = format!("is taken by {first}, choose another name");
                layers.refuse(&[&path[..], &["name"]].concat(), &message);
            }
        }
    }
}

fn validate_override(over: &Override, var_name: &str, layers: &mut Layers) {
    let mut refuse = |key: &str, message: &str| {
        layers.refuse(&["metrics", "variables", var_name, key], message);
    };
    let set = [
        ("help", over.help.is_some()),
        ("scale", over.scale.is_some()),
        ("name", over.name.is_some()),
        ("stale_after", over.stale_after.is_some()),
    ];
    if over.drop {
        if let Some((key, _)) = set.iter().find(|(_, is_set)| *is_set) {
            refuse(
                key,
                "has no effect because drop is true; remove this key or drop",
            );
        }
        return;
    }
    let variable = catalog::canonical(var_name);
    let is_unnamed = over.name.is_none() && !catalog::has_row(variable);
    if let Some((key, _)) = set[..2].iter().find(|(_, is_set)| *is_set && is_unnamed) {
        let message =
            "needs a name: without one the variable stays in lightfi_reading, unconverted";
        refuse(key, message);
        return;
    }
    if let Some(name) = &over.name
        && let Err(message) = names::check_metric(name, var_name)
    {
        refuse("name", &message);
    }
    if over
        .help
        .as_ref()
        .is_some_and(|help| help.trim().is_empty())
    {
        refuse("help", "is empty, say what the metric is");
    }
    let scale = over.scale.unwrap_or(1.0);
    if scale == 0.0 {
        refuse(
            "scale",
            "must not be 0, use drop: true to leave the variable out",
        );
    }
    // A counter with a name of its own becomes a gauge.
    if scale < 0.0 && over.name.is_none() && catalog::is_counter(variable) {
        let message = "must not be negative for a counter, give it a name to export it as a gauge";
        refuse("scale", message);
    }
}

impl Web {
    fn validate(&self, layers: &mut Layers) {
        let path = ["web", "listen_address"];
        for (index, address) in self.listen_address.iter().enumerate() {
            if let Err(message) = address.parse::<ListenAddress>() {
                layers.refuse(&[&path[..], &[&index.to_string()]].concat(), &message);
            }
        }
        let addresses = self.listen_address.iter().map(String::as_str).enumerate();
        refuse_duplicates(layers, &path, &addresses.collect::<Vec<_>>());
        if self.listen_address.is_empty() {
            layers.refuse(&path, "is empty, list at least one address");
        }
        if let Err(message) = check_telemetry_path(&self.telemetry_path) {
            layers.refuse(&["web", "telemetry_path"], message);
        }
    }
}

fn check_telemetry_path(path: &str) -> Result<(), &'static str> {
    let is_plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let is_plain = path.bytes().all(is_plain_byte)
        && !path.contains("//")
        && !path.split('/').any(|part| matches!(part, "." | ".."));
    if !path.starts_with('/') {
        Err("does not begin with \"/\"")
    } else if !is_plain {
        Err("is not a plain path, write for example /metrics")
    } else if ROUTES.contains(&path) {
        Err("is another route of the exporter, write for example /metrics")
    } else {
        Ok(())
    }
}

/// Reports the first thing that is wrong with a URL.
fn validate_url(layers: &mut Layers, path: &[&str; 2], url: &Url, allow_insecure: bool) {
    let is_http = url.scheme() == "http";
    let message = if !is_http && url.scheme() != "https" {
        "is neither an https:// nor an http:// URL"
    } else if !url.username().is_empty() || url.password().is_some() {
        "carries a user name or password, take it out of the URL"
    } else if url.fragment().is_some() {
        "carries a fragment, leave out what follows #"
    } else if is_http && !is_loopback(url) && !allow_insecure {
        let section = path[0];
        let advice = format!(
            "is plain http to another machine, use https or set {section}.allow_insecure: true"
        );
        return layers.refuse(path, &advice);
    } else {
        return;
    };
    layers.refuse(path, message);
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
