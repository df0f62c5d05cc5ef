//! `serve`: the composition root. It loads and validates the configuration, builds every component, and serves until a signal.
//! A reload loads, validates and builds again, and only then swaps.
//!
//! `demo` uses [`load_and_serve`] too; `check` and `sensors` use [`Exporter`] without serving.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use arc_swap::ArcSwap;
use axum::Router;
use exporter_toolkit::{Limits, ListenAddress, ListenFd, Server, Signals, WebConfig};
use tokio::{net::TcpListener, signal::unix::Signal, sync::mpsc, time::sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{error, info, warn};

use super::Failure;
use crate::{
    api::{Client, SharedRateLimiter},
    blocking,
    catalog::Catalog,
    clock::unix_now,
    collector::{Collector, CollectorConfig, RequestFailure},
    config::{self, Config, Errors, Flags, Loaded, Purpose},
    http::{Proxies, http_client},
    oauth::TokenSource,
    publisher::Publisher,
    snapshot::Snapshot,
    stats::{Stats, TrackedGauge},
    telemetry::Telemetry,
    web::{self, AppState},
};

/// The longest time from the signal to the end; the contract is 5 s. Scrapes and a token request in flight end sooner.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4500);

/// Runs the exporter until a signal.
pub(super) async fn run(
    flags: Flags,
    environment: Vec<(String, String)>,
    sockets: ListenFd,
) -> Result<(), Failure> {
    let sockets = flags.web.systemd_socket.then_some(sockets);
    let load = move || config::load(&flags, environment.iter().cloned(), Purpose::Serve);
    load_and_serve(load, Proxies::FromEnvironment, sockets, |_, _, _| Ok(())).await
}

/// Runs the exporter until a signal. `load` loads the configuration at the start and for each
/// reload. `on_bound` is called once the addresses are bound.
pub(super) async fn load_and_serve(
    load: impl Fn() -> Result<Loaded, Errors> + Send + Sync + 'static,
    proxies: Proxies,
    sockets: Option<ListenFd>,
    on_bound: impl FnOnce(&Config, &WebConfig, &[TcpListener]) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let Loaded { config, warnings } = load().map_err(Failure::configuration)?;
    let telemetry = Telemetry::install(config.log.level, config.log.format);
    log_warnings(&warnings);
    let signals = Signals::listen()?;
    let exporter = Exporter::new(config, proxies).await?;
    let web = &exporter.config.web;
    let web_config = WebConfig::load(web.config_file.as_deref()).map_err(Failure::configuration)?;
    log_warnings(&web_config.warnings());
    let listeners = match sockets {
        Some(sockets) => exporter_toolkit::systemd_listeners(sockets)
            .map_err(|error| Failure::Configuration(anyhow!("--web.systemd-socket: {error}")))?,
        None => bind_all(&web.listen_address).await?,
    };
    on_bound(&exporter.config, &web_config, &listeners)?;
    serve(
        exporter,
        Arc::new(load),
        web_config.into(),
        listeners,
        telemetry,
        signals,
    )
    .await
}

/// The components that one configuration describes.
#[derive(Clone)]
pub(super) struct Exporter {
    pub(super) config: Arc<Config>,
    pub(super) tokens: Arc<TokenSource>,
    rate_limiter: SharedRateLimiter,
    stats: Arc<Stats>,
    http: reqwest::Client,
    proxies: Proxies,
}

impl Exporter {
    /// Builds what needs no port, so that a configuration that cannot work fails before one is bound.
    pub(super) async fn new(config: Config, proxies: Proxies) -> Result<Self, Failure> {
        let stats = Arc::new(Stats::new(unix_now()));
        let http = http_client(&config.api, proxies).map_err(Failure::configuration)?;
        let tokens = TokenSource::new(&config.oauth, http.clone(), stats.clone()).await;
        Ok(Self {
            tokens: tokens.map_err(Failure::configuration)?,
            config: config.into(),
            rate_limiter: SharedRateLimiter::default(),
            stats,
            http,
            proxies,
        })
    }

    /// Builds the exporter of a new configuration. It keeps the counters, the tokens unless their source changes, and the
    /// rate limit unless the API changes.
    async fn rebuild(&self, config: Config) -> anyhow::Result<Self> {
        let http = http_client(&config.api, self.proxies)?;
        let tokens = self.tokens.rebuild_with(&config.oauth, http.clone());
        let mut next = Self {
            tokens: tokens.await?,
            config: config.into(),
            http,
            ..self.clone()
        };
        if next.config.api.url != self.config.api.url {
            next.rate_limiter = SharedRateLimiter::default();
        }
        Ok(next)
    }

    /// Returns the client of the API.
    pub(super) fn client(&self) -> Client {
        Client::new(
            &self.config.api,
            self.http.clone(),
            self.tokens.clone(),
            self.stats.clone(),
            self.rate_limiter.clone(),
        )
    }

    /// Returns what the collector needs of this configuration.
    fn collector_config(&self) -> CollectorConfig {
        CollectorConfig::new(&self.config, self.client(), &self.tokens, self.catalog())
    }

    /// Makes one collection. Returns it with the requests that failed.
    pub(super) async fn collect_once(&self) -> (Snapshot, Vec<RequestFailure>) {
        let (collector, _) = Collector::new(self.collector_config());
        collector.run_once().await
    }

    fn catalog(&self) -> Arc<Catalog> {
        let metrics = &self.config.metrics;
        let stale_after = self.config.collect.stale_after;
        let timestamps = metrics.reading_timestamps;
        Arc::new(Catalog::new(&metrics.variables, stale_after, timestamps))
    }
}

/// Binds the addresses of `web.listen_address`.
async fn bind_all(addresses: &[String]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let parsed: ListenAddress = address
            .parse()
            .map_err(|error| anyhow!("web.listen_address: {address:?} {error}"))?;
        let bound = exporter_toolkit::bind(&parsed).await;
        listeners.extend(bound.map_err(|error| {
            anyhow!(
                "cannot listen on {address}: {error}; free the port, or set another with --web.listen-address or \
                 web.listen_address"
            )
        })?);
    }
    Ok(listeners)
}

