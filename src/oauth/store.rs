//! The token store: a small JSON file that keeps the newest refresh token across restarts.
//!
//! The file's format, reading it and replacing it belong here. Which token wins is decided in `credentials`.
//! `credentials`, `destination` and `demo` call this.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::atomic_file;
pub use super::atomic_file::FileError;
use crate::{clock::unix_now, config::Secret};

/// The version of the file's format.
const VERSION: u64 = 1;

/// A store holds one token: a longer file is not a token store.
const MAX_BYTES: u64 = 256 * 1024;

/// The token store at a path.
#[derive(Debug, Clone)]
pub struct TokenStore {
    path: PathBuf,
}

/// The contents of the token store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StoredToken {
    /// The newest refresh token.
    pub refresh_token: Secret,
    /// The hash of the refresh token that was configured when this was written; `None` if none was.
    #[serde(rename = "seed_sha256")]
    pub configured_hash: Option<TokenHash>,
    /// Unix time of the login, which rotation keeps; `None` if the token is not from `login`.
    pub obtained_at: Option<f64>,
}

/// The SHA-256 hash of a configured refresh token, in hexadecimal. It shows whether that token has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash(String);

impl TokenStore {
    /// Checks that the file, which need not exist, can be read and replaced.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let store = Self { path: path.into() };
        store.read()?;
        atomic_file::check_writable(&store.path)?;
        atomic_file::remove_leftovers(&store.path);
        Ok(store)
    }

    /// Writes the refresh token of a login into the store. It wins over `configured`, the refresh token that is
    /// configured now, until another one is configured.
    pub fn create(
        path: impl Into<PathBuf>,
        refresh_token: &Secret,
        configured: Option<&Secret>,
        obtained_at: f64,
    ) -> Result<Self, FileError> {
        let store = Self::open(path)?;
        store.write(&StoredToken {
            refresh_token: refresh_token.clone(),
            configured_hash: configured.map(TokenHash::of),
            obtained_at: Some(obtained_at),
        })?;
        Ok(store)
    }

    /// Returns the path as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` if it does not exist.
    pub fn read(&self) -> Result<Option<StoredToken>, FileError> {
        let unreadable = |error| FileError(format!("cannot read {}: {error}", self.path.display()));
        match fs::metadata(&self.path) {
            // Opening a pipe would wait for a process that writes to it.
            Ok(metadata) if !metadata.is_file() => Err(self.invalid("not a regular file")),
            Ok(metadata) if metadata.len() > MAX_BYTES => Err(self.invalid("too long")),
            Ok(_) => {
                let contents = fs::read(&self.path).map_err(unreadable)?;
                self.parse(&contents).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Replaces the file. It is on the disk when this returns.
    pub fn write(&self, token: &StoredToken) -> Result<(), FileError> {
        // Neither the file of a newer version nor a damaged one, which a person may still repair, is overwritten.
        self.read()?;
        let contents = json!({
            "version": VERSION,
            "refresh_token": token.refresh_token.expose(),
            "seed_sha256": token.configured_hash,
            "obtained_at": token.obtained_at,
            // For people who look into the file.
            "written_at": unix_now(),
        });
        atomic_file::write(&self.path, format!("{contents:#}\n").as_bytes())
    }

    fn parse(&self, contents: &[u8]) -> Result<StoredToken, FileError> {
        // serde's message would quote the contents, so only the position is reported.
        let at_position = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column().max(1));
            self.invalid(&format!("line {line} column {column}"))
        };
        let FileVersion { version } = serde_json::from_slice(contents).map_err(at_position)?;
        if version != VERSION {
            return Err(FileError(format!(
                "{} has format {version}, while this version of the exporter knows format {VERSION}: upgrade, or name \
                 another file",
                self.path.display()
            )));
        }
        let mut token: StoredToken = serde_json::from_slice(contents).map_err(at_position)?;
        token.refresh_token = Secret::new(token.refresh_token.expose().trim());
        if token.refresh_token.expose().is_empty() {
            return Err(self.invalid("its refresh_token is empty"));
        }
        Ok(token)
    }

    fn invalid(&self, reason: &str) -> FileError {
        FileError(format!(
            "{} is not a token store or is damaged ({reason}): move it away and run `lightfi-exporter login`",
            self.path.display()
        ))
    }
}

