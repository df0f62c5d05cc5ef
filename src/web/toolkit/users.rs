//! Users and their passwords: bcrypt, off the threads that serve, and what it found remembered.
//!
//! A password costs the same whether its user exists or not, so that time does not tell names.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::config::Secret;

/// Who may come in; replaced whole by a reload.
#[derive(Debug, Default)]
pub(super) struct Users {
    hashes: BTreeMap<String, Secret>,
    /// The costs of the hashes, for those who do not exist.
    costs: Vec<u32>,
}

/// What a request says of its sender.
pub(super) struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
}

/// What a login comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome,
    Unauthorized,
    /// Too many others are being looked at.
    Busy,
}

/// bcrypt at work, and its results. Lives as long as the process: a result is of a user, a password and a hash, so that a
/// new hash asks anew.
pub(super) struct Logins {
    at_once: Arc<Semaphore>,
    results: Arc<Mutex<Results>>,
    /// Keeps the keys of one process from being computed by another.
    salt: [u8; 32],
}

/// Right ones apart from wrong ones, so that a guesser pushes nobody out.
struct Results {
    right: Recent,
    wrong: Recent,
}

/// The newest so many.
struct Recent {
    order: VecDeque<Key>,
    known: HashSet<Key>,
    capacity: usize,
}

type Key = [u8; 32];

/// Results that are remembered, of each kind: more users than this should not be in a file.
const REMEMBERED: usize = 1000;
/// Who waits longer for bcrypt than this is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The salt and the sum of a hash that no password has.
const NOBODY: &str = ".....................................................";

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, Secret>) -> Self {
        let cost = |hash: &Secret| {
            let parts: Option<bcrypt::HashParts> = hash.expose().parse().ok();
            parts.map(|parts| parts.get_cost())
        };
        let costs = hashes.values().filter_map(cost).collect();
        Self { hashes, costs }
    }

    /// Nobody is asked for a password.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash to compare with, and whether a match counts.
    fn hash(&self, user: &[u8], salt: &[u8]) -> (Secret, bool) {
        let known = std::str::from_utf8(user)
            .ok()
            .and_then(|user| self.hashes.get(user));
        if let Some(hash) = known {
            return (hash.clone(), true);
        }
        // Each unknown name costs what one of the known ones does, always the same one.
        let drawn = usize::from(digest(&[salt, user])[0]);
        let cost = self
            .costs
            .get(drawn % self.costs.len().max(1))
            .copied()
            .unwrap_or(bcrypt::DEFAULT_COST);
        (Secret::new(format!("$2b${cost:02}${NOBODY}")), false)
    }
}

impl Login {
    /// From `Authorization: Basic …`; `None` where there is none that can be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, rest) = value.split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let pair = STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (user, password) = pair.split_at(colon);
        Some(Self {
            user: user.to_owned(),
            password: password[1..].to_owned(),
        })
    }
}

impl Logins {
    pub(super) fn new() -> Self {
        let mut salt = [0; 32];
        // Without randomness the keys are still whole: they never leave the process. The system's own source: that of the TLS
        // library takes tens of milliseconds to set up, which only a handshake is worth.
        let _ = getrandom::fill(&mut salt);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let recent = || Recent {
            order: VecDeque::new(),
            known: HashSet::new(),
            capacity: REMEMBERED,
        };
        Self {
            // Scrapes go on meanwhile.
            at_once: Arc::new(Semaphore::new((cores / 2).max(1))),
            results: Arc::new(Mutex::new(Results {
                right: recent(),
                wrong: recent(),
            })),
            salt,
        }
    }

    /// Whether this is a user and their password.
    pub(super) async fn check(&self, users: &Users, login: Login) -> Verdict {
        let (hash, exists) = users.hash(&login.user, &self.salt);
        let key = digest(&[
            &self.salt,
            &login.user,
            &login.password,
            hash.expose().as_bytes(),
        ]);
        if let Some(verdict) = self.known(&key) {
            return verdict;
        }
        let Ok(Ok(permit)) = timeout(PATIENCE, self.at_once.clone().acquire_owned()).await else {
            return Verdict::Busy;
        };
        // Somebody may have asked the same meanwhile.
        if let Some(verdict) = self.known(&key) {
            return verdict;
        }
        let results = self.results.clone();
        let compared = tokio::task::spawn_blocking(move || {
            let matches = bcrypt::verify(&login.password, hash.expose()).unwrap_or(false);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            let right = matches && exists;
            if right {
                results.right.put(key);
            } else {
                results.wrong.put(key);
            }
            // Also when the asker has gone, bcrypt is busy until here.
            drop(permit);
            right
        });
        match compared.await {
            Ok(true) => Verdict::Welcome,
            _ => Verdict::Unauthorized,
        }
    }

    fn known(&self, key: &Key) -> Option<Verdict> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if results.right.known.contains(key) {
            Some(Verdict::Welcome)
        } else if results.wrong.known.contains(key) {
            Some(Verdict::Unauthorized)
        } else {
            None
        }
    }
}

impl Recent {
    fn put(&mut self, key: Key) {
        if !self.known.insert(key) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Each part with its length before it: no two lists of parts make the same text.
fn digest(parts: &[&[u8]]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_login_is_split_at_the_first_colon() {
        let value = format!("basic {}", STANDARD.encode("dave:a:b"));
        let login = Login::of(&headers(&value)).unwrap();
        assert_eq!(
            (login.user, login.password),
            (b"dave".to_vec(), b"a:b".to_vec())
        );
        for none in [
            "",
            "Basic",
            "Basic !",
            "Bearer ZGF2ZTph",
            "Basic ZGF2ZQ==",
            "Basic ZGF2ZTph=",
        ] {
            assert!(Login::of(&headers(none)).is_none(), "{none:?}");
        }
    }

    #[test]
    fn no_two_lists_of_parts_have_one_key() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"a", b""]), digest(&[b"", b"a"]));
        assert_ne!(digest(&[b"a"]), digest(&[b"a", b""]));
    }

    #[test]
    fn an_unknown_user_gets_a_hash_of_a_known_ones_cost_that_bcrypt_takes() {
        let hash = bcrypt::hash("secret", 5).unwrap();
        let users = Users::new([("dave".to_owned(), Secret::new(hash.clone()))].into());
        assert_eq!(users.hash(b"dave", b""), (Secret::new(hash), true));
        let (nobody, exists) = users.hash(b"nobody", b"");
        assert!(!exists);
        let parts: bcrypt::HashParts = nobody.expose().parse().unwrap();
        assert_eq!(parts.get_cost(), 5);
        assert!(!bcrypt::verify("secret", nobody.expose()).unwrap());
    }

    #[test]
    fn the_oldest_results_go_first() {
        let mut recent = Recent {
            order: VecDeque::new(),
            known: HashSet::new(),
            capacity: 2,
        };
        let keys = [[1; 32], [2; 32], [1; 32], [3; 32]];
        keys.iter().for_each(|key| recent.put(*key));
        assert_eq!(recent.known, HashSet::from([[2; 32], [3; 32]]));
        assert_eq!(recent.order.len(), 2);
    }
}
