//! `sensors`: what the configured locations contain, as a table, as JSON, or as YAML to paste.

use std::{
    io::{self, Write},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Failure, listing, serve::Exporter};
use crate::{
    collector::Collector,
    config::{self, Location, Purpose},
    http::Proxies,
    telemetry::Telemetry,
};

/// How to list.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Output {
    /// For a person
    #[default]
    Table,
    /// For a program
    Json,
    /// To paste under `sensors:`
    Yaml,
}

/// An entry of `sensors:` in the configuration.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
}

/// Walks the locations once and lists what is there.
pub(super) async fn run(
    flags: &config::Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let loaded = config::load(flags, environment.into_iter(), Purpose::Discover)
        .map_err(|errors| Failure::Configuration(errors.into()))?;
    let mut config = loaded.config;
    Telemetry::install_quietly(&config.log);
    // Whoever has listed nothing yet wants to know what there is.
    if config.locations.is_empty() {
        config.locations.push(Location {
            id: "base".to_owned(),
            name: None,
            recursive: true,
        });
    }
    config.sensors = Arc::default();
    let exporter = Exporter::new(config, Proxies::FromEnvironment).await?;
    let (collector, _) = Collector::new(exporter.assignment());

    // Shows itself on a terminal only.
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{bar:32} {pos}/{len} locations")
            .unwrap_or(ProgressStyle::default_bar()),
    );
    let (snapshot, problems) = collector
        .once(&|done, known| {
            bar.set_length(known as u64);
            bar.set_position(done as u64);
        })
        .await;
    bar.finish_and_clear();

    let entries = listing::entries(&snapshot);
    let text = match arguments.output {
        Output::Table => listing::table(&entries),
        Output::Json => serde_json::to_string_pretty(&entries)?,
        Output::Yaml => yaml(&snapshot)?,
    };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    match problems.as_slice() {
        [] => Ok(()),
        problems => {
            let lines: Vec<_> = problems
                .iter()
                .map(|problem| format!("{}: {}", problem.of, problem.what))
                .collect();
            Err(Failure::Failed(anyhow::anyhow!(
                "the list is not whole\n{}",
                lines.join("\n")
            )))
        }
    }
}

/// Indented as it stands under `sensors:`.
fn yaml(snapshot: &crate::snapshot::Snapshot) -> anyhow::Result<String> {
    let listed: Vec<_> = snapshot
        .sensors
        .iter()
        .map(|sensor| Listed {
            id: &sensor.identity.id,
            name: sensor.identity.name.as_deref(),
            location: sensor.identity.location.as_deref(),
        })
        .collect();
    let text = serde_saphyr::to_string(&listed)?;
    Ok(text.lines().map(|line| format!("  {line}\n")).collect())
}
