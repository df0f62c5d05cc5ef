//! The token store: one small JSON file that keeps the newest refresh token across restarts and kills.
//!
//! Format, reading, and writing that is whole or not at all belong here; which token wins is decided in `credentials`.
//! `credentials` and `deposit` (and `demo`, which plays a login) call this; how a file is replaced is `replace`'s.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::replace::{Irreplaceable, end_of_links, prove, remove_leftovers, replace};
use crate::config::Secret;

/// The format this version reads and writes.
const VERSION: u64 = 1;

/// A store holds one token; whatever is longer was written by someone else.
const MAX_BYTES: u64 = 256 * 1024;

/// A file that keeps a refresh token.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

/// What the file holds.
#[derive(Debug, Clone)]
pub struct Record {
    /// The newest refresh token known.
    pub refresh_token: Secret,
    /// Of the refresh token that was configured when this was written; `None` if none was.
    pub seed: Option<SeedHash>,
    /// Unix time of the login, which rotation keeps; `None` where the login was not ours.
    pub obtained_at: Option<f64>,
}

/// SHA-256 of a configured refresh token, in hexadecimal: enough to see that it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeedHash(String);

impl SeedHash {
    /// The hash of a configured refresh token.
    pub fn of(refresh_token: &Secret) -> Self {
        let digest = Sha256::digest(refresh_token.expose());
        Self(digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        }))
    }
}

/// Why the store cannot be used. No variant carries what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a later version of the exporter.
    #[error(
        "{} has format {found}, written by a newer version; this one knows {VERSION}: upgrade, or name another file",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Not what the exporter writes.
    #[error(
        "{} is no token store, or a broken one ({what}): move it away and run `lightfi-exporter login`",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where and how, without the contents.
        what: String,
    },
    /// The system refuses to read it.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be replaced.
    #[error("cannot write {}: {why}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What stands against it.
        why: Irreplaceable,
    },
}

impl Store {
    /// Proves that the file can be written and, where it exists, that it is one of ours. It need not exist.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { path: path.into() };
        store.read()?;
        let target = store.target()?;
        prove(&target).map_err(|why| store.unwritable(why))?;
        remove_leftovers(&target);
        Ok(store)
    }

    /// A store that holds a refresh token just logged in for. `seed` is the token configured now, if there is one: this
    /// store wins over it until another is configured.
    pub fn create(
        path: impl Into<PathBuf>,
        refresh_token: &Secret,
        seed: Option<&Secret>,
        obtained_at: f64,
    ) -> Result<Self, StoreError> {
        let store = Self::open(path)?;
        store.write(&Record {
            refresh_token: refresh_token.clone(),
            seed: seed.map(SeedHash::of),
            obtained_at: Some(obtained_at),
        })?;
        Ok(store)
    }

    /// As configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds now; `None` while there is no file.
    pub fn read(&self) -> Result<Option<Record>, StoreError> {
        let unreadable = |error| StoreError::Unreadable {
            path: self.path.clone(),
            error,
        };
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => {}
            // Opening a pipe would wait for its writer.
            Ok(_) => return Err(self.broken("it is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        }
        let mut contents = Vec::new();
        File::open(&self.path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut contents))
            .map_err(unreadable)?;
        self.parse(&contents).map(Some)
    }

    /// Puts `record` in the file's place, whole or not at all, and on the disk before this returns.
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        // Neither a newer version's file nor one that somebody may still mend is ever overwritten.
        self.read()?;
        let target = self.target()?;
        let text = serde_json::to_string_pretty(&Stored {
            version: VERSION,
            refresh_token: record.refresh_token.expose(),
            seed_sha256: record.seed.as_ref(),
            obtained_at: record.obtained_at,
            written_at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        })
        .expect("text, numbers and null always have a JSON form");
        replace(&target, text.as_bytes()).map_err(|why| self.unwritable(why))
    }

    /// The file itself where the path is a link to it, so that the file is replaced and the link stays.
    fn target(&self) -> Result<PathBuf, StoreError> {
        end_of_links(&self.path).ok_or_else(|| self.broken("too many symbolic links"))
    }

    fn parse(&self, contents: &[u8]) -> Result<Record, StoreError> {
        if contents.len() as u64 > MAX_BYTES {
            return Err(self.broken("it is too long"));
        }
        // Only the place is told: serde's own words quote what they found.
        let at = |error: serde_json::Error| {
            self.broken(&format!(
                "line {} column {}",
                error.line(),
                error.column().max(1)
            ))
        };
        let Format { version } = serde_json::from_slice(contents).map_err(at)?;
        if version > VERSION {
            return Err(StoreError::Newer {
                path: self.path.clone(),
                found: version,
            });
        }
        if version != VERSION {
            return Err(self.broken("its version is 0"));
        }
        let stored: Read1 = serde_json::from_slice(contents).map_err(at)?;
        if stored.refresh_token.trim().is_empty() {
            return Err(self.broken("its refresh_token is empty"));
        }
        Ok(Record {
            refresh_token: Secret::new(stored.refresh_token.trim()),
            seed: stored.seed_sha256,
            obtained_at: stored.obtained_at,
        })
    }

    fn broken(&self, what: &str) -> StoreError {
        StoreError::Broken {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn unwritable(&self, why: Irreplaceable) -> StoreError {
        StoreError::Unwritable {
            path: self.path.clone(),
            why,
        }
    }
}

/// What every format has.
#[derive(Deserialize)]
struct Format {
    version: u64,
}

/// Format 1 as it is written.
#[derive(Serialize)]
struct Stored<'a> {
    version: u64,
    refresh_token: &'a str,
    seed_sha256: Option<&'a SeedHash>,
    obtained_at: Option<f64>,
    written_at: u64,
}

