//! The command line: the flags of each command, and how a command fails. One file per command; `main` runs it.

mod check;
mod demo;
mod listing;
mod login;
mod sensors;
mod serve;
mod simulate;

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use exporter_toolkit::{ListenFd, WebFlags};

use crate::config;

/// The text of `--version`, in the format of the Prometheus exporters.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (revision: ",
    env!("LIGHTFI_EXPORTER_REVISION"),
    ", rustc: ",
    env!("LIGHTFI_EXPORTER_RUSTC"),
    ")"
);

/// Prometheus exporter for the LightFi sensor cloud.
#[derive(Debug, Parser)]
#[command(name = "lightfi-exporter", version = VERSION, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the exporter (the default)
    Serve(Flags),
    /// Runs the exporter against a simulated building: no account, no configuration, no network
    Demo(WithFlags<demo::Arguments>),
    /// Runs only the simulated LightFi cloud, and prints a configuration for it
    Simulate(Box<simulate::Arguments>),
    /// Logs in with a browser and stores the refresh token for the exporter
    Login(WithFlags<login::Arguments>),
    /// Validates the configuration; with --online also tries it, with --health asks a running exporter
    Check(WithFlags<check::Arguments>),
    /// Lists the sensors in the configured locations
    Sensors(WithFlags<sensors::Arguments>),
}

/// The arguments of a command that also takes the flags of `serve`.
#[derive(Debug, Args)]
struct WithFlags<A: Args> {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    arguments: A,
}

/// The flags of `serve`, named as in the Prometheus exporters. None takes a secret.
#[derive(Debug, Default, Args)]
struct Flags {
    /// Configuration file (default: lightfi-exporter.yaml)
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    #[command(flatten)]
    web: WebFlags,
    /// Allow POST /-/reload
    #[arg(long = "web.enable-lifecycle")]
    enable_lifecycle: bool,
    /// Minimum log level: error, warn, info, debug or trace (default: info)
    #[arg(long = "log.level", value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log format: logfmt or json (default: logfmt)
    #[arg(long = "log.format", value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// Merges the flags after the command with those before it; those after it win.
    fn over(self, before: Self) -> config::Flags {
        let (web, web_before) = (self.web, before.web);
        let addresses = match web.listen_address.is_empty() {
            true => web_before.listen_address,
            false => web.listen_address,
        };
        config::Flags {
            config_file: self.config_file.or(before.config_file),
            listen_address: addresses.iter().map(ToString::to_string).collect(),
            telemetry_path: web.telemetry_path.or(web_before.telemetry_path),
            web_config_file: web.config_file.or(web_before.config_file),
            max_requests: web.max_requests.or(web_before.max_requests),
            enable_lifecycle: self.enable_lifecycle || before.enable_lifecycle,
            log_level: self.log_level.or(before.log_level),
            log_format: self.log_format.or(before.log_format),
        }
    }
}

impl Cli {
    /// Reads the arguments. The error is clap's: it also stands for `--help` and `--version`.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// Runs the command with this environment and the sockets that systemd passed to the process.
    pub async fn run(
        self,
        environment: Vec<(String, String)>,
        sockets: ListenFd,
    ) -> Result<(), Failure> {
        let before = self.flags;
        let systemd = before.web.systemd_socket;
        let sockets = move |flags: &Flags| (systemd || flags.web.systemd_socket).then_some(sockets);
        let default = || Command::Serve(Flags::default());
        match self.command.unwrap_or_else(default) {
            Command::Serve(flags) => {
                let sockets = sockets(&flags);
                serve::run(flags.over(before), environment, sockets).await
            }
            Command::Demo(WithFlags { flags, arguments }) => {
                let sockets = sockets(&flags);
                demo::run(flags.over(before), arguments, sockets).await
            }
            Command::Simulate(arguments) => simulate::run(*arguments).await,
            Command::Login(WithFlags { flags, arguments }) => {
                login::run(&flags.over(before), arguments, environment).await
            }
            Command::Check(WithFlags { flags, arguments }) => {
                check::run(&flags.over(before), arguments, environment).await
            }
            Command::Sensors(WithFlags { flags, arguments }) => {
                sensors::run(&flags.over(before), arguments, environment).await
            }
        }
    }
}

/// How a command failed, by exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: the command could not do its work.
    Failed(anyhow::Error),
    /// 2: the arguments or the configuration are wrong.
    Configuration(anyhow::Error),
}

impl Failure {
    /// Wraps an error that ends with exit code 2.
    fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self::Configuration(error.into())
    }

    /// Returns the process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Configuration(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(error) | Self::Configuration(error)) = self;
        write!(f, "{error:#}")
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
