//! The flags and the web configuration of the Prometheus exporters, for any axum service.
//!
//! Prometheus and its exporters share the Go library `exporter-toolkit`: the same web flags, and one file
//! (`--web.config.file`) with TLS, client certificates, users, headers and a rate limit. This crate does the same for Rust.
//! It does not know what is served, and it keeps no metrics.
//!
//! - [`WebFlags`]: the flags, to be flattened into a clap command.
//! - [`ListenAddress`], [`bind`], [`systemd_listeners`]: the sockets.
//! - [`WebConfig`]: the file; [`WebConfig::watch`] reloads it when it or a certificate changes.
//! - [`Server`] with its [`Limits`]: accepts connections, checks requests, calls the router, shuts down gracefully.
//! - [`Signals`]: SIGTERM, SIGINT and SIGHUP.
//!
//! The modules, in the order of their imports: `config_file` (what the files say), `tls`, `users`, `rate_limit`, `web_config`
//! (what is in use), `connections`, `server`.

mod config_file;
mod connections;
mod flags;
mod listen;
mod rate_limit;
mod server;
mod signals;
mod tls;
mod users;
mod web_config;

pub use flags::WebFlags;
pub use listen::{ListenAddress, bind, systemd_listeners};
pub use listenfd::ListenFd;
pub use server::{Limits, Server};
pub use signals::Signals;
pub use tokio_util::sync::CancellationToken;
pub use web_config::{ConfigError, Prepared, WebConfig, check_text};
