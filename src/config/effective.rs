//! The configuration in force as YAML, for people and for `/config`: itself a valid configuration, without its secrets.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ClientAuth, Config, Credential, LogFormat, Mode, duration};
use crate::catalog::Override;

/// Stands for every secret.
const SECRET: &str = "<secret>";

/// In the order of `default.yaml`.
#[derive(Serialize)]
struct Whole<'a> {
    api: Value,
    oauth: Map<String, Value>,
    collect: Value,
    sensors: Vec<Listed<'a>>,
    locations: Vec<Value>,
    metrics: Value,
    web: Value,
    log: Value,
}

/// One of `sensors`: no [`Value`], as there may be a hundred thousand.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    name: Option<&'a str>,
    location: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
}

/// Writes all keys; those that are not set are `null`.
pub fn to_yaml(config: &Config) -> String {
    let Config {
        api,
        oauth,
        collect,
        sensors,
        locations,
        metrics,
        web,
        log,
    } = config;
    let mut oauth_keys = Map::new();
    for (key, credential) in [
        ("client_id", Some(&oauth.client_id)),
        ("client_secret", oauth.client_secret.as_ref()),
        ("refresh_token", oauth.refresh_token.as_ref()),
    ] {
        let (inline, file) = match credential {
            Some(Credential::Inline(_)) => (json!(SECRET), Value::Null),
            Some(Credential::File(file)) => (Value::Null, path(Some(file))),
            None => (Value::Null, Value::Null),
        };
        oauth_keys.insert(key.to_owned(), inline);
        oauth_keys.insert(format!("{key}_file"), file);
    }
    for (key, value) in [
        ("token_url", json!(oauth.token_url.as_str())),
        ("authorize_url", json!(oauth.authorize_url.as_str())),
        ("scope", json!(oauth.scope)),
        (
            "client_auth",
            json!(match oauth.client_auth {
                ClientAuth::Body => "body",
                ClientAuth::Basic => "basic",
            }),
        ),
        (
            "expiry_margin",
            json!(duration::format(oauth.expiry_margin)),
        ),
        ("token_store", path(oauth.token_store.as_deref())),
        ("allow_insecure", json!(oauth.allow_insecure)),
    ] {
        oauth_keys.insert(key.to_owned(), value);
    }
    let variables: Map<String, Value> = metrics
        .variables
        .iter()
        .map(|(var_name, over)| (var_name.clone(), variable(over)))
        .collect();
    let sensors = sensors.iter().map(|sensor| Listed {
        id: &sensor.id,
        name: sensor.name.as_deref(),
        location: sensor.location.as_deref(),
        labels: &sensor.labels,
    });
    let locations: Vec<Value> = locations
        .iter()
        .map(|location| json!({"id": location.id, "name": location.name, "recursive": location.recursive}))
        .collect();
    let whole = Whole {
        api: json!({
            "url": api.url.as_str(),
            "timeout": duration::format(api.timeout),
            "max_concurrency": api.max_concurrency,
            "requests_per_second": api.requests_per_second,
            "max_response_bytes": api.max_response_bytes,
            "allow_insecure": api.allow_insecure,
            "ca_file": path(api.ca_file.as_deref()),
        }),
        oauth: oauth_keys,
        collect: json!({
            "mode": match collect.mode {
                Mode::Interval => "interval",
                Mode::Scrape => "scrape",
            },
            "interval": duration::format(collect.interval),
            "stale_after": duration::format(collect.stale_after),
            "max_series": collect.max_series,
        }),
        sensors: sensors.collect(),
        locations,
        metrics: json!({
            "reading_timestamps": metrics.reading_timestamps,
            "variables": variables,
        }),
        web: json!({
            "listen_address": web.listen_address,
            "telemetry_path": web.telemetry_path,
            "config_file": path(web.config_file.as_deref()),
            "max_requests": web.max_requests,
            "enable_lifecycle": web.enable_lifecycle,
        }),
        log: json!({
            "level": log.level.as_str().to_ascii_lowercase(),
            "format": match log.format {
                LogFormat::Logfmt => "logfmt",
                LogFormat::Json => "json",
            },
        }),
    };
    serde_saphyr::to_string(&whole).expect("maps with text keys, texts and numbers are YAML")
}

/// Only what is set: `drop` stands alone.
fn variable(over: &Override) -> Value {
    let mut keys = Map::new();
    if over.drop {
        keys.insert("drop".to_owned(), json!(true));
    }
    for (key, value) in [
        ("name", over.name.as_ref().map(|name| json!(name))),
        ("help", over.help.as_ref().map(|help| json!(help))),
        ("scale", over.scale.map(|scale| json!(scale))),
        (
            "stale_after",
            over.stale_after.map(|limit| json!(duration::format(limit))),
        ),
    ] {
        if let Some(value) = value {
            keys.insert(key.to_owned(), value);
        }
    }
    Value::Object(keys)
}

fn path(path: Option<&Path>) -> Value {
    json!(path.map(Path::to_string_lossy))
}
