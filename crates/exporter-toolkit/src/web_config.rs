//! The web configuration that is in use, and its replacement when its files change.
//!
//! [`build`] makes everything that the files say, at the start and again for each change. What a request or a connection meets is
//! decided in `server`.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::http::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config_file::Files,
    rate_limit::{RateLimit, RateLimiter},
    tls,
    users::Users,
};

/// How often the files are read. Two readings must agree, so a change is in use after three intervals at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The headers that can be set, with their allowed values; none means any value.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// The web configuration that is in use.
pub struct WebConfig {
    active: ArcSwap<Active>,
}

/// The first problem of a web configuration, with the file and the key. It never quotes a value, except the name of an unknown
/// cipher, curve, TLS version, client authentication type or header.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// A valid web configuration that is not in use yet.
pub struct Prepared(Active);

/// Everything that one state of the files says.
pub(crate) struct Active {
    files: Arc<Files>,
    /// `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    http2: bool,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) users: Users,
    pub(crate) rate_limiter: Option<Arc<RateLimiter>>,
    warnings: Vec<String>,
    /// Cancelled when another configuration is activated: open connections then end with the response they are sending.
    pub(crate) replaced: CancellationToken,
}

/// Checks the text of a web configuration as if none of the files that it names existed, and returns its warnings. `path` is the
/// name of the file in errors.
pub fn check_text(path: &Path, text: &str) -> Result<Vec<String>, ConfigError> {
    build(Files::of_text(path, text).into(), None).map(|active| active.warnings)
}

impl WebConfig {
    /// Reads the web configuration file at `path` and the files that it names. Without a file, or with an empty path as in Go,
    /// HTTP is plain and open to everybody. Blocks on file access.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let active = build(Files::read(path).into(), None)?;
        Ok(Self {
            active: ArcSwap::from_pointee(active),
        })
    }

    /// Returns whether connections use TLS. This does not change with a reload.
    pub fn is_tls(&self) -> bool {
        self.active.load().tls.is_some()
    }

    /// Returns the warnings about the configuration that is in use, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.active.load().warnings.clone()
    }

    /// Reads another web configuration file, or none, without using it yet. `None` if it is the file that is in use. Blocks on
    /// file access.
    pub fn prepare(&self, path: Option<&Path>) -> Result<Option<Prepared>, ConfigError> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let running = self.active.load();
        if running.files.path.as_deref() == path {
            return Ok(None);
        }
        let active = build(Files::read(path).into(), Some(&running))?;
        Ok(Some(Prepared(active)))
    }

    /// Uses a prepared configuration from now on, and returns its warnings.
    pub fn activate(&self, Prepared(active): Prepared) -> Vec<String> {
        let warnings = active.warnings.clone();
        self.active.swap(Arc::new(active)).replaced.cancel();
        warnings
    }

    /// Activates each change of the files until `shutdown`, logs it and calls `on_reload` with whether it is valid. If it is
    /// invalid, the configuration that is in use stays.
    pub async fn watch(
        self: Arc<Self>,
        on_reload: impl Fn(bool) + Send + Sync,
        shutdown: CancellationToken,
    ) {
        let watching = async {
            let mut ticks = interval(CHECK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The files that were activated or refused last, and those that were read last.
            let mut handled = self.active().files.clone();
            let mut previous = None;
            loop {
                ticks.tick().await;
                let running = self.active();
                if running.files.path != handled.path {
                    handled = running.files.clone();
                }
                let path = running.files.path.clone();
                let read = spawn_blocking(move || Files::read(path.as_deref())).await;
                let Ok(files) = read.map(Arc::new) else {
                    continue;
                };
                // A certificate and its key are written one after the other: wait until nothing changes any more.
                let is_settled = previous.as_ref() == Some(&files);
                if is_settled && files != handled {
                    handled = files.clone();
                    self.reload(&running, files.clone(), &on_reload).await;
                }
                previous = Some(files);
            }
        };
        shutdown.run_until_cancelled(watching).await;
    }

    /// Builds and activates the configuration of changed files.
    async fn reload(
        &self,
        running: &Arc<Active>,
        files: Arc<Files>,
        on_reload: &(impl Fn(bool) + Sync),
    ) {
        let old = running.clone();
        let built = spawn_blocking(move || build(files, Some(&old))).await;
        match built {
            Ok(Ok(new)) => {
                let warnings = new.warnings.clone();
                let previous = self.active.compare_and_swap(running, Arc::new(new));
                if !Arc::ptr_eq(&previous, running) {
                    // Another file was activated in the meantime.
                    return;
                }
                running.replaced.cancel();
                for warning in warnings {
                    warn!("{warning}");
                }
                info!("web configuration reloaded");
                on_reload(true);
            }
            Ok(Err(error)) => {
                error!(%error, "web configuration reload failed; keeping the previous configuration");
                on_reload(false);
            }
            Err(error) => error!(%error, "web configuration reload was aborted"),
        }
    }

    /// Returns the configuration for one connection or request.
    pub(crate) fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }
}

