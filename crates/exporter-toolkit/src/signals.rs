//! The signals of a service: SIGTERM and SIGINT end it, SIGHUP reloads its configuration.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The signals since [`Signals::listen`].
#[derive(Debug)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
    /// Receives SIGHUP.
    pub hangup: Signal,
}

impl Signals {
    /// Handles the signals from now on; they no longer kill the process.
    pub fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => info!("received SIGTERM, shutting down"),
                _ = interrupt.recv() => info!("received SIGINT, shutting down"),
            }
            token.cancel();
        });
        Ok(Self { shutdown, hangup })
    }
}
