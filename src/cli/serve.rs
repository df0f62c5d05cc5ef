//! `serve`: the composition root. Everything the exporter is made of is made here, top to bottom.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Failure;
use crate::{
    api::Client,
    catalog::Catalog,
    collector::Collector,
    config::{self, Config},
    oauth::{
        TokenSource,
        http::{Proxies, http_client},
    },
    publisher::Publisher,
    shutdown,
    stats::Stats,
    telemetry::Telemetry,
    web::{self, App},
};

/// From the signal to the end at most, but for the way out; the contract is 5 s. Scrapes and a token request in flight
/// end sooner by themselves.
const LAST_WORK: Duration = Duration::from_millis(4500);

/// Runs the exporter until it is told to stop.
pub(super) async fn run(
    flags: &config::Flags,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let loaded = config::load(flags, environment.into_iter(), config::Purpose::Serve)
        .map_err(|errors| Failure::Configuration(errors.into()))?;
    Telemetry::install(loaded.config.log.level, loaded.config.log.format);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    // To serve without the TLS and the users that were asked for would be worse than not to serve.
    if let Some(file) = &loaded.config.web.config_file {
        let file = file.display();
        return Err(Failure::Configuration(anyhow!(
            "web.config_file ({file}): this version knows no TLS and no users; remove the key, and put a proxy in front"
        )));
    }
    let shutdown = shutdown::on_signal()?;
    let exporter = Exporter::new(loaded.config, Proxies::OfEnvironment).await?;
    exporter.serve(|_| Ok(()), shutdown).await
}

/// An exporter that is ready to bind its addresses.
pub(super) struct Exporter {
    config: Config,
    stats: Arc<Stats>,
    tokens: Arc<TokenSource>,
    api: Client,
    catalog: Arc<Catalog>,
}

impl Exporter {
    /// Makes what needs no port: a configuration that cannot work fails here.
    pub(super) async fn new(config: Config, proxies: Proxies) -> Result<Self, Failure> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs_f64();
        let stats = Arc::new(Stats::new(now));
        let http = http_client(&config.api, proxies)
            .map_err(|error| Failure::Configuration(error.into()))?;
        let tokens = TokenSource::new(&config.oauth, http.clone(), stats.clone())
            .await
            .map_err(|error| Failure::Configuration(error.into()))?;
        let api = Client::new(&config.api, http, tokens.clone(), stats.clone());
        let metrics = &config.metrics;
        let catalog = Arc::new(Catalog::new(
            &metrics.variables,
            config.collect.stale_after,
            metrics.reading_timestamps,
        ));
        Ok(Self {
            config,
            stats,
            tokens,
            api,
            catalog,
        })
    }

    /// Binds, tells `bound`, collects and serves until `shutdown`.
    pub(super) async fn serve(
        self,
        bound: impl FnOnce(&[TcpListener]) -> anyhow::Result<()>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let Self {
            config,
            stats,
            tokens,
            api,
            catalog,
        } = self;
        let mut listeners = Vec::new();
        for address in &config.web.listen_address {
            let bound = web::server::bind(address).await;
            listeners.extend(
                bound
                    .with_context(|| format!("cannot listen on {address} (web.listen_address)"))?,
            );
        }
        let (collector, handle) = Collector::new(&config, api, tokens.clone());
        let publisher = Arc::new(Publisher::new(collector.before_the_first(), catalog));
        let app = App::new(&config.web, publisher.clone(), handle, stats);

        let renewing = tokio::spawn(tokens.run(shutdown.clone()));
        let publish = move |snapshot| {
            let publisher = publisher.clone();
            async move { publisher.publish(snapshot).await }
        };
        tokio::spawn(collector.run(publish, shutdown.clone()));
        for listener in &listeners {
            info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");
        }
        bound(&listeners)?;
        let late = async {
            shutdown.cancelled().await;
            sleep(LAST_WORK).await;
        };
        let work = async {
            web::server::serve(listeners, app.router(), shutdown.clone()).await;
            // A rotated refresh token may still be on its way.
            let _ = renewing.await;
        };
        tokio::select! {
            () = work => {}
            () = late => warn!("ended with work in flight"),
        }
        info!("ended");
        Ok(())
    }
}
