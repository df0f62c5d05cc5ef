//! `serve`: the composition root. It loads and validates the configuration, builds every component, and serves until a signal.
//! A reload loads, validates and builds again, and only then swaps.
//!
//! `demo` uses [`Exporter`] too; `check` and `sensors` use it without serving.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use exporter_toolkit::{Limits, ListenAddress, ListenFd, Server, Signals, WebConfig};
use tokio::{net::TcpListener, signal::unix::Signal, sync::mpsc, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
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
    stats::Stats,
    telemetry::Telemetry,
    web::{self, AppState, SwappableRouter},
};

/// The longest time from the signal to the end; the contract is 5 s. Scrapes and a token request in flight end sooner.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(4500);

/// Loads the configuration, at the start and for each reload.
pub(super) type Load = Arc<dyn Fn() -> Result<Loaded, Errors> + Send + Sync>;

/// Runs the exporter until a signal.
pub(super) async fn run(
    flags: Flags,
    environment: Vec<(String, String)>,
    sockets: ListenFd,
) -> Result<(), Failure> {
    let sockets = flags.web.systemd_socket.then_some(sockets);
    let load: Load =
        Arc::new(move || config::load(&flags, environment.iter().cloned(), Purpose::Serve));
    let Loaded { config, warnings } = load().map_err(Failure::configuration)?;
    let telemetry = Telemetry::install(config.log.level, config.log.format);
    log_warnings(&warnings);
    let signals = Signals::listen()?;
    let exporter = Exporter::new(config, Proxies::FromEnvironment).await?;
    let bound = exporter.bind(sockets).await?;
    bound.serve(load, telemetry, signals).await
}

/// The components that one configuration describes.
pub(super) struct Exporter {
    pub(super) config: Config,
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
            config,
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
        let tokens = self
            .tokens
            .rebuild_with(&config.oauth, http.clone())
            .await?;
        let rate_limiter = match config.api.url == self.config.api.url {
            true => self.rate_limiter.clone(),
            false => SharedRateLimiter::default(),
        };
        Ok(Self {
            config,
            tokens,
            rate_limiter,
            stats: self.stats.clone(),
            http,
            proxies: self.proxies,
        })
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

    /// Loads the web configuration, and binds the addresses or takes over the sockets of systemd.
    pub(super) async fn bind(self, sockets: Option<ListenFd>) -> Result<BoundExporter, Failure> {
        let web = &self.config.web;
        let web_config =
            WebConfig::load(web.config_file.as_deref()).map_err(Failure::configuration)?;
        log_warnings(&web_config.warnings());
        let listeners = match sockets {
            Some(sockets) => exporter_toolkit::systemd_listeners(sockets).map_err(|error| {
                Failure::Configuration(anyhow!("--web.systemd-socket: {error}"))
            })?,
            None => bind_all(&web.listen_address).await?,
        };
        Ok(BoundExporter {
            exporter: self,
            web_config: Arc::new(web_config),
            listeners,
        })
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
        let bound =
            bound.with_context(|| format!("cannot listen on {address} (web.listen_address)"))?;
        listeners.extend(bound);
    }
    Ok(listeners)
}

/// An exporter with its listeners.
pub(super) struct BoundExporter {
    pub(super) exporter: Exporter,
    pub(super) web_config: Arc<WebConfig>,
    pub(super) listeners: Vec<TcpListener>,
}

impl BoundExporter {
    /// Collects and serves until a signal. `load` loads the configuration for a reload.
    pub(super) async fn serve(
        self,
        load: Load,
        telemetry: Telemetry,
        signals: Signals,
    ) -> Result<(), Failure> {
        let Self {
            exporter,
            web_config,
            listeners,
        } = self;
        let Signals { shutdown, hangup } = signals;
        for listener in &listeners {
            info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), tls = web_config.is_tls(), "listening");
        }
        let stats = exporter.stats.clone();
        let on_reload = move |successful| count_web_config_reload(&stats, successful);
        tokio::spawn(web_config.clone().watch(on_reload, shutdown.clone()));

        let (reload_sender, reload_requests) = mpsc::channel(1);
        let state = start_collector(&exporter, reload_sender, &shutdown);
        let router = SwappableRouter::new(state.clone());
        let server = Server {
            listeners,
            service: router.clone(),
            web_config: web_config.clone(),
            open_paths: web::OPEN_PATHS.map(str::to_owned).to_vec(),
            limits: Limits::default(),
        };
        let reloader = Reloader {
            refresh: RefreshTask::start(&exporter.tokens, &shutdown),
            exporter,
            load,
            telemetry,
            state,
            web_config,
            router,
            shutdown: shutdown.clone(),
        };
        let work = async {
            let server = server.serve(shutdown.clone());
            let ((), refresh) = tokio::join!(server, reloader.run(reload_requests, hangup));
            // It may still be saving a rotated refresh token.
            let _ = refresh.task.await;
        };
        let timeout = async {
            shutdown.cancelled().await;
            sleep(SHUTDOWN_TIMEOUT).await;
        };
        tokio::select! {
            () = work => info!("stopped"),
            () = timeout => warn!("shutdown timed out"),
        }
        Ok(())
    }
}

