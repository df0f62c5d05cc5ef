//! The configuration: its sections as plain values, and [`load`], which makes them from defaults, file, environment and
//! flags. A [`Config`] that [`load`] returns has passed every check. Called by `cli`, at the start and for a reload.
//!
//! `document` reads the file, `overrides` reads environment and flags, `layers` merges all and reports problems, `validate`
//! checks with the rules of `names`. A key is a field here, with its doc comment, and a line in `default.yaml`. No error
//! quotes a value of section `oauth` or a URL. The files of credentials are read in `oauth`, again whenever they change.

mod document;
mod error;
mod flags;
mod layers;
mod names;
mod overrides;
mod secret;
mod validate;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use crate::duration;
pub use error::Errors;
pub use flags::Flags;
pub use secret::Secret;
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use url::Url;

use error::Problem;
use layers::{CREDENTIAL_KEYS, Layers};
use validate::{validate_ids, validate_labels};

use crate::{catalog::Override, text};

/// The exporter's port where none is configured; `default.yaml` says the same.
pub const DEFAULT_PORT: u16 = 10420;

/// The file that is read where `--config.file` names no other.
pub const DEFAULT_FILE: &str = "lightfi-exporter.yaml";

/// A larger file is no configuration: 100,000 sensors with names take a tenth of it.
const MAX_FILE_BYTES: u64 = 128 << 20;

const MISSING_FILE: &str = "no such file in the working directory: create it, name another with --config.file, or list \
                            sensors in LIGHTFI_SENSORS; `lightfi-exporter demo` needs no file";

/// Room that a collection leaves at a limited rate, for the last request to be answered within the interval.
const RATE_MARGIN: f64 = 1.1;

/// Keeps a tiny rate from stretching the interval beyond what clocks can add.
const LONGEST_EFFECTIVE_INTERVAL: Duration = Duration::from_secs(365 * 86_400);

/// What a configuration is for, and so what it must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To collect: it must say where a refresh token is. Nothing to collect is a warning, and an error only where there is no
    /// file.
    Serve,
    /// To see what there is to collect: it must say where a refresh token is.
    Discover,
    /// To log in for the first refresh token, which is not needed yet.
    Login,
}

/// A good configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What its writer should know, one sentence each, for the log.
    pub warnings: Vec<String>,
}

/// Loads the configuration from its four layers; a problem is exit code 2.
pub fn load(
    flags: &Flags,
    environment: impl Iterator<Item = (String, String)>,
    purpose: Purpose,
) -> Result<Loaded, Errors> {
    let path = flags.config_file.as_deref();
    let path = path.unwrap_or(Path::new(DEFAULT_FILE));
    let name = path.to_string_lossy();
    match read_file(path) {
        Ok(text) => load_text(&name, &text, flags, environment, purpose),
        Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config_file.is_none() => {
            let layers = Layers::new("configuration", "", environment, flags)?;
            if purpose == Purpose::Serve && layers.problems.is_empty() && !layers.lists_anything() {
                return Err(file_error(DEFAULT_FILE, MISSING_FILE.to_owned()));
            }
            read_layers(layers, purpose)
        }
        Err(error) => Err(file_error(&name, format!("cannot be read: {error}"))),
    }
}

/// Loads from a text in place of a file, which messages call `name`.
pub fn load_text(
    name: &str,
    text: &str,
    flags: &Flags,
    environment: impl Iterator<Item = (String, String)>,
    purpose: Purpose,
) -> Result<Loaded, Errors> {
    let layers = Layers::new(name, text, environment, flags)?;
    read_layers(layers, purpose)
}

fn file_error(name: &str, message: String) -> Errors {
    Errors::new(vec![Problem {
        origin: name.to_owned(),
        line: None,
        message,
    }])
}

