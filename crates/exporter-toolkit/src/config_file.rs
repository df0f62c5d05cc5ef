//! The web configuration file as it is written, and the other files that it names. What the values mean is decided by `tls`,
//! `users`, `rate_limit` and `web_config`. Errors begin with the key.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_saphyr::Error as YamlError;

/// A larger file is refused. A bundle of all public root certificates has a fifth of this size.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// A longer unknown key is not shown: it may be a secret in the wrong place.
const MAX_KEY_BYTES: usize = 60;

/// A web configuration file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) tls_server_config: Option<TlsSection>,
    pub(crate) http_server_config: Option<HttpSection>,
    pub(crate) basic_auth_users: Option<BTreeMap<String, Option<String>>>,
    pub(crate) rate_limit: Option<RateLimitSection>,
}

/// The section `tls_server_config`. As in Go, an empty text is the same as none.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsSection {
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) client_ca: Option<String>,
    pub(crate) cert_file: Option<String>,
    pub(crate) key_file: Option<String>,
    pub(crate) client_auth_type: Option<String>,
    pub(crate) client_ca_file: Option<String>,
    pub(crate) cipher_suites: Option<Vec<String>>,
    pub(crate) curve_preferences: Option<Vec<String>>,
    pub(crate) min_version: Option<String>,
    pub(crate) max_version: Option<String>,
    pub(crate) prefer_server_cipher_suites: Option<bool>,
    pub(crate) client_allowed_sans: Option<Vec<String>>,
}

/// The section `http_server_config`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpSection {
    pub(crate) http2: Option<bool>,
    pub(crate) headers: Option<BTreeMap<String, Option<String>>>,
}

/// The section `rate_limit`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimitSection {
    pub(crate) interval: Option<String>,
    pub(crate) burst: Option<String>,
}

/// Returns a text that is neither missing nor empty.
pub(crate) fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// A PEM text, and the key that it belongs to.
pub(crate) struct Pem<'a> {
    pub(crate) key: String,
    pub(crate) content: &'a [u8],
}

/// The web configuration file and the files that it names, as they were at one moment. Equal files make equal configurations.
#[derive(PartialEq)]
pub(crate) struct Files {
    /// The web configuration file. `None` for plain HTTP without users.
    pub(crate) path: Option<PathBuf>,
    contents: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
}

impl Files {
    /// Reads the web configuration at `path`, if there is one, and the files that it names.
    pub(crate) fn read(path: Option<&Path>) -> Self {
        let mut files = Self {
            path: path.map(Path::to_owned),
            contents: BTreeMap::new(),
        };
        let Some(path) = path else { return files };
        files.contents.insert(path.to_owned(), read_file(path));
        if let Ok(config) = files.parse() {
            let tls = config.tls_server_config.unwrap_or_default();
            for name in [tls.cert_file, tls.key_file, tls.client_ca_file] {
                if let Some(name) = given(name.as_ref()) {
                    let path = files.resolve(name);
                    files.contents.insert(path.clone(), read_file(&path));
                }
            }
        }
        files
    }

    /// Takes the text of a web configuration whose other files cannot be read.
    pub(crate) fn of_text(path: &Path, text: &str) -> Self {
        let content = Ok(text.as_bytes().to_owned());
        Self {
            path: Some(path.to_owned()),
            contents: BTreeMap::from([(path.to_owned(), content)]),
        }
    }

    /// Returns what the web configuration file says, or its first error.
    pub(crate) fn parse(&self) -> Result<ConfigFile, String> {
        let Some(path) = &self.path else {
            return Ok(ConfigFile::default());
        };
        let text = str::from_utf8(self.content(path)?);
        parse_yaml(text.map_err(|_| "yaml: the file is not UTF-8")?)
    }

    /// Returns the content of the file at `path`, or why it cannot be read.
    fn content(&self, path: &Path) -> Result<&[u8], String> {
        let error = match self.contents.get(path) {
            Some(Ok(content)) => return Ok(content),
            Some(Err(error)) => error,
            None => "the file was not read",
        };
        Err(format!("failed to read {}: {error}", path.display()))
    }

    /// Returns the PEM text of a file, or else the inline text of `key`: as in Go, the file wins. `None` if neither is set.
    pub(crate) fn pem<'a>(
        &'a self,
        key: &str,
        inline: Option<&'a String>,
        file: Option<&String>,
    ) -> Result<Option<Pem<'a>>, String> {
        let mut key = format!("tls_server_config.{key}");
        let content = match given(file) {
            None => given(inline).map(str::as_bytes),
            Some(file) => {
                key += "_file";
                let content = self.content(&self.resolve(file));
                Some(content.map_err(|error| format!("{key}: {error}"))?)
            }
        };
        Ok(content.map(|content| Pem { key, content }))
    }

    /// Resolves a path. A relative one is relative to the directory of the web configuration file.
    fn resolve(&self, name: &str) -> PathBuf {
        let directory = self.path.as_deref().and_then(Path::parent);
        directory.unwrap_or(Path::new("")).join(name)
    }
}

/// Reads a file. Errors have the words of Go, which users search for.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    })?;
    let mut file = file.take(MAX_FILE_BYTES + 1);
    let length = file.read_to_end(&mut content);
    match length.map_err(|error| error.to_string())? as u64 {
        ..=MAX_FILE_BYTES => Ok(content),
        _ => Err(format!("larger than {MAX_FILE_BYTES} bytes")),
    }
}

/// Reads the YAML of a web configuration file.
fn parse_yaml(text: &str) -> Result<ConfigFile, String> {
    let mut track = serde_path_to_error::Track::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
        // The option is for an empty file.
        Option::<ConfigFile>::deserialize(yaml)
    });
    parsed.map(Option::unwrap_or_default).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        let key = track.path().to_string();
        let place = match key.as_str() {
            "." => format!("line {line}"),
            key if !is_shown(key) => format!("line {line}"),
            key => format!("line {line}: {key}"),
        };
        // A value is never shown.
        let message = match error.without_snippet() {
            YamlError::SerdeUnknownField { expected, .. } => {
                format!("unknown key, expected one of {}", expected.join(", "))
            }
            YamlError::ExternalMessage { msg, .. } => msg.clone(),
            YamlError::DuplicateMappingKey { .. } => "a key is given twice".to_owned(),
            _ => "invalid YAML, or a value of the wrong kind".to_owned(),
        };
        format!("{place}: yaml: {message}")
    })
}

/// Returns whether a key cannot be mistaken for a secret that was put in its place, as in `dave:hunter2`.
fn is_shown(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    key.len() <= MAX_KEY_BYTES && key.bytes().all(is_plain)
}
