//! The credentials of a token request, read from the configuration, its files and the token store before each request.
//!
//! This module decides which refresh token takes precedence and where a rotated one is kept. `source` calls it on a blocking thread,
//! because it reads and writes files; `login` and `destination` read single credentials with it.

use std::{
    fs, mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    TokenError,
    store::{Record, SeedHash, Store, StoreError},
};
use crate::config::{Credential, Oauth, Secret};

/// What one token request is made with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Credentials {
    pub(super) client_id: Secret,
    pub(super) client_secret: Option<Secret>,
    /// The refresh token and what the store keeps next to it.
    pub(super) record: Record,
}

/// Reads credentials and keeps rotated refresh tokens.
pub(super) struct CredentialStore {
    oauth: Oauth,
    store: Option<Store>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The newest refresh token that was read from the store or received from the server.
    record: Option<Record>,
    /// Present while `record` could not be written.
    pending: Option<PendingWrite>,
    /// The last attempt to read the store failed.
    store_unreadable: bool,
}

/// A write that failed.
struct PendingWrite {
    /// What the store held instead. Anything else was written later by someone else, and is newer.
    found: Option<Record>,
}

impl CredentialStore {
    /// Checks that the token store is usable.
    pub(super) fn open(oauth: Oauth) -> Result<Self, StoreError> {
        let store = oauth.token_store.clone().map(Store::open).transpose()?;
        Ok(Self {
            oauth,
            store,
            memory: Mutex::default(),
        })
    }

    /// Returns the credentials to try, at least one, in order of preference.
    pub(super) fn read(&self) -> Result<Vec<Credentials>, TokenError> {
        let oauth = &self.oauth;
        let client_id = read_credential("oauth.client_id_file", &oauth.client_id)
            .map_err(TokenError::ClientMissing)?;
        let client_secret = oauth
            .client_secret
            .as_ref()
            .map(|secret| read_credential("oauth.client_secret_file", secret))
            .transpose()
            .map_err(TokenError::ClientMissing)?;
        let configured = oauth
            .refresh_token
            .as_ref()
            .map(|token| read_credential("oauth.refresh_token_file", token))
            .transpose();
        let (stored, certain) = self.newest_record();
        let records = by_precedence(configured.clone().ok().flatten(), stored, certain);
        if records.is_empty() {
            return Err(self.missing(configured.err()));
        }
        let credentials = |record| Credentials {
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            record,
        };
        Ok(records.into_iter().map(credentials).collect())
    }

    /// Keeps the refresh token that the one in `used` was rotated to: in the store, or in memory until it can be stored.
    pub(super) fn save(&self, rotated: Secret, used: &Record) {
        let memory = &mut *self.memory();
        let record = Record {
            refresh_token: rotated,
            ..used.clone()
        };
        let Some(store) = &self.store else {
            if memory.record.replace(record).is_none() {
                tracing::warn!(
                    "the server rotates refresh tokens and oauth.token_store is not set: the new refresh token is kept in memory and lost at the next restart"
                );
            }
            return;
        };
        let found = store.read().ok().flatten();
        let login_at = |record: Option<&Record>| record.and_then(|record| record.obtained_at);
        if login_at(found.as_ref()) > login_at(memory.record.as_ref()) {
            tracing::info!("new login detected; switching to its refresh token");
            return;
        }
        match store.write(&record) {
            Ok(()) => {
                memory.pending = None;
                tracing::debug!("rotated refresh token stored");
            }
            Err(error) => {
                if memory.pending.replace(PendingWrite { found }).is_none() {
                    tracing::error!(
                        %error,
                        "cannot write the token store; keeping the rotated refresh token in memory and retrying"
                    );
                }
            }
        }
        memory.record = Some(record);
    }

    /// Writes a refresh token that could not be written before.
    pub(super) fn retry_pending_write(&self) {
        let memory = &mut *self.memory();
        let (Some(store), Some(record), Some(pending)) =
            (&self.store, &memory.record, &memory.pending)
        else {
            return;
        };
        if store.read().ok().flatten() != pending.found {
            memory.pending = None;
        } else if store.write(record).is_ok() {
            memory.pending = None;
            tracing::info!("token store writable again; rotated refresh token stored");
        }
    }

