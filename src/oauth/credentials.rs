//! The credentials of a token request, read from the configuration, its files and the token store before each request.
//!
//! This module decides which refresh token takes precedence and where a rotated one is kept. `source` calls it on a
//! blocking thread, because it reads and writes files; `login` and `destination` read single credentials with it.

use std::{fs, mem, sync::Mutex};

use super::{
    TokenError, lock,
    store::{FileError, StoredToken, TokenHash, TokenStore},
};
use crate::config::{Credential, Oauth, Secret};

/// Everything that is sent to get an access token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Credentials {
    pub(super) client: ClientCredentials,
    /// The refresh token and what the store keeps with it.
    pub(super) token: StoredToken,
}

/// The client's id and secret.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClientCredentials {
    pub(super) id: Secret,
    /// A public client has none.
    pub(super) secret: Option<Secret>,
}

/// Reads credentials and keeps rotated refresh tokens.
pub(super) struct CredentialStore {
    oauth: Oauth,
    store: Option<TokenStore>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The newest refresh token that was read from the store or received from the server.
    newest: Option<StoredToken>,
    /// The contents of the store when it was last read or written. If the file now differs, another process has written it:
    /// `read` prefers the file, and `save` overwrites it unless it is a newer login.
    stored: Option<StoredToken>,
    /// The last attempt to read the store failed.
    store_unreadable: bool,
}

impl Memory {
    fn is_unsaved(&self) -> bool {
        self.newest != self.stored
    }
}

impl ClientCredentials {
    /// Reads the client's id and secret.
    pub(super) fn read(oauth: &Oauth) -> Result<Self, TokenError> {
        let read = |key, text| read_credential(key, text).map_err(TokenError::ClientMissing);
        let secret = oauth.client_secret.as_ref();
        Ok(Self {
            id: read("oauth.client_id_file", &oauth.client_id)?,
            secret: secret
                .map(|secret| read("oauth.client_secret_file", secret))
                .transpose()?,
        })
    }
}

impl CredentialStore {
    /// Checks that the token store is usable.
    pub(super) fn open(oauth: Oauth) -> Result<Self, FileError> {
        let store = oauth.token_store.clone();
        Ok(Self {
            store: store.map(TokenStore::open).transpose()?,
            oauth,
            memory: Mutex::default(),
        })
    }

    /// Returns the credentials to try, at least one, in order of preference.
    pub(super) fn read(&self) -> Result<Vec<Credentials>, TokenError> {
        let client = ClientCredentials::read(&self.oauth)?;
        let configured = self.oauth.refresh_token.as_ref();
        let configured = configured
            .map(|token| read_credential("oauth.refresh_token_file", token))
            .transpose();
        let (stored, may_be_deleted) = self.newest_token();
        let tokens = by_precedence(configured.clone().ok().flatten(), stored, may_be_deleted);
        if tokens.is_empty() {
            let path = self.store.as_ref().map(|store| store.path().display());
            let empty = path.map(|path| format!("token store {path} holds none"));
            let reasons: Vec<String> = configured.err().into_iter().chain(empty).collect();
            return Err(TokenError::RefreshTokenMissing(reasons.join(", and ")));
        }
        let credentials = |token| Credentials {
            client: client.clone(),
            token,
        };
        Ok(tokens.into_iter().map(credentials).collect())
    }

    /// Keeps the refresh token that `used` was rotated to: in the store, or in memory until it can be stored.
    pub(super) fn save(&self, rotated: Secret, used: &StoredToken) {
        let memory = &mut *lock(&self.memory);
        let rotated = StoredToken {
            refresh_token: rotated,
            ..used.clone()
        };
        let Some(store) = &self.store else {
            if memory.newest.replace(rotated).is_none() {
                tracing::warn!(
                    "the server rotates refresh tokens, but oauth.token_store is not set: the new refresh token is kept in \
                     memory only and is lost at the next restart; set oauth.token_store"
                );
            }
            return;
        };
        let was_unsaved = memory.is_unsaved();
        if let Ok(Some(found)) = store.read() {
            let login_at = memory.newest.as_ref().and_then(|token| token.obtained_at);
            if found.obtained_at > login_at {
                tracing::info!("new login detected; switching to its refresh token");
                return;
            }
            memory.stored = Some(found);
        }
        match store.write(&rotated) {
            Ok(()) => {
                memory.stored = Some(rotated.clone());
                tracing::debug!("rotated refresh token stored");
            }
            Err(error) if !was_unsaved => tracing::error!(
                %error,
                "cannot write the token store; keeping the rotated refresh token in memory and retrying"
            ),
            Err(_) => {}
        }
        memory.newest = Some(rotated);
    }

    /// Writes a refresh token that could not be written before.
    pub(super) fn retry_pending_write(&self) {
        let memory = &mut *lock(&self.memory);
        let (Some(store), Some(newest), true) = (&self.store, &memory.newest, memory.is_unsaved())
        else {
            return;
        };
        let found = store.read().ok().flatten();
        if (found.is_none() || found == memory.stored) && store.write(newest).is_ok() {
            memory.stored = memory.newest.clone();
            tracing::info!("token store writable again; rotated refresh token stored");
        }
    }

    /// Returns whether the newest refresh token is in no file, so that it is lost when the process ends.
    pub(super) fn is_in_memory_only(&self) -> bool {
        lock(&self.memory).is_unsaved()
    }

