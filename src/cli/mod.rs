//! The command line: what each command is given, and how it ends. One file a command.

mod check;
mod demo;
mod listing;
mod login;
mod sensors;
mod serve;
mod simulate;

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser as _},
};
use listenfd::ListenFd;

use crate::config;

/// `--version`, in the words of the Prometheus world.
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
    Demo {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        building: demo::Building,
    },
    /// Runs only the simulated LightFi cloud, and prints a configuration for it
    Simulate(Box<simulate::Arguments>),
    /// Gets a refresh token: you log in with a browser, and the token goes where the exporter finds it
    Login {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: login::Arguments,
    },
    /// Validates the configuration; with --online also tries it, with --health asks a running exporter
    Check {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: check::Arguments,
    },
    /// Lists the sensors that the configured locations contain
    Sensors {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: sensors::Arguments,
    },
}

/// Flags with the names of the Prometheus exporters; none takes a secret.
#[derive(Debug, Default, Args)]
struct Flags {
    /// The configuration (default: lightfi-exporter.yaml)
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Where to listen, as :PORT or HOST:PORT, IPv6 in brackets; repeatable (default: :10420)
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    listen_address: Vec<String>,
    /// Path of the metrics (default: /metrics)
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    telemetry_path: Option<String>,
    /// Listen on the sockets that systemd hands over, instead of on addresses
    #[arg(long = "web.systemd-socket")]
    systemd_socket: bool,
    /// TLS and users, in the format of the Prometheus exporters
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    web_config_file: Option<PathBuf>,
    /// Scrapes at once, 0 for no limit (default: 40)
    #[arg(long = "web.max-requests", value_name = "N")]
    max_requests: Option<usize>,
    /// Allow POST /-/reload
    #[arg(long = "web.enable-lifecycle")]
    enable_lifecycle: bool,
    /// The least severe messages to log: error, warn, info, debug or trace (default: info)
    #[arg(long = "log.level", value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to log: logfmt or json (default: logfmt)
    #[arg(long = "log.format", value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// Flags may stand before and after the command; after it wins.
    fn over(self, before: Self) -> config::Flags {
        let listen_address = if self.listen_address.is_empty() {
            before.listen_address
        } else {
            self.listen_address
        };
        config::Flags {
            config_file: self.config_file.or(before.config_file),
            listen_address,
            telemetry_path: self.telemetry_path.or(before.telemetry_path),
            web_config_file: self.web_config_file.or(before.web_config_file),
            max_requests: self.max_requests.or(before.max_requests),
            enable_lifecycle: self.enable_lifecycle || before.enable_lifecycle,
            log_level: self.log_level.or(before.log_level),
            log_format: self.log_format.or(before.log_format),
        }
    }
}

/// How a command failed, by exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: it could not do what it was told.
    Failed(anyhow::Error),
    /// 2: what it was told makes no sense.
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

impl Cli {
    /// Reads the arguments. The error is clap's: help and version end well, a wrong word ends with exit code 2.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// Does what was asked for, with this environment and the sockets that the process was started with.
    pub async fn run(
        self,
        environment: Vec<(String, String)>,
        sockets: ListenFd,
    ) -> Result<(), Failure> {
        let before = self.flags.systemd_socket;
        let inherited = move |flags: &Flags| (before || flags.systemd_socket).then_some(sockets);
        match self.command {
            None => {
                let sockets = inherited(&self.flags);
                serve::run(Flags::default().over(self.flags), environment, sockets).await
            }
            Some(Command::Serve(flags)) => {
                let sockets = inherited(&flags);
                serve::run(flags.over(self.flags), environment, sockets).await
            }
            Some(Command::Demo { flags, building }) => {
                let sockets = inherited(&flags);
                demo::run(flags.over(self.flags), building, sockets).await
            }
            Some(Command::Sensors { flags, arguments }) => {
                sensors::run(&flags.over(self.flags), arguments, environment).await
            }
            Some(Command::Simulate(arguments)) => simulate::run(*arguments).await,
            Some(Command::Login { flags, arguments }) => {
                login::run(&flags.over(self.flags), arguments, environment).await
            }
            Some(Command::Check { flags, arguments }) => {
                check::run(&flags.over(self.flags), arguments, environment).await
            }
        }
    }
}
