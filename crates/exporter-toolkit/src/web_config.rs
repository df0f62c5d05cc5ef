//! The web configuration that is in use, and its replacement when its files change.
//!
//! [`build`] makes everything that a file and its certificates say, at the start and again for each change. What a request or a
//! connection meets is decided in `server`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use rustls::ServerConfig;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{self, Settings},
    error::ConfigError,
    rate_limit::RateLimiter,
    snapshot::Snapshot,
    tls,
    users::{self, Access, Users},
};

/// How often the files are read. Two readings must agree, so a change is in use after three intervals at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The web configuration that is in use.
pub struct WebConfig {
    active: ArcSwap<Active>,
    bcrypt_permits: Arc<Semaphore>,
}

/// A valid web configuration that is not in use yet.
pub struct Prepared(Active);

/// Everything that one state of the files says.
pub(crate) struct Active {
    /// `None` without a web configuration file: plain HTTP for everybody.
    path: Option<PathBuf>,
    snapshot: Arc<Snapshot>,
    pub(crate) tls: Option<TlsFrontend>,
    http2: bool,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    users: Users,
    rate_limiter: Option<Arc<RateLimiter>>,
    warnings: Vec<String>,
}

/// What new connections are accepted with.
#[derive(Clone)]
pub(crate) struct TlsFrontend {
    pub(crate) config: Arc<ServerConfig>,
    /// Cancelled when another configuration is activated: open connections then end with the response they are sending.
    pub(crate) replaced: CancellationToken,
}

impl std::fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebConfig").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

/// Checks the text of a web configuration as far as that is possible without the files that it names, and returns its
/// warnings. `path` is the name of the file in errors.
pub fn check_text(path: &Path, text: &str) -> Result<Vec<String>, ConfigError> {
    config::read(path, text).map(|settings| settings.warnings)
}

impl WebConfig {
    /// Reads the web configuration file at `path` and the files that it names. Without a file, or with an empty path as in Go,
    /// HTTP is plain and open to everybody. Blocks on file access.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            active: ArcSwap::from_pointee(build(path, Arc::new(Snapshot::of(path)), None)?),
            bcrypt_permits: users::bcrypt_permits(),
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
        let running = self.active.load();
        if running.path.as_deref() == path {
            return Ok(None);
        }
        let active = build(path, Arc::new(Snapshot::of(path)), Some(&running))?;
        Ok(Some(Prepared(active)))
    }

    /// Uses a prepared configuration from now on, and returns its warnings.
    pub fn activate(&self, Prepared(active): Prepared) -> Vec<String> {
        let warnings = active.warnings.clone();
        self.active.swap(Arc::new(active)).end_connections();
        warnings
    }

    /// Activates each change of the files until `shutdown`, logs it and calls `on_reload` with whether it is valid. If it is invalid, the
    /// configuration that is in use stays.
    pub async fn watch(
        self: Arc<Self>,
        on_reload: impl Fn(bool) + Send + Sync,
        shutdown: CancellationToken,
    ) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = self.active();
        // The last snapshot that was activated or refused, and the one that was read last.
        let mut handled = running.snapshot.clone();
        let mut previous = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let current = self.active();
            if !Arc::ptr_eq(&current, &running) {
                handled = current.snapshot.clone();
                running = current;
            }
            let Some(path) = running.path.clone() else {
                continue;
            };
            let snapshot = tokio::select! {
                () = shutdown.cancelled() => return,
                read = spawn_blocking(move || Snapshot::read(&path)) => read.map(Arc::new),
            };
            let Ok(snapshot) = snapshot else { continue };
            if snapshot == handled {
                previous = None;
                continue;
            }
            // A certificate and its key are written one after the other: wait until nothing changes any more.
            if previous.as_ref() == Some(&snapshot) {
                handled = snapshot.clone();
                self.reload(&running, snapshot.clone(), &on_reload).await;
            }
            previous = Some(snapshot);
        }
    }

    /// Builds and activates the configuration of a changed snapshot.
    async fn reload(
        &self,
        running: &Arc<Active>,
        snapshot: Arc<Snapshot>,
        on_reload: &(impl Fn(bool) + Sync),
    ) {
        let old = running.clone();
        let built = spawn_blocking(move || build(old.path.as_deref(), snapshot, Some(&old)));
        let Ok(built) = built.await else { return };
        match built {
            Ok(new) => {
                let warnings = new.warnings.clone();
                let previous = self.active.compare_and_swap(running, Arc::new(new));
                if !Arc::ptr_eq(&previous, running) {
                    // Another file was activated in the meantime.
                    return;
                }
                running.end_connections();
                for warning in warnings {
                    warn!("{warning}");
                }
                info!("web configuration reloaded");
                on_reload(true);
            }
            Err(error) => {
                error!(%error, "web configuration reload failed; keeping the previous configuration");
                on_reload(false);
            }
        }
    }

    /// Returns the configuration for one connection or request.
    pub(crate) fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// Checks the user of a request.
    pub(crate) async fn check_user(&self, active: &Active, headers: &HeaderMap) -> Access {
        active.users.check(headers, &self.bcrypt_permits).await
    }
}