    /// Returns the newest stored or received refresh token, and whether someone may have deleted it on purpose: the store is
    /// missing or unreadable, and memory holds only what was stored.
    fn newest_token(&self) -> (Option<StoredToken>, bool) {
        let memory = &mut *lock(&self.memory);
        let Some(store) = &self.store else {
            return (memory.newest.clone(), false);
        };
        match store.read() {
            Ok(Some(found)) => {
                memory.store_unreadable = false;
                if memory.stored.as_ref() != Some(&found) {
                    memory.newest = Some(found.clone());
                    memory.stored = Some(found);
                }
                return (memory.newest.clone(), false);
            }
            // Someone may have deleted it to return to the configured token, or its volume may be missing.
            Ok(None) => {}
            Err(error) => {
                if !mem::replace(&mut memory.store_unreadable, true) {
                    tracing::error!(%error, "cannot read the token store; continuing with the last known refresh token");
                }
            }
        }
        (memory.newest.clone(), !memory.is_unsaved())
    }
}

/// The stored token wins unless the configured one has changed since the store was written. Where this cannot be known
/// (no token was configured at the login, or the store is gone and memory replaces it), the configured one comes second,
/// to be tried when the stored one is refused.
fn by_precedence(
    configured: Option<Secret>,
    stored: Option<StoredToken>,
    may_be_deleted: bool,
) -> Vec<StoredToken> {
    let configured = configured.map(|token| StoredToken {
        configured_hash: Some(TokenHash::of(&token)),
        refresh_token: token,
        obtained_at: None,
    });
    let (configured, mut stored) = match (configured, stored) {
        (Some(configured), Some(stored)) => (configured, stored),
        (configured, stored) => return configured.or(stored).into_iter().collect(),
    };
    let hash_at_write = stored.configured_hash.take();
    // From here on the stored token belongs to the one that is configured now.
    stored
        .configured_hash
        .clone_from(&configured.configured_hash);
    match hash_at_write {
        Some(_) if hash_at_write != configured.configured_hash => vec![configured],
        Some(_) if !may_be_deleted => vec![stored],
        _ => vec![stored, configured],
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
    use crate::{
        oauth::test_fixtures::{inline, oauth},
        test_logs::CapturedLogs,
    };

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    fn token_of(token: &str, configured: Option<&str>) -> StoredToken {
        StoredToken {
            refresh_token: secret(token),
            configured_hash: configured.map(|token| TokenHash::of(&secret(token))),
            obtained_at: Some(7.0),
        }
    }

    fn credential_store(path: Option<&Path>) -> CredentialStore {
        CredentialStore::open(Oauth {
            refresh_token: Some(inline("configured")),
            token_store: path.map(Path::to_owned),
            ..oauth()
        })
        .unwrap()
    }

    fn preferred(credentials: &CredentialStore) -> StoredToken {
        credentials.read().unwrap().remove(0).token
    }

    #[test]
    fn the_stored_token_wins_unless_the_configured_one_has_changed() {
        let stored = Some(token_of("stored", Some("old")));
        let login = Some(token_of("login", None));
        for (configured, stored, may_be_deleted, expected) in [
            (Some("old"), &stored, false, vec!["stored"]),
            (None, &stored, false, vec!["stored"]),
            (Some("old"), &None, false, vec!["old"]),
            (None, &None, false, vec![]),
            // Another token was configured after the store was written.
            (Some("new"), &stored, false, vec!["new"]),
            (Some("new"), &stored, true, vec!["new"]),
            // No token was configured at the login.
            (Some("old"), &login, false, vec!["login", "old"]),
            // The store is gone, and its token is only in memory.
            (Some("old"), &stored, true, vec!["stored", "old"]),
        ] {
            let tokens = by_precedence(configured.map(secret), stored.clone(), may_be_deleted);
            let tokens: Vec<_> = tokens.iter().map(|it| it.refresh_token.expose()).collect();
            assert_eq!(
                tokens, expected,
                "{configured:?} {stored:?} {may_be_deleted}"
            );
        }
    }

    #[test]
    fn a_stored_token_keeps_its_login_time_and_belongs_to_the_configured_token() {
        let best = |configured: Option<&str>, stored| {
            by_precedence(configured.map(secret), stored, true).remove(0)
        };
        let hash = |text| Some(TokenHash::of(&secret(text)));
        let from_login = best(Some("configured"), Some(token_of("login", None)));
        assert_eq!(from_login.obtained_at, Some(7.0));
        assert_eq!(from_login.configured_hash, hash("configured"));
        let nothing_configured = best(None, Some(token_of("login", Some("old"))));
        assert_eq!(nothing_configured.configured_hash, hash("old"));
        let only_configured = best(Some("configured"), None);
        assert_eq!(only_configured.obtained_at, None, "its login is unknown");
    }

    #[test]
    fn a_login_during_a_request_is_not_overwritten_by_the_rotated_token() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let login = |token: &str, at| TokenStore::create(&path, &secret(token), None, at).unwrap();
        let credentials = credential_store(Some(&path));
        // First without a store, then with one.
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
        let stored = TokenStore::open(&path).unwrap().read().unwrap().unwrap();
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
        TokenStore::create(&path, &secret("stored"), None, 1.0).unwrap();
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