    /// Whether the newest refresh token is in no file, so that it is lost when the process ends.
    pub(super) fn is_in_memory_only(&self) -> bool {
        let memory = self.memory();
        memory.record.is_some() && (self.store.is_none() || memory.pending.is_some())
    }

    /// Returns the newest stored or received refresh token, and whether it certainly replaces the configured token that
    /// it descends from.
    fn newest_record(&self) -> (Option<Record>, bool) {
        let memory = &mut *self.memory();
        let Some(store) = &self.store else {
            return (memory.record.clone(), true);
        };
        match store.read() {
            Ok(Some(stored)) => {
                memory.store_unreadable = false;
                let pending = memory.pending.as_ref();
                if pending.is_none_or(|pending| pending.found.as_ref() != Some(&stored)) {
                    memory.pending = None;
                    memory.record = Some(stored);
                }
                return (memory.record.clone(), true);
            }
            // Someone may have deleted it to return to the configured token, or its volume may be missing.
            Ok(None) => {}
            Err(error) => {
                if !mem::replace(&mut memory.store_unreadable, true) {
                    tracing::error!(%error, "cannot read the token store; using the refresh token in memory");
                }
            }
        }
        (memory.record.clone(), memory.pending.is_some())
    }

    fn missing(&self, unreadable: Option<String>) -> TokenError {
        let store = self.store.as_ref();
        let empty = store.map(|store| format!("token store {} holds none", store.path().display()));
        let reasons: Vec<String> = [unreadable, empty].into_iter().flatten().collect();
        TokenError::RefreshTokenMissing(reasons.join(", and "))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stored token wins unless the configured one has changed since the store was written. Where this cannot be known
/// (no token was configured at the login, or the store is gone and memory replaces it), the configured one comes second,
/// to be tried when the stored one is refused.
fn by_precedence(configured: Option<Secret>, stored: Option<Record>, certain: bool) -> Vec<Record> {
    let configured = configured.map(|token| Record {
        seed: Some(SeedHash::of(&token)),
        refresh_token: token,
        obtained_at: None,
    });
    let (Some(configured), Some(stored)) = (&configured, &stored) else {
        return configured.or(stored).into_iter().collect();
    };
    let seed_known = stored.seed.is_some();
    if seed_known && stored.seed != configured.seed {
        return vec![configured.clone()];
    }
    let stored = Record {
        seed: configured.seed.clone(),
        ..stored.clone()
    };
    if seed_known && certain {
        vec![stored]
    } else {
        vec![stored, configured.clone()]
    }
}

/// Returns the text of a credential, or why there is none.
pub(super) fn read_credential(key: &str, credential: &Credential) -> Result<Secret, String> {
    match credential {
        Credential::Inline(secret) => Ok(secret.clone()),
        Credential::File(path) => match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => Err(format!("{key} {} is empty", path.display())),
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(error) => Err(format!("{key} {}: {error}", path.display())),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::test_logs::CapturedLogs;

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    fn record(token: &str, seed: Option<&str>) -> Record {
        Record {
            refresh_token: secret(token),
            seed: seed.map(|seed| SeedHash::of(&secret(seed))),
            obtained_at: Some(7.0),
        }
    }

    fn credential_store(path: Option<&Path>) -> CredentialStore {
        CredentialStore::open(Oauth {
            token_url: "http://127.0.0.1/token".parse().unwrap(),
            authorize_url: "http://127.0.0.1/authorize".parse().unwrap(),
            scope: String::new(),
            client_id: Credential::Inline(secret("id")),
            client_secret: None,
            refresh_token: Some(Credential::Inline(secret("configured"))),
            client_auth: crate::config::ClientAuth::Body,
            expiry_margin: std::time::Duration::from_secs(60),
            token_store: path.map(Path::to_owned),
            allow_insecure: false,
        })
        .unwrap()
    }

    fn preferred(credentials: &CredentialStore) -> Record {
        credentials.read().unwrap().remove(0).record
    }

    #[test]
    fn the_stored_token_wins_unless_the_configured_one_has_changed() {
        let stored = Some(record("stored", Some("seed")));
        let login = Some(record("login", None));
        for (configured, stored, certain, expected) in [
            (Some("seed"), &stored, true, vec!["stored"]),
            (None, &stored, true, vec!["stored"]),
            (Some("seed"), &None, true, vec!["seed"]),
            (None, &None, true, vec![]),
            // Another token was configured after the store was written.
            (Some("new"), &stored, true, vec!["new"]),
            (Some("new"), &stored, false, vec!["new"]),
            // No token was configured at the login.
            (Some("seed"), &login, true, vec!["login", "seed"]),
            // The store is gone, and its token is only in memory.
            (Some("seed"), &stored, false, vec!["stored", "seed"]),
        ] {
            let records = by_precedence(configured.map(secret), stored.clone(), certain);
            let tokens: Vec<_> = records.iter().map(|it| it.refresh_token.expose()).collect();
            assert_eq!(tokens, expected, "{configured:?} {stored:?} {certain}");
        }
    }

    #[test]
    fn a_stored_token_keeps_its_login_time_and_belongs_to_the_configured_token() {
        let best = |configured: Option<&str>, stored| {
            by_precedence(configured.map(secret), stored, true).remove(0)
        };
        let seed = |text| Some(SeedHash::of(&secret(text)));
        let from_login = best(Some("configured"), Some(record("login", None)));
        assert_eq!(from_login.obtained_at, Some(7.0));
        assert_eq!(from_login.seed, seed("configured"));
        let nothing_configured = best(None, Some(record("login", Some("seed"))));
        assert_eq!(nothing_configured.seed, seed("seed"));
        let only_configured = best(Some("configured"), None);
        assert_eq!(only_configured.obtained_at, None, "its login is unknown");
    }

    #[test]
    fn a_login_during_a_request_is_not_overwritten_by_the_rotated_token() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let login = |token: &str, at| Store::create(&path, &secret(token), None, at).unwrap();
        let credentials = credential_store(Some(&path));
        // Both where no store exists before and where one does.
        for at in [7.0, 8.0] {
            let used = preferred(&credentials);
            login("login", at);
            credentials.save(secret("rotated"), &used);
            assert_eq!(preferred(&credentials).refresh_token.expose(), "login");
        }
        // A rotation of the same login by another exporter is older than ours.
        let used = preferred(&credentials);
        login("rotated by another", 8.0);
        credentials.save(secret("rotated"), &used);
        assert_eq!(preferred(&credentials).refresh_token.expose(), "rotated");
    }

    #[test]
    fn rotation_without_a_store_is_logged_once() {
        let log = CapturedLogs::default();
        let _guard = log.start();
        let credentials = credential_store(None);
        for rotated in ["first", "second"] {
            credentials.save(secret(rotated), &preferred(&credentials));
            assert_eq!(preferred(&credentials).refresh_token.expose(), rotated);
        }
        assert!(credentials.is_in_memory_only());
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("oauth.token_store is not set"));
    }

    #[test]
    fn a_store_that_cannot_be_written_is_logged_once_and_written_later() {
        let log = CapturedLogs::default();
        let _guard = log.start();
        let directory = TempDir::new().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let path = volume.join("store.json");
        let credentials = credential_store(Some(&path));
        fs::remove_dir(&volume).unwrap();
        for rotated in ["first", "second"] {
            credentials.save(secret(rotated), &preferred(&credentials));
            assert_eq!(preferred(&credentials).refresh_token.expose(), rotated);
            credentials.retry_pending_write();
            assert!(credentials.is_in_memory_only());
        }
        fs::create_dir(&volume).unwrap();
        credentials.retry_pending_write();
        assert!(!credentials.is_in_memory_only());
        let stored = Store::open(&path).unwrap().read().unwrap().unwrap();
        assert_eq!(stored.refresh_token.expose(), "second");
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("cannot write the token store"));
        assert!(lines[1].contains("writable again"));
    }

    #[test]
    fn an_unreadable_store_is_logged_once_and_the_token_in_memory_is_used() {
        let log = CapturedLogs::default();
        let _guard = log.start();
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        Store::create(&path, &secret("stored"), None, 1.0).unwrap();
        let intact = fs::read(&path).unwrap();
        let credentials = credential_store(Some(&path));
        assert_eq!(preferred(&credentials).refresh_token.expose(), "stored");
        for failures in 1..3 {
            for contents in ["broken".as_bytes(), "broken".as_bytes(), &intact] {
                fs::write(&path, contents).unwrap();
                assert_eq!(preferred(&credentials).refresh_token.expose(), "stored");
                let lines = log.lines();
                assert_eq!(lines.len(), failures, "{lines:#?}");
                assert!(lines[0].contains("cannot read the token store"));
            }
        }
    }
}