/// Collects and serves until a signal.
async fn serve(
    exporter: Exporter,
    load: Load,
    web_config: Arc<WebConfig>,
    listeners: Vec<TcpListener>,
    telemetry: Telemetry,
    Signals { shutdown, hangup }: Signals,
) -> Result<(), Failure> {
    for listener in &listeners {
        info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), tls = web_config.is_tls(), "listening");
    }
    let stats = exporter.stats.clone();
    let on_reload = move |successful| count_web_config_reload(&stats, successful);
    tokio::spawn(web_config.clone().watch(on_reload, shutdown.clone()));

    let (reload_sender, reload_requests) = mpsc::channel(1);
    let state = start_collector(&exporter, reload_sender, &shutdown);
    let router = Arc::new(ArcSwap::from_pointee(web::router(state.clone())));
    let server = Server {
        listeners,
        router: router.clone(),
        web_config: web_config.clone(),
        open_paths: web::OPEN_PATHS.map(str::to_owned).to_vec(),
        limits: Limits::default(),
    };
    // At shutdown they may still be saving a rotated refresh token.
    let refreshing = TaskTracker::new();
    let reloader = Reloader {
        refresh: start_refresh(&exporter.tokens, &refreshing, &shutdown),
        refreshing: refreshing.clone(),
        exporter,
        load,
        telemetry,
        state,
        web_config,
        router,
        shutdown: shutdown.clone(),
    };
    let reloading = reloader.run(reload_requests, hangup);
    let work = async {
        tokio::join!(server.serve(shutdown.clone()), reloading);
        refreshing.close();
        refreshing.wait().await;
    };
    let timeout = async {
        shutdown.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        () = work => info!("stopped"),
        () = timeout => warn!("shutdown timed out; exiting with tasks still running"),
    }
    Ok(())
}

