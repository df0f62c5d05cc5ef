//! `simulate`: runs only the simulated LightFi cloud, for trying an exporter, dashboards and alerts against it.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use exporter_toolkit::Signals;
use lightfi_simulator::{Fault, Options, Replay, Simulator};
use tokio::net::TcpListener;

use super::Failure;
use crate::config::duration;

/// The flags of `simulate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// Number of sensors in the simulated building
    #[arg(long, default_value_t = 40, value_name = "N")]
    sensors: usize,
    /// Seed of the simulated building
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Delay added to every API response
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = duration::parse)]
    latency: Duration,
    /// Access-token lifetime
    #[arg(long, default_value = "4h", value_name = "DURATION", value_parser = duration::parse)]
    token_lifetime: Duration,
    /// Return a new refresh token with each refresh; the old one stays valid for 60 s
    #[arg(long)]
    rotate_refresh_tokens: bool,
    /// Additional allowed redirect URI; repeatable
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// Fault to inject: NAME, NAME=SENSOR_ID, NAME=LOCATION_ID or NAME=token; repeatable; the names are in the README
    #[arg(long = "fault", value_name = "NAME[=ID]")]
    faults: Vec<Fault>,
    /// How far the simulated clock is ahead, such as 5m; -5m means behind
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = clock_skew, allow_hyphen_values = true)]
    clock_skew: f64,
    /// Recorded readings to serve, as CSV with the columns time,sensor_id,var_name,value and optionally location
    #[arg(long, value_name = "FILE.csv")]
    replay: Option<PathBuf>,
    /// Replay speed; 2 replays the recorded readings twice as fast
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "FACTOR",
        requires = "replay"
    )]
    speed: f64,
}

/// Serves until a signal. Once it listens it prints a configuration, then `# ready`.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let address = arguments.listen.clone();
    let options = options(arguments).map_err(Failure::Configuration)?;
    let simulator = Simulator::new(options).map_err(Failure::configuration)?;
    let signals = Signals::listen()?;
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        let is_invalid = error.kind() == io::ErrorKind::InvalidInput;
        let error = anyhow!("cannot listen on {address} (--listen): {error}");
        match is_invalid {
            true => Failure::Configuration(error),
            false => Failure::Failed(error),
        }
    })?;
    let yaml = simulator.config_yaml(&format!("http://{}", listener.local_addr()?));
    let mut out = io::stdout();
    writeln!(out, "{yaml}# ready")?;
    out.flush()?;
    let shutdown = signals.shutdown.cancelled_owned();
    simulator.serve(listener, shutdown).await;
    Ok(())
}

fn options(arguments: Arguments) -> anyhow::Result<Options> {
    let replay = match &arguments.replay {
        Some(path) => Some(Replay::open(path, arguments.speed)?),
        None => None,
    };
    Ok(Options {
        sensors: arguments.sensors,
        seed: arguments.seed,
        latency: arguments.latency,
        token_lifetime: arguments.token_lifetime,
        rotate_refresh_tokens: arguments.rotate_refresh_tokens,
        redirect_uris: arguments.redirect_uris,
        faults: arguments.faults,
        clock_skew: arguments.clock_skew,
        replay,
        ..Options::default()
    })
}

/// Returns the seconds of a duration that may have a minus sign.
fn clock_skew(text: &str) -> Result<f64, &'static str> {
    match text.strip_prefix('-') {
        Some(behind) => duration::parse(behind).map(|behind| -behind.as_secs_f64()),
        None => duration::parse(text).map(|ahead| ahead.as_secs_f64()),
    }
}
