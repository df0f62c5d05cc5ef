//! The problems of a web configuration, as sentences for the person who wrote it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One problem of a web configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The web configuration file.
    pub file: PathBuf,
    /// The line, for problems that the YAML reader finds.
    pub line: Option<u64>,
    /// The key, such as `tls_server_config.cert_file`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do. It never quotes a value, except for the name of an unknown cipher, curve, TLS version or
    /// client authentication type.
    pub message: String,
}

/// All problems of a web configuration: at least one, displayed one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// Returns the error that consists of one problem.
    pub(crate) fn new(file: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        let mut problems = Problems::new(file);
        problems.add(key, message);
        let problems = problems.found;
        Self { problems }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Collects the problems of one file.
pub(crate) struct Problems<'a> {
    file: &'a Path,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(file: &'a Path) -> Self {
        let found = Vec::new();
        Self { file, found }
    }

    pub(crate) fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.add_at(None, key, message);
    }

    pub(crate) fn add_at(
        &mut self,
        line: Option<u64>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.found.push(Problem {
            file: self.file.to_owned(),
            line,
            key: key.into(),
            message: message.into(),
        });
    }

    /// Returns `value` if no problem was found.
    pub(crate) fn or<T>(self, value: T) -> Result<T, ConfigError> {
        match self.found.is_empty() {
            true => Ok(value),
            false => Err(ConfigError {
                problems: self.found,
            }),
        }
    }
}
