//! `check`: validates the configuration, tries it out, or asks a running exporter for its health.
//!
//! Each step is a line on standard output. The exit code is 1 if something does not work, 2 if the configuration is bad.

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use exporter_toolkit::WebConfig;
use rustls::RootCertStore;
use url::Url;

use super::{Failure, listing, serve::Exporter};
use crate::{
    api::Session,
    clock::unix_now,
    config::{self, Config, Flags, Purpose, duration},
    http::{Proxies, client_builder},
    telemetry::Telemetry,
};

/// Without a file, the client id comes from a variable of this prefix. Other variables may be set by Kubernetes.
const OAUTH_ENVIRONMENT_PREFIX: &str = "LIGHTFI_OAUTH";

/// The health check of a container must end soon.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The flags of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also get a token, make one collection, and compare the routes with the API's OpenAPI document
    #[arg(long, conflicts_with = "health")]
    online: bool,
    /// Only check whether the exporter at this URL is healthy, for health checks of containers
    #[arg(long, value_name = "URL")]
    health: Option<Url>,
}

/// Runs the checks that the flags ask for.
pub(super) async fn run(
    flags: Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    if let Some(url) = arguments.health {
        return Ok(check_health(url).await?);
    }
    let mut report = Report::default();
    if let Some(file) = &flags.web.config_file
        && !file.as_os_str().is_empty()
        && !is_exporter_configured(&flags, &environment)
    {
        return check_web_config(file, &mut report);
    }
    let loaded = config::load(&flags, environment.into_iter(), Purpose::Serve)
        .map_err(Failure::configuration)?;
    for warning in &loaded.warnings {
        report.line(WARNING, "configuration", warning)?;
    }
    let config = loaded.config;
    let (sensors, locations) = (config.sensors.len(), config.locations.len());
    let listed = format!("valid: {sensors} sensors and {locations} locations listed");
    report.line(OK, "configuration", listed)?;
    if let Some(file) = &config.web.config_file {
        check_web_config(file, &mut report)?;
    }
    if arguments.online {
        Telemetry::install_quietly(&config.log);
        return check_online(config, report).await;
    }
    // The configuration may be meant for another machine, so this is no failure.
    if let Err(failure) = Exporter::new(config, Proxies::FromEnvironment).await {
        let warning = format!("the exporter would not start here: {failure}");
        report.line(WARNING, "start", warning)?;
    }
    Ok(())
}

/// Returns whether there is any configuration besides a web configuration file, which may be checked alone.
fn is_exporter_configured(flags: &Flags, environment: &[(String, String)]) -> bool {
    flags.config_file.is_some()
        || Path::new(config::DEFAULT_FILE).exists()
        || environment
            .iter()
            .any(|(name, _)| name.starts_with(OAUTH_ENVIRONMENT_PREFIX))
}

/// Validates the web configuration file and the files that it names.
fn check_web_config(file: &Path, report: &mut Report) -> Result<(), Failure> {
    let web_config = WebConfig::load(Some(file)).map_err(Failure::configuration)?;
    for warning in web_config.warnings() {
        report.line(WARNING, "web configuration", warning)?;
    }
    let tls = if web_config.is_tls() { "on" } else { "off" };
    let valid = format!("{} is valid, TLS is {tls}", file.display());
    report.line(OK, "web configuration", valid)?;
    Ok(())
}

/// Gets a token, makes one collection, and compares the routes with the API's OpenAPI document.
async fn check_online(config: Config, mut report: Report) -> Result<(), Failure> {
    let exporter = Exporter::new(config, Proxies::FromEnvironment).await?;
    if check_token(&exporter, &mut report).await? {
        check_collection(&exporter, &mut report).await?;
        check_routes(&exporter, &mut report).await?;
    }
    report.summary()
}