/// Format 1 as it is read.
#[derive(Deserialize)]
struct Read1 {
    refresh_token: String,
    seed_sha256: Option<SeedHash>,
    obtained_at: Option<f64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// To the last digit: a reader of JSON that rounds on its way would move it.
    const LOGIN: f64 = 1_700_000_000.123_458_1;

    fn record(refresh_token: &str) -> Record {
        Record {
            refresh_token: Secret::new(refresh_token),
            seed: Some(SeedHash::of(&Secret::new("seed"))),
            obtained_at: Some(LOGIN),
        }
    }

    fn stored(path: &Path) -> String {
        let record = Store::open(path).unwrap().read().unwrap().unwrap();
        record.refresh_token.expose().to_owned()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_is_read_back_and_private() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let store = Store::open(&path).unwrap();
        assert!(store.read().unwrap().is_none());
        assert_eq!(names(directory.path()), Vec::<String>::new());
        for token in ["first", "second"] {
            store.write(&record(token)).unwrap();
        }
        let read = store.read().unwrap().unwrap();
        assert_eq!(read.refresh_token.expose(), "second");
        assert_eq!(read.seed, Some(SeedHash::of(&Secret::new("seed"))));
        assert_eq!(read.obtained_at, Some(LOGIN));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(names(directory.path()), ["store.json"]);
    }

