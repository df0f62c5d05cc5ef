//! `simulate`: only the simulated LightFi cloud, for trying an exporter, dashboards and alerts against it.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use lightfi_simulator::{ClockSkew, Fault, Options, Replay, Simulator};
use tokio::net::TcpListener;

use super::Failure;
use crate::{config::duration, shutdown::Signals};

/// What to simulate.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// How many sensors the building has
    #[arg(long, default_value_t = 40, value_name = "N")]
    sensors: usize,
    /// Another seed is another building
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Added to every answer of the API
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = duration::parse)]
    latency: Duration,
    /// Of access tokens
    #[arg(long, default_value = "4h", value_name = "DURATION", value_parser = duration::parse)]
    token_lifetime: Duration,
    /// Each refresh gives a new refresh token; the old one stays good for 60 s
    #[arg(long)]
    rotate_refresh_tokens: bool,
    /// Where a login may send its code besides LightFi's usual places; repeatable
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// What goes wrong, as NAME, NAME=SENSOR_ID, NAME=LOCATION_ID or NAME=token; repeatable
    #[arg(long = "fault", value_name = "NAME[=ID]")]
    faults: Vec<Fault>,
    /// How far the clock that stamps tokens is ahead; behind with a minus sign
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = clock_skew, allow_hyphen_values = true)]
    clock_skew: ClockSkew,
    /// Recorded readings to serve, as CSV with the columns time,sensor_id,var_name,value and, if wanted, location
    #[arg(long, value_name = "FILE.csv")]
    replay: Option<PathBuf>,
    /// How many times as fast the recorded readings are served
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "FACTOR",
        requires = "replay"
    )]
    speed: f64,
    /// How the printed configuration names the sensors
    #[arg(long, value_enum, default_value_t)]
    listing: Listing,
}

/// How the printed configuration names the sensors.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Listing {
    /// Some by id, the rest by locations
    #[default]
    Mixed,
    /// All by id
    Sensors,
    /// All by the account's base location
    Locations,
}

/// Serves until it is told to stop. Once it listens it prints a configuration, then `# ready`.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let wrong = |error: anyhow::Error| Failure::Configuration(error);
    let replay = arguments
        .replay
        .map(|path| Replay::open(&path, arguments.speed))
        .transpose();
    let options = Options {
        sensors: arguments.sensors,
        seed: arguments.seed,
        latency: arguments.latency,
        token_lifetime: arguments.token_lifetime,
        rotate_refresh_tokens: arguments.rotate_refresh_tokens,
        redirect_uris: arguments.redirect_uris,
        faults: arguments.faults,
        clock_skew: arguments.clock_skew,
        replay: replay.map_err(|error| wrong(error.into()))?,
        listing: match arguments.listing {
            Listing::Mixed => lightfi_simulator::Listing::Mixed,
            Listing::Sensors => lightfi_simulator::Listing::Sensors,
            Listing::Locations => lightfi_simulator::Listing::Locations,
        },
        ..Options::default()
    };
    let simulator = Simulator::new(options).map_err(|error| wrong(error.into()))?;
    let Signals { shutdown, .. } = Signals::listen()?;
    let address = arguments.listen;
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        let no_address = error.kind() == io::ErrorKind::InvalidInput;
        let error = anyhow!("cannot listen on {address} (--listen): {error}");
        match no_address {
            true => Failure::Configuration(error),
            false => Failure::Failed(error),
        }
    })?;
    let yaml = simulator.config_yaml(&format!("http://{}", listener.local_addr()?));
    let mut out = io::stdout();
    writeln!(out, "{yaml}# ready")?;
    out.flush()?;
    simulator
        .serve(listener, shutdown.cancelled_owned())
        .await?;
    Ok(())
}

fn clock_skew(text: &str) -> Result<ClockSkew, &'static str> {
    match text.strip_prefix('-') {
        Some(behind) => duration::parse(behind).map(ClockSkew::Behind),
        None => duration::parse(text).map(ClockSkew::Ahead),
    }
}
