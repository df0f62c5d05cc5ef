//! The log: on standard error, in logfmt or JSON, one line an event.
//!
//! Only events of this workspace's crates follow `log.level`. Other libraries log warnings and errors only: below that
//! they log what goes over the wire, and that holds secrets.

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

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct Telemetry(reload::Handle<Targets, Registry>);

impl Telemetry {
    /// Installs the log for the whole process; once.
    pub fn install(level: Level, format: LogFormat) -> Self {
        let (filter, handle) = reload::Layer::new(targets(level));
        tracing_subscriber::registry()
            .with(filter)
            .with(layer(format))
            .init();
        Self(handle)
    }

    /// The log of a command whose results are what a person reads: only what is wrong, unless more is asked for.
    pub fn install_quietly(log: &Log) -> Self {
        let level = if log.level == Level::INFO {
            Level::WARN
        } else {
            log.level
        };
        Self::install(level, log.format)
    }

    /// From now on events of this level and above are written.
    pub fn set_level(&self, level: Level) {
        // Fails only once the subscriber is gone, and then nothing is written anyway.
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
