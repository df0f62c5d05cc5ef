//! What a token request is made with: read anew from the configuration's files and the token store before each one.
//!
//! Which refresh token wins, and where a rotated one is kept, are decided here. `source` calls this, off the runtime's
//! threads, as all of it reads and writes files; `login` and `deposit` read single credentials with it.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use super::{
    TokenError,
    store::{Record, SeedHash, Store, StoreError},
};
use crate::config::{Credential, Oauth, Secret};

/// The client's credentials and the refresh tokens to ask with.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) client_id: Secret,
    pub(super) client_secret: Option<Secret>,
    pub(super) best: Grant,
    /// To be tried once the best one is refused.
    second: Option<Grant>,
}

/// A refresh token and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) refresh_token: Secret,
    /// Kept in the store beside what it is rotated to.
    seed: Option<SeedHash>,
    /// Unix time of the login.
    pub(super) obtained_at: Option<f64>,
}

/// Of all that a server was asked with: shows whether something has changed since, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Credentials {
    /// The best one first.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Grant> {
        [&self.best].into_iter().chain(&self.second)
    }

    /// Of a request with `grant`.
    pub(super) fn fingerprint_with(&self, grant: &Grant) -> Fingerprint {
        self.hash(&[grant.refresh_token.expose()])
    }

    /// Of the client alone.
    pub(super) fn client_fingerprint(&self) -> Fingerprint {
        self.hash(&[])
    }

    fn hash(&self, more: &[&str]) -> Fingerprint {
        let mut hash = Sha256::new();
        let secret = self.client_secret.as_ref().map_or("", Secret::expose);
        for part in [self.client_id.expose(), secret].iter().chain(more) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }
}

/// Where credentials come from and rotated refresh tokens go.
pub(super) struct Vault {
    oauth: Oauth,
    store: Option<Store>,
    kept: Mutex<Kept>,
}

/// What this process knows beside its files.
#[derive(Default)]
struct Kept {
    /// The newest refresh token seen in the store or in a reply.
    record: Option<Record>,
    /// It could not be written.
    unsaved: Option<Unsaved>,
    /// The store was fine when last read.
    store_failed: bool,
    warned_of_no_store: bool,
}

/// What the store held instead of the newest refresh token, so that another writer's token is told from it.
#[derive(PartialEq, Eq)]
struct Unsaved {
    instead: Option<String>,
}

/// What became of a rotated refresh token.
#[derive(Debug)]
pub(super) enum Keeping {
    /// It is on the disk.
    Stored,
    /// There is no store; told once.
    NoStore,
    /// It is in memory only, for the reason told before.
    InMemoryAsBefore,
    /// Somebody has logged in while the server was asked, and the token of that login stays in the store.
    Overtaken,
    /// It is held in memory until it can be written.
    Failed(StoreError),
}

impl Vault {
    /// Proves the store.
    pub(super) fn open(oauth: Oauth) -> Result<Self, StoreError> {
        let store = oauth.token_store.clone().map(Store::open).transpose()?;
        Ok(Self {
            oauth,
            store,
            kept: Mutex::default(),
        })
    }

    /// All that is there now.
    pub(super) fn read(&self) -> Result<Credentials, TokenError> {
        let client_id = read_credential("oauth.client_id_file", &self.oauth.client_id)
            .map_err(TokenError::ClientMissing)?;
        let client_secret = self
            .oauth
            .client_secret
            .as_ref()
            .map(|secret| read_credential("oauth.client_secret_file", secret))
            .transpose()
            .map_err(TokenError::ClientMissing)?;
        let configured = self
            .oauth
            .refresh_token
            .as_ref()
            .map(|token| read_credential("oauth.refresh_token_file", token));
        let (record, certain) = self.newest_record();
        let choice = choose(
            configured.as_ref().and_then(|token| token.as_ref().ok()),
            record.as_ref(),
            certain,
        );
        match choice {
            Some((best, second)) => Ok(Credentials {
                client_id,
                client_secret,
                best,
                second,
            }),
            None => Err(TokenError::RefreshTokenMissing(
                match (configured, &self.store) {
                    (Some(Err(why)), None) => why,
                    (Some(Err(why)), Some(store)) => {
                        format!(
                            "{why}, and token store {} holds none",
                            store.path().display()
                        )
                    }
                    (_, Some(store)) => {
                        format!("token store {} holds none yet", store.path().display())
                    }
                    (_, None) => "none is configured".to_owned(),
                },
            )),
        }
    }

