//! `demo`: the simulated cloud and the exporter in one process, over the real path. No account, no configuration, no network.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use exporter_toolkit::{ListenFd, Signals};
use lightfi_simulator::{Options, Simulator};
use tokio::net::TcpListener;

use super::{
    Failure,
    serve::{BoundExporter, Exporter, Load},
};
use crate::{
    clock::unix_now,
    config::{self, Credential, Flags},
    http::Proxies,
    oauth::store::TokenStore,
    telemetry::Telemetry,
};

/// A demo is watched for minutes, so it collects more often than the default.
const INTERVAL: &str = "15s";

/// The flags of `demo`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Number of sensors in the simulated building
    #[arg(long, default_value_t = 40, value_name = "N")]
    sensors: usize,
    /// Seed of the simulated building
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Starts cloud and exporter, prints the URLs, and runs until a signal.
pub(super) async fn run(
    flags: Flags,
    arguments: Arguments,
    sockets: ListenFd,
) -> Result<(), Failure> {
    let sockets = flags.web.systemd_socket.then_some(sockets);
    let options = Options {
        sensors: arguments.sensors,
        seed: arguments.seed,
        ..Options::default()
    };
    let simulator = Simulator::new(options).map_err(Failure::configuration)?;
    let cloud = TcpListener::bind("127.0.0.1:0").await;
    let cloud = cloud.context("cannot listen on loopback")?;
    let yaml = simulator.config_yaml(&format!("http://{}", cloud.local_addr()?));

    let directory =
        tempfile::tempdir().context("cannot make a directory for the demo's token store")?;
    let store = directory.path().join("token.json");
    let store_text = store.display().to_string();
    let load: Load = Arc::new(move || {
        let environment = [
            ("LIGHTFI_OAUTH__TOKEN_STORE", store_text.as_str()),
            ("LIGHTFI_COLLECT__INTERVAL", INTERVAL),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let purpose = config::Purpose::Serve;
        config::load_text("demo", &yaml, &flags, environment.into_iter(), purpose)
    });
    let config = load().map_err(Failure::configuration)?.config;
    let telemetry = Telemetry::install(config.log.level, config.log.format);
    // As `login` writes it, so that all metrics of the token are there.
    if let Some(Credential::Inline(token)) = &config.oauth.refresh_token {
        TokenStore::create(&store, token, Some(token), unix_now())?;
    }

    let signals = Signals::listen()?;
    tokio::spawn(simulator.serve(cloud, signals.shutdown.clone().cancelled_owned()));
    let exporter = Exporter::new(config, Proxies::None).await?;
    let bound = exporter.bind(sockets).await?;
    print_urls(&bound, arguments.sensors)?;
    bound.serve(load, telemetry, signals).await
}

fn print_urls(bound: &BoundExporter, sensors: usize) -> anyhow::Result<()> {
    let scheme = match bound.web_config.is_tls() {
        true => "https",
        false => "http",
    };
    let path = &bound.exporter.config.web.telemetry_path;
    let mut out = io::stdout().lock();
    writeln!(out, "A simulated building with {sensors} sensors. Open:")?;
    for listener in &bound.listeners {
        let mut address = listener.local_addr()?.to_string();
        // A browser cannot open the unspecified address.
        if listener.local_addr()?.ip().is_unspecified() {
            address = format!("localhost:{}", listener.local_addr()?.port());
        }
        writeln!(out, "  {scheme}://{address}/")?;
        writeln!(out, "  {scheme}://{address}{path}")?;
    }
    writeln!(out, "Stop with Ctrl-C.")?;
    out.flush()?;
    Ok(())
}