fn read_layers(mut layers: Layers, purpose: Purpose) -> Result<Loaded, Errors> {
    // The lists of this value are still empty: they are read apart, and put in at the end.
    let config: Option<Config> = layers.read(purpose);
    let sensors = layers.read_list::<Sensor>("sensors");
    let locations = layers.read_list::<Location>("locations");
    let ids: Vec<_> = sensors
        .iter()
        .map(|(index, sensor)| (*index, &*sensor.id))
        .collect();
    validate_ids(&mut layers, "sensors", &ids);
    let ids: Vec<_> = locations
        .iter()
        .map(|(index, location)| (*index, &*location.id))
        .collect();
    validate_ids(&mut layers, "locations", &ids);
    validate_labels(&mut layers, &sensors);
    if let Some(config) = &config {
        config.validate(&mut layers);
    }
    let mut config = match config {
        Some(config) if layers.problems.is_empty() => config,
        _ => return Err(Errors::new(layers.problems)),
    };
    config.sensors = sensors.into_iter().map(|(_, sensor)| sensor).collect();
    config.locations = locations
        .into_iter()
        .map(|(_, location)| location)
        .collect();
    let mut warnings = layers.warnings;
    if purpose == Purpose::Serve {
        warnings.extend(config.warnings());
    }
    Ok(Loaded { config, warnings })
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(MAX_FILE_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let message = format!("larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::other(message));
    }
    Ok(text)
}

impl Config {
    /// `collect.interval`, stretched where the requests of one collection do not fit `api.requests_per_second`.
    pub fn effective_interval(&self) -> Duration {
        let rate = self.api.requests_per_second;
        if rate <= 0.0 {
            return self.collect.interval;
        }
        let needed = RATE_MARGIN * self.requests_per_collection() as f64 / rate;
        // A rate near 0 can ask for more than any clock holds.
        Duration::try_from_secs_f64(needed)
            .unwrap_or(Duration::MAX)
            .clamp(
                self.collect.interval,
                LONGEST_EFFECTIVE_INTERVAL.max(self.collect.interval),
            )
    }

    /// Returns what is allowed but probably a mistake.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let requests = self.requests_per_collection();
        if requests == 0 {
            let warning = "nothing to collect: list ids under `sensors` or `locations`";
            warnings.push(warning.to_owned());
        }
        let interval = self.effective_interval();
        // Rounded up to tenths of a second.
        let effective = (interval.as_secs_f64() * 10.0).ceil() / 10.0;
        if interval > self.collect.interval {
            warnings.push(format!(
                "{requests} requests do not fit into collect.interval ({}) at api.requests_per_second {}: the interval \
                 stretches to {effective}s; raise the rate or the interval, or list locations instead of sensors",
                duration::format(self.collect.interval),
                self.api.requests_per_second,
            ));
        }
        let mut limits = vec![("collect".to_owned(), self.collect.stale_after)];
        for (variable, over) in &self.metrics.variables {
            let section = format!("metrics.variables.{variable}");
            limits.extend(over.stale_after.map(|limit| (section, limit)));
        }
        for (section, limit) in limits {
            if !limit.is_zero() && limit < interval {
                warnings.push(format!(
                    "{section}.stale_after ({}) is shorter than the interval of {effective}s: readings will be stale \
                     before the next collection; raise it, or set it to 0 so that readings never become stale",
                    duration::format(limit),
                ));
            }
        }
        warnings
    }

    /// Keeps the settings of `before` that only a restart changes. Returns a sentence for each that differs.
    pub fn retain_restart_only_settings(&mut self, before: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        if self.web.listen_address != before.web.listen_address {
            self.web.listen_address = before.web.listen_address.clone();
            changed.push("web.listen_address has changed: restart to apply it".to_owned());
        }
        if self.log.format != before.log.format {
            self.log.format = before.log.format;
            changed.push("log.format has changed: restart to apply it".to_owned());
        }
        changed
    }

    /// Requests that are known before the first reply: child locations come on top.
    fn requests_per_collection(&self) -> usize {
        self.sensors.len() + self.locations.len()
    }
}

/// The whole configuration, checked and complete. `/config` shows it in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Config {
    /// The API of LightFi.
    pub api: Api,
    /// How the exporter gets access tokens.
    #[serde(serialize_with = "split_credentials")]
    pub oauth: Oauth,
    /// When readings are fetched and how long they count.
    pub collect: Collect,
    /// Sensors to read one by one; ids are unique. They are read apart from the sections: a long list must not be copied.
    pub sensors: Arc<[Sensor]>,
    /// Locations to read as a whole; ids are unique.
    pub locations: Vec<Location>,
    /// How readings become metrics.
    pub metrics: Metrics,
    /// The server.
    pub web: Web,
    /// The log.
    pub log: Log,
}

/// Section `api`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Api {
    /// Base URL; the access token goes to this scheme, host and port only.
    #[serde(deserialize_with = "text::parse")]
    pub url: Url,
    /// Time limit of one request, from connect to the last byte.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Requests in flight.
    #[serde(deserialize_with = "text::parse")]
    pub max_concurrency: usize,
    /// Limit for requests to the API per second; 0 = no limit.
    #[serde(deserialize_with = "text::parse")]
    pub requests_per_second: f64,
    /// A longer reply (after decompression) is refused as `too_large`.
    #[serde(deserialize_with = "text::parse")]
    pub max_response_bytes: usize,
    /// Allows plain `http://` to other machines.
    #[serde(deserialize_with = "text::parse")]
    pub allow_insecure: bool,
    /// PEM file of additional certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// Section `oauth`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Oauth {
    /// Where the exporter gets tokens.
    #[serde(deserialize_with = "text::parse")]
    pub token_url: Url,
    /// Where a person logs in.
    #[serde(deserialize_with = "text::parse")]
    pub authorize_url: Url,
    /// Requested at login only; the refresh request carries no scope.
    pub scope: String,
    /// The client's id.
    pub client_id: Credential,
    /// The client's secret; a public client has none.
    pub client_secret: Option<Credential>,
    /// The refresh token of a login, before any rotation.
    pub refresh_token: Option<Credential>,
    /// Where the client's credentials go in a token request.
    pub client_auth: ClientAuth,
    /// A token is renewed this long before it expires; at least 10 s.
    #[serde(with = "duration")]
    pub expiry_margin: Duration,
    /// File for rotated refresh tokens.
    pub token_store: Option<PathBuf>,
    /// Allows plain `http://` to other machines.
    #[serde(deserialize_with = "text::parse")]
    pub allow_insecure: bool,
}