impl TokenHash {
    /// Returns the hash of a configured refresh token.
    pub fn of(refresh_token: &Secret) -> Self {
        let hash = digest(&SHA256, refresh_token.expose().as_bytes());
        let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self(digits.collect())
    }
}

/// The field that every version of the format has.
#[derive(Deserialize)]
struct FileVersion {
    version: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// Rounding while reading or writing JSON would change the last digit.
    const LOGIN_TIME: f64 = 1_700_000_000.123_458_1;

    fn new(token: &str) -> StoredToken {
        StoredToken {
            refresh_token: Secret::new(token),
            configured_hash: Some(TokenHash::of(&Secret::new("configured"))),
            obtained_at: Some(LOGIN_TIME),
        }
    }

    fn stored_token(path: &Path) -> String {
        let token = TokenStore::open(path).unwrap().read().unwrap().unwrap();
        token.refresh_token.expose().to_owned()
    }

    fn file_names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_token_is_written_for_its_owner_only_and_read_back() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let store = TokenStore::open(&path).unwrap();
        assert!(store.read().unwrap().is_none());
        assert!(file_names(directory.path()).is_empty());
        for token in ["first", "second"] {
            store.write(&new(token)).unwrap();
            let read = store.read().unwrap().unwrap();
            assert_eq!(read.refresh_token.expose(), token);
            assert_eq!(
                read.configured_hash,
                Some(TokenHash::of(&Secret::new("configured")))
            );
            assert_eq!(read.obtained_at, Some(LOGIN_TIME));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(file_names(directory.path()), ["store.json"]);
            // The next write makes it private again.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        assert!(!format!("{:?}", new("s3cret")).contains("s3cret"));
    }

    #[test]
    fn version_1_of_the_format_stays_readable() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let all = r#"{"version": 1, "refresh_token": "kept", "seed_sha256": null, "obtained_at": null,
            "written_at": 1700000000, "more": true}"#;
        let least = r#"{"version": 1, "refresh_token": " kept "}"#;
        let longest = format!("{least}{}", " ".repeat(MAX_BYTES as usize - least.len()));
        for text in [all, least, &longest] {
            fs::write(&path, text).unwrap();
            let read = TokenStore::open(&path).unwrap().read().unwrap().unwrap();
            assert_eq!(read.refresh_token.expose(), "kept");
            assert_eq!((read.configured_hash, read.obtained_at), (None, None));
        }
    }

    #[test]
    fn a_file_that_is_not_a_token_store_is_refused_and_never_overwritten() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let too_long = format!("{}1", " ".repeat(MAX_BYTES as usize));
        let version = |version: u8, token: &str| {
            format!(r#"{{"version": {version}, "refresh_token": {token}}}"#)
        };
        for (contents, what) in [
            ("", "damaged (line 1 column 1)"),
            (r#"{"version": 1, "refresh_tok"#, "(line 1 column "),
            ("s3cret-by-hand\n", "(line 1 column 1)"),
            ("[]", "(line 1 column "),
            (r#"{"refresh_token": "s3cret"}"#, "(line 1 column "),
            (r#"{"version": "s3cret"}"#, "(line 1 column "),
            (&version(1, r#"{"s3cret": 1}"#), "(line 1 column "),
            (&version(1, r#"" ""#), "its refresh_token is empty"),
            (&version(0, r#""s3cret""#), "has format 0"),
            (
                &version(2, r#""s3cret""#),
                "has format 2, while this version",
            ),
            (&too_long, "too long"),
        ] {
            fs::write(&path, contents).unwrap();
            let store = TokenStore { path: path.clone() };
            let errors = [
                TokenStore::open(&path).unwrap_err(),
                store.write(&new("rotated")).unwrap_err(),
            ];
            for error in errors {
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{text}");
                assert!(text.contains(what), "{text}");
                assert!(!format!("{text}{error:?}").contains("s3cret"), "{text}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_symbolic_link_stays_and_its_file_is_replaced() {
        let directory = TempDir::new().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let link = directory.path().join("store.json");
        // At first the second of these two links leads to no file.
        symlink("store.link", &link).unwrap();
        symlink("volume/real.json", directory.path().join("store.link")).unwrap();
        for token in ["first", "second"] {
            TokenStore::open(&link).unwrap().write(&new(token)).unwrap();
            assert_eq!(stored_token(&volume.join("real.json")), token);
        }
        assert!(link.is_symlink());
        assert_eq!(file_names(&volume), ["real.json"]);
    }
}
