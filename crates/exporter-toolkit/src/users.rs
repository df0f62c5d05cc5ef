//! Basic authentication: passwords are compared with bcrypt hashes on the blocking pool.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// A request that waits longer than this for its password check is answered with 503.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The users of one web configuration.
pub(crate) struct Users {
    users: BTreeMap<String, Arc<User>>,
    /// The key of the remembered passwords. Without randomness nothing is remembered.
    cache_key: Option<hmac::Key>,
}

struct User {
    hash: String,
    /// The correct password, so that bcrypt is computed once and not for every scrape. One entry per user bounds the memory,
    /// and wrong guesses cannot displace it.
    verified: OnceLock<hmac::Tag>,
}

/// The result of a password check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    Denied,
    /// Too many other passwords are being checked.
    Busy,
}

/// Returns the permits for concurrent password checks: half of the CPUs, so that scrapes go on.
pub(crate) fn bcrypt_permits() -> Arc<Semaphore> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new((cpus / 2).max(1)))
}

impl Users {
    /// Takes user names and their bcrypt hashes.
    pub(crate) fn new(hashes: BTreeMap<String, String>) -> Self {
        let user = |hash| {
            let verified = OnceLock::new();
            Arc::new(User { hash, verified })
        };
        let users = hashes.into_iter().map(|(name, hash)| (name, user(hash)));
        Self {
            users: users.collect(),
            cache_key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
        }
    }

    /// Checks the `Authorization` header. Without users everybody has access.
    pub(crate) async fn check(&self, headers: &HeaderMap, permits: &Arc<Semaphore>) -> Access {
        let Some(any_user) = self.users.values().next() else {
            return Access::Granted;
        };
        let Some((name, password)) = basic_credentials(headers) else {
            return Access::Denied;
        };
        let known = str::from_utf8(&name)
            .ok()
            .and_then(|name| self.users.get(name));
        // An unknown name takes as long as a known one: its password is compared with the hash of another user.
        let user = known.unwrap_or(any_user);
        if known.is_some() && self.is_remembered(user, &password) {
            return Access::Granted;
        }
        let Ok(Ok(permit)) = timeout(MAX_WAIT, permits.clone().acquire_owned()).await else {
            return Access::Busy;
        };
        // The same password may have been verified while this request waited.
        if known.is_some() && self.is_remembered(user, &password) {
            return Access::Granted;
        }
        let cache_key = self.cache_key.clone().filter(|_| known.is_some());
        let is_known = known.is_some();
        let user = user.clone();
        let verified = spawn_blocking(move || {
            // The permit lasts as long as bcrypt computes, also if the client has gone.
            let _permit = permit;
            let matches = bcrypt::verify(&password, &user.hash).unwrap_or(false);
            if let Some(key) = cache_key.filter(|_| matches) {
                user.verified.get_or_init(|| hmac::sign(&key, &password));
            }
            matches && is_known
        });
        match verified.await {
            Ok(true) => Access::Granted,
            _ => Access::Denied,
        }
    }

    fn is_remembered(&self, user: &User, password: &[u8]) -> bool {
        match (&self.cache_key, user.verified.get()) {
            (Some(key), Some(tag)) => hmac::verify(key, password, tag.as_ref()).is_ok(),
            _ => false,
        }
    }
}

/// Returns the name and the password of `Authorization: Basic …`.
fn basic_credentials(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at(colon);
    Some((name.to_owned(), password[1..].to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authorization(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let value = format!("basic {}", STANDARD.encode("dave:a:b"));
        let credentials = basic_credentials(&authorization(&value)).unwrap();
        assert_eq!(credentials, (b"dave".to_vec(), b"a:b".to_vec()));
        for value in [
            "",
            "Basic",
            "Basic !",
            "Bearer ZGF2ZTph",
            "Basic ZGF2ZQ==",
            "Basic ZGF2ZTph=",
        ] {
            assert_eq!(basic_credentials(&authorization(value)), None, "{value:?}");
        }
    }

    #[tokio::test]
    async fn only_a_correct_password_is_remembered_and_only_for_its_user() {
        let hash = |password| bcrypt::hash(password, 4).unwrap();
        let hashes = [("dave", "secret"), ("carol", "other")];
        let users = Users::new(
            hashes
                .map(|(name, word)| (name.to_owned(), hash(word)))
                .into(),
        );
        let permits = bcrypt_permits();
        let check = async |login: &str| {
            let headers = authorization(&format!("Basic {}", STANDARD.encode(login)));
            users.check(&headers, &permits).await
        };
        for _ in 0..2 {
            assert_eq!(check("dave:secret").await, Access::Granted);
            assert_eq!(check("carol:secret").await, Access::Denied);
            assert_eq!(check("nobody:other").await, Access::Denied);
            assert_eq!(check("dave:").await, Access::Denied);
        }
        assert!(users.is_remembered(&users.users["dave"], b"secret"));
        assert!(users.users["carol"].verified.get().is_none());
    }
}