/// Starts the task that collects and publishes. Returns what the routes need.
fn start_collector(
    exporter: &Exporter,
    reload: mpsc::Sender<web::Reload>,
    shutdown: &CancellationToken,
) -> AppState {
    let (collector, handle) = Collector::new(exporter.collector_config());
    let publisher = Arc::new(Publisher::new(
        collector.initial_snapshot(),
        exporter.catalog(),
        exporter.stats.clone(),
    ));
    let (tokens, config) = (exporter.tokens.clone(), &exporter.config);
    let state = AppState::new(publisher.clone(), handle, tokens, reload, config);
    let publish = move |snapshot, catalog| {
        let publisher = publisher.clone();
        async move { publisher.publish(snapshot, catalog).await }
    };
    tokio::spawn(collector.run(publish, shutdown.clone()));
    state
}

/// The task that keeps the access token of one token source fresh.
struct RefreshTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RefreshTask {
    fn start(tokens: &Arc<TokenSource>, shutdown: &CancellationToken) -> Self {
        let stop = shutdown.child_token();
        let task = tokio::spawn(tokens.clone().run(stop.clone()));
        Self { stop, task }
    }
}

/// Replaces the exporter when its configuration is loaded again.
struct Reloader {
    exporter: Exporter,
    refresh: RefreshTask,
    load: Load,
    telemetry: Telemetry,
    state: AppState,
    web_config: Arc<WebConfig>,
    router: SwappableRouter,
    shutdown: CancellationToken,
}

impl Reloader {
    /// Reloads on SIGHUP and on request, one at a time, until shutdown. Returns the task that refreshes the token then.
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<web::Reload>,
        mut hangup: Signal,
    ) -> RefreshTask {
        let shutdown = self.shutdown.clone();
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return self.refresh,
                Some(()) = hangup.recv() => None,
                Some(request) = requests.recv() => Some(request),
            };
            let result = self.reload().await.map_err(|error| format!("{error:#}"));
            self.report(&result);
            if let Some(request) = request {
                // The client may have gone.
                let _ = request.send(result);
            }
        }
    }

    fn report(&self, result: &Result<(), String>) {
        let stats = &self.exporter.stats;
        let successful = f64::from(u8::from(result.is_ok()));
        stats.config_reload_successful.set(successful);
        match result {
            Ok(()) => {
                stats.config_reload_success_timestamp.set(unix_now());
                info!("config reloaded");
            }
            Err(error) => error!(
                error,
                "config reload failed; keeping the previous configuration"
            ),
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        // Everything that can fail comes first. Long lists of sensors take time, in which scrapes continue.
        let load = self.load.clone();
        let Loaded { config, warnings } = blocking::run(move || load()).await?;
        let (web_config, file) = (self.web_config.clone(), config.web.config_file.clone());
        let prepared = blocking::run(move || web_config.prepare(file.as_deref())).await?;
        let mut next = self.exporter.rebuild(config).await?;

        // From here on nothing fails.
        log_warnings(&warnings);
        if let Some(prepared) = prepared {
            count_web_config_reload(&next.stats, true);
            log_warnings(&self.web_config.activate(prepared));
        }
        log_warnings(&next.config.keep_what_takes_a_restart(&self.exporter.config));
        if !Arc::ptr_eq(&next.tokens, &self.exporter.tokens) {
            self.refresh.stop.cancel();
            self.refresh = RefreshTask::start(&next.tokens, &self.shutdown);
        }
        self.telemetry.set_level(next.config.log.level);
        self.state
            .collector
            .reconfigure(next.collector_config())
            .await;
        self.state = self.state.reloaded(next.tokens.clone(), &next.config);
        self.router.replace(self.state.clone());
        self.exporter = next;
        Ok(())
    }
}

fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        warn!("{warning}");
    }
}

fn count_web_config_reload(stats: &Stats, successful: bool) {
    stats
        .web_config_reload_successful
        .set(f64::from(u8::from(successful)));
    if successful {
        stats.web_config_reload_success_timestamp.set(unix_now());
    }
}