/// A text of section `oauth`, as it was configured under `<key>` or `<key>_file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// In the configuration itself.
    Inline(Secret),
    /// In a file, which is read again when it changes; white space around the text does not count.
    File(PathBuf),
}

/// `oauth.client_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// `client_id` and `client_secret` in the form.
    Body,
    /// HTTP Basic.
    Basic,
}

/// Section `collect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Collect {
    /// When requests are made.
    pub mode: Mode,
    /// As configured; see [`Config::effective_interval`].
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Limit for the age of a reading, by its own time; 0 = never.
    #[serde(with = "duration")]
    pub stale_after: Duration,
    /// Limit for all sensors together, at least 1.
    #[serde(deserialize_with = "text::parse")]
    pub max_series: usize,
}

/// `collect.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the background, every interval.
    Interval,
    /// When scraped, at most once per interval.
    Scrape,
}

/// One entry of `sensors`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an id or an object with one")]
pub struct Sensor {
    /// `[A-Za-z0-9._-]+`.
    pub id: Arc<str>,
    /// Replaces the name that the API gives.
    #[serde(default, deserialize_with = "text::non_empty")]
    pub name: Option<Arc<str>>,
    /// Replaces the path that the API gives.
    #[serde(default, deserialize_with = "text::non_empty")]
    pub location: Option<Arc<str>>,
    /// Labels of `lightfi_sensor_info` only.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One entry of `locations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an id or an object with one")]
pub struct Location {
    /// `[A-Za-z0-9._-]+`, or `base` for the account's base location.
    pub id: String,
    /// Replaces the location's own name in the path; may itself be a path.
    #[serde(default, deserialize_with = "text::non_empty")]
    pub name: Option<String>,
    /// Whether child locations are read too.
    #[serde(default = "default_recursive", deserialize_with = "text::parse")]
    pub recursive: bool,
}

/// Section `metrics`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Metrics {
    /// Adds one series per reading with its time.
    #[serde(deserialize_with = "text::parse")]
    pub reading_timestamps: bool,
    /// Overrides and additions, by `var_name`.
    #[serde(deserialize_with = "text::set_entries")]
    pub variables: BTreeMap<String, Override>,
}

/// Section `web`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Web {
    /// `:p`, `host:p` or `[::1]:p`; at least one.
    pub listen_address: Vec<String>,
    /// Path of the metrics.
    pub telemetry_path: String,
    /// Web configuration file of the exporter toolkit.
    #[serde(deserialize_with = "text::non_empty")]
    pub config_file: Option<PathBuf>,
    /// Limit for simultaneous scrapes; 0 = no limit.
    #[serde(deserialize_with = "text::parse")]
    pub max_requests: usize,
    /// Allows POST `/-/reload`.
    #[serde(deserialize_with = "text::parse")]
    pub enable_lifecycle: bool,
}

/// Section `log`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys")]
pub struct Log {
    /// The lowest severity that is written.
    #[serde(deserialize_with = "text::parse", serialize_with = "text::lowercase")]
    pub level: tracing::Level,
    /// Format of a line.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

fn default_recursive() -> bool {
    true
}

/// Writes each [`Credential`] under `<key>` or `<key>_file`, as it was configured.
fn split_credentials<S: Serializer>(oauth: &Oauth, serializer: S) -> Result<S::Ok, S::Error> {
    let mut section = serde_json::to_value(oauth).map_err(S::Error::custom)?;
    for key in CREDENTIAL_KEYS {
        let credential = section[key].take();
        section[key] = credential["inline"].clone();
        section[format!("{key}_file")] = credential["file"].clone();
    }
    section.serialize(serializer)
}

/// Writes the configuration as YAML, which is itself a valid configuration. Secrets are redacted, and keys that are not
/// set are `null`.
pub fn to_yaml(config: &Config) -> String {
    serde_saphyr::to_string(config).expect("maps with text keys, texts and numbers are YAML")
}

#[cfg(test)]
mod tests;
