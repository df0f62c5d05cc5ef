//! The log on standard error, in logfmt or JSON, one line per event. Installed by `cli`.
//!
//! Only the crates of this workspace follow `log.level`. Other libraries log warnings and errors only: at lower levels
//! they log requests and responses, which contain secrets.

use std::io;

use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_logfmt::{EventsFormatter, FieldsFormatter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, time::SystemTime},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// The installed log, whose level can change while the process runs.
#[derive(Clone)]
pub struct Telemetry(reload::Handle<Targets, Registry>);

impl Telemetry {
    /// Installs the log for the whole process. Must be called once.
    pub fn install(level: Level, format: LogFormat) -> Self {
        let (filter, handle) = reload::Layer::new(targets(level));
        tracing_subscriber::registry()
            .with(filter)
            .with(layer(format))
            .init();
        Self(handle)
    }

    /// Installs the log of a command whose output a person reads: warnings and errors, unless another level is configured.
    pub fn install_quietly(log: &Log) -> Self {
        let level = if log.level == Level::INFO {
            Level::WARN
        } else {
            log.level
        };
        Self::install(level, log.format)
    }

    /// Sets the minimum level.
    pub fn set_level(&self, level: Level) {
        // Fails only when the subscriber is gone, and then nothing is logged.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: Level) -> Targets {
    let libraries = LevelFilter::WARN.min(level.into());
    Targets::new()
        .with_default(libraries)
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("exporter_toolkit", level)
        .with_target("lightfi_simulator", level)
}

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
    format: LogFormat,
) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Logfmt => lines
            .event_format(EventsFormatter::default())
            .fmt_fields(FieldsFormatter::default())
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_timer(SystemTime)
            .boxed(),
    }
}
