//! `serve`: the composition root. Everything the exporter is made of is made here, top to bottom, and made anew by a
//! reload.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use exporter_toolkit::{Limits, ListenAddress, ListenFd, Server, Signals, WebConfig};
use tokio::{net::TcpListener, signal::unix::Signal, sync::mpsc, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Failure;
use crate::{
    api::{Client, Pace},
    aside::aside,
    catalog::Catalog,
    clock::unix_now,
    collector::{Assignment, Collector},
    config::{self, Config, Errors, Loaded, Purpose},
    http::{Proxies, http_client},
    oauth::TokenSource,
    publisher::Publisher,
    stats::Stats,
    telemetry::Telemetry,
    web::{self, App},
};

/// From the signal to the end at most, but for the way out; the contract is 5 s. Scrapes and a token request in flight
/// end sooner by themselves.
const LAST_WORK: Duration = Duration::from_millis(4500);

/// Runs the exporter until it is told to stop.
pub(super) async fn run(
    flags: config::Flags,
    environment: Vec<(String, String)>,
    sockets: Option<ListenFd>,
) -> Result<(), Failure> {
    let load: Load =
        Arc::new(move || config::load(&flags, environment.iter().cloned(), Purpose::Serve));
    let loaded = load().map_err(|errors| Failure::Configuration(errors.into()))?;
    let telemetry = Telemetry::install(loaded.config.log.level, loaded.config.log.format);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let signals = Signals::listen()?;
    Exporter::new(loaded.config, Proxies::FromEnvironment)
        .await?
        .serve(sockets, load, telemetry, |_, _| Ok(()), signals)
        .await
}

/// An exporter that is ready to bind its addresses.
pub(super) struct Exporter {
    pub(super) config: Config,
    pub(super) tokens: Arc<TokenSource>,
    pace: Pace,
    stats: Arc<Stats>,
    http: reqwest::Client,
    proxies: Proxies,
}

impl Exporter {
    /// Makes what needs no port: a configuration that cannot work fails here.
    pub(super) async fn new(config: Config, proxies: Proxies) -> Result<Self, Failure> {
        let stats = Arc::new(Stats::new(unix_now()));
        let wrong = |error: anyhow::Error| Failure::Configuration(error);
        let http = http_client(&config.api, proxies).map_err(|error| wrong(error.into()))?;
        let tokens = TokenSource::new(&config.oauth, http.clone(), stats.clone()).await;
        let tokens = tokens.map_err(|error| wrong(error.into()))?;
        Ok(Self {
            config,
            tokens,
            pace: Pace::default(),
            stats,
            http,
            proxies,
        })
    }

    /// The API under this configuration.
    pub(super) fn client(&self) -> Client {
        Client::new(
            &self.config.api,
            self.http.clone(),
            self.tokens.clone(),
            self.stats.clone(),
            self.pace.clone(),
        )
    }

    /// What this configuration has collected.
    pub(super) fn assignment(&self) -> Assignment {
        Assignment::new(
            &self.config,
            self.client(),
            self.tokens.clone(),
            self.catalog(),
        )
    }

    fn catalog(&self) -> Arc<Catalog> {
        let Config {
            metrics, collect, ..
        } = &self.config;
        Arc::new(Catalog::new(
            &metrics.variables,
            collect.stale_after,
            metrics.reading_timestamps,
        ))
    }

    /// Binds or takes over `sockets`, tells `bound` where and whether it is TLS, collects and serves until a signal says
    /// to stop. `load` loads the configuration again.
    pub(super) async fn serve(
        self,
        sockets: Option<ListenFd>,
        load: Load,
        telemetry: Telemetry,
        bound: impl FnOnce(&[TcpListener], bool) -> anyhow::Result<()>,
        signals: Signals,
    ) -> Result<(), Failure> {
        let web_config = WebConfig::load(self.config.web.config_file.as_deref())
            .map_err(|errors| Failure::Configuration(errors.into()))?;
        for warning in web_config.warnings() {
            warn!("{warning}");
        }
        let web_config = Arc::new(web_config);
        let listeners = match sockets {
            Some(sockets) => exporter_toolkit::systemd_listeners(sockets).map_err(|error| {
                Failure::Configuration(anyhow!("--web.systemd-socket: {error}"))
            })?,
            None => self.bind().await?,
        };
        let Signals { shutdown, hangup } = signals;
        let (mut collector, handle) = Collector::new(self.assignment());
        let publisher = Arc::new(Publisher::new(
            collector.before_the_first(),
            self.catalog(),
            self.stats.clone(),
        ));
        let (reloads, asked) = mpsc::channel(1);
        let app = App {
            publisher: publisher.clone(),
            collector: handle.clone(),
            tokens: self.tokens.clone(),
            reloads,
        };
        let stats = self.stats.clone();
        let on_reload = move |successful| count_web_config_reload(&stats, successful);
        tokio::spawn(web_config.clone().watch(on_reload, shutdown.clone()));
        let routes = web::Routes::new(app.site(&self.config));

        let publish = move |snapshot, catalog| {
            let publisher = publisher.clone();
            async move { publisher.publish(snapshot, catalog).await }
        };
        tokio::spawn(collector.run(publish, shutdown.clone()));
        let mut generations = Generations {
            renewing: Renewing::start(&self.tokens, &shutdown),
            exporter: self,
            load,
            telemetry,
            app,
            web_config: web_config.clone(),
            routes: routes.clone(),
            shutdown: shutdown.clone(),
        };
        for listener in &listeners {
            info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), tls = web_config.is_tls(), "listening");
        }
        bound(&listeners, web_config.is_tls())?;
        let late = async {
            shutdown.cancelled().await;
            sleep(LAST_WORK).await;
        };
        let work = async {
            let server = Server {
                listeners,
                service: routes,
                web_config,
                open_paths: web::OPEN_PATHS.map(str::to_owned).to_vec(),
                limits: Limits::default(),
            };
            tokio::join!(
                server.serve(shutdown.clone()),
                generations.reload_when_asked(asked, hangup)
            );
            // A rotated refresh token may still be on its way.
            let _ = generations.renewing.task.await;
        };
        tokio::select! {
            () = work => {}
            () = late => warn!("ended with work in flight"),
        }
        info!("ended");
        Ok(())
    }

    async fn bind(&self) -> anyhow::Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        for address in &self.config.web.listen_address {
            let parsed: ListenAddress = address
                .parse()
                .map_err(|error| anyhow!("web.listen_address: {address:?} {error}"))?;
            let bound = exporter_toolkit::bind(&parsed)
                .await
                .with_context(|| format!("cannot listen on {address} (web.listen_address)"))?;
            listeners.extend(bound);
        }
        Ok(listeners)
    }

    /// The exporter of another configuration, with what outlives this one: counters, the tokens unless they are to come
    /// from elsewhere, and the pauses that the API asked for unless it is another.
    async fn successor(&self, config: Config) -> anyhow::Result<Self> {
        let http = http_client(&config.api, self.proxies)?;
        let tokens = self.tokens.successor(&config.oauth, http.clone()).await?;
        let pace = match config.api.url == self.config.api.url {
            true => self.pace.clone(),
            false => Pace::default(),
        };
        Ok(Self {
            config,
            tokens,
            pace,
            http,
            stats: self.stats.clone(),
            proxies: self.proxies,
        })
    }
}

