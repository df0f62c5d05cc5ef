//! The configuration: its sections as plain values. How they are read, layered and checked is in `load` and
//! `validate`; a [`Config`] that exists has passed both.

mod secret;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use secret::Secret;
use url::Url;

use crate::catalog::Override;

/// Everything the exporter can be told, checked and complete.
#[derive(Debug, Clone)]
pub struct Config {
    /// The vendor's API.
    pub api: Api,
    /// How access tokens are had.
    pub oauth: Oauth,
    /// When readings are fetched and how long they count.
    pub collect: Collect,
    /// Sensors asked for one by one; ids are unique.
    pub sensors: Vec<Sensor>,
    /// Locations asked for whole; ids are unique.
    pub locations: Vec<Location>,
    /// What becomes of the readings.
    pub metrics: Metrics,
    /// The server.
    pub web: Web,
    /// The log.
    pub log: Log,
}

/// Section `api`.
#[derive(Debug, Clone)]
pub struct Api {
    /// Base URL; the bearer goes to this scheme, host and port only.
    pub url: Url,
    /// Of one request, connect to last byte.
    pub timeout: Duration,
    /// Requests in flight, at least 1.
    pub max_concurrency: usize,
    /// 0 = no limit.
    pub requests_per_second: f64,
    /// A longer reply (after decompression) is refused as `too_large`.
    pub max_response_bytes: usize,
    /// Plain `http://` off loopback.
    pub allow_insecure: bool,
    /// PEM file of further certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// Section `oauth`.
#[derive(Debug, Clone)]
pub struct Oauth {
    /// Where tokens are had.
    pub token_url: Url,
    /// Where a person logs in.
    pub authorize_url: Url,
    /// Asked for at login only; the refresh form carries none.
    pub scope: String,
    /// The client's id.
    pub client_id: Credential,
    /// The client's secret; a public client has none.
    pub client_secret: Option<Credential>,
    /// The seed: what a person logged in for.
    pub refresh_token: Option<Credential>,
    /// Where the client's credentials go in a token request.
    pub client_auth: ClientAuth,
    /// A token is renewed this long before its end; at least 10 s.
    pub expiry_margin: Duration,
    /// Keeps rotated refresh tokens.
    pub token_store: Option<PathBuf>,
    /// Plain `http://` off loopback.
    pub allow_insecure: bool,
}

/// A text of section `oauth` as it was configured.
#[derive(Debug, Clone)]
pub enum Credential {
    /// In the configuration itself.
    Inline(Secret),
    /// In a file, re-read when it changes; white space around the text does not count.
    File(PathBuf),
}

/// `oauth.client_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id` and `client_secret` in the form.
    Body,
    /// HTTP Basic.
    Basic,
}

/// Section `collect`.
#[derive(Debug, Clone)]
pub struct Collect {
    /// When requests are made.
    pub mode: Mode,
    /// As configured; see [`Config::effective_interval`].
    pub interval: Duration,
    /// By the reading's own time; 0 = never.
    pub stale_after: Duration,
}

/// `collect.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the background, every interval.
    Interval,
    /// When scraped, at most once per interval.
    Scrape,
}

/// One entry of `sensors`.
#[derive(Debug, Clone, Default)]
pub struct Sensor {
    /// `[A-Za-z0-9._-]+`.
    pub id: String,
    /// Wins over the API's name.
    pub name: Option<String>,
    /// Wins over the API's path.
    pub location: Option<String>,
    /// Only on `lightfi_sensor_info`.
    pub labels: BTreeMap<String, String>,
}

/// One entry of `locations`.
#[derive(Debug, Clone)]
pub struct Location {
    /// `[A-Za-z0-9._-]+`, or `base` for the account's base location.
    pub id: String,
    /// Replaces the location's own name in the path; may itself be a path.
    pub name: Option<String>,
    /// Descend into child locations.
    pub recursive: bool,
}

/// Section `metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// One more series per reading.
    pub reading_timestamps: bool,
    /// Overrides and additions, by `var_name`.
    pub variables: BTreeMap<String, Override>,
}

/// Section `web`.
#[derive(Debug, Clone)]
pub struct Web {
    /// `:p`, `host:p` or `[::1]:p`; at least one.
    pub listen_address: Vec<String>,
    /// Where the exposition is served.
    pub telemetry_path: String,
    /// The exporter-toolkit's web configuration.
    pub config_file: Option<PathBuf>,
    /// Scrapes at once; 0 = no limit.
    pub max_requests: usize,
    /// Allows POST `/-/reload`.
    pub enable_lifecycle: bool,
}

/// Section `log`.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// How a line is written.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}
