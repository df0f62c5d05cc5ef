//! The exporter's own metrics: the only ones that live as long as the process. Any module may count here; `publisher`
//! renders them. Metrics of sensors and collections belong to the snapshot.
//!
//! Every series whose labels are known in advance starts at 0. A gauge whose value is not known yet is NaN, and is not
//! exposed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    core::Collector,
    process_collector::ProcessCollector,
    proto::{Counter, MetricFamily},
};
use rustix::time::{ClockId, clock_gettime};

/// The routes of the API, which are the values of the label `route`.
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
    /// The label values, in the order of the variants.
    const NAMES: [&str; 4] = ["sensor", "location", "base_location", "openapi"];

    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Why a request failed, by what an operator can do about it. These are the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No complete response within `api.timeout`, or within the collection.
    Timeout,
    /// No connection, or a connection that broke.
    Connect,
    /// Status 401 even with a new token, or no token available.
    Unauthorized,
    /// Status 403.
    Forbidden,
    /// Status 404.
    NotFound,
    /// Status 429, or a request that was not sent because of one.
    RateLimited,
    /// Any other status 4xx.
    ClientError,
    /// Status 5xx.
    ServerError,
    /// Status 3xx: redirects are never followed.
    Redirect,
    /// A response that is not JSON of the known shape.
    Malformed,
    /// A response larger than the limit.
    TooLarge,
    /// Any other failure.
    Other,
    /// Only for token requests: the refresh token is expired or revoked.
    InvalidGrant,
    /// Only for token requests: the client id or secret is wrong.
    InvalidClient,
}

impl Reason {
    /// The label values, in the order of the variants.
    #[rustfmt::skip]
    const NAMES: [&str; 14] = [
        "timeout", "connect", "unauthorized", "forbidden", "not_found", "rate_limited", "client_error", "server_error",
        "redirect", "malformed", "too_large", "other", "invalid_grant", "invalid_client",
    ];

    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Returns why a request with this HTTP status failed, `None` for success.
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

/// Upper bounds in seconds, from a cached response to the default of `api.timeout`.
const REQUEST_DURATION_BUCKETS: [f64; 9] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of the process are read from `/proc` at most this often: reading costs more than a small scrape.
pub const PROCESS_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The exporter's own metrics.
pub struct Stats {
    changes: ChangeCounter,
    registry: Registry,
    process: Mutex<Option<(Instant, Vec<MetricFamily>)>>,
    api_requests: IntCounterVec,
    api_request_failures: IntCounterVec,
    api_request_duration: HistogramVec,
    token_refreshes: IntCounter,
    token_refresh_failures: IntCounterVec,
    /// Unix time at which the access token expires; NaN before the first token.
    pub access_token_expiry: TrackedGauge,
    /// 0 after `invalid_grant` or while there is no refresh token.
    pub refresh_token_valid: TrackedGauge,
    /// Unix time of the login; NaN if unknown.
    pub refresh_token_obtained: TrackedGauge,
    /// 1 if the last load of the configuration succeeded.
    pub config_reload_successful: TrackedGauge,
    /// Unix time of the last successful load of the configuration.
    pub config_reload_success_timestamp: TrackedGauge,
    /// 1 if the last load of the web configuration succeeded.
    pub web_config_reload_successful: TrackedGauge,
    /// Unix time of the last successful load of the web configuration.
    pub web_config_reload_success_timestamp: TrackedGauge,
}

/// Counts the changes of metrics other than those of the process.
#[derive(Clone, Default)]
struct ChangeCounter(Arc<AtomicU64>);

impl ChangeCounter {
    /// Must be called after the change: whoever sees the new count then sees the change.
    fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A gauge whose changes are counted.
pub struct TrackedGauge {
    gauge: Gauge,
    changes: ChangeCounter,
}

impl TrackedGauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.gauge.set(value);
        self.changes.increment();
    }

    /// Returns the value.
    pub fn get(&self) -> f64 {
        self.gauge.get()
    }
}