    /// Keeps what the refresh token of `grant` was rotated to.
    pub(super) fn keep(&self, rotated: Secret, grant: &Grant) -> Keeping {
        let record = Record {
            refresh_token: rotated,
            seed: grant.seed.clone(),
            obtained_at: grant.obtained_at,
        };
        let mut kept = self.kept();
        let login_before = kept.record.as_ref().and_then(|known| known.obtained_at);
        if let Some(store) = &self.store
            && let Ok(Some(stored)) = store.read()
            && stored.obtained_at > login_before
        {
            return Keeping::Overtaken;
        }
        kept.record = Some(record.clone());
        let Some(store) = &self.store else {
            if std::mem::replace(&mut kept.warned_of_no_store, true) {
                return Keeping::InMemoryAsBefore;
            }
            return Keeping::NoStore;
        };
        match store.write(&record) {
            Ok(()) => {
                kept.unsaved = None;
                Keeping::Stored
            }
            Err(error) => {
                let told = kept.unsaved.replace(Unsaved::beside(store)).is_some();
                if told {
                    Keeping::InMemoryAsBefore
                } else {
                    Keeping::Failed(error)
                }
            }
        }
    }

    /// The newest refresh token is in no file: it ends with this process.
    pub(super) fn is_in_memory_only(&self) -> bool {
        let kept = self.kept();
        kept.record.is_some() && (self.store.is_none() || kept.unsaved.is_some())
    }

    /// Tries again to write what could not be written; `true` if it is on the disk now and was not before.
    pub(super) fn save_again(&self) -> bool {
        let mut kept = self.kept();
        let (Some(store), Some(before), Some(record)) = (&self.store, &kept.unsaved, &kept.record)
        else {
            return false;
        };
        // Someone else has written a token since: theirs is newer, and `read` takes it up.
        if Unsaved::beside(store) != *before {
            kept.unsaved = None;
            return false;
        }
        if store.write(record).is_err() {
            return false;
        }
        kept.unsaved = None;
        true
    }