/// Makes everything that the files say. With a `running` configuration, the settings that cannot change until a restart are taken
/// from it, with a warning for each.
fn build(files: Arc<Files>, running: Option<&Active>) -> Result<Active, ConfigError> {
    let file = files.path.clone().unwrap_or_default();
    let mut active = Active::new(files, running.map(|running| running.http2))
        .map_err(|error| ConfigError(format!("{}: {error}", file.display())))?;
    if let Some(running) = running {
        active.keep_restart_only_settings(running);
    }
    Ok(active)
}

impl Active {
    fn new(files: Arc<Files>, running_http2: Option<bool>) -> Result<Self, String> {
        let file = files.parse()?;
        let mut warnings = Vec::new();
        let http = file.http_server_config.unwrap_or_default();
        let http2 = http.http2.unwrap_or(true);
        let tls = match &file.tls_server_config {
            Some(section) if tls::is_on(section) => {
                let http2 = running_http2.unwrap_or(http2);
                Some(Arc::new(tls::server_config(section, http2, &files)?))
            }
            Some(_) => {
                warnings.push("tls_server_config: no certificate and no key are set, TLS is off");
                None
            }
            None => None,
        };
        let limit = RateLimit::new(&file.rate_limit.unwrap_or_default())?;
        if limit.is_some_and(|limit| limit.burst == 0) {
            warnings.push(
                "rate_limit.burst is 0: every request is answered with 429, set it to 1 or more",
            );
        }
        let mut headers = Vec::new();
        for (name, value) in http.headers.unwrap_or_default() {
            let header = header(&name, &value.unwrap_or_default());
            headers.extend(header.map_err(|error| format!("http_server_config.headers: {error}"))?);
        }
        Ok(Self {
            tls,
            http2,
            headers,
            users: Users::new(file.basic_auth_users.unwrap_or_default())?,
            rate_limiter: limit.map(|limit| RateLimiter::new(limit, Instant::now()).into()),
            warnings: warnings.into_iter().map(str::to_owned).collect(),
            replaced: CancellationToken::new(),
            files,
        })
    }

    fn keep_restart_only_settings(&mut self, running: &Self) {
        let limit = |active: &Self| active.rate_limiter.as_ref().map(|limiter| limiter.limit);
        let toggles_tls = self.tls.is_some() != running.tls.is_some();
        for (what, has_changed) in [
            ("http_server_config.http2", self.http2 != running.http2),
            ("rate_limit", limit(self) != limit(running)),
            ("whether tls_server_config turns TLS on", toggles_tls),
        ] {
            if has_changed {
                let warning = format!("{what} has changed: it takes effect after a restart");
                self.warnings.push(warning);
            }
        }
        if toggles_tls {
            self.tls.clone_from(&running.tls);
        }
        self.http2 = running.http2;
        self.rate_limiter.clone_from(&running.rate_limiter);
    }
}

/// Returns the header for an entry of `http_server_config.headers`; `None` if its value is empty.
fn header(name: &str, value: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let Some((name, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        let known = HEADERS.map(|(name, _)| name).join(", ");
        return Err(format!(
            "HTTP header {name:?} can not be configured, only {known} can"
        ));
    };
    if value.is_empty() {
        return Ok(None);
    }
    if !allowed.is_empty() && !allowed.contains(&value) {
        return Err(format!(
            "invalid value for {name}. Expected one of: {allowed:?}"
        ));
    }
    match (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => Ok(Some((name, value))),
        _ => Err(format!(
            "invalid value for {name}: a header is one line of text"
        )),
    }
}
