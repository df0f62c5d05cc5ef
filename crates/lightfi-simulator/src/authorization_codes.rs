//! The authorization codes that a login gives and a token request redeems once (RFC 6749 with PKCE, RFC 7636).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::noise::hash;

/// The lifetime of a code, in seconds.
const LIFETIME: f64 = 300.0;

/// The codes that have not been redeemed yet.
pub(super) struct AuthorizationCodes {
    /// Differs from process to process, so that no code is given twice.
    seed: u64,
    issued: Mutex<Issued>,
}

#[derive(Default)]
struct Issued {
    count: u64,
    codes: HashMap<String, Code>,
}

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    expires_at: f64,
}

impl AuthorizationCodes {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            issued: Mutex::default(),
        }
    }

    /// Issues a code for this redirect URI and PKCE challenge.
    pub(super) fn issue(&self, redirect_uri: &str, challenge: Option<&str>, now: f64) -> String {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.codes.retain(|_, code| now < code.expires_at);
        issued.count += 1;
        let part = |topic: u64| hash(self.seed, &[34, issued.count, topic]);
        let text = format!("code{:016x}{:016x}", part(1), part(2));
        let code = Code {
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.map(str::to_owned),
            expires_at: now + LIFETIME,
        };
        issued.codes.insert(text.clone(), code);
        text
    }

    /// Returns whether the code is valid for this redirect URI and verifier. A code can be tried only once.
    pub(super) fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
        now: f64,
    ) -> bool {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(code) = issued.codes.remove(code) else {
            return false;
        };
        let challenge = verifier.map(s256);
        now < code.expires_at && code.redirect_uri == redirect_uri && code.challenge == challenge
    }
}

fn s256(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_valid_once_for_five_minutes_for_its_redirect_and_verifier() {
        // The pair of RFC 7636, appendix B.
        let verifier = Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let challenge = Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let codes = AuthorizationCodes::new(1);
        let issue = || codes.issue("http://a", challenge, 0.0);
        let code = issue();
        assert!(codes.redeem(&code, "http://a", verifier, 299.0));
        assert!(!codes.redeem(&code, "http://a", verifier, 299.0));
        assert!(!codes.redeem(&issue(), "http://a", verifier, 300.0));
        for (redirect_uri, wrong) in [
            ("http://a/", verifier),
            ("http://a", Some("wrong")),
            ("http://a", None),
        ] {
            let code = issue();
            assert!(!codes.redeem(&code, redirect_uri, wrong, 0.0));
            // A failed attempt uses the code up.
            assert!(!codes.redeem(&code, "http://a", verifier, 0.0));
        }
    }
}
