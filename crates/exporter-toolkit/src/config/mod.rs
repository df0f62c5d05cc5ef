//! Reading a web configuration file: `file` has its keys, `settings` checks and converts their values. No other file is read
//! here; the certificates are read in `tls`.

mod duration;
mod file;
mod settings;

use std::path::Path;

pub(crate) use settings::{ClientAuth, Pem, RateLimit, Settings, TlsSettings};

use crate::error::ConfigError;

/// Reads the text of a web configuration file. `path` names the file in errors; relative paths in the text start at its
/// directory.
pub(crate) fn read(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    settings::validate(path, file::parse(path, text)?)
}
