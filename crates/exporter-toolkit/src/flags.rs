//! The web flags that Prometheus exporters share.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use crate::listen::ListenAddress;

/// The web flags, to be flattened into the arguments of a command. No flag has a default, so that a configuration file or the
/// environment can set what the flags leave open.
#[derive(Debug, Clone, Default, Args)]
pub struct WebFlags {
    /// Address to listen on, as :PORT or HOST:PORT, IPv6 in brackets; repeatable
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen_address: Vec<ListenAddress>,
    /// Listen on the sockets that systemd passes, instead of on addresses
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
    /// File with TLS, users, headers and a rate limit, in the format of the Prometheus exporters
    // An empty value is allowed, as in Go: it is the default there, and means no file.
    #[arg(id = "web.config.file", long = "web.config.file", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub config_file: Option<PathBuf>,
    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    pub telemetry_path: Option<String>,
    /// Maximum number of scrapes at the same time, 0 for no limit
    #[arg(long = "web.max-requests", value_name = "N")]
    pub max_requests: Option<usize>,
}