/// Returns whether there is an access token, without which nothing else can be checked.
async fn check_token(exporter: &Exporter, report: &mut Report) -> io::Result<bool> {
    let Exporter { config, tokens, .. } = exporter;
    if let Err(error) = tokens.token().await {
        let failure = format!("{error}: {}", error.remedy());
        report.line(FAILED, "token", failure)?;
        return Ok(false);
    }
    let expires_at = tokens.status().access_token_expires_at;
    let lifetime = expires_at.map_or(0.0, |end| (end - unix_now()).max(0.0));
    let lifetime = Duration::from_secs(lifetime.round() as u64);
    let margin = config.oauth.expiry_margin.min(lifetime / 2);
    let [lifetime, margin] = [lifetime, margin].map(duration::format);
    let lifetime = format!("valid for {lifetime}, renewed {margin} before it expires");
    report.line(OK, "token", lifetime)?;
    if tokens.is_rotated_in_memory_only() {
        let warning = "the server rotates refresh tokens, and the new one is lost when this check ends, as it is in \
                       no file: set oauth.token_store to a writable file, then run `lightfi-exporter login`";
        report.line(WARNING, "token", warning)?;
    }
    Ok(true)
}

async fn check_collection(exporter: &Exporter, report: &mut Report) -> io::Result<()> {
    let (snapshot, failures) = exporter.collect_once().await;
    for failure in &failures {
        let text = format!("{} ({})", failure.message, failure.reason.as_str());
        report.line(FAILED, &failure.subject, text)?;
    }
    let sensors = &snapshot.sensors;
    let read = sensors.iter().filter(|sensor| sensor.read == Some(true));
    let summary = format!(
        "{} of {} sensors read in {:.1} s",
        read.count(),
        sensors.len(),
        snapshot.summary.duration.as_secs_f64()
    );
    let result = if failures.is_empty() { OK } else { FAILED };
    report.line(result, "collection", summary)?;
    if !sensors.is_empty() {
        let table = listing::table(&listing::entries(&snapshot));
        writeln!(io::stdout(), "\n{table}\n")?;
    }
    Ok(())
}

/// Compares the routes that the exporter requests with the API's OpenAPI document.
async fn check_routes(exporter: &Exporter, report: &mut Report) -> io::Result<()> {
    let session = Session::new(Instant::now() + exporter.config.api.timeout);
    match exporter.client().routes_not_documented(&session).await {
        Ok(missing) if missing.is_empty() => {
            report.line(OK, "routes", "all in the API's OpenAPI document")
        }
        Ok(missing) => missing.iter().try_for_each(|route| {
            let warning = format!("GET {route} is not in the API's OpenAPI document");
            report.line(WARNING, "routes", warning)
        }),
        Err(failure) => {
            let note =
                format!("cannot get the API's OpenAPI document, GET /openapi.json: {failure}");
            report.line(NOTE, "routes", note)
        }
    }
}

/// The results of a step, as they are written.
const OK: &str = "ok";
const NOTE: &str = "note";
const WARNING: &str = "warning";
const FAILED: &str = "failed";

/// Writes a line for each step, and counts the results.
#[derive(Default)]
struct Report(Vec<&'static str>);

impl Report {
    fn line(&mut self, result: &'static str, step: &str, text: impl Display) -> io::Result<()> {
        self.0.push(result);
        writeln!(io::stdout(), "{result:<8}{step}: {text}")
    }

    /// Writes the last line. It is an error if a step failed.
    fn summary(mut self) -> Result<(), Failure> {
        let count = |result| self.0.iter().filter(|it| **it == result).count();
        let (failures, warnings) = (count(FAILED), count(WARNING));
        let warnings = match warnings {
            0 => String::new(),
            _ => format!(", {}", counted(warnings, "warning")),
        };
        if failures == 0 {
            let summary = format!("everything works{warnings}");
            return Ok(self.line(OK, "summary", summary)?);
        }
        let summary = format!("{} failed{warnings}", counted(failures, "check"));
        self.line(FAILED, "summary", &summary)?;
        Err(Failure::Failed(anyhow!(summary)))
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Asks a running exporter for `/-/healthy`, or for the path of the URL.
async fn check_health(mut url: Url) -> anyhow::Result<()> {
    if url.path() == "/" {
        url.set_path("/-/healthy");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let client = client_builder(roots)?
        .timeout(HEALTH_TIMEOUT)
        .no_proxy()
        .build()?;
    let response = client.get(url.clone()).send().await;
    let status = response
        .map_err(|error| anyhow!(error.without_url()))
        .with_context(|| format!("no answer from {url}"))?
        .status();
    anyhow::ensure!(status.is_success(), "{url} answered {status}");
    writeln!(io::stdout(), "healthy")?;
    Ok(())
}
