//! `demo`: the simulated building and an exporter against it, over the real path.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use exporter_toolkit::{ListenFd, Signals};
use tokio::net::TcpListener;

use super::{
    Failure,
    serve::{Exporter, Load},
};
use crate::{
    clock::unix_now,
    config::{self, Credential},
    http::Proxies,
    oauth::store::Store,
    telemetry::Telemetry,
};
use lightfi_simulator::{Options, Simulator};

/// People look at a demo for minutes: fresher than the default.
const INTERVAL: &str = "15s";

/// The building to show.
#[derive(Debug, Args)]
pub(super) struct Building {
    /// How many sensors the building has
    #[arg(long, default_value_t = 40, value_name = "N")]
    sensors: usize,
    /// Another seed is another building
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Starts both, says where to look, and runs until it is told to stop.
pub(super) async fn run(
    flags: config::Flags,
    building: Building,
    sockets: Option<ListenFd>,
) -> Result<(), Failure> {
    let options = Options {
        sensors: building.sensors,
        seed: building.seed,
        ..Options::default()
    };
    let simulator =
        Simulator::new(options).map_err(|error| Failure::Configuration(error.into()))?;
    let cloud = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on loopback")?;
    let yaml = simulator.config_yaml(&format!("http://{}", cloud.local_addr()?));

    // The configuration goes the way of everybody's, and the token store is as `login` leaves it.
    let directory =
        tempfile::tempdir().context("cannot make a directory for the demo's token store")?;
    let store = directory.path().join("token.json");
    let environment = [
        ("OAUTH__TOKEN_STORE", store.display().to_string()),
        ("COLLECT__INTERVAL", INTERVAL.to_owned()),
    ];
    let environment: Vec<_> = environment
        .into_iter()
        .map(|(key, value)| (format!("LIGHTFI_{key}"), value))
        .collect();
    let load: Load = Arc::new(move || {
        config::load_text(
            "demo",
            &yaml,
            &flags,
            environment.iter().cloned(),
            config::Purpose::Serve,
        )
    });
    let config = load()
        .map_err(|errors| Failure::Configuration(errors.into()))?
        .config;
    let telemetry = Telemetry::install(config.log.level, config.log.format);
    if let Some(Credential::Inline(token)) = &config.oauth.refresh_token {
        Store::create(&store, token, Some(token), unix_now())?;
    }

    let signals = Signals::listen()?;
    tokio::spawn(simulator.serve(cloud, signals.shutdown.clone().cancelled_owned()));
    let path = config.web.telemetry_path.clone();
    let announce =
        |listeners: &[TcpListener], tls| announce(listeners, tls, &path, building.sensors);
    Exporter::new(config, Proxies::None)
        .await?
        .serve(sockets, load, telemetry, announce, signals)
        .await
}

fn announce(
    listeners: &[TcpListener],
    tls: bool,
    path: &str,
    sensors: usize,
) -> anyhow::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let mut out = io::stdout().lock();
    writeln!(out, "A simulated building with {sensors} sensors. Open:")?;
    for listener in listeners {
        let address = listener.local_addr()?;
        // "All addresses" is none that a browser can open.
        let host = if address.ip().is_unspecified() {
            "localhost".to_owned()
        } else {
            host(address)
        };
        writeln!(out, "  {scheme}://{host}:{}/", address.port())?;
        writeln!(out, "  {scheme}://{host}:{}{path}", address.port())?;
    }
    writeln!(out, "Stop with Ctrl-C.")?;
    out.flush()?;
    Ok(())
}

fn host(address: std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    }
}
