//! The command line: the flags of each command, and how a command fails. One file per command; `main` runs it.

mod check;
mod demo;
mod listing;
mod login;
mod sensors;
mod serve;
mod simulate;

use std::{ffi::OsString, fmt};

use clap::{Args, Parser, Subcommand};
use exporter_toolkit::ListenFd;

use crate::config::Flags;

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
    /// Validates the configuration; --online also makes one collection, --health checks a running exporter
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

impl Cli {
    /// Reads the arguments. For `--help` and `--version` clap returns an error too, which prints them.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// Runs the command with this environment and the sockets that systemd passed to the process. A flag after the command
    /// wins over the same flag before it.
    pub async fn run(
        self,
        environment: Vec<(String, String)>,
        sockets: ListenFd,
    ) -> Result<(), Failure> {
        let before = self.flags;
        let default = || Command::Serve(Flags::default());
        match self.command.unwrap_or_else(default) {
            Command::Serve(flags) => serve::run(flags.or(before), environment, sockets).await,
            Command::Demo(WithFlags { flags, arguments }) => {
                demo::run(flags.or(before), arguments, sockets).await
            }
            Command::Simulate(arguments) => simulate::run(*arguments).await,
            Command::Login(WithFlags { flags, arguments }) => {
                login::run(flags.or(before), arguments, environment).await
            }
            Command::Check(WithFlags { flags, arguments }) => {
                check::run(flags.or(before), arguments, environment).await
            }
            Command::Sensors(WithFlags { flags, arguments }) => {
                sensors::run(flags.or(before), arguments, environment).await
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_of_the_web_flags_shows_their_defaults() {
        let help = Cli::command().render_help().to_string();
        for default in ["(default: :10420)", "(default: /metrics)", "(default: 40)"] {
            assert!(help.contains(default), "{help}");
        }
    }
}
