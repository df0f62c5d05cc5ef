//! The exporter's own counters: the only metrics that live as long as the process. A leaf: everyone may count.
//!
//! [`Stats::version`] tells whether anything has changed, so that nobody need gather to find out.
//!
//! Every series whose labels can be known starts at 0. A gauge that is not yet known is NaN and is left out of
//! [`Stats::gather`].

mod process;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    core::Collector, proto::MetricFamily,
};

use self::process::Process;
pub use self::process::SAMPLED_EVERY;

/// The API's routes: label `route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `GET /sensors/{id}`
    Sensor,
    /// `GET /locations/{id}/`
    Location,
    /// `GET /locations`
    BaseLocation,
    /// `GET /openapi.json`
    Openapi,
}

impl Route {
    const ALL: [Self; 4] = [
        Self::Sensor,
        Self::Location,
        Self::BaseLocation,
        Self::Openapi,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Location => "location",
            Self::BaseLocation => "base_location",
            Self::Openapi => "openapi",
        }
    }
}

/// Why a request failed: label `reason`, named by what an operator does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No whole answer within `api.timeout`, or within the collection.
    Timeout,
    /// No connection, or one that broke.
    Connect,
    /// 401, also with a fresh token; or no token could be had.
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 429, or not sent because of one.
    RateLimited,
    /// Any other 4xx.
    ClientError,
    /// 5xx
    ServerError,
    /// 3xx: never followed.
    Redirect,
    /// Not JSON of the known shape.
    Malformed,
    /// Over the size limit.
    TooLarge,
    /// Anything else.
    Other,
    /// Of token requests only: the refresh token is expired or revoked.
    InvalidGrant,
    /// Of token requests only: client id or secret are not accepted.
    InvalidClient,
}

impl Reason {
    const OF_API: [Self; 12] = [
        Self::Timeout,
        Self::Connect,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::RateLimited,
        Self::ClientError,
        Self::ServerError,
        Self::Redirect,
        Self::Malformed,
        Self::TooLarge,
        Self::Other,
    ];
    const OF_TOKEN_ONLY: [Self; 2] = [Self::InvalidGrant, Self::InvalidClient];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Redirect => "redirect",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Other => "other",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidClient => "invalid_client",
        }
    }

    /// What an HTTP status says, `None` for success.
    pub fn of_status(status: u16) -> Option<Self> {
        Some(match status {
            200..=299 => return None,
            300..=399 => Self::Redirect,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            429 => Self::RateLimited,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Other,
        })
    }
}

/// Upper bounds in seconds: from a cache's answer to `api.timeout`'s default and above.
const REQUEST_DURATION_BUCKETS: [f64; 9] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The long-lived registry and its handles.
pub struct Stats {
    version: Version,
    registry: Registry,
    process: Process,
    api_requests: IntCounterVec,
    api_request_failures: IntCounterVec,
    api_request_duration: HistogramVec,
    token_refreshes: IntCounter,
    token_refresh_failures: IntCounterVec,
    /// Unix time at which the access token ends; NaN before the first.
    pub access_token_expiry: Level,
    /// 0 after `invalid_grant` or while there is none.
    pub refresh_token_valid: Level,
    /// Unix time of the login; NaN when unknown.
    pub refresh_token_obtained: Level,
    /// 1 while the last reload was good.
    pub config_reload_successful: Level,
    /// Unix time of the last good load.
    pub config_reload_success_timestamp: Level,
    /// The same for the web configuration.
    pub web_config_reload_successful: Level,
    /// The same for the web configuration.
    pub web_config_reload_success_timestamp: Level,
}

/// How many changes there were.
#[derive(Clone, Default)]
struct Version(Arc<AtomicU64>);

