//! What a test hears of the log.
#![allow(clippy::unwrap_used)]

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
