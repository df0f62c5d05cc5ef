//! `sensors`: lists what the configured locations contain, as a table, as JSON, or as YAML to paste.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::{Failure, listing, serve::Exporter};
use crate::{
    collector::RequestFailure,
    config::{self, Flags, Location, Purpose},
    http::Proxies,
    snapshot::Snapshot,
    telemetry::Telemetry,
};

/// The flags of `sensors`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The format of the list
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// To paste under `sensors:`
    Yaml,
}

/// Makes one collection of the locations and lists the sensors.
pub(super) async fn run(
    flags: Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let loaded = config::load(&flags, environment.into_iter(), Purpose::Discover)
        .map_err(Failure::configuration)?;
    let mut config = loaded.config;
    Telemetry::install_quietly(&config.log);
    if config.locations.is_empty() {
        config.locations.push(Location {
            id: "base".to_owned(),
            name: None,
            recursive: true,
        });
    }
    config.sensors = Arc::default();
    let exporter = Exporter::new(config, Proxies::FromEnvironment).await?;
    let (snapshot, failures) = exporter.collect_once().await;

    let text = match arguments.output {
        OutputFormat::Table => listing::table(&listing::entries(&snapshot)),
        OutputFormat::Json => serde_json::to_string_pretty(&listing::entries(&snapshot))?,
        OutputFormat::Yaml => yaml(&snapshot)?,
    };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // The reader, such as `head`, needs no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    if failures.is_empty() {
        return Ok(());
    }
    let line = |failure: &RequestFailure| format!("\n{}: {}", failure.subject, failure.message);
    let failures: String = failures.iter().map(line).collect();
    Err(anyhow!("incomplete: some requests failed{failures}").into())
}

/// Returns the list with the indentation of entries under `sensors:`.
fn yaml(snapshot: &Snapshot) -> anyhow::Result<String> {
    let sensors = snapshot.sensors.iter().map(|sensor| {
        let identity = &sensor.identity;
        let values = [
            ("id", Some(&*identity.id)),
            ("name", identity.name.as_deref()),
            ("location", identity.location.as_deref()),
        ];
        let known = values
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        known.collect::<BTreeMap<_, _>>()
    });
    let text = serde_saphyr::to_string(&sensors.collect::<Vec<_>>())?;
    Ok(text.lines().map(|line| format!("  {line}\n")).collect())
}