impl Stats {
    /// Returns the metrics of a process that loaded its configuration at `now` (Unix time) and has made no request yet.
    #[rustfmt::skip] // a table
    pub fn new(now: f64) -> Self {
        let registry = Registry::new();
        let changes = ChangeCounter::default();
        let counter = |name, help| register(&registry, IntCounter::new(name, help));
        let counters = |name, help, labels| register(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name, help, value| {
            let gauge = register(&registry, Gauge::new(name, help));
            gauge.set(value);
            TrackedGauge { gauge, changes: changes.clone() }
        };
        let build_info = Opts::new("lightfi_exporter_build_info", "Version and build of the exporter; always 1")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("revision", env!("LIGHTFI_EXPORTER_REVISION"))
            .const_label("rustc", env!("LIGHTFI_EXPORTER_RUSTC"));
        register(&registry, Gauge::with_opts(build_info)).set(1.0);
        let request_duration = HistogramOpts::new(
            "lightfi_exporter_api_request_duration_seconds",
            "Time from sending an API request to the end of its response",
        ).buckets(REQUEST_DURATION_BUCKETS.to_vec());
        let stats = Self {
            api_requests: counters("lightfi_exporter_api_requests_total",
                "HTTP requests sent to the API, including retries", &["route"]),
            api_request_failures: counters("lightfi_exporter_api_request_failures_total",
                "Failed HTTP requests to the API, by reason", &["route", "reason"]),
            api_request_duration: register(&registry, HistogramVec::new(request_duration, &["route"])),
            token_refreshes: counter("lightfi_exporter_token_refreshes_total", "Access token refresh requests"),
            token_refresh_failures: counters("lightfi_exporter_token_refresh_failures_total",
                "Failed access token refresh requests, by reason", &["reason"]),
            access_token_expiry: gauge("lightfi_exporter_access_token_expiry_timestamp_seconds",
                "Unix time at which the current access token expires", f64::NAN),
            refresh_token_valid: gauge("lightfi_exporter_refresh_token_valid",
                "1 if the refresh token is usable, 0 if it is missing, expired or revoked and a new login is needed", 1.0),
            refresh_token_obtained: gauge("lightfi_exporter_refresh_token_obtained_timestamp_seconds",
                "Unix time of the login that the refresh token comes from", f64::NAN),
            config_reload_successful: gauge("lightfi_exporter_config_last_reload_successful",
                "1 if the last load of the configuration succeeded, else 0", 1.0),
            config_reload_success_timestamp: gauge("lightfi_exporter_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful load of the configuration", now),
            web_config_reload_successful: gauge("lightfi_exporter_web_config_last_reload_successful",
                "1 if the last load of the web configuration succeeded, else 0", 1.0),
            web_config_reload_success_timestamp: gauge("lightfi_exporter_web_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful load of the web configuration", now),
            process: Mutex::new(None),
            registry,
            changes,
        };
        stats.start_counters_at_zero();
        stats
    }

    fn start_counters_at_zero(&self) {
        let api_reasons = &Reason::NAMES[..=Reason::Other as usize];
        for route in Route::NAMES {
            self.api_requests.with_label_values(&[route]);
            self.api_request_duration.with_label_values(&[route]);
            for reason in api_reasons {
                let labels = [route, reason];
                self.api_request_failures.with_label_values(&labels);
            }
        }
        for reason in Reason::NAMES {
            self.token_refresh_failures.with_label_values(&[reason]);
        }
    }

    /// Counts an HTTP request to the API when it is sent.
    pub fn api_request_sent(&self, route: Route) {
        self.api_requests.with_label_values(&[route.as_str()]).inc();
        self.changes.increment();
    }

    /// Records the end of an HTTP request to the API.
    pub fn api_request_ended(&self, route: Route, took: Duration, failure: Option<Reason>) {
        let route = route.as_str();
        let duration = self.api_request_duration.with_label_values(&[route]);
        duration.observe(took.as_secs_f64());
        if let Some(reason) = failure {
            let labels = [route, reason.as_str()];
            self.api_request_failures.with_label_values(&labels).inc();
        }
        self.changes.increment();
    }

    /// Counts a token request when it has ended.
    pub fn token_refresh(&self, failure: Option<Reason>) {
        self.token_refreshes.inc();
        if let Some(reason) = failure {
            let labels = [reason.as_str()];
            self.token_refresh_failures.with_label_values(&labels).inc();
        }
        self.changes.increment();
    }

    /// Returns how often a metric has changed, not counting those of the process.
    pub fn changes(&self) -> u64 {
        self.changes.0.load(Ordering::Acquire)
    }

    /// Returns all families with their samples: the exporter's, then `process_*`.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.retain(|family| {
            let mut samples = family.get_metric().iter();
            samples.all(|sample| !sample.get_gauge().get_value().is_nan())
        });
        families.extend(self.process_metrics());
        families
    }

    fn process_metrics(&self) -> Vec<MetricFamily> {
        let mut cached = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, families)) if at.elapsed() < PROCESS_SAMPLE_INTERVAL => families.clone(),
            _ => {
                let families = read_process_metrics();
                *cached = Some((Instant::now(), families.clone()));
                families
            }
        }
    }
}

/// Reads `process_*` from `/proc`. The `prometheus` crate rounds CPU time to whole seconds, which an idle exporter uses in
/// a few minutes, so that one family gets the exact time.
fn read_process_metrics() -> Vec<MetricFamily> {
    let mut families = ProcessCollector::for_self().collect();
    let cpu_time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = cpu_time.tv_sec as f64 + cpu_time.tv_nsec as f64 / 1e9;
    let is_cpu_time = |family: &&mut MetricFamily| family.name() == "process_cpu_seconds_total";
    if let Some(family) = families.iter_mut().find(is_cpu_time) {
        for sample in family.mut_metric() {
            let mut counter = Counter::default();
            counter.set_value(seconds);
            sample.set_counter(counter);
        }
    }
    families
}

/// Registers a metric. Names and labels are literals in this file, so that a wrong one fails every test that makes [`Stats`].
fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    const VALID: &str = "the names, labels and HELP texts of this file are valid and distinct";
    let metric = made.expect(VALID);
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_have_the_order_of_the_variants() {
        assert_eq!(Route::Openapi.as_str(), "openapi");
        for (reason, label) in [
            (Reason::Timeout, "timeout"),
            (Reason::NotFound, "not_found"),
            (Reason::Redirect, "redirect"),
            (Reason::Other, "other"),
            (Reason::InvalidClient, "invalid_client"),
        ] {
            assert_eq!(reason.as_str(), label);
        }
    }
}
