//! Captures the log in unit tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use tracing::{Dispatch, subscriber::DefaultGuard};

/// Everything that the current thread logs, at every level.
#[derive(Clone, Default)]
pub(crate) struct CapturedLogs(Arc<Mutex<Vec<u8>>>);

impl CapturedLogs {
    /// Captures until the returned guards are dropped.
    pub(crate) fn start(&self) -> (Dispatch, DefaultGuard) {
        // With a single subscriber, tracing caches for the whole process that an event which another thread logs first is
        // disabled. A second one makes it ask every time.
        let second = Dispatch::new(tracing_subscriber::registry());
        let guard = tracing::subscriber::set_default(
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(Mutex::new(self.clone()))
                .finish(),
        );
        (second, guard)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the lines of this crate that an operator sees by default.
    pub(crate) fn lines(&self) -> Vec<String> {
        let is_shown = |line: &&str| line.contains("lightfi_exporter") && !line.contains("DEBUG");
        let text = self.text();
        text.lines().filter(is_shown).map(str::to_owned).collect()
    }
}

impl std::io::Write for CapturedLogs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
