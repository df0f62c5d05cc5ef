//! The flags that set configuration keys. `cli` combines them with the flags of each command.

use std::path::PathBuf;

use clap::Args;
use exporter_toolkit::WebFlags;

/// The flags that configure the exporter, named as in the Prometheus exporters. None takes a secret, and none has a default:
/// a flag that is not given leaves its value to the environment and the file.
#[derive(Debug, Clone, Default, Args)]
#[command(mut_args(with_default_in_help))]
pub struct Flags {
    /// Configuration file (default: lightfi-exporter.yaml)
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The flags of the web server.
    #[command(flatten)]
    pub web: WebFlags,
    /// Allow POST /-/reload
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Minimum log level: error, warn, info, debug or trace (default: info)
    #[arg(long = "log.level", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log format: logfmt or json (default: logfmt)
    #[arg(long = "log.format", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Adds the defaults to the help of the web flags: `exporter-toolkit` does not know them.
fn with_default_in_help(arg: clap::Arg) -> clap::Arg {
    let default = match arg.get_long().unwrap_or_default() {
        "web.listen-address" => ":10420",
        "web.telemetry-path" => "/metrics",
        "web.max-requests" => "40",
        _ => return arg,
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} (default: {default})"))
}

impl Flags {
    /// Adds the flags of `other` that are not given here.
    pub fn or(self, other: Self) -> Self {
        let (web, other_web) = (self.web, other.web);
        let listen_address = match web.listen_address.is_empty() {
            true => other_web.listen_address,
            false => web.listen_address,
        };
        Self {
            config_file: self.config_file.or(other.config_file),
            web: WebFlags {
                listen_address,
                systemd_socket: web.systemd_socket || other_web.systemd_socket,
                config_file: web.config_file.or(other_web.config_file),
                telemetry_path: web.telemetry_path.or(other_web.telemetry_path),
                max_requests: web.max_requests.or(other_web.max_requests),
            },
            enable_lifecycle: self.enable_lifecycle || other.enable_lifecycle,
            log_level: self.log_level.or(other.log_level),
            log_format: self.log_format.or(other.log_format),
        }
    }
}