fn count_web_config_reload(stats: &Stats, successful: bool) {
    let value = if successful { 1.0 } else { 0.0 };
    stats.web_config_reload_successful.set(value);
    if successful {
        stats.web_config_reload_success_timestamp.set(unix_now());
    }
}

/// How the configuration is loaded, at the start and again.
pub(super) type Load = Arc<dyn Fn() -> Result<Loaded, Errors> + Send + Sync>;

/// The life of the exporter from configuration to configuration.
struct Generations {
    exporter: Exporter,
    renewing: Renewing,
    load: Load,
    telemetry: Telemetry,
    app: App,
    web_config: Arc<WebConfig>,
    routes: web::Routes,
    shutdown: CancellationToken,
}

/// The task that keeps one token source's token fresh.
struct Renewing {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Renewing {
    fn start(tokens: &Arc<TokenSource>, shutdown: &CancellationToken) -> Self {
        let end = shutdown.child_token();
        Self {
            task: tokio::spawn(tokens.clone().run(end.clone())),
            end,
        }
    }
}

impl Generations {
    /// Reloads on SIGHUP and when a request asks for it, one at a time, until shutdown.
    async fn reload_when_asked(
        &mut self,
        mut asked: mpsc::Receiver<web::Reload>,
        mut hangup: Signal,
    ) {
        let shutdown = self.shutdown.clone();
        loop {
            let answer = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = hangup.recv() => None,
                Some(answer) = asked.recv() => Some(answer),
            };
            let result = self.reload().await.map_err(|error| format!("{error:#}"));
            let stats = &self.exporter.stats;
            match &result {
                Ok(()) => {
                    stats.config_reload_successful.set(1.0);
                    stats.config_reload_success_timestamp.set(unix_now());
                    info!("configuration reloaded");
                }
                Err(error) => {
                    stats.config_reload_successful.set(0.0);
                    error!(
                        error,
                        "the new configuration is refused, the old one stays in force"
                    );
                }
            }
            if let Some(answer) = answer {
                // Whoever asked may have gone.
                let _ = answer.send(result);
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        // A configuration of a hundred thousand sensors takes its time, in which scrapes go on.
        let load = self.load.clone();
        let Loaded { config, warnings } = aside(move || load()).await?;
        // What may fail comes first, and then what changes anything.
        let (web_config, file) = (self.web_config.clone(), config.web.config_file.clone());
        let prepared = aside(move || web_config.prepare(file.as_deref())).await?;
        let mut next = self.exporter.successor(config).await?;
        let followed = match prepared {
            Some(prepared) => {
                count_web_config_reload(&next.stats, true);
                self.web_config.activate(prepared)
            }
            None => Vec::new(),
        };
        let kept = next.config.keep_what_takes_a_restart(&self.exporter.config);
        for warning in warnings.into_iter().chain(followed).chain(kept) {
            warn!("{warning}");
        }
        if !Arc::ptr_eq(&next.tokens, &self.exporter.tokens) {
            self.exporter.tokens.retire();
            self.renewing.end.cancel();
            self.renewing = Renewing::start(&next.tokens, &self.shutdown);
        }
        self.telemetry.set_level(next.config.log.level);
        self.app.collector.assign(next.assignment()).await;
        self.app.tokens = next.tokens.clone();
        self.routes.replace(self.app.site(&next.config));
        self.exporter = next;
        Ok(())
    }
}
