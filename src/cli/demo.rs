//! `demo`: the simulated cloud and the exporter in one process, over the real path. No account, no configuration, no network.

use std::{
    future,
    io::{self, Write},
};

use anyhow::Context;
use clap::Args;
use exporter_toolkit::{ListenFd, WebConfig};
use lightfi_simulator::{Options, Simulator};
use tokio::net::TcpListener;

use super::{Failure, serve};
use crate::{
    clock::unix_now,
    config::{self, Config, Flags, Purpose, Secret},
    http::Proxies,
    oauth::store::TokenStore,
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
    let sensors = arguments.sensors;
    let simulator = Simulator::new(Options {
        sensors,
        seed: arguments.seed,
        ..Options::default()
    })
    .map_err(Failure::configuration)?;
    let cloud = TcpListener::bind("127.0.0.1:0").await;
    let cloud = cloud.context("cannot listen on loopback")?;
    let yaml = simulator.config_yaml(&format!("http://{}", cloud.local_addr()?));

    let directory =
        tempfile::tempdir().context("cannot make a directory for the demo's token store")?;
    let store = directory.path().join("token.json");
    // `login` writes such a file too: with it, all metrics of the token exist.
    let token = Secret::new(simulator.newest_refresh_token());
    TokenStore::create(&store, &token, Some(&token), unix_now())?;
    tokio::spawn(simulator.serve(cloud, future::pending()));

    let environment = [
        ("LIGHTFI_OAUTH__TOKEN_STORE", store.display().to_string()),
        ("LIGHTFI_COLLECT__INTERVAL", INTERVAL.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let load = move || {
        let environment = environment.iter().cloned();
        config::load_text("demo", &yaml, &flags, environment, Purpose::Serve)
    };
    let on_bound = |config: &Config, web_config: &WebConfig, listeners: &[TcpListener]| {
        print_urls(config, web_config, listeners, sensors)
    };
    serve::load_and_serve(load, Proxies::None, sockets, on_bound).await
}

fn print_urls(
    config: &Config,
    web_config: &WebConfig,
    listeners: &[TcpListener],
    sensors: usize,
) -> anyhow::Result<()> {
    let scheme = if web_config.is_tls() { "https" } else { "http" };
    let path = &config.web.telemetry_path;
    let mut out = io::stdout().lock();
    writeln!(out, "A simulated building with {sensors} sensors. Open:")?;
    for listener in listeners {
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
