//! The log: on standard error, in logfmt or JSON, one line an event.
//!
//! Only this crate's own events follow `log.level`. Libraries tell of warnings at most: below that they write what goes
//! over the wire, and that holds secrets.

use std::io;

use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_logfmt::{EventsFormatter, FieldsFormatter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, time::UtcTime},
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
            .with_timer(UtcTime::rfc_3339())
            .boxed(),
    }
}

/// What a test hears of the log.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod heard {
    use std::sync::{Arc, Mutex};

    /// Everything that this thread logs, at every level.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        /// Lines of ours that an operator sees by default.
        pub(crate) fn lines(&self) -> Vec<String> {
            let ours = |line: &&str| line.contains("lightfi_exporter") && !line.contains("DEBUG");
            self.text()
                .lines()
                .filter(ours)
                .map(str::to_owned)
                .collect()
        }

        pub(crate) fn start(&self) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
            // While there is only one subscriber, what another test's thread logs first counts as unheard for good: tracing
            // asks that thread's subscriber, and it has none. A second one makes it ask all.
            let second = tracing::Dispatch::new(tracing_subscriber::registry());
            let guard = tracing::subscriber::set_default(
                tracing_subscriber::fmt()
                    .with_max_level(tracing::Level::TRACE)
                    .with_ansi(false)
                    .with_writer(Mutex::new(self.clone()))
                    .finish(),
            );
            (second, guard)
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