/// Makes everything that the web configuration at `path` and its certificates say. With a `running` configuration, the
/// settings that cannot change until a restart are taken from it, with a warning for each.
fn build(
    path: Option<&Path>,
    snapshot: Arc<Snapshot>,
    running: Option<&Active>,
) -> Result<Active, ConfigError> {
    let settings = path.map_or_else(|| Ok(Settings::default()), |path| snapshot.settings(path))?;
    let http2 = running.map_or(settings.http2, |running| running.http2);
    let tls = settings.tls.as_ref().map(|tls| {
        tls::server_config(tls, &snapshot, http2)
            .map_err(|(key, message)| ConfigError::new(path.unwrap_or(Path::new("")), key, message))
    });
    let mut active = Active {
        path: path.map(Path::to_owned),
        tls: tls.transpose()?.map(TlsFrontend::new),
        snapshot,
        http2,
        headers: settings.headers,
        users: Users::new(settings.users),
        rate_limiter: settings
            .rate_limit
            .map(|limit| Arc::new(RateLimiter::new(limit, Instant::now()))),
        warnings: settings.warnings,
    };
    if let Some(running) = running {
        active.keep_restart_only_settings(running, settings.http2);
    }
    Ok(active)
}

impl Active {
    fn keep_restart_only_settings(&mut self, running: &Self, http2: bool) {
        let limit = |active: &Self| active.rate_limiter.as_ref().map(|limiter| limiter.limit);
        let changes = [
            (
                "http_server_config.http2",
                self.tls.is_some() && running.tls.is_some() && http2 != running.http2,
            ),
            ("rate_limit", limit(self) != limit(running)),
            (
                "whether tls_server_config turns TLS on",
                self.tls.is_some() != running.tls.is_some(),
            ),
        ];
        for (what, has_changed) in changes {
            if has_changed {
                let warning = format!("{what} has changed: it takes effect after a restart");
                self.warnings.push(warning);
            }
        }
        if self.tls.is_some() != running.tls.is_some() {
            self.tls = running.tls.as_ref().map(|tls| TlsFrontend {
                config: tls.config.clone(),
                replaced: CancellationToken::new(),
            });
        }
        self.rate_limiter.clone_from(&running.rate_limiter);
    }

    /// Ends the connections of this configuration gracefully.
    fn end_connections(&self) {
        if let Some(tls) = &self.tls {
            tls.replaced.cancel();
        }
    }

    /// Returns whether the rate limit admits one more request now.
    pub(crate) fn admits_request(&self) -> bool {
        self.rate_limiter
            .as_ref()
            .is_none_or(|limiter| limiter.admit(Instant::now()))
    }
}

impl TlsFrontend {
    fn new(config: ServerConfig) -> Self {
        Self {
            config: Arc::new(config),
            replaced: CancellationToken::new(),
        }
    }
}
