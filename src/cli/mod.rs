//! The command line: what each command is given, and how it ends. One file a command.

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
    #[command(flatten)]
    web: WebFlags,
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
        let before = self.flags.web.systemd_socket;
        let inherited =
            move |flags: &Flags| (before || flags.web.systemd_socket).then_some(sockets);
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
