//! `check`: whether the configuration is good, whether it works, or whether a running exporter is healthy.
//!
//! A line per step on standard output. Exit code 1: something does not work; 2: the configuration is not good.

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, anyhow};
use clap::Args;
use rustls::RootCertStore;
use url::Url;

use super::{Failure, listing, serve::Exporter};
use crate::{
    api::{Client, Session},
    clock::unix_now,
    collector::Collector,
    config::{self, Config, Purpose, duration},
    http::{Proxies, client_builder},
    oauth::TokenSource,
    telemetry::Telemetry,
    web::toolkit::Toolkit,
};

/// Variables that begin like this configure the exporter; of others, Kubernetes sets many.
const OF_EXPORTER: [&str; 6] = [
    "LIGHTFI_API",
    "LIGHTFI_COLLECT",
    "LIGHTFI_LOCATIONS",
    "LIGHTFI_METRICS",
    "LIGHTFI_OAUTH",
    "LIGHTFI_SENSORS",
];

/// A container's health check must not hang.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also get a token, make one collection, and compare the routes with the API's own document
    #[arg(long, conflicts_with = "health")]
    online: bool,
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
    let mut report = Report {
        out: anstream::stdout(),
        bad: 0,
        warnings: 0,
    };
    // Who names a web configuration and has no other yet has only that looked at.
    let nothing_else = flags.config_file.is_none()
        && !Path::new(config::DEFAULT_FILE).exists()
        && !environment
            .iter()
            .any(|(name, _)| OF_EXPORTER.iter().any(|of| name.starts_with(of)));
    if let Some(file) = &flags.web_config_file
        && !file.as_os_str().is_empty()
        && nothing_else
    {
        web_configuration(file, &mut report)?;
        return Ok(());
    }
    let loaded = config::load(flags, environment.into_iter(), Purpose::Serve)
        .map_err(|errors| Failure::Configuration(errors.into()))?;
    for warning in &loaded.warnings {
        report.warning("configuration", warning)?;
    }
    let config = loaded.config;
    let (sensors, locations) = (config.sensors.len(), config.locations.len());
    report.good(
        "configuration",
        format_args!("valid: {sensors} sensors and {locations} locations listed"),
    )?;
    if let Some(file) = &config.web.config_file {
        web_configuration(file, &mut report)?;
    }
    if arguments.online {
        Telemetry::install_quietly(&config.log);
        return online(config, report).await;
    }
    // What depends on this machine is no fault of a configuration that may be meant for another.
    if let Err(failure) = Exporter::new(config, Proxies::FromEnvironment).await {
        report.warning(
            "start",
            format_args!("the exporter would not start here: {failure}"),
        )?;
    }
    Ok(())
}

/// TLS and users, with the files that are named there.
fn web_configuration(file: &Path, report: &mut Report) -> Result<(), Failure> {
    let (toolkit, warnings) =
        Toolkit::load(Some(file)).map_err(|errors| Failure::Configuration(errors.into()))?;
    for warning in warnings {
        report.warning("web configuration", warning)?;
    }
    let tls = if toolkit.is_tls() { "on" } else { "off" };
    let file = file.display();
    report.good(
        "web configuration",
        format_args!("{file} is valid, TLS is {tls}"),
    )?;
    Ok(())
}

