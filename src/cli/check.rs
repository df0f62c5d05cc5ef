//! `check`: whether the configuration is good, or whether a running exporter is healthy.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::Args;
use url::Url;

use super::Failure;
use crate::config;

/// A container's health check must not hang.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only ask the exporter at this URL for its health, for containers
    #[arg(long, value_name = "URL")]
    health: Option<Url>,
}

/// Tells on standard output what is good; what is not is the failure.
pub(super) async fn run(
    flags: &config::Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    if let Some(url) = arguments.health {
        return Ok(health(url).await?);
    }
    let loaded = config::load(flags, environment.into_iter(), config::Purpose::Serve)
        .map_err(|errors| Failure::Configuration(errors.into()))?;
    let mut out = io::stdout();
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let config = loaded.config;
    let (sensors, locations) = (config.sensors.len(), config.locations.len());
    writeln!(
        out,
        "configuration is valid: {sensors} sensors and {locations} locations listed"
    )?;
    Ok(())
}

/// `/-/healthy` of the exporter at `url`, or the path that `url` names.
async fn health(mut url: Url) -> anyhow::Result<()> {
    if url.path() == "/" {
        url.set_path("/-/healthy");
    }
    let client = reqwest::Client::builder()
        .timeout(HEALTH_TIMEOUT)
        .no_proxy()
        .build()?;
    let response = client
        .get(url.clone())
        .send()
        .await
        .map_err(|error| anyhow!(error.without_url()));
    let status = response
        .with_context(|| format!("no answer from {url}"))?
        .status();
    anyhow::ensure!(status.is_success(), "{url} answers {status}");
    writeln!(io::stdout(), "healthy")?;
    Ok(())
}