/// Starts the task that collects and publishes. Returns what the routes need.
fn start_collector(
    exporter: &Exporter,
    reloads: mpsc::Sender<web::Reload>,
    shutdown: &CancellationToken,
) -> AppState {
    let (collector, handle) = Collector::new(exporter.collector_config());
    let publisher = Arc::new(Publisher::new(
        collector.initial_snapshot(),
        exporter.catalog(),
        exporter.stats.clone(),
    ));
    let state = AppState {
        publisher: publisher.clone(),
        collector: handle,
        tokens: exporter.tokens.clone(),
        reloads,
        config: exporter.config.clone(),
    };
    let publish = move |snapshot, catalog| {
        let publisher = publisher.clone();
        async move { publisher.publish(snapshot, catalog).await }
    };
    tokio::spawn(collector.run(publish, shutdown.clone()));
    state
}

/// Starts the task that keeps the access token of a token source fresh. It ends when the returned guard is dropped.
fn start_refresh(
    tokens: &Arc<TokenSource>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> DropGuard {
    let stop = shutdown.child_token();
    tasks.spawn(tokens.clone().run(stop.clone()));
    stop.drop_guard()
}

/// Loads the configuration again.
type Load = Arc<dyn Fn() -> Result<Loaded, Errors> + Send + Sync>;

/// Replaces the exporter when its configuration is loaded again.
struct Reloader {
    exporter: Exporter,
    refresh: DropGuard,
    refreshing: TaskTracker,
    load: Load,
    telemetry: Telemetry,
    state: AppState,
    web_config: Arc<WebConfig>,
    router: Arc<ArcSwap<Router>>,
    shutdown: CancellationToken,
}

impl Reloader {
    /// Reloads on SIGHUP and on request, one at a time, until shutdown.
    async fn run(mut self, mut requests: mpsc::Receiver<web::Reload>, mut hangup: Signal) {
        let shutdown = self.shutdown.clone();
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = hangup.recv() => None,
                Some(request) = requests.recv() => Some(request),
            };
            let result = self.reload().await.map_err(|error| format!("{error:#}"));
            let stats = &self.exporter.stats;
            let time = &stats.config_reload_success_timestamp;
            count_reload(&stats.config_reload_successful, time, result.is_ok());
            match &result {
                Ok(()) => info!("configuration reloaded"),
                Err(error) => {
                    error!(
                        error,
                        "configuration reload failed; keeping the previous configuration"
                    );
                }
            }
            if let Some(request) = request {
                // The client may have gone.
                let _ = request.send(result);
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        // Everything that can fail comes first. Long lists of sensors take time, in which scrapes continue.
        let load = self.load.clone();
        let Loaded {
            mut config,
            warnings,
        } = blocking::run(move || load()).await?;
        let kept = config.retain_restart_only_settings(&self.exporter.config);
        let (web_config, file) = (self.web_config.clone(), config.web.config_file.clone());
        let prepared = blocking::run(move || web_config.prepare(file.as_deref())).await?;
        let next = self.exporter.rebuild(config).await?;

        // From here on nothing fails.
        log_warnings(&warnings);
        if let Some(prepared) = prepared {
            count_web_config_reload(&next.stats, true);
            log_warnings(&self.web_config.activate(prepared));
        }
        log_warnings(&kept);
        if !Arc::ptr_eq(&next.tokens, &self.exporter.tokens) {
            self.refresh = start_refresh(&next.tokens, &self.refreshing, &self.shutdown);
        }
        self.telemetry.set_level(next.config.log.level);
        let collector = &self.state.collector;
        collector.reconfigure(next.collector_config()).await;
        self.state.tokens = next.tokens.clone();
        self.state.config = next.config.clone();
        self.router.store(web::router(self.state.clone()).into());
        self.exporter = next;
        Ok(())
    }
}

fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        warn!("{warning}");
    }
}

fn count_web_config_reload(stats: &Stats, is_successful: bool) {
    let time = &stats.web_config_reload_success_timestamp;
    count_reload(&stats.web_config_reload_successful, time, is_successful);
}

fn count_reload(successful: &TrackedGauge, time: &TrackedGauge, is_successful: bool) {
    successful.set(f64::from(u8::from(is_successful)));
    if is_successful {
        time.set(unix_now());
    }
}
