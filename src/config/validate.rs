//! The rules that a configuration must keep beyond the types of its fields: ranges and contradictions, one function per
//! section. All problems are reported in one run.
//!
//! The names of metrics and labels have their rules in `names`. Called by `config::load`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    time::Duration,
};

use exporter_toolkit::ListenAddress;
use url::{Host, Url};

use super::{
    Api, Collect, Config, Location, Metrics, Oauth, Sensor, Web,
    layers::{Layers, ListItem, name},
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

/// The other routes of the server, which the telemetry path must not take.
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
    /// Reports all that is wrong with the sections; the entries of the lists have been checked.
    pub(super) fn validate(&self, layers: &mut Layers<'_>) {
        self.api.validate(layers);
        self.oauth.validate(layers);
        self.collect.validate(layers);
        self.metrics.validate(layers);
        self.web.validate(layers);
    }
}

impl Api {
    fn validate(&self, layers: &mut Layers<'_>) {
        let path = ["api", "url"];
        validate_url(layers, &path, &self.url, self.allow_insecure);
        let has_query = self.url.query().is_some();
        layers.require(
            !has_query,
            &path,
            "carries a query, leave out what follows ?",
        );
        layers.require(
            !self.timeout.is_zero(),
            &["api", "timeout"],
            "must be longer than 0",
        );
        layers.require(
            (1..=MAX_CONCURRENCY).contains(&self.max_concurrency),
            &["api", "max_concurrency"],
            &format!("must be from 1 to {MAX_CONCURRENCY}"),
        );
        layers.require(
            self.requests_per_second >= 0.0,
            &["api", "requests_per_second"],
            "must not be negative, 0 means no limit",
        );
        layers.require(
            self.max_response_bytes > 0,
            &["api", "max_response_bytes"],
            "must be at least 1",
        );
        let Some(file) = &self.ca_file else {
            return;
        };
        let path = ["api", "ca_file"];
        match fs::read(file) {
            Ok(bytes) => layers.require(
                String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----"),
                &path,
                "holds no certificate in PEM form",
            ),
            Err(error) => layers.refuse(&path, &format!("cannot be read: {error}")),
        }
    }
}

impl Oauth {
    fn validate(&self, layers: &mut Layers<'_>) {
        for (key, url) in [
            ("token_url", &self.token_url),
            ("authorize_url", &self.authorize_url),
        ] {
            validate_url(layers, &["oauth", key], url, self.allow_insecure);
        }
        let has_name = self.token_store.as_deref() != Some(Path::new(""));
        layers.require(
            has_name,
            &["oauth", "token_store"],
            "is empty, name a file or leave the key out",
        );
        layers.require(
            self.expiry_margin >= MIN_EXPIRY_MARGIN,
            &["oauth", "expiry_margin"],
            &format!("must be at least {}", duration::format(MIN_EXPIRY_MARGIN)),
        );
    }
}

impl Collect {
    fn validate(&self, layers: &mut Layers<'_>) {
        let (min, max) = (
            duration::format(MIN_INTERVAL),
            duration::format(MAX_INTERVAL),
        );
        layers.require(
            (MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval),
            &["collect", "interval"],
            &format!("must be from {min} to {max}"),
        );
        layers.require(
            self.max_series > 0,
            &["collect", "max_series"],
            "must be at least 1",
        );
    }
}

impl ListItem for Sensor {
    fn id(&self) -> &str {
        &self.id
    }

    fn validate(&self, layers: &mut Layers<'_>, path: &[&str]) {
        for label in self.labels.keys() {
            if let Err(message) = names::check_label(label) {
                layers.refuse_name(&[path, &["labels"]].concat(), label, &message);
            }
        }
    }
}

impl ListItem for Location {
    fn id(&self) -> &str {
        &self.id
    }

    fn validate(&self, _: &mut Layers<'_>, _: &[&str]) {}
}

impl Metrics {
    fn validate(&self, layers: &mut Layers<'_>) {
        let mut by_variable = HashMap::new();
        let mut by_metric: BTreeMap<&str, &str> = BTreeMap::new();
        for (var_name, over) in &self.variables {
            let path = ["metrics", "variables", var_name];
            if let Some(first) = by_variable.insert(catalog::canonical(var_name), var_name) {
                let message = format!("and {first} are one variable, keep one");
                layers.refuse(&path, &message);
            }
            validate_override(over, var_name, layers);
            let metric = over.name.as_deref().unwrap_or_default();
            if let Some(first) = by_metric
                .insert(metric, var_name)
                .filter(|_| over.name.is_some())
            {
                let first = name(&["metrics", "variables", first]);
                let message = format!("is taken by {first}, choose another");
                layers.refuse(&[&path[..], &["name"]].concat(), &message);
            }
        }
    }
}

fn validate_override(over: &Override, var_name: &str, layers: &mut Layers<'_>) {
    let path = |key| ["metrics", "variables", var_name, key];
    let set = [
        ("name", over.name.is_some()),
        ("help", over.help.is_some()),
        ("scale", over.scale.is_some()),
        ("stale_after", over.stale_after.is_some()),
    ];
    let first_set = |keys: &[&str]| {
        let mut set = set
            .iter()
            .filter(|(key, is_set)| *is_set && keys.contains(key));
        set.next().map(|(key, _)| *key)
    };
    if over.drop {
        if let Some(key) = first_set(&["name", "help", "scale", "stale_after"]) {
            layers.refuse(
                &path(key),
                "is set, but drop leaves the variable out, keep one",
            );
        }
        return;
    }
    let variable = catalog::canonical(var_name);
    let is_unnamed = over.name.is_none() && !catalog::has_row(variable);
    if let Some(key) = first_set(&["help", "scale"]).filter(|_| is_unnamed) {
        let message =
            "needs a name: without one the variable stays in lightfi_reading, unconverted";
        layers.refuse(&path(key), message);
        return;
    }
    if let Some(name) = &over.name
        && let Err(message) = names::check_metric(name, var_name)
    {
        layers.refuse(&path("name"), &message);
    }
    let help = over.help.as_deref().unwrap_or("none");
    layers.require(
        !help.trim().is_empty(),
        &path("help"),
        "is empty, say what the metric is",
    );
    let scale = over.scale.unwrap_or(1.0);
    layers.require(
        scale != 0.0,
        &path("scale"),
        "must not be 0, use drop: true to leave the variable out",
    );
    // A counter with a name of its own becomes a gauge.
    layers.require(
        scale >= 0.0 || over.name.is_some() || !catalog::is_counter(variable),
        &path("scale"),
        "must not be negative for a counter, give it a name to export it as a gauge",
    );
}

impl Web {
    fn validate(&self, layers: &mut Layers<'_>) {
        let path = ["web", "listen_address"];
        for (index, address) in self.listen_address.iter().enumerate() {
            if let Err(message) = address.parse::<ListenAddress>() {
                layers.refuse(&[&path[..], &[&index.to_string()]].concat(), &message);
            }
        }
        let addresses = self.listen_address.iter().map(String::as_str).enumerate();
        layers.refuse_duplicates(&path, addresses);
        let is_empty = self.listen_address.is_empty();
        layers.require(!is_empty, &path, "is empty, list at least one address");
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
fn validate_url(layers: &mut Layers<'_>, path: &[&str; 2], url: &Url, allow_insecure: bool) {
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