    #[test]
    fn a_store_made_readable_by_others_is_private_after_the_next_write() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let store = Store::create(&path, &Secret::new("login"), None, 1.0).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        store.write(&record("next")).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn the_format_is_the_one_that_later_versions_must_read() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        fs::write(
            &path,
            r#"{"version": 1, "refresh_token": "kept", "seed_sha256": null, "obtained_at": null,
                "written_at": 1700000000, "more": true}"#,
        )
        .unwrap();
        let read = Store::open(&path).unwrap().read().unwrap().unwrap();
        assert_eq!(read.refresh_token.expose(), "kept");
        assert_eq!((read.seed, read.obtained_at), (None, None));
        fs::write(&path, r#"{"version": 1, "refresh_token": "kept"}"#).unwrap();
        assert_eq!(stored(&path), "kept");
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name_and_never_overwritten() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let long = format!("{}1", " ".repeat(MAX_BYTES as usize));
        for (contents, what) in [
            ("", "broken one (line 1 column 1)"),
            (
                "{\"version\": 1, \"refresh_tok",
                "broken one (line 1 column ",
            ),
            ("s3cret-by-hand\n", "broken one (line 1 column 1)"),
            ("[]", "broken one (line 1 column "),
            (
                r#"{"refresh_token": "s3cret"}"#,
                "broken one (line 1 column ",
            ),
            (
                r#"{"version": "s3cret", "refresh_token": "s3cret"}"#,
                "broken one (line 1 column ",
            ),
            (
                r#"{"version": 1, "refresh_token": {"s3cret": 1}}"#,
                "broken one (line 1 column ",
            ),
            (
                r#"{"version": 1, "refresh_token": " "}"#,
                "its refresh_token is empty",
            ),
            (
                r#"{"version": 0, "refresh_token": "s3cret"}"#,
                "its version is 0",
            ),
            (&long, "it is too long"),
            (
                r#"{"version": 2, "tokens": ["s3cret"]}"#,
                "has format 2, written by a newer version",
            ),
        ] {
            fs::write(&path, contents).unwrap();
            let opened = Store::open(&path).unwrap_err();
            let written = Store { path: path.clone() }
                .write(&record("rotated"))
                .unwrap_err();
            for error in [opened, written] {
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{text}");
                assert!(text.contains(what), "{text}");
                assert!(!format!("{text}{error:?}").contains("s3cret"), "{text}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_store_of_just_the_longest_length_is_read() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let text = r#"{"version": 1, "refresh_token": "kept"}"#;
        let room = " ".repeat(MAX_BYTES as usize - text.len());
        fs::write(&path, format!("{text}{room}")).unwrap();
        assert_eq!(stored(&path), "kept");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_at_once() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [
            directory.path().join("missing/store.json"),
            file.join("store.json"),
            directory.path().to_owned(),
            directory.path().join("missing/"),
        ] {
            let error = Store::open(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_its_writer() {
        let error = Store::open("/dev/null").unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }

    #[test]
    fn a_link_stays_a_link_and_its_file_is_replaced() {
        let directory = TempDir::new().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let link = directory.path().join("store.json");
        // Through two links, the first of them dangling at first.
        symlink("store.link", &link).unwrap();
        symlink("volume/real.json", directory.path().join("store.link")).unwrap();
        for token in ["first", "second"] {
            Store::open(&link).unwrap().write(&record(token)).unwrap();
            assert_eq!(stored(&volume.join("real.json")), token);
        }
        assert!(link.is_symlink());
        assert_eq!(names(&volume), ["real.json"]);
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let directory = TempDir::new().unwrap();
        let link = directory.path().join("store.json");
        symlink("store.json", &link).unwrap();
        assert!(matches!(
            Store::open(&link),
            Err(StoreError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_login_replaces_what_was_stored() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let seed = Secret::new("configured");
        Store::create(&path, &Secret::new("one"), None, 1.0).unwrap();
        let store = Store::create(&path, &Secret::new("two"), Some(&seed), 2.5).unwrap();
        let read = store.read().unwrap().unwrap();
        assert_eq!(read.refresh_token.expose(), "two");
        assert_eq!(read.seed, Some(SeedHash::of(&seed)));
        assert_eq!(read.obtained_at, Some(2.5));
    }

    #[test]
    fn readers_never_see_half_a_store() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path().join("store.json")).unwrap();
        store.write(&record("0")).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let store = store.clone();
                scope.spawn(move || {
                    for round in 0..50 {
                        let token = format!("{writer}-{round}-{}", "x".repeat(4000));
                        store.write(&record(&token)).unwrap();
                    }
                });
            }
            for _ in 0..500 {
                assert!(store.read().unwrap().is_some());
            }
        });
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", record("s3cret")).contains("s3cret"));
    }
}