async fn online(config: Config, mut report: Report) -> Result<(), Failure> {
    let exporter = Exporter::new(config, Proxies::FromEnvironment).await?;
    let Exporter { config, tokens, .. } = &exporter;
    if let Err(error) = tokens.token().await {
        report.bad("token", format_args!("{error}: {}", error.remedy()))?;
        return report.summary();
    }
    report.good("token", lifetime(config, tokens))?;
    if tokens.is_rotated_in_memory_only() {
        report.warning(
            "token",
            "the server rotates refresh tokens and no oauth.token_store keeps the new one, which ends with this check: \
             set one that can be written, then run `lightfi-exporter login`",
        )?;
    }

    let routes = routes(config, &exporter.client()).await;
    let (collector, _) = Collector::new(exporter.assignment());
    let (snapshot, problems) = collector.once(&|_, _| ()).await;
    for problem in &problems {
        report.bad(
            &problem.of,
            format_args!("{} ({})", problem.what, problem.reason.as_str()),
        )?;
    }
    let read = snapshot
        .sensors
        .iter()
        .filter(|sensor| sensor.read == Some(true))
        .count();
    let seconds = snapshot.summary.duration.as_secs_f64();
    let sensors = snapshot.sensors.len();
    let found = format!("{read} of {sensors} sensors read in {seconds:.1} s");
    if problems.is_empty() {
        report.good("collection", found)?
    } else {
        report.bad("collection", found)?
    }
    if sensors > 0 {
        writeln!(
            report.out,
            "\n{}\n",
            listing::table(&listing::entries(&snapshot))
        )?;
    }

    match routes {
        Ok(missing) if missing.is_empty() => report.good("routes", "all in the API's document")?,
        Ok(missing) => {
            for route in missing {
                report.warning(
                    "routes",
                    format_args!("GET {route} is not in the API's document"),
                )?;
            }
        }
        Err(what) => report.note(
            "routes",
            format_args!("GET /openapi.json, the API's document, cannot be had: {what}"),
        )?,
    }
    report.summary()
}

fn lifetime(config: &Config, tokens: &TokenSource) -> String {
    let left = tokens
        .status()
        .access_token_expires_at
        .map_or(0.0, |end| (end - unix_now()).max(0.0));
    let left = Duration::from_secs(left.round() as u64);
    let margin = config.oauth.expiry_margin.min(left / 2);
    let [left, margin] = [left, margin].map(duration::format);
    format!("lives {left}, renewed {margin} before its end")
}

async fn routes(config: &Config, api: &Client) -> Result<Vec<&'static str>, String> {
    let session = Session::until(Instant::now() + config.api.timeout);
    api.routes_not_documented(&session)
        .await
        .map_err(|failure| failure.to_string())
}

/// What was found, line by line, and how much of it is bad.
struct Report {
    /// Coloured on a terminal, plain elsewhere.
    out: anstream::AutoStream<io::Stdout>,
    bad: usize,
    warnings: usize,
}

impl Report {
    fn good(&mut self, step: &str, what: impl Display) -> io::Result<()> {
        self.line(AnsiColor::Green, "ok", step, what)
    }

    fn note(&mut self, step: &str, what: impl Display) -> io::Result<()> {
        self.line(AnsiColor::Cyan, "note", step, what)
    }

    fn warning(&mut self, step: &str, what: impl Display) -> io::Result<()> {
        self.warnings += 1;
        self.line(AnsiColor::Yellow, "warning", step, what)
    }

    fn bad(&mut self, step: &str, what: impl Display) -> io::Result<()> {
        self.bad += 1;
        self.line(AnsiColor::Red, "failed", step, what)
    }

    fn line(
        &mut self,
        color: AnsiColor,
        verdict: &str,
        step: &str,
        what: impl Display,
    ) -> io::Result<()> {
        let style = Style::new().fg_color(Some(color.into()));
        writeln!(self.out, "{style}{verdict:<8}{style:#}{step}: {what}")
    }

    fn summary(mut self) -> Result<(), Failure> {
        let warnings = match self.warnings {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            many => format!(", {many} warnings"),
        };
        let verdict = match self.bad {
            0 => {
                self.good("summary", format_args!("everything works{warnings}"))?;
                return Ok(());
            }
            1 => format!("1 check failed{warnings}"),
            many => format!("{many} checks failed{warnings}"),
        };
        self.line(AnsiColor::Red, "failed", "summary", &verdict)?;
        Err(Failure::Failed(anyhow!(verdict)))
    }
}

/// `/-/healthy` of the exporter at `url`, or the path that `url` names.
async fn health(mut url: Url) -> anyhow::Result<()> {
    if url.path() == "/" {
        url.set_path("/-/healthy");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let client = client_builder(roots)?
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