    /// The store's record, or the one in memory where that is newer or all there is; and whether it is certain that the
    /// store should win over a configured token of the same seed.
    fn newest_record(&self) -> (Option<Record>, bool) {
        let mut kept = self.kept();
        let Some(store) = &self.store else {
            return (kept.record.clone(), true);
        };
        match store.read() {
            Ok(Some(stored)) => {
                kept.store_failed = false;
                if kept.unsaved == Some(Unsaved::instead_of(Some(&stored))) {
                    return (kept.record.clone(), true);
                }
                kept.unsaved = None;
                kept.record = Some(stored.clone());
                (Some(stored), true)
            }
            // Gone: perhaps somebody wants the configured token back, perhaps a volume is away.
            Ok(None) => (kept.record.clone(), kept.unsaved.is_some()),
            Err(error) => {
                if !std::mem::replace(&mut kept.store_failed, true) {
                    tracing::error!(%error, "cannot use the token store: going on with the refresh token in memory");
                }
                (kept.record.clone(), kept.unsaved.is_some())
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rule of the store: its token wins over the configured one unless that has changed since the store was written.
/// Where this cannot be known — nothing was configured at the login, or the store is gone and memory stands in for it —
/// the configured one comes second, to be tried once the other is refused.
fn choose(
    configured: Option<&Secret>,
    record: Option<&Record>,
    certain: bool,
) -> Option<(Grant, Option<Grant>)> {
    let seed = configured.map(SeedHash::of);
    let from_configuration = configured.map(|token| Grant {
        refresh_token: token.clone(),
        seed: seed.clone(),
        obtained_at: None,
    });
    let Some(record) = record else {
        return from_configuration.map(|configured| (configured, None));
    };
    let from_store = Grant {
        refresh_token: record.refresh_token.clone(),
        seed: seed.clone().or_else(|| record.seed.clone()),
        obtained_at: record.obtained_at,
    };
    match (from_configuration, &record.seed) {
        (Some(configured), Some(known)) if seed.as_ref() != Some(known) => Some((configured, None)),
        (Some(_), Some(_)) if certain => Some((from_store, None)),
        (configured, _) => Some((from_store, configured)),
    }
}

/// The text, or why there is none.
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

impl Unsaved {
    fn beside(store: &Store) -> Self {
        Self::instead_of(store.read().ok().flatten().as_ref())
    }

    fn instead_of(stored: Option<&Record>) -> Self {
        Self {
            instead: stored.map(|record| record.refresh_token.expose().to_owned()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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

    /// Tokens in the order they are asked with.
    fn chosen(configured: Option<&str>, record: Option<&Record>, certain: bool) -> Vec<String> {
        let configured = configured.map(secret);
        choose(configured.as_ref(), record, certain)
            .into_iter()
            .flat_map(|(best, second)| [Some(best), second])
            .flatten()
            .map(|grant| grant.refresh_token.expose().to_owned())
            .collect()
    }

    #[test]
    fn the_store_wins_over_the_token_that_was_configured_when_it_was_written() {
        let stored = record("rotated", Some("seed"));
        assert_eq!(chosen(Some("seed"), Some(&stored), true), ["rotated"]);
        assert_eq!(chosen(None, Some(&stored), true), ["rotated"]);
        assert_eq!(chosen(Some("seed"), None, true), ["seed"]);
        assert_eq!(chosen(None, None, true), Vec::<String>::new());
    }

    #[test]
    fn a_token_configured_since_wins_over_the_store() {
        let stored = record("rotated", Some("seed"));
        for certain in [true, false] {
            assert_eq!(chosen(Some("new"), Some(&stored), certain), ["new"]);
        }
    }

    #[test]
    fn where_nothing_was_configured_at_the_login_the_configured_token_comes_second() {
        let stored = record("login", None);
        assert_eq!(
            chosen(Some("configured"), Some(&stored), true),
            ["login", "configured"]
        );
    }

    #[test]
    fn where_memory_stands_in_for_a_lost_store_the_configured_token_comes_second() {
        let held = record("rotated", Some("seed"));
        assert_eq!(
            chosen(Some("seed"), Some(&held), false),
            ["rotated", "seed"]
        );
    }

    #[test]
    fn rotation_keeps_the_login_and_takes_up_the_configured_seed() {
        let (best, _) = choose(
            Some(&secret("configured")),
            Some(&record("login", None)),
            true,
        )
        .unwrap();
        assert_eq!(best.obtained_at, Some(7.0));
        assert_eq!(best.seed, Some(SeedHash::of(&secret("configured"))));
        let (best, _) = choose(None, Some(&record("login", Some("seed"))), true).unwrap();
        assert_eq!(best.seed, Some(SeedHash::of(&secret("seed"))));
        let (best, _) = choose(Some(&secret("seed")), None, true).unwrap();
        assert_eq!(
            best.obtained_at, None,
            "a configured token's login is unknown"
        );
    }

    #[test]
    fn a_login_while_the_server_is_asked_is_not_lost_to_the_rotated_token() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        let login = |token: &str, at| Store::create(&path, &secret(token), None, at).unwrap();
        let vault = Vault::open(Oauth {
            token_url: "http://127.0.0.1/token".parse().unwrap(),
            authorize_url: "http://127.0.0.1/authorize".parse().unwrap(),
            scope: String::new(),
            client_id: Credential::Inline(secret("id")),
            client_secret: None,
            refresh_token: Some(Credential::Inline(secret("configured"))),
            client_auth: crate::config::ClientAuth::Body,
            expiry_margin: std::time::Duration::from_secs(60),
            token_store: Some(path.clone()),
            allow_insecure: false,
        })
        .unwrap();
        let best = || vault.read().unwrap().best;
        // Before there was any store, and after.
        for at in [7.0, 8.0] {
            let asked_with = best();
            login("login", at);
            let keeping = vault.keep(secret("rotated"), &asked_with);
            assert!(matches!(keeping, Keeping::Overtaken), "{keeping:?}");
            assert_eq!(best().refresh_token.expose(), "login");
        }
        // Without one, and by another exporter that rotates the same login's token, the newest is kept.
        let asked_with = best();
        login("rotated by another", 8.0);
        let keeping = vault.keep(secret("rotated"), &asked_with);
        assert!(matches!(keeping, Keeping::Stored), "{keeping:?}");
        assert_eq!(best().refresh_token.expose(), "rotated");
    }

    #[test]
    fn a_fingerprint_tells_every_part_apart() {
        let credentials = |id: &str, client_secret: Option<&str>, token: &str| {
            let (best, second) = choose(Some(&secret(token)), None, true).unwrap();
            let credentials = Credentials {
                client_id: secret(id),
                client_secret: client_secret.map(secret),
                best,
                second,
            };
            credentials.fingerprint_with(&credentials.best)
        };
        let all = [
            credentials("ab", Some("c"), "d"),
            credentials("a", Some("bc"), "d"),
            credentials("ab", Some("cd"), "d"),
            credentials("ab", Some("c"), "dd"),
            credentials("ab", None, "d"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
        assert_eq!(all[0], credentials("ab", Some("c"), "d"));
    }
}