impl Version {
    /// After the change: who sees the new number sees the new value.
    fn changed(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A gauge of the exporter's own.
pub struct Level {
    gauge: Gauge,
    version: Version,
}

impl Level {
    /// From now on.
    pub fn set(&self, value: f64) {
        self.gauge.set(value);
        self.version.changed();
    }

    /// What was set last.
    pub fn get(&self) -> f64 {
        self.gauge.get()
    }
}

impl Stats {
    /// Everything at its start: counters 0, the configuration loaded at `now` (Unix seconds), no token asked for yet.
    pub fn new(now: f64) -> Self {
        let registry = Registry::new();
        let version = Version::default();
        let gauge = |name, help| Level {
            gauge: known(&registry, Gauge::new(name, help)),
            version: version.clone(),
        };
        let build_info = gauge_with_labels(
            "lightfi_exporter_build_info",
            "Version of the exporter and of what built it, always 1",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", env!("LIGHTFI_EXPORTER_REVISION")),
                ("rustc", env!("LIGHTFI_EXPORTER_RUSTC")),
            ],
        );
        build_info.set(1.0);
        register(&registry, build_info);
        let stats = Self {
            api_requests: counters(
                &registry,
                "lightfi_exporter_api_requests_total",
                "HTTP requests sent to the API, retries included",
                &["route"],
            ),
            api_request_failures: counters(
                &registry,
                "lightfi_exporter_api_request_failures_total",
                "HTTP requests to the API that failed, by reason",
                &["route", "reason"],
            ),
            api_request_duration: known(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "lightfi_exporter_api_request_duration_seconds",
                        "Time from sending a request to the API to the last byte of its answer",
                    )
                    .buckets(REQUEST_DURATION_BUCKETS.to_vec()),
                    &["route"],
                ),
            ),
            token_refreshes: known(
                &registry,
                IntCounter::new(
                    "lightfi_exporter_token_refreshes_total",
                    "Access tokens asked for with the refresh token",
                ),
            ),
            token_refresh_failures: counters(
                &registry,
                "lightfi_exporter_token_refresh_failures_total",
                "Token requests that failed, by reason",
                &["reason"],
            ),
            access_token_expiry: gauge(
                "lightfi_exporter_access_token_expiry_timestamp_seconds",
                "Unix time at which the access token in use ends",
            ),
            refresh_token_valid: gauge(
                "lightfi_exporter_refresh_token_valid",
                "0 while the refresh token is missing, expired or revoked, so that a person must log in, else 1",
            ),
            refresh_token_obtained: gauge(
                "lightfi_exporter_refresh_token_obtained_timestamp_seconds",
                "Unix time of the login that the refresh token comes from",
            ),
            config_reload_successful: gauge(
                "lightfi_exporter_config_last_reload_successful",
                "Whether the last attempt to load the configuration succeeded",
            ),
            config_reload_success_timestamp: gauge(
                "lightfi_exporter_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful load of the configuration",
            ),
            web_config_reload_successful: gauge(
                "lightfi_exporter_web_config_last_reload_successful",
                "Whether the last attempt to load the web configuration succeeded",
            ),
            web_config_reload_success_timestamp: gauge(
                "lightfi_exporter_web_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful load of the web configuration",
            ),
            version: version.clone(),
            registry,
            process: Process::new(),
        };
        for route in Route::ALL {
            stats.api_requests.with_label_values(&[route.as_str()]);
            stats.duration_of(route);
            for reason in Reason::OF_API {
                stats
                    .api_request_failures
                    .with_label_values(&[route.as_str(), reason.as_str()]);
            }
        }
        for reason in Reason::OF_API.into_iter().chain(Reason::OF_TOKEN_ONLY) {
            stats
                .token_refresh_failures
                .with_label_values(&[reason.as_str()]);
        }
        stats.access_token_expiry.set(f64::NAN);
        stats.refresh_token_obtained.set(f64::NAN);
        stats.refresh_token_valid.set(1.0);
        stats.config_reload_successful.set(1.0);
        stats.config_reload_success_timestamp.set(now);
        stats.web_config_reload_successful.set(1.0);
        stats.web_config_reload_success_timestamp.set(now);
        stats
    }

    /// One HTTP request to the API is being sent.
    pub fn api_request_sent(&self, route: Route) {
        self.api_requests.with_label_values(&[route.as_str()]).inc();
        self.version.changed();
    }

    /// It has ended: its whole answer came, or `failure`.
    pub fn api_request_ended(&self, route: Route, took: Duration, failure: Option<Reason>) {
        self.duration_of(route).observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.api_request_failures
                .with_label_values(&[route.as_str(), reason.as_str()])
                .inc();
        }
        self.version.changed();
    }

    /// One token request has ended: with a token, or `failure`.
    pub fn token_refresh(&self, failure: Option<Reason>) {
        self.token_refreshes.inc();
        if let Some(reason) = failure {
            self.token_refresh_failures
                .with_label_values(&[reason.as_str()])
                .inc();
        }
        self.version.changed();
    }

    /// Another number after every change but those of the process.
    pub fn version(&self) -> u64 {
        self.version.0.load(Ordering::Acquire)
    }

    /// All families with their samples, the exporter's own first, then `process_*`.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.retain(|family| {
            let samples = family.get_metric().iter();
            !samples
                .map(|sample| sample.get_gauge().get_value())
                .any(f64::is_nan)
        });
        families.extend(self.process.sample());
        families
    }

    fn duration_of(&self, route: Route) -> Histogram {
        self.api_request_duration
            .with_label_values(&[route.as_str()])
    }
}

/// Names and labels here are literals; a wrong one fails the first test that makes a [`Stats`].
fn known<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names, help and labels of our own metrics are valid");
    register(registry, collector.clone());
    collector
}

fn register<C: Collector + 'static>(registry: &Registry, collector: C) {
    registry
        .register(Box::new(collector))
        .expect("our own metrics have different names");
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    known(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge_with_labels(name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
    let opts = labels
        .iter()
        .fold(Opts::new(name, help), |opts, (label, value)| {
            opts.const_label(*label, *value)
        });
    Gauge::with_opts(opts).expect("names, help and labels of our own metrics are valid")
}
