//! Basic authentication (`basic_auth_users`): passwords are compared with bcrypt hashes on the blocking pool.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// A request that waits longer than this for its password check is answered with 503.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The length from which Go takes a text for a bcrypt hash.
const MIN_HASH_BYTES: usize = 59;

/// The users of one web configuration.
pub(crate) struct Users {
    users: BTreeMap<String, Arc<User>>,
    /// Bounds the concurrent password checks to half of the CPUs, so that scrapes go on.
    bcrypt_permits: Arc<Semaphore>,
}

struct User {
    hash: String,
    /// The correct password, so that bcrypt is computed once and not for every scrape. One entry per user bounds the memory,
    /// and wrong guesses cannot displace it.
    verified: OnceLock<hmac::Tag>,
}

impl Users {
    /// Takes user names and their bcrypt hashes.
    pub(crate) fn new(hashes: BTreeMap<String, Option<String>>) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for (name, hash) in hashes {
            let hash = hash.unwrap_or_default();
            validate_user(&name, &hash).map_err(|error| format!("basic_auth_users: {error}"))?;
            let verified = OnceLock::new();
            users.insert(name, Arc::new(User { hash, verified }));
        }
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let bcrypt_permits = Arc::new(Semaphore::new((cpus / 2).max(1)));
        Ok(Self {
            users,
            bcrypt_permits,
        })
    }

    /// Checks the `Authorization` header. Without users everybody has access. The error is the status of the response.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<(), StatusCode> {
        let Some(any_user) = self.users.values().next() else {
            return Ok(());
        };
        let Some((name, password)) = basic_credentials(headers) else {
            return Err(StatusCode::UNAUTHORIZED);
        };
        let known = self.users.get(&name);
        if known.is_some_and(|user| user.remembers(&password)) {
            return Ok(());
        }
        let permit = self.bcrypt_permits.clone().acquire_owned();
        let Ok(Ok(permit)) = timeout(MAX_WAIT, permit).await else {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        };
        // An unknown name takes as long as a known one: its password is compared with the hash of another user.
        let is_known = known.is_some();
        let user = known.unwrap_or(any_user).clone();
        let check = spawn_blocking(move || {
            // The permit lasts as long as bcrypt computes, also if the client has gone.
            let _permit = permit;
            // The password may have been verified while this request waited.
            if is_known && user.remembers(&password) {
                return true;
            }
            user.verify(&password) && is_known
        });
        match check.await {
            Ok(true) => Ok(()),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }
}

impl User {
    /// Returns whether the password is the one that was verified before.
    fn remembers(&self, password: &[u8]) -> bool {
        let tag = self.verified.get();
        tag.is_some_and(|tag| hmac::verify(&self.key(), password, tag.as_ref()).is_ok())
    }

    /// Compares the password with the hash, and remembers it if it is correct.
    fn verify(&self, password: &[u8]) -> bool {
        let is_correct = bcrypt::verify(password, &self.hash).unwrap_or(false);
        if is_correct {
            self.verified
                .get_or_init(|| hmac::sign(&self.key(), password));
        }
        is_correct
    }

    /// The hash contains a salt, so equal passwords of two users have different tags.
    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.hash.as_bytes())
    }
}

fn validate_user(name: &str, hash: &str) -> Result<(), String> {
    // A colon may separate a name from a password that were written without a space, so the name is not shown.
    if name.is_empty() || name.contains(':') {
        return Err("a user name is empty or contains a \":\"".to_owned());
    }
    let wrong = match hash.parse::<bcrypt::HashParts>() {
        _ if hash.len() < MIN_HASH_BYTES => "hashedSecret too short to be a bcrypted password",
        Ok(parts) if (4..=31).contains(&parts.get_cost()) => return Ok(()),
        Ok(_) => "the cost of the bcrypt hash is not between 4 and 31",
        Err(_) => "the value is not a bcrypt hash",
    };
    let create = "create one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`";
    Err(format!("user {name:?}: {wrong}; {create}"))
}

/// Returns the name and the password of `Authorization: Basic …`.
fn basic_credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at(colon);
    let name = String::from_utf8(name.to_owned()).ok()?;
    Some((name, password[1..].to_owned()))
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
        assert_eq!(credentials, ("dave".to_owned(), b"a:b".to_vec()));
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
}
