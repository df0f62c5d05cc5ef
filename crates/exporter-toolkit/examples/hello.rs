//! An exporter with one metric and everything that `exporter-toolkit` offers:
//! `cargo run --package exporter-toolkit --example hello -- --web.listen-address=:9100`

#![allow(clippy::print_stderr)] // an example is not a library

use std::{error::Error, sync::Arc};

use arc_swap::ArcSwap;
use axum::{Router, routing::get};
use clap::Parser;
use exporter_toolkit::{Limits, ListenFd, Server, Signals, WebConfig, WebFlags};

/// Exports one metric.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    web: WebFlags,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Cli { web } = Cli::parse();
    // Must run before any thread is spawned, because it removes variables from the environment.
    let sockets = ListenFd::from_env();
    tokio::runtime::Runtime::new()?.block_on(run(web, sockets))
}

async fn run(web: WebFlags, sockets: ListenFd) -> Result<(), Box<dyn Error>> {
    let web_config = Arc::new(WebConfig::load(web.config_file.as_deref())?);
    let mut listeners = Vec::new();
    if web.systemd_socket {
        listeners = exporter_toolkit::systemd_listeners(sockets)?;
    } else {
        let mut addresses = web.listen_address;
        if addresses.is_empty() {
            addresses.push(":9100".parse()?);
        }
        for address in &addresses {
            listeners.extend(exporter_toolkit::bind(address).await?);
        }
    }
    let signals = Signals::listen()?;
    tokio::spawn(
        web_config
            .clone()
            .watch(|_valid| {}, signals.shutdown.clone()),
    );
    for listener in &listeners {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    let path = web.telemetry_path.unwrap_or("/metrics".to_owned());
    let router = Router::new()
        .route(&path, get(async || "# TYPE hello_up gauge\nhello_up 1\n"))
        .route("/healthz", get(async || "healthy\n"));
    let server = Server {
        listeners,
        router: Arc::new(ArcSwap::from_pointee(router)),
        web_config,
        open_paths: vec!["/healthz".to_owned()],
        limits: Limits::default(),
    };
    server.serve(signals.shutdown).await;
    Ok(())
}
