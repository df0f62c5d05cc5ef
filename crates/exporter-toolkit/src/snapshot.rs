//! The web configuration file and the files that it names, as they were at one moment. Equal snapshots make equal
//! configurations. What they contain is decided elsewhere.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::{
    config::{self, Pem, Settings},
    error::ConfigError,
};

/// A larger file is refused. A bundle of all public root certificates has a fifth of this size.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The content of each file, or why it cannot be read.
#[derive(Default, PartialEq)]
pub(crate) struct Snapshot {
    files: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
}

impl Snapshot {
    /// Reads the web configuration at `path`, if there is one, and the files that it names.
    pub(crate) fn of(path: Option<&Path>) -> Self {
        path.map_or_else(Self::default, Self::read)
    }

    /// Reads the web configuration at `path` and the files that it names.
    pub(crate) fn read(path: &Path) -> Self {
        let mut snapshot = Self::default();
        snapshot.add(path);
        if let Ok(Settings { tls: Some(tls), .. }) = snapshot.settings(path) {
            for pem in [&tls.certificate, &tls.key]
                .into_iter()
                .chain(&tls.client_ca)
            {
                if let Pem::File { path, .. } = pem {
                    snapshot.add(path);
                }
            }
        }
        snapshot
    }

    fn add(&mut self, path: &Path) {
        let content = read_file(path).map_err(|error| describe(&error));
        self.files.insert(path.to_owned(), content);
    }

    /// Returns the settings of the web configuration at `path`.
    pub(crate) fn settings(&self, path: &Path) -> Result<Settings, ConfigError> {
        let problem = match self.content(path) {
            Ok(content) => match std::str::from_utf8(content) {
                Ok(text) => return config::read(path, text),
                Err(_) => "yaml: the file is not UTF-8".to_owned(),
            },
            Err(error) => format!("cannot be read: {error}"),
        };
        Err(ConfigError::new(path, "", problem))
    }

    /// Returns the content of one of the files, or why it cannot be read.
    pub(crate) fn content(&self, path: &Path) -> Result<&[u8], &str> {
        match self.files.get(path) {
            Some(content) => content.as_deref().map_err(String::as_str),
            None => Err("the file was not read"),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)?;
    if read as u64 > MAX_FILE_BYTES {
        let message = format!("larger than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// Describes an error in the words of Go, which users search for.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}
